"""Vocabularies: tokens, round trips, files and errors."""

import json
import os
import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseq.text import Vocabulary

STRANGE = [
    "한국어",
    "e\u0301a\u0300",  # combining marks
    "👩‍👩‍👧 🇰🇷",
    "two\nlines\r\nand\ta tab",
    "next\u0085line\u2028separated\u2029",
    "[START] [END] [UNK] <s> </s> \ufffd",
    '"quoted" \\n',
    "\x01\x1f\x7f",
    "שלום",
]


@pytest.fixture(scope="module")
def strange():
    return Vocabulary("character").adapt(STRANGE)


def random_texts(seed, alphabet, number=50):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(alphabet, rng.integers(1, 13))) for _ in range(number)]


def test_tokens_are_sorted_by_frequency_and_then_by_code_point():
    vocabulary = Vocabulary("character").adapt(["caab", "acb", "\U0001f600\uffee"])
    assert vocabulary.tokens == ["a", "b", "c", "\uffee", "\U0001f600"]
    assert vocabulary.encode(["cab"]) == [[6, 4, 5]]


def test_the_order_of_the_texts_does_not_change_the_tokens():
    texts = random_texts(1, list("abcdefgh"))
    forward, backward = Vocabulary().adapt(texts), Vocabulary().adapt(texts[::-1])
    assert forward.tokens == backward.tokens


def test_decoding_restores_every_known_text(strange):
    assert strange.decode(strange.encode(STRANGE, start=True, end=True)) == STRANGE


def test_the_literal_spelling_of_a_special_token_is_ordinary_text():
    vocabulary = Vocabulary("word").adapt(["[START] [END] [UNK]", "[END]"])
    ids = vocabulary.encode(["[END] [START] [UNK] [PAD]"], start=True, end=True)
    assert ids == [[2, 4, 5, 6, 1, 3]]


def test_special_ids_are_padding_unknown_start_and_end():
    vocabulary = Vocabulary().adapt(["ab"])
    specials = (
        vocabulary.pad_token_id,
        vocabulary.unknown_token_id,
        vocabulary.start_token_id,
        vocabulary.end_token_id,
    )
    assert specials == (0, 1, 2, 3)
    assert vocabulary.size == len(vocabulary) == 6


def test_nfd_splits_hangul_into_jamo_and_decodes_to_nfc():
    vocabulary = Vocabulary("character", normalization="NFD").adapt(["한국어"])
    jamo = list(unicodedata.normalize("NFD", "한국어"))
    assert sorted(vocabulary.tokens) == sorted(jamo) and len(jamo) == 8
    [ids] = vocabulary.encode(["한국어"])
    assert vocabulary.spell(ids) == jamo
    assert vocabulary.decode([ids]) == ["한국어"]


@pytest.mark.parametrize(
    "form, composed",
    [("NFC", "NFC"), ("NFD", "NFC"), ("NFKC", "NFKC"), ("NFKD", "NFKC")],
)
def test_decoding_composes_normalized_texts(form, composed):
    texts = [*STRANGE, "ﬁne ①", "Å Å"]
    vocabulary = Vocabulary("character", normalization=form).adapt(texts)
    expected = [unicodedata.normalize(composed, text) for text in texts]
    assert vocabulary.decode(vocabulary.encode(texts)) == expected


def test_texts_are_lowercased_after_normalization():
    vocabulary = Vocabulary("word", normalization="NFKC", lowercase=True)
    assert vocabulary.adapt(["𝐀ℕ ÀΣ"]).tokens == ["an", "àς"]


def test_words_are_separated_by_any_white_space():
    text = "HH AH0\tL\nOW1\u3000a\u00a0b\u2028c\u0085d  "
    assert Vocabulary("word").adapt([text]).tokens == sorted(text.split())


def test_decoding_restores_ready_symbols_except_empty_ones():
    texts = [["a b", "\n", "\u2028"], [], ["", "a b", "새"]]
    vocabulary = Vocabulary(None).adapt(texts)
    assert vocabulary.decode(vocabulary.encode(texts)) == [texts[0], [], ["a b", "새"]]


def test_calls_with_ragged_and_dense_symbols_equal_encode():
    texts = [["새", "a b"], [], ["c"]]
    vocabulary = Vocabulary(None, normalization="NFD").adapt(texts)
    ragged = tf.ragged.constant(texts, dtype=tf.string)
    for batch in (texts, ragged, ragged.to_tensor()):
        called = keras.ops.convert_to_numpy(vocabulary(batch, start=True, end=True))
        trimmed = [[i for i in row if i] for row in called.tolist()]
        assert trimmed == vocabulary.encode(texts, start=True, end=True)
    dataset = tf.data.Dataset.from_tensors(ragged).map(vocabulary)
    assert next(dataset.as_numpy_iterator()).shape == (3, 2)


@pytest.mark.parametrize("split", ["character", "word"])
def test_ids_of_a_text_do_not_depend_on_its_batch(split):
    texts = random_texts(2, list("ab  한국😀"))
    vocabulary = Vocabulary(split, normalization="NFKD").adapt(texts)
    together = vocabulary.encode(texts)
    assert together == [vocabulary.encode([text])[0] for text in texts]


def test_decoding_stops_at_the_end_and_skips_padding_and_start():
    vocabulary = Vocabulary().adapt(["ab"])
    assert vocabulary.decode([[0, 2, 4, 0, 5, 3, 4], [3, 4], []]) == ["ab", "", ""]
    assert vocabulary.decode(np.array([[4, 3], [5, 0]])) == ["a", "b"]
    assert vocabulary.decode(keras.ops.array([[4, 3], [5, 0]])) == ["a", "b"]


def test_unknown_symbols_decode_to_replacement_characters():
    vocabulary = Vocabulary("word").adapt(["a b"])
    assert vocabulary.decode(vocabulary.encode(["a 새 b"])) == ["a \ufffd b"]


def test_unknown_lists_each_missing_symbol_once():
    assert Vocabulary("word").adapt(["a b"]).unknown("c a d c") == ["c", "d"]
    assert Vocabulary(None).adapt([["a"]]).unknown(["b", "a"]) == ["b"]
    assert Vocabulary(lowercase=True).adapt(["ab"]).unknown("AB!") == ["!"]


def test_limits_keep_the_most_frequent_tokens():
    texts = ["aaa", "bb", "cc", "d"]
    assert Vocabulary(min_count=2).adapt(texts).tokens == ["a", "b", "c"]
    vocabulary = Vocabulary(max_tokens=6).adapt(texts)
    assert vocabulary.tokens == ["a", "b"] and vocabulary.size == 6


def test_adapt_takes_any_iterable_and_replaces_earlier_tokens():
    vocabulary = Vocabulary().adapt(["xyz"])
    assert vocabulary.adapt(text for text in ["ab", "b"]).tokens == ["b", "a"]
    dataset = tf.data.Dataset.from_tensor_slices(["cd", "d"])
    assert vocabulary.adapt(dataset.as_numpy_iterator()).tokens == ["d", "c"]
    assert vocabulary.adapt(tf.constant(["ef", "f"])).tokens == ["f", "e"]
    assert vocabulary.encode(["fa"]) == [[4, 1]]


def test_a_saved_model_keeps_the_tokens_as_an_asset(strange, tmp_path):
    texts = keras.Input((), dtype="string")
    model = keras.Model(texts, strange(texts, end=True))
    assert model.output_shape == (None, None)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    loaded = model.get_layer(strange.name)
    assert loaded.tokens == strange.tokens
    assert loaded.encode(STRANGE) == strange.encode(STRANGE)
    if keras.backend.backend() == "tensorflow":
        batch = tf.constant(STRANGE)
        np.testing.assert_array_equal(model(batch), strange(batch, end=True))
    assert "한" not in json.dumps(strange.get_config(), ensure_ascii=False)


def test_the_config_keeps_every_option():
    options = {
        "split": "word",
        "normalization": "NFKD",
        "lowercase": True,
        "max_tokens": 7,
        "min_count": 2,
    }
    config = Vocabulary(**options, name="letters").get_config()
    again = Vocabulary.from_config(config).get_config()
    assert again == config
    assert {key: again[key] for key in options} == options


def test_a_vocabulary_without_tokens_is_saved_without_tokens(tmp_path):
    vocabulary = Vocabulary()
    vocabulary.save_assets(tmp_path)
    vocabulary.load_assets(tmp_path)
    assert vocabulary.tokens == []


@pytest.mark.parametrize("split", ["character", "word", None])
def test_a_saved_vocabulary_keeps_options_and_tokens(split, tmp_path):
    texts = STRANGE if split else [list(text) for text in STRANGE]
    vocabulary = Vocabulary(split, normalization="NFD", lowercase=True).adapt(texts)
    vocabulary.save(tmp_path / "words.json")
    loaded = Vocabulary.load(tmp_path / "words.json")
    assert loaded.tokens == vocabulary.tokens
    assert loaded.encode(texts) == vocabulary.encode(texts)
    assert os.listdir(tmp_path) == ["words.json"]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "words.json"
    Vocabulary().adapt(["ab"]).save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        Vocabulary().adapt(["cd"]).save(path)
    assert os.listdir(tmp_path) == ["words.json"]
    assert Vocabulary.load(path).tokens == ["a", "b"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[1]", "Vocabulary.save"),
        ('{"tokens": ["a"]}', "Vocabulary.save"),
        ('{"kseq": "Vocabulary"}', "Received: tokens=None"),
        ('{"kseq": "Vocabulary", "tokens": []}', "not empty"),
        ('{"kseq": "Vocabulary", "tokens": ["a", 1]}', "not empty"),
        ('{"kseq": "Vocabulary", "tokens": ["a", "b", "a"]}', "'a', 2 times"),
        ('{"kseq": "Vocabulary", "split": "x", "tokens": ["a"]}', "`split` must be"),
        ('{"kseq": "Vocabulary", "colour": 1, "tokens": ["a"]}', "colour"),
        (b"\xff\xfe\x00", "damaged"),
    ],
)
def test_rejects_damaged_and_foreign_files(content, message, tmp_path):
    path = tmp_path / "words.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "letters"}, "`split` must be one of .* split='letters'"),
        ({"normalization": "nfc"}, "`normalization` must be one of .*'NFKD'"),
        ({"lowercase": "yes"}, "`lowercase` must be one of True, False"),
        ({"max_tokens": 4}, "`max_tokens` must be an integer of at least 5"),
        ({"min_count": 0}, "`min_count` must be an integer of at least 1"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(**options)


@pytest.mark.parametrize("method", ["encode", "adapt", "__call__"])
def test_rejects_a_single_string_in_place_of_a_list(method):
    for split in ("character", "word", None):
        vocabulary = Vocabulary(split).adapt([["ab"]] if split is None else ["ab"])
        with pytest.raises(ValueError, match="`texts` must be a list.*texts='ab'"):
            getattr(vocabulary, method)("ab")


def test_rejects_texts_that_are_not_strings():
    with pytest.raises(ValueError, match=r"Received: texts\[1\]=nan"):
        Vocabulary().adapt(["a", float("nan")])
    with pytest.raises(ValueError, match=r"Received: texts\[0\]=\['a'\]"):
        Vocabulary().adapt([["a"]])
    with pytest.raises(ValueError, match=r"must be a list of lists.*texts\[1\]='b'"):
        Vocabulary(None).adapt([["a"], "b"])
    with pytest.raises(ValueError, match="strings of rank 1.*int32"):
        Vocabulary().adapt(["a"])(tf.constant([1]))


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_rejects_texts_without_a_token(texts):
    with pytest.raises(ValueError, match="at least 2 times"):
        Vocabulary(min_count=2).adapt(texts)


def test_error_asks_to_adapt_a_vocabulary_without_tokens():
    for use in (
        lambda vocabulary: vocabulary.encode(["a"]),
        lambda vocabulary: vocabulary(["a"]),
        lambda vocabulary: vocabulary.decode([[4]]),
        lambda vocabulary: vocabulary.save("nowhere.json"),
        lambda vocabulary: vocabulary.size,
    ):
        with pytest.raises(ValueError, match=r"Call `adapt\(texts\)` first"):
            use(Vocabulary())


@pytest.mark.parametrize("ids", [[[4, 6]], [[-1]], np.array([[9]])])
def test_rejects_ids_of_another_vocabulary(ids):
    with pytest.raises(ValueError, match="`ids` must be from 0 to 5"):
        Vocabulary().adapt(["ab"]).decode(ids)


@pytest.mark.parametrize("ids", [[4, 5], [[4.0]], "ab", [["a"]], [[[4]]]])
def test_rejects_ids_that_are_not_rows_of_integers(ids):
    with pytest.raises(ValueError, match="`ids` must be integers, one row"):
        Vocabulary().adapt(["ab"]).decode(ids)


def test_the_rarest_of_very_many_words_are_dropped(monkeypatch):
    monkeypatch.setattr("kseq.text.tokenizers.MOST_WORDS", 10)
    monkeypatch.setattr("kseq.text.tokenizers.chunks", chunks_of_ten)
    texts = [
        f"often {number} seldom" if number % 3 else "often" for number in range(99)
    ]
    tokens = Vocabulary("word").adapt(texts).tokens
    assert tokens[:2] == ["often", "seldom"] and len(tokens) <= 20
    assert Vocabulary("word", min_count=60).adapt(texts).tokens == ["often", "seldom"]


def chunks_of_ten(texts, size):
    return ((first, texts[first : first + 10]) for first in range(0, len(texts), 10))
