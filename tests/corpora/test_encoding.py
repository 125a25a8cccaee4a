"""Encoding of text files to token ids in a folder."""

import gzip
import os

import numpy as np
import pytest

from kseq.corpora import Lines, encode_file
from kseq.text import Vocabulary
from kseq.training import teacher_forcing

TEXTS = ["low", "slow owls", "", "한국어", "so"]
LETTERS = Vocabulary("character").adapt(TEXTS)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS) + "\n", "utf-8")
    return path


def test_lines_reads_plain_compressed_and_several_files(tmp_path, path):
    with gzip.open(tmp_path / "b.txt.gz", "wb") as file:
        file.write(b"\xef\xbb\xbfone\r\ntwo\x0bwords")
    compressed = ["one", "two\x0bwords"]
    lines = Lines(tmp_path / "*.txt*")
    assert list(lines) == list(lines) == TEXTS + compressed
    assert list(Lines([tmp_path / "b.txt.gz", str(path)])) == compressed + TEXTS


def test_error_names_missing_and_damaged_files(tmp_path, path):
    with pytest.raises(ValueError, match=r"Received: 'nowhere\*'"):
        Lines("nowhere*")
    compressed = gzip.compress(path.read_bytes() * 1000)
    (tmp_path / "c.gz").write_bytes(compressed[: len(compressed) // 2])
    with pytest.raises(ValueError, match=r"must be complete. Received: .*c.gz"):
        list(Lines(tmp_path / "c.gz"))


def test_encoded_rows_equal_those_of_the_vocabulary(tmp_path, path, monkeypatch):
    monkeypatch.setattr("kseq.corpora.encoding.CHUNK", 2)
    rows = encode_file(LETTERS, path, tmp_path / "ids", start=True, end=True)
    assert rows == LETTERS.encode(TEXTS, start=True, end=True)
    assert isinstance(rows.flat, np.memmap) and rows.flat.dtype == "uint16"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "ids"]
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert encode_file(LETTERS, empty, tmp_path / "none") == []


def test_batches_of_memory_mapped_rows_equal_those_of_lists(tmp_path, path):
    source = encode_file(LETTERS, path, tmp_path / "source")
    target = encode_file(LETTERS, path, tmp_path / "target", start=True, end=True)
    lists = LETTERS.encode(TEXTS), LETTERS.encode(TEXTS, start=True, end=True)
    options = {"batch_tokens": 30, "max_length": 8}
    ours, theirs = (
        teacher_forcing(*rows, **options) for rows in ((source, target), lists)
    )
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_equal(our, their)


def test_the_same_call_does_not_encode_again(tmp_path, path, monkeypatch):
    encode_file(LETTERS, path, tmp_path / "ids")
    encode_file(LETTERS, TEXTS, tmp_path / "texts")
    monkeypatch.setattr(Vocabulary, "encode", lambda *args, **options: 1 / 0)
    again = Vocabulary("character").adapt(TEXTS)
    assert len(encode_file(again, path, tmp_path / "ids")) == 5
    assert len(encode_file(again, TEXTS, tmp_path / "texts")) == 5


def test_rejects_another_call_unless_it_may_overwrite(tmp_path, path):
    target = tmp_path / "ids"
    encode_file(LETTERS, path, target)
    words = Vocabulary("word").adapt(TEXTS)
    for vocabulary, options in ((words, {}), (LETTERS, {"end": True})):
        with pytest.raises(
            ValueError, match="must be new, or written by the same call"
        ):
            encode_file(vocabulary, path, target, **options)
    with pytest.raises(ValueError, match="must be new"):
        encode_file(LETTERS, TEXTS[:3], target)
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match="must be new"):
        encode_file(LETTERS, path, target)
    assert encode_file(words, path, target, overwrite=True) == words.encode(TEXTS)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="must be new"):
        encode_file(LETTERS, path, tmp_path / "mine", overwrite=True)


def test_an_error_leaves_no_files(tmp_path, path, monkeypatch):
    monkeypatch.setattr("kseq.corpora.encoding.CHUNK", 2)
    path.write_bytes(b"low\nlow\nlow\n\xff\n")
    with pytest.raises(ValueError, match="line 4 of"):
        encode_file(LETTERS, path, tmp_path / "ids")
    with pytest.raises(ValueError, match=r"from line 3 on: .*texts\[1\]"):
        encode_file(LETTERS, ["a", "b", "c", "d\0"], tmp_path / "ids")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_rejects_texts_that_can_be_read_only_once(tmp_path):
    with pytest.raises(ValueError, match="more than once"):
        encode_file(LETTERS, iter(TEXTS), tmp_path / "ids")
