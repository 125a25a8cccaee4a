"""Many-to-one: combinations of components, saved files, padding and learning."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import (
    AttentionPooling,
    ClassTokenPooling,
    LuongAttention,
    MaxPooling,
    RecurrentEncoder,
    TokenEmbedding,
)
from tests.helpers import array, assert_close, compiled_on_jax, dtype_policy, randomize

SIZE, OUTPUTS, WIDTH = 11, 3, 5
SOURCE = np.array([[4, 5, 6, 7], [8, 2, 0, 0], [9, 1, 10, 0]])
LABELS = np.array([2, 0, 1])


def bidirectional():
    return RecurrentEncoder("lstm", 2, num_layers=2, bidirectional=True)


def keras_gru():
    return keras.layers.GRU(7, return_sequences=True)


@keras.saving.register_keras_serializable("tests")
class SelfAttention(keras.layers.Layer):
    """Custom encoder: `x + attention(x, x)`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = LuongAttention("general")
        self.supports_masking = True

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, sequences, mask=None):
        return sequences + self.attention(sequences, sequences, value_mask=mask)


# Every encoder and every pooling; functions and classes build components.
COMBINATIONS = [
    ("rnn", "mean"),
    ("lstm", "max"),
    ("gru", "last"),
    (SelfAttention, "class_token"),
    (bidirectional, "attention"),
    (keras_gru, MaxPooling),
]


def component_name(component):
    return component if isinstance(component, str) else component.__name__


def make_component(component):
    return component if isinstance(component, str) else component()


@pytest.fixture(
    params=COMBINATIONS, ids=lambda pair: "-".join(map(component_name, pair))
)
def model(request):
    encoder, pooling = map(make_component, request.param)
    model = kseq.many_to_one(SIZE, OUTPUTS, encoder, pooling, WIDTH, dropout=0.2)
    randomize(model)
    return model


def test_one_training_step_changes_every_weight_and_survives_saving(model, tmp_path):
    before = [array(weight) for weight in model.trainable_weights]
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=keras.backend.backend() == "tensorflow",  # tracing takes longer
        jit_compile=False if keras.backend.backend() == "torch" else "auto",
    )
    model.fit(SOURCE, LABELS, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(array(weight)).all(), weight.path
        assert (array(weight) != old).any(), f"no gradient reaches {weight.path}"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert_close(loaded(SOURCE), model(SOURCE))


def test_padding_does_not_change_the_output(model):
    apply = compiled_on_jax(model)
    expected = array(apply(SOURCE))
    assert expected.shape == (len(SOURCE), OUTPUTS)
    for widths in ((0, 3), (2, 1)):
        padded = np.pad(SOURCE, ((0, 0), widths))
        assert_close(apply(padded), expected)


# Components -------------------------------------------------------------------------


def shapes(model):
    return [tuple(weight.shape) for weight in model.weights]


def test_names_and_sizes_build_layers():
    short = kseq.many_to_one(np.int64(SIZE), OUTPUTS, "lstm", "attention", WIDTH)
    long = kseq.many_to_one(
        source=TokenEmbedding(SIZE, WIDTH),
        num_outputs=OUTPUTS,
        encoder=RecurrentEncoder("lstm", WIDTH),
        pooling=AttentionPooling(),
        head=keras.layers.Dense(OUTPUTS),
    )
    assert shapes(short) == shapes(long)
    assert short.output_shape == long.output_shape == (None, OUTPUTS)


def test_layers_have_fixed_names():
    model = kseq.many_to_one(SIZE, OUTPUTS, width=WIDTH, name="reader")
    names = ["source", "embedding", "encoder", "pooling", "dropout", "head"]
    assert [layer.name for layer in model.layers] == names
    assert model.name == "reader"
    assert type(model.get_layer("pooling")) is AttentionPooling
    assert model.get_layer("encoder").cell == "gru"


def test_the_class_token_comes_between_embedding_and_encoder():
    model = kseq.many_to_one(SIZE, OUTPUTS, bidirectional(), "class_token", WIDTH)
    names = [layer.name for layer in model.layers]
    assert names[1:3] == ["embedding", "class_token"]
    assert type(model.get_layer("pooling")) is ClassTokenPooling
    output = array(model(SOURCE))
    assert np.abs(output[0] - output[1]).max() > 1e-6


def test_dropout_drops_inputs_of_the_head_only_in_training():
    head = keras.layers.Identity()
    model = kseq.many_to_one(
        SIZE, 101, RecurrentEncoder("rnn", 101), "mean", dropout=0.5, head=head
    )
    plain, dropped = array(model(SOURCE)), array(model(SOURCE, training=True))
    kept = dropped != 0
    assert 0.3 < kept.mean() < 0.7
    assert_close(dropped[kept], 2 * plain[kept])
    assert_close(model(SOURCE, training=False), plain)


@pytest.mark.parametrize("encoder", ["gru", keras_gru])
def test_a_class_token_needs_a_bidirectional_encoder(encoder):
    with pytest.raises(
        ValueError, match="bidirectional encoder.*: encoder=(encoder|gru),"
    ):
        kseq.many_to_one(SIZE, OUTPUTS, make_component(encoder), "class_token", WIDTH)


def test_rejects_an_encoder_that_returns_one_vector():
    encoder = keras.layers.LSTM(32, name="lstm_1")
    with pytest.raises(ValueError) as error:
        kseq.many_to_one(SIZE, OUTPUTS, encoder)
    assert "`encoder` must return one vector for each step" in str(error.value)
    assert "encoder=lstm_1, which returns (None, 32)" in str(error.value)
    assert "`return_sequences=True`" in str(error.value)


def test_rejects_an_encoder_that_returns_its_state():
    encoder = keras.layers.LSTM(7, return_sequences=True, return_state=True)
    with pytest.raises(ValueError, match=r"returns \[\(None, None, 7\), \(None, 7\),"):
        kseq.many_to_one(SIZE, OUTPUTS, encoder)


def test_rejects_a_pooling_that_keeps_the_steps():
    pooling = keras.layers.Dense(7, name="dense_1")
    message = r"pooling=dense_1, which returns \(None, None, 7\).*kseq\.many_to_many"
    with pytest.raises(ValueError, match=message):
        kseq.many_to_one(SIZE, OUTPUTS, pooling=pooling)


def test_rejects_a_head_with_another_number_of_outputs():
    head = keras.layers.Dense(7, name="dense_1")
    message = r"head=dense_1, which returns \(None, 7\), with num_outputs=3"
    with pytest.raises(ValueError, match=message):
        kseq.many_to_one(SIZE, OUTPUTS, head=head)


def test_rejects_an_embedding_without_symbolic_input():
    with pytest.raises(ValueError, match="`symbolic_input.*Received: <Embedding"):
        kseq.many_to_one(keras.layers.Embedding(SIZE, WIDTH), OUTPUTS)


@pytest.mark.parametrize(
    "components, message",
    [
        ({"source": None}, "An embedding must be a layer, or the .*: None"),
        ({"encoder": 7}, "An encoder must be a layer, or the .*: 7"),
        ({"encoder": "elman"}, "`encoder` must be one of .*encoder='elman'"),
        ({"pooling": None}, "A pooling must be a layer, or the .*: None"),
        ({"pooling": "sum"}, "`pooling` must be one of .*: pooling='sum'"),
        ({"head": "dense"}, "A head must be a layer, or None .*: 'dense'"),
        ({"num_outputs": 0}, "`num_outputs` must be .*: num_outputs=0"),
        ({"width": 0}, "`width` must be .*: width=0"),
        ({"dropout": 1.0}, "`dropout` must be .*: dropout=1.0"),
    ],
)
def test_rejects_invalid_arguments(components, message):
    with pytest.raises(ValueError, match=message):
        kseq.many_to_one(**{"source": SIZE, "num_outputs": OUTPUTS, **components})


def test_half_precision_returns_float32():
    def compute_output():
        model = kseq.many_to_one(SIZE, OUTPUTS, width=WIDTH)
        randomize(model)
        return model(SOURCE)

    with dtype_policy("mixed_bfloat16"):
        half = compute_output()
    assert keras.backend.standardize_dtype(half.dtype) == "float32"
    assert_close(half, compute_output(), atol=0.05, rtol=0.05)
    assert np.abs(array(half) - array(compute_output())).max() > 1e-5


# Learning ---------------------------------------------------------------------------


def token_order_data(rows, seed):
    """Return sequences with one 4 and one 5, and whether the 4 comes first.

    The reverse of each sequence is included. It has the same tokens and the other
    label, so a model that ignores the order is right half of the time.
    """
    random = np.random.default_rng(seed)
    sources = np.zeros((rows, 8), "int32")
    for source in sources:
        length = random.integers(2, 9)
        tokens = [4, 5, *random.integers(6, SIZE, length - 2)]
        source[:length] = random.permutation(tokens)
    reverses = sources[:, ::-1]
    sources = np.concatenate([sources, reverses])  # so padding is on both sides
    return sources, (sources == 4).argmax(axis=1) < (sources == 5).argmax(axis=1)


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(7)
    model = kseq.many_to_one(SIZE, 2, width=16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    before = model.evaluate(*token_order_data(128, seed=1), verbose=0)[0]
    model.fit(*token_order_data(512, seed=0), epochs=8, batch_size=64, verbose=0)
    return model, before


def test_a_small_model_learns_which_of_two_tokens_comes_first(trained):
    model, before = trained
    loss, accuracy = model.evaluate(*token_order_data(128, seed=1), verbose=0)
    assert before > 0.6
    assert loss < 0.05
    assert accuracy > 0.98


def test_attention_is_returned_as_the_docstring_shows(trained):
    model, _ = trained
    source = np.array([[7, 5, 6, 4, 0, 0], [0, 6, 4, 7, 5, 8]])
    encoder = keras.Model(model.input, model.get_layer("encoder").output)
    pooled, weights = model.get_layer("pooling")(
        encoder(source), return_attention_scores=True
    )
    weights = array(weights)
    assert_close(weights.sum(axis=1), np.ones(2))
    assert (weights[source == 0] == 0).all()
    assert_close(model.get_layer("head")(pooled), model(source))
    # The steps before the first 4 or 5 carry no information.
    assert weights[0, 0] < 0.1 and weights[1, 1] < 0.1
