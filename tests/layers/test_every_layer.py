"""Laws of every layer that reads sequences."""

import keras
import numpy as np
import pytest
from keras import ops

from kseq import layers
from tests.helpers import (
    array,
    assert_close,
    check_padding_has_no_gradient,
    dtype_policy,
    layer_gradients,
    randomize,
)
from tests.layers.small_layers import (
    ATTENTIONS,
    CONVOLUTIONAL,
    LAYERS,
    POOLINGS,
    POSITION_WISE,
    RECURRENT,
)

TESTED_ELSEWHERE = {  # reads no sequence of vectors, or is tested within another layer
    "CaptionLoss",
    "ClassEmbedding",
    "CosineSimilarity",
    "Decoder",
    "FiniteScalarQuantizer",
    "ImageDecoder",
    "ImageEncoder",
    "JoinedEncoders",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "MeanProbability",
    "MinGRUCell",
    "NamedEmbeddings",
    "PatchEmbedding",
    "PeepholeLSTMCell",
    "PointerGenerator",
    "ResidualBlock",
    "RotaryPositions",
    "ScheduledSampling",
    "SequenceEmbedding",
    "SummedEmbedding",
    "TokenEmbedding",
    "VectorEmbedding",
    "VectorQuantizer",
    "WordCharacterEmbedding",
}


def test_every_layer_is_listed():
    named = {name.split(",")[0] for name in LAYERS}
    classes = {name for name in layers.__all__ if name[0].isupper()}
    assert named | TESTED_ELSEWHERE == classes


@pytest.mark.parametrize("kind", [name for name, case in LAYERS.items() if case.masks])
def test_padding_has_no_gradient(kind):
    case = LAYERS[kind]
    check_padding_has_no_gradient(case.make(), case.inputs(), case.real())


@pytest.mark.parametrize("kind", POOLINGS | ATTENTIONS | POSITION_WISE | CONVOLUTIONAL)
def test_half_precision_is_accurate_for_many_steps(kind):
    """A sum in bfloat16 does not grow beyond 256 equal numbers."""
    case = LAYERS[kind]
    inputs = {name: 1 + x / 9 for name, x in case.inputs(length=1000).items()}
    exact = case.make()
    exact(**inputs)
    randomize(exact)
    with dtype_policy("mixed_bfloat16"):
        half = case.make()
    half(**inputs)
    half.set_weights(exact.get_weights())
    for got, expected in zip(
        keras.tree.flatten(half(**inputs)),
        keras.tree.flatten(exact(**inputs)),
        strict=True,
    ):
        assert_close(ops.cast(got, "float32"), expected, atol=0.1, rtol=0.05)
    if (
        kind in POOLINGS
        and kind != "MaxPooling"
        or kind in ATTENTIONS
        and "Transformer" not in kind
    ):
        slopes = [layer_gradients(x, inputs, {}, ops.mean) for x in (half, exact)]
        error = np.linalg.norm(slopes[0] - slopes[1]) / np.linalg.norm(slopes[1])
        assert error < 0.05


@pytest.mark.parametrize("kind", ["MeanPooling", "AttentionPooling", "StateBridge"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_a_mean_in_float16_does_not_overflow(kind, is_masked):
    case, steps, value = LAYERS[kind], 3000, 200.0
    [name], masks = case.widths, {}
    if is_masked:
        masks = {mask: np.ones((2, steps), "bool") for mask in case.masks}
    with dtype_policy("float16"):
        layer = case.make()
    many = layer(**{name: np.full((2, steps, 6), value, "float16")}, **masks)
    one = layer(**{name: np.full((2, 1, 6), value, "float16")})
    for got, expected in zip(
        keras.tree.flatten(many), keras.tree.flatten(one), strict=True
    ):
        assert_close(ops.cast(got, "float32"), ops.cast(expected, "float32"), rtol=2e-3)
    assert np.isfinite(array(ops.cast(got, "float32"))).all()


# Shapes -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_compute_output_shape_equals_the_shape_of_outputs(kind):
    case = LAYERS[kind]
    inputs = case.inputs()
    computed = case.make().compute_output_shape(*(x.shape for x in inputs.values()))
    got = keras.tree.map_structure(lambda y: tuple(y.shape), case.make()(**inputs))
    assert keras.tree.flatten(computed) == keras.tree.flatten(got)
    unknown = case.make().compute_output_shape(
        *((None, None, x.shape[2]) for x in inputs.values())
    )
    assert None in keras.tree.flatten(unknown)


@pytest.mark.parametrize(
    "make, inputs",
    [
        (lambda: layers.TokenEmbedding(11, 6), np.ones((2, 3, 5))),
        (lambda: layers.ClassEmbedding(11, 6), np.ones((2,))),
        (lambda: layers.VectorEmbedding(7, 6), np.ones((2, 7))),
        (lambda: layers.PatchEmbedding((4, 6, 1), 2, 5), np.ones((2, 4, 6, 1))),
        (layers.RotaryPositions, np.ones((2, 5, 3, 4))),
    ],
)
def test_compute_output_shape_is_right_for_other_layers(make, inputs):
    assert make().compute_output_shape(inputs.shape) == tuple(make()(inputs).shape)


def test_compute_output_shape_is_right_for_mean_probability():
    shape = layers.MeanProbability().compute_output_shape([(2, 5, 3), (2, 5, 3)])
    assert shape == (2, 5, 3)


# Sequences of sequences -------------------------------------------------------------

SEQUENCE_ENCODERS = [
    name
    for name, case in (POOLINGS | ATTENTIONS | RECURRENT | CONVOLUTIONAL).items()
    if list(case.widths) == ["sequences"]
]


@pytest.mark.parametrize("num_sentences", [2, None])
@pytest.mark.parametrize("kind", SEQUENCE_ENCODERS)
def test_any_encoder_can_be_applied_to_each_sentence_of_a_document(kind, num_sentences):
    layer = LAYERS[kind].make()
    token_ids = np.array([[[4, 5, 6, 2], [7, 2, 0, 0]], [[3, 0, 0, 0], [1, 2, 3, 0]]])
    embedding = layers.TokenEmbedding(11, 6, positions="sinusoidal", dropout=0.1)
    documents = keras.Input((num_sentences, 4), dtype="int32")
    read = keras.layers.TimeDistributed(layer)(embedding(documents))
    model = keras.Model(documents, read)
    jit_compile = keras.backend.backend() == "jax"
    model.compile(jit_compile=jit_compile)
    outputs = model.predict_on_batch(token_ids)
    assert outputs.shape == (2, 2, *model.output_shape[2:])
    for document in range(2):
        expected = layer(embedding(token_ids[:, document]))
        real = token_ids[:, document] != 0
        one, other = array(outputs[:, document]), array(expected)
        if one.ndim == 3:
            one, other = one[real], other[real]
        assert_close(one, other)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_accepts_or_rejects_additional_axes(kind):
    case, more = LAYERS[kind], 3
    inputs = {
        name: np.stack([x] * more, axis=1) for name, x in case.inputs().items()
    }  # B more S D
    if kind not in POSITION_WISE or kind == "ClassToken":
        with pytest.raises(ValueError, match=r"shape \(B, S, D\)|expected ndim=3"):
            case.make()(**inputs)
        return
    layer = case.make()
    outputs, expected = array(layer(**inputs)), array(layer(**case.inputs()))
    assert_close(outputs, np.stack([expected] * more, axis=1))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", None])
def test_embeddings_accept_sequences_of_sequences(positions):
    length = 5 if positions == "learned" else None
    embedding = layers.TokenEmbedding(
        11, 6, dropout=0.5, positions=positions, max_length=length
    )
    token_ids = np.array([[[4, 5, 6, 2], [0, 7, 2, 0]], [[3, 0, 0, 0], [1, 2, 3, 0]]])
    vectors = array(embedding(token_ids))
    for document in range(2):
        assert_close(vectors[:, document], array(embedding(token_ids[:, document])))
    dropped = array(embedding(np.ones((2, 3, 5), "int32"), training=True)) == 0
    assert dropped.any() and not dropped.all()
    assert (dropped.all(axis=2) == dropped.any(axis=2)).all()  # the same at every step
