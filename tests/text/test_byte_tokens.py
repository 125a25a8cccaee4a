"""Vocabularies of bytes and jamo, which restore every text without training."""

import unicodedata

import numpy as np
import pytest

from kseq.text import Vocabulary

SPLITS = ("byte", "jamo")
STRANGE = [
    "한국어 가각힣",
    unicodedata.normalize("NFD", "한국어"),
    "각\u11a8가\u11a8\u1100\u1161",  # separate jamo beside syllables
    "ㅋㅋ ㄱㅏ",
    "e\u0301a\u0300 \u0301",
    "👩‍👩‍👧 🇰🇷",
    "two\nlines\r\nand\ta tab\x01\x7f",
    "<0xE2> <s> \ufffd \ufeff\uffff\U0010ffff",
    "שלום",
    "",
    "   ",
]


def jamo(text):
    return list(unicodedata.normalize("NFD", text))


@pytest.mark.parametrize("split", SPLITS)
def test_decoding_restores_every_text_without_training(split):
    vocabulary = Vocabulary(split)
    rng = np.random.default_rng(3)
    alphabet = list("ab 가각한힣é😀ㅋ\u1112\u1161\u11ab\u0301\u200d\ufffd")
    random = ["".join(rng.choice(alphabet, rng.integers(1, 17))) for _ in range(300)]
    texts = STRANGE + random
    assert vocabulary.decode(vocabulary.encode(texts, start=True, end=True)) == texts


def test_byte_tokens_are_the_bytes_of_utf8():
    vocabulary = Vocabulary("byte")
    assert vocabulary.size == 260
    assert vocabulary.encode(["aé한"]) == [[4 + byte for byte in "aé한".encode()]]
    assert vocabulary.spell(vocabulary.encode(["aé"])[0]) == ["a", "<0xC3>", "<0xA9>"]


def test_every_syllable_is_encoded_as_its_jamo():
    vocabulary = Vocabulary("jamo")
    syllables = [chr(code) for code in range(ord("가"), ord("힣") + 1)]
    ids = vocabulary.encode(syllables)
    assert [vocabulary.spell(row) for row in ids] == [jamo(s) for s in syllables]
    assert vocabulary.decode(ids) == syllables
    assert vocabulary.decode(vocabulary.encode(["\uabff\ud7a4"])) == ["\uabff\ud7a4"]


@pytest.mark.parametrize("cut", range(9))
def test_both_halves_of_a_split_sequence_of_jamo_are_composed(cut):
    vocabulary = Vocabulary("jamo")
    [ids] = vocabulary.encode(["한국어"])
    halves = vocabulary.decode([ids[:cut], ids[cut:]])
    expected = unicodedata.normalize("NFC", "".join(jamo("한국어")[:cut]))
    assert halves[0] == expected
    assert unicodedata.normalize("NFC", "".join(halves)) == "한국어"


def test_truncated_characters_decode_to_replacement_characters():
    vocabulary = Vocabulary("byte")
    [ids] = vocabulary.encode(["a한b"])
    assert vocabulary.decode([ids[:3], ids[2:]]) == ["a\ufffd", "\ufffd\ufffdb"]
    assert vocabulary.decode([[1, 4 + ord("a")]]) == ["\ufffda"]


@pytest.mark.parametrize("split", SPLITS)
def test_decoding_restores_a_long_text(split):
    vocabulary = Vocabulary(split)
    text = "한 a" * 33_334
    assert vocabulary.decode(vocabulary.encode([text])) == [text]


@pytest.mark.parametrize("split", SPLITS)
def test_saving_keeps_the_fixed_tokens_and_rejects_others(split, tmp_path):
    vocabulary = Vocabulary(split)
    assert vocabulary.adapt(["a"]) is vocabulary
    vocabulary.save(tmp_path / "bytes.json")
    loaded = Vocabulary.load(tmp_path / "bytes.json")
    assert loaded.encode(STRANGE) == vocabulary.encode(STRANGE)
    vocabulary.save_assets(tmp_path)
    loaded.load_assets(tmp_path)
    (tmp_path / "tokens.json").write_text('["a"]')
    with pytest.raises(ValueError, match=f"always the same.*|split='{split}'"):
        loaded.load_assets(tmp_path)


@pytest.mark.parametrize("split", SPLITS)
def test_nothing_is_unknown(split):
    assert Vocabulary(split).unknown("漢字 ☃") == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_tokens": 259}, "`max_tokens` must be an integer of at least 260"),
        ({"min_count": 2}, "`min_count` must be 1.*min_count=2"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary("byte", **options)
    assert Vocabulary("byte", max_tokens=260).size == 260


@pytest.mark.parametrize("text", ["a\0b", "a\ud83d", b"\xff"])
def test_rejects_nul_and_invalid_utf8(text):
    with pytest.raises(ValueError, match="texts in UTF-8 without a NUL"):
        Vocabulary("byte").encode([text])
