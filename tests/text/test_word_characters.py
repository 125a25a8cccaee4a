"""Vocabularies of words and their characters: ids, files and pipelines."""

import keras
import numpy as np
import pytest

import kseq
from kseq.text import TextToLabels, Vocabulary, WordCharacterVocabulary
from kseq.training import TokenDropout, batches

TEXTS = ["the cat sat", "the 고양이 sat", "a cat"]
LONG = "internationalization"


def vocabulary(**options):
    options = {"min_count": 2, "max_characters": 6, **options}
    return WordCharacterVocabulary(**options).adapt(TEXTS)


def test_each_word_has_its_id_and_the_ids_of_its_characters():
    words = vocabulary()
    assert words.tokens == ["cat", "sat", "the"]
    assert [words.size, words.num_characters] == [7, 10]
    letters = words.characters
    [row] = words.encode(["the hat"])
    assert row[0] == [6, *letters.encode(["the"])[0], 0, 0, 0]
    assert row[1] == [1, *letters.encode(["hat"])[0], 0, 0, 0]
    assert words.spell(row) == ["the", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("spelling", ["byte", "jamo"])
def test_bytes_and_jamo_spell_every_word(spelling):
    words = vocabulary(spelling=spelling, max_characters=12)
    characters = Vocabulary(spelling)
    assert words.num_characters == characters.size
    [row] = words.encode(["고양이 Ǝ"])
    for word, (number, *ids) in zip(["고양이", "Ǝ"], row, strict=True):
        assert number == 1
        assert characters.decode([ids]) == [word]


def test_both_ends_of_a_long_word_are_kept():
    words = vocabulary(spelling="byte", max_characters=7)
    characters = Vocabulary("byte")
    [[(_, *ids)]] = words.encode([LONG])
    assert characters.decode([ids]) == ["inte" + "ion"]
    [[(_, *ids)]] = words.encode(["seventy"])
    assert characters.decode([ids]) == ["seventy"]


def test_a_call_pads_the_ids_of_encode():
    words = vocabulary()
    ids = keras.ops.convert_to_numpy(words(TEXTS))
    assert ids.shape == (3, 3, 7)
    for row, expected in zip(ids, words.encode(TEXTS), strict=True):
        assert row[: len(expected)].tolist() == expected
        assert not row[len(expected) :].any()
    rows = WordCharacterVocabulary(None).adapt([["a b", "c"]]).encode([["c"], []])
    assert [len(row) for row in rows] == [1, 0] and [] in rows


def test_a_loaded_vocabulary_gives_the_same_ids(tmp_path):
    words = vocabulary(spelling="jamo", lowercase=True)
    words.save(tmp_path / "words.json")
    loaded = WordCharacterVocabulary.load(tmp_path / "words.json")
    assert loaded.encode(TEXTS) == words.encode(TEXTS)
    assert loaded.get_config() == {**words.get_config(), "name": loaded.name}


def test_batches_and_dropout_keep_the_characters():
    words = vocabulary()
    rows = words.encode(TEXTS)
    labels = [[1, 2, 3], [1, 2, 3], [1, 2]]
    data = batches(rows, labels, shuffle=False, length_multiple=1)
    [(ids, _)] = data
    assert ids.dtype == "int32" and ids.shape == (3, 3, 7)
    np.testing.assert_array_equal(ids, keras.ops.convert_to_numpy(words(TEXTS)))
    [(dropped, _)] = TokenDropout(data, 0.9)
    np.testing.assert_array_equal(dropped[..., 1:], ids[..., 1:])
    is_word = ids[..., 0] != 0
    assert set(dropped[..., 0][is_word]) == {1, *ids[dropped[..., 0] > 1][:, 0]}
    assert not dropped[..., 0][~is_word].any()


def tagger(head=None):
    words = vocabulary(spelling="jamo")
    embedding = kseq.layers.WordCharacterEmbedding(
        words.size, words.num_characters, width=9, character_units=5
    )
    model = kseq.many_to_many(embedding, 3, "rnn", width=4, head=head)
    return TextToLabels(model, words, ["O", "B-a", "I-a"])


def names(results):
    return [[label.name for label in row] for row in results]


@pytest.mark.parametrize("head", [None, "crf"])
def test_a_pipeline_labels_new_words_and_can_be_saved(head, tmp_path):
    pipeline = tagger(head)
    for weight in pipeline.model.weights:
        weight.assign(keras.random.normal(weight.shape, 0, 0.5, seed=weight.shape[-1]))
    texts = [*TEXTS, f"{LONG} 고양", "zzz"]
    found = pipeline.label(texts, batch_size=2)
    assert [len(row) for row in found] == [3, 3, 2, 2, 1]
    assert names(found) == names([pipeline.label([text])[0] for text in texts])
    pipeline.save(tmp_path / "pipeline.keras")
    loaded = TextToLabels.load(tmp_path / "pipeline.keras")
    assert names(loaded.label(texts)) == names(found)
    one, other = loaded.label(["고양"])[0][0], loaded.label(["학교"])[0][0]
    assert abs(one.probabilities - other.probabilities).max() > 1e-4


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)
def test_a_graph_reads_the_characters_of_words(tmp_path):
    import tensorflow as tf

    pipeline = tagger("crf")
    pipeline.export_labels(tmp_path / "graph")
    served = tf.saved_model.load(tmp_path / "graph").signatures["serving_default"]
    texts = [*TEXTS, f"{LONG} 고양"]
    outputs = served(texts=tf.constant(texts))
    expected = pipeline.label(texts)
    for row, labels in zip(outputs["labels"].numpy().tolist(), expected, strict=True):
        assert [x.decode() for x in row if x] == [label.name for label in labels]
    assert outputs["offsets"].numpy()[3].tolist() == [[0, 20], [21, 23], [0, 0]]


def test_rejects_a_model_that_reads_only_words():
    words = vocabulary()
    model = kseq.many_to_many(words.size, 3, "rnn", width=4)
    with pytest.raises(ValueError, match="a `kseq.layers.WordCharacterEmbedding` as"):
        TextToLabels(model, words, ["a", "b", "c"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "character"}, "`split` must be one of 'word'"),
        ({"spelling": "word"}, "`spelling` must be one of 'character'"),
        ({"max_characters": 1}, "`max_characters` must be an integer of at least 2"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        WordCharacterVocabulary(**options)


def test_rejects_missing_tokens_and_ids_without_characters():
    with pytest.raises(ValueError, match="must have tokens before it is used"):
        WordCharacterVocabulary().encode(["a"])
    with pytest.raises(ValueError, match="`ids` must be a row of ids for each word"):
        vocabulary().spell([4, 5])
