import keras
import numpy as np
import pytest

from kseq.layers import TokenEmbedding
from tests.helpers import array, assert_close, check_layer, randomize

B, S, VOCABULARY, WIDTH = 3, 7, 11, 5

TOKEN_IDS = np.random.default_rng(0).integers(1, VOCABULARY, size=(B, S), dtype="int32")
TOKEN_IDS[0, 4:] = 0
TOKEN_IDS[1, :2] = 0
TOKEN_IDS[2] = 0


def test_token_embedding_keeps_the_contract_of_layers():
    check_layer(
        TokenEmbedding,
        {
            "vocabulary_size": VOCABULARY,
            "width": WIDTH,
            "dropout": 0.2,
            "pad_token_id": 3,
            "embeddings_initializer": lambda: keras.initializers.RandomNormal(stddev=3),
        },
        {"token_ids": TOKEN_IDS},
    )


def test_each_token_has_its_row_of_the_table():
    embedding = TokenEmbedding(VOCABULARY, WIDTH)
    embedding(TOKEN_IDS)
    randomize(embedding)
    (table,) = embedding.get_weights()
    vectors = array(embedding(TOKEN_IDS))
    for b, s in np.ndindex(B, S):
        assert_close(vectors[b, s], table[TOKEN_IDS[b, s]])


@pytest.mark.parametrize("pad_token_id", [0, 4])
def test_the_padding_token_makes_the_mask(pad_token_id):
    vectors = TokenEmbedding(VOCABULARY, WIDTH, pad_token_id=pad_token_id)(TOKEN_IDS)
    mask = array(vectors._keras_mask)
    assert mask.tolist() == (TOKEN_IDS != pad_token_id).tolist()


def test_the_mask_reaches_the_next_layer_of_a_functional_model():
    token_ids = keras.Input((None,), dtype="int32")
    vectors = TokenEmbedding(VOCABULARY, WIDTH)(token_ids)
    outputs = keras.layers.GRU(2, return_sequences=True)(vectors)
    outputs = array(keras.Model(token_ids, outputs)(TOKEN_IDS))
    assert (outputs[0, 4:] == outputs[0, 3]).all()
    assert (outputs[2] == 0).all()


def test_the_initializer_fills_the_table():
    embedding = TokenEmbedding(
        VOCABULARY, WIDTH, embeddings_initializer=keras.initializers.Constant(0.7)
    )
    embedding(TOKEN_IDS)
    assert_close(embedding.get_weights()[0], np.full((VOCABULARY, WIDTH), 0.7))


def test_dropout_drops_the_same_features_at_every_step_and_only_in_training():
    embedding = TokenEmbedding(VOCABULARY, 101, dropout=0.5)
    plain = array(embedding(TOKEN_IDS))
    dropped = array(embedding(TOKEN_IDS, training=True))
    kept = dropped != 0  # B S D
    assert (kept == kept[:, :1]).all()
    assert (kept[0] != kept[1]).any()
    assert 0.3 < kept.mean() < 0.7
    assert_close(dropped[kept], 2 * plain[kept])
    assert_close(embedding(TOKEN_IDS, training=False), plain)


@pytest.mark.parametrize("name", ["vocabulary_size", "width"])
@pytest.mark.parametrize("value", [0, 2.5, None])
def test_sizes_must_be_positive_integers(name, value):
    sizes = {"vocabulary_size": VOCABULARY, "width": WIDTH, name: value}
    with pytest.raises(ValueError, match=f"`{name}` must.*Received: {name}={value!r}"):
        TokenEmbedding(**sizes)


@pytest.mark.parametrize("dropout", [-0.1, 1, 1.0, "a"])
def test_dropout_must_be_a_fraction(dropout):
    with pytest.raises(
        ValueError, match=f"`dropout` must.*Received: dropout={dropout!r}"
    ):
        TokenEmbedding(VOCABULARY, WIDTH, dropout=dropout)
