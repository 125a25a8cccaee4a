"""Embeddings of words and their characters, compared with loops in NumPy.

Axes in shape comments: B batch, S steps, C characters, D width, U units.
"""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import WordCharacterEmbedding
from tests.helpers import array, assert_close, check_layer, check_layer_runs, randomize

WORDS, CHARACTERS, WIDTH, UNITS = 11, 7, 8, 5
IDS = np.array(
    [
        [[4, 5, 6, 4, 0], [1, 6, 0, 0, 0], [0, 0, 0, 0, 0]],
        [[10, 4, 4, 5, 6], [9, 3, 2, 1, 0], [4, 5, 6, 4, 0]],
    ],
    "int32",
)  # B S 1+C
NETWORKS = ["convolution", "lstm"]


def embedding(network="convolution", **options):
    layer = WordCharacterEmbedding(
        WORDS, CHARACTERS, WIDTH, UNITS, 3, network=network, **options
    )
    layer(IDS)
    randomize(layer)
    return layer


@pytest.mark.parametrize("network", ["gru", "convolution"])
def test_word_character_embedding_keeps_the_contract_of_layers(network):
    options = {
        "vocabulary_size": WORDS,
        "num_characters": CHARACTERS,
        "width": WIDTH,
        "character_units": UNITS,
        "character_width": 3,
        "network": network,
        "kernel_size": 2,
        "dropout": 0.2,
    }
    if network == "convolution":  # the default value
        check_layer_runs(WordCharacterEmbedding, options, {"token_ids": IDS})
    else:
        check_layer(WordCharacterEmbedding, options, {"token_ids": IDS})


def test_characters_are_encoded_by_a_convolution():
    layer = embedding(kernel_size=3)
    vectors = array(layer(IDS))
    words, letters = (array(x.embeddings) for x in (layer.words, layer.characters))
    kernel, bias = array(layer.reader.kernel), array(layer.reader.bias)  # 3 E U
    for place in np.ndindex(2, 3):
        word, *spelled = IDS[place]
        spelled = [letters[i] for i in spelled if i]
        expected = np.zeros(UNITS)
        if spelled:
            nothing = np.zeros(3)
            padded = [nothing, *spelled, nothing]
            steps = [
                np.tanh(sum(padded[t + i] @ kernel[i] for i in range(3)) + bias)
                for t in range(len(spelled))
            ]
            expected = np.max(steps, axis=0)
        assert_close(vectors[place], np.concatenate([words[word], expected]))


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_of_words_and_steps_changes_nothing(network):
    layer = embedding(network)
    longer = np.pad(IDS, ((0, 0), (0, 2), (0, 3)))
    assert_close(array(layer(longer))[:, :3], array(layer(IDS)))


def test_the_mask_marks_the_words():
    mask = array(embedding()(IDS)._keras_mask)
    assert mask.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("network", NETWORKS)
def test_unknown_words_differ_by_their_characters(network):
    layer = embedding(network)
    one, other = np.array([[[1, 4, 5]]]), np.array([[[1, 5, 4]]])
    assert np.abs(array(layer(one)) - array(layer(other))).max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_a_tagger_with_characters_learns_and_is_saved(network, tmp_path):
    model = kseq.many_to_many(embedding(network), 3, "rnn", width=4, head="crf")
    before = [array(w) for w in model.trainable_weights]
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(IDS, np.array([[0, 1, 0], [2, 2, 1]]), verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert (array(weight) != old).any(), weight.path
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(
        array(loaded.predict_on_batch(IDS)), array(model.predict_on_batch(IDS))
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 5}, "`width` must be greater.*width=5, character_units=5"),
        ({"network": "cnn"}, "`network` must be one of .*network='cnn'"),
        ({"num_characters": 0}, "`num_characters` must be"),
        ({"kernel_size": 0}, "`kernel_size` must be"),
        ({"dropout": 1}, "`dropout` must be"),
    ],
)
def test_error_names_the_wrong_option(options, message):
    sizes = {"vocabulary_size": 11, "num_characters": 7, "width": 8}
    with pytest.raises(ValueError, match=message):
        WordCharacterEmbedding(**{**sizes, "character_units": 5, **options})


def test_rejects_invalid_ids():
    layer = embedding()
    with pytest.raises(ValueError, match=r"must be a row of ids .*shape \(2, 3\)"):
        layer(IDS[..., 0])
    for column, size in ((0, WORDS), (2, CHARACTERS)):
        wrong = IDS.copy()
        wrong[0, 0, column] = size
        with pytest.raises(ValueError, match=f"from 0 to {size - 1}.*with {size}"):
            layer(wrong)
