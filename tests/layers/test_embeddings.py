import keras
import numpy as np
import pytest

from kseq.layers import (
    FeatureEmbedding,
    SinusoidalPositions,
    TiedHead,
    TokenEmbedding,
)
from tests.helpers import (
    array,
    assert_close,
    check_layer,
    check_padding_changes_nothing,
    length_mask,
    random_array,
    randomize,
)

B, S, VOCABULARY, WIDTH, FEATURES = 3, 7, 11, 6, 2

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
            "positions": "learned",
            "max_length": 11,
            "scale": True,
        },
        {"token_ids": TOKEN_IDS},
    )


def test_each_token_gets_its_row_of_the_table():
    embedding = TokenEmbedding(VOCABULARY, WIDTH)
    embedding(TOKEN_IDS)
    randomize(embedding)
    (table,) = embedding.get_weights()
    vectors = array(embedding(TOKEN_IDS))
    for b, s in np.ndindex(B, S):
        assert_close(vectors[b, s], table[TOKEN_IDS[b, s]])


@pytest.mark.parametrize("pad_token_id", [0, 4])
def test_the_padding_token_defines_the_mask(pad_token_id):
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


def test_the_initializer_sets_the_table():
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


@pytest.mark.parametrize("pad_token_id", [None, 0.5, "<pad>", -1, VOCABULARY])
def test_the_padding_token_must_be_in_the_vocabulary(pad_token_id):
    message = f"`pad_token_id` must .*Received: pad_token_id={pad_token_id!r}"
    with pytest.raises(ValueError, match=message):
        TokenEmbedding(VOCABULARY, WIDTH, pad_token_id=pad_token_id)


def test_token_ids_must_be_whole_numbers():
    embedding = TokenEmbedding(VOCABULARY, WIDTH)
    with pytest.raises(ValueError, match="`token_ids` must be integers.* value 4.5"):
        embedding(np.array([[4, 4.5, 0]]))
    whole = TOKEN_IDS.astype("float32")  # an unbuilt Sequential casts to it
    assert_close(embedding(whole), embedding(TOKEN_IDS))
    keras.Sequential([embedding, keras.layers.GRU(2)])(TOKEN_IDS)


# Positions and scale ------------------------------------------------------------------


def make_token_embedding(**options):
    embedding = TokenEmbedding(VOCABULARY, WIDTH, **options)
    embedding(TOKEN_IDS)
    randomize(embedding)
    return embedding


def test_the_scale_is_the_square_root_of_the_width():
    embedding = make_token_embedding(scale=True)
    (table,) = embedding.get_weights()
    assert_close(embedding(TOKEN_IDS), table[TOKEN_IDS] * WIDTH**0.5)


def test_positions_are_added_to_the_scaled_vectors():
    embedding = make_token_embedding(scale=True, positions="sinusoidal")
    (table,) = embedding.get_weights()
    expected = SinusoidalPositions()(table[TOKEN_IDS] * WIDTH**0.5, mask=TOKEN_IDS != 0)
    assert_close(embedding(TOKEN_IDS), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"positions": "sinusoidal"},
        {"positions": "learned", "max_length": S},
        {"positions": SinusoidalPositions("halves")},
    ],
    ids=["sinusoidal", "learned", "a layer"],
)
def test_a_single_token_is_embedded_as_in_the_sequence(options):
    embedding = make_token_embedding(**options)
    whole = array(embedding(np.ones((1, S), "int32")))
    for s in range(S):
        position = np.array([[s]], "int32")
        alone = embedding(np.ones((1, 1), "int32"), positions=position)
        assert_close(alone[:, 0], whole[:, s])
    assert (whole[:, 1:] != whole[:, :-1]).any(axis=-1).all()


def test_left_padding_does_not_shift_positions():
    embedding = make_token_embedding(positions="sinusoidal")
    padded = np.pad(TOKEN_IDS[:1, :4], ((0, 0), (3, 0)))
    assert_close(embedding(padded)[:, 3:], embedding(TOKEN_IDS[:1, :4]))


def test_config_keeps_positions_of_every_form():
    for positions in (None, "sinusoidal", SinusoidalPositions("halves")):
        for embedding in (
            TokenEmbedding(VOCABULARY, WIDTH, positions=positions),
            FeatureEmbedding(FEATURES, WIDTH, positions=positions),
        ):
            config = embedding.get_config()
            assert type(embedding).from_config(config).get_config() == config


@pytest.mark.parametrize(
    "options, message",
    [
        ({"positions": "learned"}, "need `max_length`"),
        ({"positions": "sinusoidal", "max_length": 7}, "`max_length` is the number"),
        ({"positions": "rotary"}, "`positions` must be"),
    ],
)
def test_rejects_wrong_positions(options, message):
    with pytest.raises(ValueError, match=message):
        TokenEmbedding(VOCABULARY, WIDTH, **options)


# Features -----------------------------------------------------------------------------

SERIES = random_array(B, S, FEATURES)
MASK = length_mask(4, 7, 2, size=S)
MASK[0, :1] = False  # left padding as well


def test_feature_embedding_keeps_the_contract_of_layers():
    check_layer(
        FeatureEmbedding,
        {
            "num_features": FEATURES,
            "width": WIDTH,
            "dropout": 0.2,
            "mask_value": -1.0,
            "kernel_initializer": lambda: keras.initializers.RandomNormal(stddev=0.3),
            "positions": "learned",
            "max_length": 11,
        },
        {"features": SERIES},
    )


def test_feature_embedding_equals_a_dense_layer():
    embedding = FeatureEmbedding(FEATURES, WIDTH)
    embedding(SERIES)
    randomize(embedding)
    kernel, bias = embedding.get_weights()
    assert_close(embedding(SERIES), SERIES @ kernel + bias)


def test_steps_of_the_mask_value_are_padding():
    embedding = FeatureEmbedding(FEATURES, WIDTH, mask_value=9.0)
    series = np.where(MASK[..., None], SERIES, 9.0).astype("float32")
    series[1, 1, 0] = 9.0  # one feature alone is not padding
    np.testing.assert_array_equal(array(embedding(series)._keras_mask), MASK)
    assert (
        getattr(FeatureEmbedding(FEATURES, WIDTH)(series), "_keras_mask", None) is None
    )


def test_padding_does_not_shift_the_steps_of_a_series():
    embedding = FeatureEmbedding(FEATURES, WIDTH, positions="sinusoidal")
    embedding.build(SERIES.shape)
    check_padding_changes_nothing(
        lambda x, mask: ([embedding(x, mask=mask)], []), SERIES, MASK
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mask_value", [0.1, -1e9, float("nan")])
def test_half_precision_recognizes_the_mask_value(dtype, mask_value):
    embedding = FeatureEmbedding(
        FEATURES, WIDTH, mask_value=mask_value, dtype=f"mixed_{dtype}"
    )
    series = np.where(MASK[..., None], SERIES, mask_value).astype("float32")
    vectors = embedding(series)
    np.testing.assert_array_equal(array(vectors._keras_mask), MASK)
    assert keras.backend.standardize_dtype(vectors.dtype) == dtype
    assert np.isfinite(array(keras.ops.cast(vectors, "float32"))).all()


def test_learned_positions_accept_a_series_of_unknown_length():
    series = keras.Input((None, FEATURES))
    embedding = FeatureEmbedding(FEATURES, WIDTH, positions="learned", max_length=S)
    assert keras.Model(series, embedding(series))(SERIES).shape == (B, S, WIDTH)


def test_rejects_a_wrong_number_of_features():
    with pytest.raises(ValueError, match="with num_features=5"):
        FeatureEmbedding(5, WIDTH)(SERIES)


# The tied head ------------------------------------------------------------------------


def test_tied_head_keeps_the_contract_of_layers():
    check_layer(
        TiedHead,
        {"embedding": lambda: TokenEmbedding(VOCABULARY, WIDTH)},
        {"inputs": random_array(B, S, WIDTH)},
    )


def test_the_tied_head_multiplies_by_the_embedding_table():
    embedding = make_token_embedding()
    head, inputs = TiedHead(embedding), random_array(B, S, WIDTH)
    head(inputs)
    randomize(head)
    (table,) = embedding.get_weights()
    assert_close(head(inputs), inputs @ table.T + array(head.bias))


def test_rejects_a_tied_head_with_a_wrong_embedding():
    with pytest.raises(ValueError, match="width 3 with an embedding of width 6"):
        TiedHead(TokenEmbedding(VOCABULARY, WIDTH))(random_array(B, S, 3))
    with pytest.raises(ValueError, match="must be a `TokenEmbedding`"):
        TiedHead(keras.layers.Embedding(VOCABULARY, WIDTH))
