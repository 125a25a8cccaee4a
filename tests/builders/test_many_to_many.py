"""Many-to-many: encoders, saved files, masks and learning."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import RecurrentEncoder, TokenEmbedding
from tests.helpers import array, assert_close, compiled_on_jax, dtype_policy, randomize

SIZE, OUTPUTS, WIDTH = 11, 3, 5
SOURCE = np.array([[4, 5, 6, 7], [8, 2, 0, 0], [9, 1, 10, 0]])
REAL = SOURCE != 0
LABELS = np.array([[2, 0, 1, 1], [1, 2, 0, 0], [0, 2, 2, 0]])


def bidirectional():
    return RecurrentEncoder("gru", 2, num_layers=2, bidirectional=True)


def keras_gru():
    return keras.layers.GRU(7, return_sequences=True)


ENCODERS = ["rnn", "lstm", "gru", bidirectional, keras_gru]


def component_name(component):
    return component if isinstance(component, str) else component.__name__


def make_component(component):
    return component if isinstance(component, str) else component()


@pytest.fixture(params=ENCODERS, ids=component_name)
def model(request):
    model = kseq.many_to_many(
        SIZE, OUTPUTS, make_component(request.param), WIDTH, dropout=0.2
    )
    randomize(model)
    return model


def compile_model(model, **options):
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=keras.backend.backend() == "tensorflow",  # tracing takes longer
        jit_compile=False if keras.backend.backend() == "torch" else "auto",
        **options,
    )


def test_one_training_step_changes_every_weight_and_survives_saving(model, tmp_path):
    before = [array(weight) for weight in model.trainable_weights]
    compile_model(model)
    model.fit(SOURCE, LABELS, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(array(weight)).all(), weight.path
        assert (array(weight) != old).any(), f"no gradient reaches {weight.path}"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert_close(loaded(SOURCE), model(SOURCE))


def test_padding_does_not_change_the_outputs(model):
    apply = compiled_on_jax(model)
    expected = array(apply(SOURCE))
    assert expected.shape == (*SOURCE.shape, OUTPUTS)
    for left, right in ((0, 3), (2, 1)):
        padded = array(apply(np.pad(SOURCE, ((0, 0), (left, right)))))
        assert_close(padded[:, left : left + 4][REAL], expected[REAL])


def test_the_mask_reaches_the_outputs():
    model = kseq.many_to_many(SIZE, OUTPUTS, "rnn", WIDTH, dropout=0.2)
    assert array(model(SOURCE)._keras_mask).tolist() == REAL.tolist()


def test_loss_and_metrics_count_only_real_steps():
    model = kseq.many_to_many(SIZE, OUTPUTS, "rnn", WIDTH)
    randomize(model)
    logits = array(model(SOURCE))[REAL]  # N V
    labels = LABELS[REAL]  # N
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    accuracy = (logits.argmax(axis=-1) == labels).mean()

    compile_model(model, weighted_metrics=["accuracy"])
    for padding in (0, 1, 2):  # on the left, with labels that would be wrong
        widths = ((0, 0), (padding, 0))
        source = np.pad(SOURCE, widths)
        masked = np.where(REAL, LABELS, padding)
        labels = np.pad(masked, widths, constant_values=padding)
        evaluated = model.evaluate(source, labels, verbose=0)
        assert_close(np.array(evaluated), np.array([loss, accuracy]))


# Components -------------------------------------------------------------------------


def shapes(model):
    return [tuple(weight.shape) for weight in model.weights]


def test_names_and_sizes_build_layers():
    short = kseq.many_to_many(np.int64(SIZE), OUTPUTS, "lstm", WIDTH)
    long = kseq.many_to_many(
        source=TokenEmbedding(SIZE, WIDTH),
        num_outputs=OUTPUTS,
        encoder=RecurrentEncoder("lstm", WIDTH),
        head=keras.layers.Dense(OUTPUTS),
    )
    assert shapes(short) == shapes(long)
    assert short.output_shape == long.output_shape == (None, None, OUTPUTS)


def test_layers_have_fixed_names():
    model = kseq.many_to_many(SIZE, OUTPUTS, width=WIDTH, name="tagger")
    names = ["source", "embedding", "encoder", "dropout", "head"]
    assert [layer.name for layer in model.layers] == names
    assert model.name == "tagger"
    assert model.get_layer("encoder").cell == "gru"


def test_dropout_drops_the_same_features_at_every_step_and_only_in_training():
    head = keras.layers.Identity()
    model = kseq.many_to_many(
        SIZE, 101, RecurrentEncoder("rnn", 101), dropout=0.5, head=head
    )
    plain, dropped = array(model(SOURCE)), array(model(SOURCE, training=True))
    kept = (dropped != 0)[0]
    assert (kept == kept[0]).all()
    assert 0.3 < kept.mean() < 0.7
    assert_close(dropped[0][kept], 2 * plain[0][kept])
    assert_close(model(SOURCE, training=False), plain)


def test_rejects_an_encoder_that_returns_one_vector():
    encoder = keras.layers.LSTM(32, name="lstm_1")
    message = r"encoder=lstm_1, which returns \(None, 32\)"
    with pytest.raises(ValueError, match=message):
        kseq.many_to_many(SIZE, OUTPUTS, encoder)


def test_rejects_a_head_with_another_number_of_outputs():
    head = keras.layers.Dense(7, name="dense_1")
    message = r"head=dense_1, which returns \(None, None, 7\), with num_outputs=3"
    with pytest.raises(ValueError, match=message):
        kseq.many_to_many(SIZE, OUTPUTS, head=head)


@pytest.mark.parametrize(
    "components, message",
    [
        ({"source": True}, "An embedding must be a layer, or the .*: True"),
        ({"encoder": None}, "An encoder must be a layer, or the .*: None"),
        ({"encoder": "elman"}, "`encoder` must be one of .*encoder='elman'"),
        ({"head": 3}, "A head must be a layer, or None .*: 3"),
        ({"num_outputs": 2.5}, "`num_outputs` must be .*: num_outputs=2.5"),
        ({"width": -1}, "`width` must be .*: width=-1"),
        ({"dropout": -0.1}, "`dropout` must be .*: dropout=-0.1"),
    ],
)
def test_rejects_invalid_arguments(components, message):
    with pytest.raises(ValueError, match=message):
        kseq.many_to_many(**{"source": SIZE, "num_outputs": OUTPUTS, **components})


def test_half_precision_returns_float32_and_keeps_the_mask():
    with dtype_policy("mixed_float16"):
        outputs = kseq.many_to_many(SIZE, OUTPUTS, "rnn", WIDTH)(SOURCE)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert np.isfinite(array(outputs)).all()
    assert array(outputs._keras_mask).tolist() == REAL.tolist()


# Learning ---------------------------------------------------------------------------


def differences(rows, seed):
    """Return sequences and, for each step, whether its token exceeds the previous."""
    random = np.random.default_rng(seed)
    sources = random.integers(1, SIZE, (rows, 8), dtype="int32")
    sources *= np.arange(8) < random.integers(1, 9, (rows, 1))
    labels = np.diff(sources, axis=1, prepend=0) > 0
    return sources, labels.astype("int32")


def test_a_small_model_learns_to_compare_each_token_with_the_previous_one():
    model = kseq.many_to_many(SIZE, 2, width=16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, weighted_metrics=["accuracy"])
    before, _ = model.evaluate(*differences(128, seed=1), verbose=0)
    model.fit(*differences(1024, seed=0), epochs=10, batch_size=64, verbose=0)
    loss, accuracy = model.evaluate(*differences(128, seed=1), verbose=0)
    assert before > 0.6
    assert loss < 0.05
    assert accuracy > 0.98
