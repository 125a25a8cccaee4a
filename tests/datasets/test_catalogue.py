"""What is known about each data set, and the real ones where they are at hand."""

import dataclasses
import re

import numpy as np
import pytest

import kseq
from kseq.datasets import catalogue, files

# From the papers and the pages of the data sets.
ROWS = {
    "sst2": {"train": 6920, "validation": 872, "test": 1821},
    "trec": {"train": 5452, "test": 500},
    "atis": {"train": 4478, "validation": 500, "test": 893},
    "ud_english_ewt": {"train": 12544, "validation": 2001, "test": 2077},
    "multi30k": {"train": 29000, "validation": 1014, "test": 1000},
    "tatoeba_fra_eng": {"train": 142787},
    "korean_chatbot": {"train": 11823},
    "sigmorphon2021_g2p": {"train": 33344, "validation": 4168, "test": 4168},
    "tiny_shakespeare": {"train": 1_003_854, "validation": 111_540},  # characters
    "italy_power_demand": {"train": 67, "test": 1029},
    "mnist": {"train": 60000, "test": 10000},
    "ett": {"train": 8640, "validation": 2880, "test": 2880},
}


@pytest.fixture(scope="module")
def loaded(data_set):
    """Loads a real data set, once for all tests of this file."""
    known = {}

    def load(name):
        if name not in known:
            known[name] = kseq.datasets.load(name, data_set(name).parent)
        return known[name]

    return load


def test_all_sets_are_listed():
    assert kseq.datasets.names() == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_every_file_has_a_fixed_address_and_a_checksum(name):
    source = kseq.datasets.describe(name)
    assert source.name == name and source.files
    for file in source.files:
        checksums = [file.sha256] if isinstance(file.sha256, str) else file.sha256
        assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in checksums)
        assert file.address is None or re.match(
            "https://raw.githubusercontent.com/[^/]+/[^/]+/[0-9a-f]{40}/|"
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            file.address,
        )
        assert file.address is not None or source.how and source.package
        assert file.sha256[0] in str(source) and str(file.address or "") in str(source)
    assert source.licence in str(source) and source.citation in str(source)


@pytest.mark.parametrize("name", ROWS)
def test_the_real_data_has_the_published_numbers_of_rows(name, loaded):
    parts = loaded(name)
    assert {part: len(columns[0]) for part, columns in parts.items()} == ROWS[name]
    for columns in parts.values():
        columns = columns[:1] if name == "ett" else columns  # then names of columns
        assert {len(column) for column in columns} == {len(columns[0])}


@pytest.mark.parametrize("name", [n for n in ROWS if catalogue.SOURCES[n].labels])
def test_no_label_is_missing_and_each_has_a_name(name, loaded):
    known = set(range(len(kseq.datasets.describe(name).labels)))
    for columns in loaded(name).values():
        assert columns[-1].dtype == "int32"
        assert set(columns[-1].tolist()) == known


TEXTS = ("sst2", "trec", "atis", "ud_english_ewt", "multi30k", "tatoeba_fra_eng")
TEXTS += ("korean_chatbot", "sigmorphon2021_g2p")


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_is_empty_or_ends_in_white_space(name, loaded):
    for columns in loaded(name).values():
        for texts in columns:
            if isinstance(texts, list):
                assert all(text and text == text.strip() for text in texts)
                assert not any("\ufffd" in text or "\n" in text for text in texts)


@pytest.mark.parametrize("name", ["atis", "ud_english_ewt"])
def test_every_word_has_a_tag(name, loaded):
    for texts, tags, *_ in loaded(name).values():
        pairs = zip(texts, tags, strict=True)
        assert all(len(text.split(" ")) == len(tag.split(" ")) for text, tag in pairs)
        assert all(text.split(" ") == text.split() for text in texts)
        assert not any("_" in tag.split(" ") for tag in tags)


def test_parts_of_speech_are_the_universal_ones(loaded):
    universal = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ"
    for _, tags in loaded("ud_english_ewt").values():
        assert set(" ".join(tags).split()) == {*universal.split(), "SYM", "VERB", "X"}


def test_latin_1_among_utf_8_is_read_as_such(loaded):
    assert any("crème brûlée" in text for text in loaded("sst2")["test"][0])
    [question] = [text for text in loaded("trec")["train"][0] if not text.isascii()]
    assert "sister\xf0city" in question  # the byte f0, which is no UTF-8 here


def test_known_rows_are_where_they_belong(loaded):
    questions, answers, topics = loaded("korean_chatbot")["train"]
    assert (questions[0], answers[0], topics[0]) == ("12시 땡!", "하루가 또 가네요.", 0)
    english, french = loaded("tatoeba_fra_eng")["train"]
    assert (english[0], french[0]) == ("Go.", "Va !")
    german, english = loaded("multi30k")["validation"]
    assert german[1] == "Ein Mann schläft in einem grünen Raum auf einem Sofa."
    assert english[1] == "A man sleeping in a green room on a couch."
    words, slots, intents = loaded("atis")["test"]
    assert words[1].startswith("on april first i need a ticket from tacoma to san jose")
    assert slots[1].startswith("O B-depart_date.month_name B-depart_date.day_number")
    assert intents[1] == "atis_airfare"
    sentences, tags = loaded("ud_english_ewt")["test"]
    assert sentences[0] == "What if Google Morphed Into GoogleOS ?"
    assert tags[0] == "PRON SCONJ PROPN VERB ADP PROPN PUNCT"


def test_shakespeare_is_cut_after_nine_tenths(loaded):
    [[train], [validation]] = loaded("tiny_shakespeare").values()
    assert len(train) + len(validation) == 1_115_394
    assert len(train) == 1_115_394 * 9 // 10
    assert train.startswith("First Citizen:\nBefore we proceed")


def test_the_series_are_what_their_headers_say(loaded, data_set):
    values, columns = loaded("ett")["train"]
    assert columns == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    assert values.shape == (8640, 7) and values.dtype == "float64"
    whole = kseq.datasets.load("ett", data_set("ett").parent, split=False)
    [(everything, _)] = whole.values()
    assert everything.shape == (17420, 7)
    parts = np.concatenate([part for part, _ in loaded("ett").values()])
    np.testing.assert_array_equal(everything[: 20 * 30 * 24], parts)
    assert everything[-1, -1] == 9.56700038909912
    for series, _ in loaded("italy_power_demand").values():
        assert series.shape[1] == 24 and np.isfinite(series).all()
        # The archive has each series scaled to zero mean and unit variance.
        np.testing.assert_allclose(series.mean(1), 0, atol=1e-4)


def test_digits_are_grey_values(loaded):
    pictures, digits = loaded("mnist")["train"]
    assert pictures.shape == (60000, 28, 28) and pictures.dtype == "uint8"
    assert digits.shape == (60000,) and pictures.max() == 255


@pytest.mark.parametrize(
    "language, sizes", [("fre", (8000, 1000)), ("ice", (800, 100))]
)
def test_other_languages_are_chosen_by_name(language, sizes, data_set):
    folder = data_set("sigmorphon2021_g2p").parent
    parts = kseq.datasets.load("sigmorphon2021_g2p", folder, language=language)
    assert [len(words) for words, _ in parts.values()] == [sizes[0], sizes[1], sizes[1]]


@pytest.mark.parametrize("name", ["trec", "multi30k", "tatoeba_fra_eng"])
def test_the_real_files_pass_when_downloaded(name, data_set, tmp_path, monkeypatch):
    """Their own files are taken from where an address of this machine points."""
    folder = data_set(name)
    source = kseq.datasets.describe(name)
    local = [
        dataclasses.replace(file, address=(folder / served(file)).as_uri())
        for file in source.files
    ]
    monkeypatch.setitem(
        catalogue.SOURCES, name, dataclasses.replace(source, files=tuple(local))
    )
    monkeypatch.delenv("KSEQ_DATA_DIR")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    parts = kseq.datasets.load(name)
    assert {part: len(c[0]) for part, c in parts.items()} == ROWS[name]


def served(file):
    return file.path + (".gz" if file.address.endswith(".gz") else "")


def test_a_set_without_an_address_is_read_from_the_package_that_carries_it(
    data_set, tmp_path, monkeypatch
):
    folder = data_set("italy_power_demand")
    monkeypatch.delenv("KSEQ_DATA_DIR")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(files, "_package_folders", lambda package: [tmp_path / package])
    with pytest.raises(ValueError, match="by hand.*`pip install --no-deps sktime"):
        kseq.datasets.load("italy_power_demand")
    installed = tmp_path / kseq.datasets.describe("italy_power_demand").package
    installed.parent.mkdir(parents=True)
    installed.symlink_to(folder)
    parts = kseq.datasets.load("italy_power_demand")
    assert {p: len(c[0]) for p, c in parts.items()} == ROWS["italy_power_demand"]
    found = files.importlib.util.find_spec("kseq").submodule_search_locations[0]
    monkeypatch.undo()
    assert [str(f) for f in files._package_folders("kseq/text")] == [f"{found}/text"]
    assert files._package_folders("no_such_package/at_all") == []
