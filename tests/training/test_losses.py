import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import cross_entropy
from kseq.training import ExactMatch, SequenceCrossentropy, TokenAccuracy
from tests.helpers import gradient

B, T, V = 3, 5, 7


@pytest.fixture(autouse=True)
def small_vocabularies_are_compiled_too(monkeypatch):
    monkeypatch.setattr(cross_entropy, "SMALLEST_VOCABULARY", 1)


@pytest.fixture
def random():
    return np.random.default_rng(2)


@pytest.fixture
def logits(random):
    return random.normal(size=(B, T, V)).astype("float32") * 3


@pytest.fixture
def y_true(random):
    token_ids = random.integers(1, V, size=(B, T))
    token_ids[0, 3:] = 0
    token_ids[1, 1:] = 0
    return token_ids


def loop_loss(y_true, logits, label_smoothing=0.0, weights=None):
    """Return the cross-entropy with explicit smoothed one-hot targets."""
    total = count = 0.0
    for b in range(len(y_true)):
        for t in range(len(y_true[b])):
            if y_true[b, t] == 0:
                continue
            probabilities = np.exp(logits[b, t].astype("float64"))
            probabilities /= probabilities.sum()
            targets = np.full(V, label_smoothing / V)
            targets[y_true[b, t]] += 1 - label_smoothing
            weight = 1.0 if weights is None else weights[b, t]
            total -= weight * (targets * np.log(probabilities)).sum()
            count += weight
    return total / count


class Masked(keras.layers.Layer):
    """A layer that returns its inputs with a mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = ops.convert_to_tensor(mask)

    def call(self, inputs):
        return inputs + 0

    def compute_mask(self, inputs, previous_mask):
        return self.mask


def with_mask(logits, mask):
    """Return logits with a mask, as the layers of a model return them."""
    return Masked(mask)(logits)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.37])
def test_the_loss_is_the_mean_over_real_tokens(y_true, logits, label_smoothing):
    loss = SequenceCrossentropy(label_smoothing)(y_true, logits)
    expected = loop_loss(y_true, logits, label_smoothing)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)


def test_keras_mask_of_the_padding_does_not_change_the_loss(y_true, logits):
    loss = SequenceCrossentropy(0.1)
    plain = float(loss(y_true, logits))
    masked = float(loss(y_true, with_mask(logits, y_true != 0)))
    np.testing.assert_allclose(masked, plain, rtol=1e-6)


def test_keras_mask_can_exclude_more_tokens(y_true, logits):
    mask = np.ones((B, T), bool)
    mask[2, 1] = mask[0, 0] = False
    loss = SequenceCrossentropy(0.1)(y_true, with_mask(logits, mask))
    expected = loop_loss(y_true, logits, 0.1, weights=mask.astype(float))
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(B,), (B, 1), (B, T)])
def test_sample_weights_apply_to_sequences_or_tokens(
    random, y_true, logits, shape, masked
):
    sample_weight = random.uniform(0.5, 2.0, size=shape)
    weights = np.broadcast_to(sample_weight.reshape((B, -1)), (B, T))
    y_pred = with_mask(logits, y_true != 0) if masked else logits
    loss = SequenceCrossentropy(0.1)(y_true, y_pred, sample_weight)
    expected = loop_loss(y_true, logits, 0.1, weights)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)


def test_loss_of_a_batch_of_padding_is_zero(logits):
    assert float(SequenceCrossentropy(0.1)(np.zeros((B, T), int), logits)) == 0


def test_logits_at_padding_do_not_change_the_loss(y_true, logits):
    loss = SequenceCrossentropy(0.1)
    changed = np.where((y_true == 0)[..., None], 1e4, logits)
    np.testing.assert_allclose(
        float(loss(y_true, changed)), float(loss(y_true, logits)), rtol=1e-6
    )


def test_nan_at_padding_reaches_neither_the_loss_nor_its_gradient(y_true, logits):
    """Also at tokens that only a Keras mask excludes."""
    mask = np.ones((B, T), "bool")
    mask[2, 3:] = False
    counts = mask & (y_true != 0)

    def cost(logits):
        weights = np.where(counts, 1.5, np.nan)
        return SequenceCrossentropy(0.1)(y_true, with_mask(logits, mask), weights)

    changed = np.where(counts[..., None], logits, np.nan).astype("float32")
    np.testing.assert_allclose(
        float(cost(changed)), loop_loss(y_true * mask, logits, 0.1), rtol=1e-6
    )
    slope = gradient(cost, changed)
    assert (slope[counts] != 0).any() and (slope[~counts] == 0).all()


@pytest.mark.parametrize("pad_token_id", [-100, 2, 1000])
def test_any_id_can_mark_padding(y_true, logits, pad_token_id):
    y_true[y_true == 2] = 3
    moved = np.where(y_true == 0, pad_token_id, y_true)
    loss = SequenceCrossentropy(0.1, pad_token_id=pad_token_id)(moved, logits)
    expected = loop_loss(y_true, logits, 0.1)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)


def test_words_of_probability_zero_do_not_change_the_loss_without_smoothing(
    y_true, logits
):
    y_true[y_true == 2] = 3
    logits[..., 2] = -np.inf
    loss = SequenceCrossentropy()(y_true, logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.delete(logits, 2, axis=-1)
    log_normalizer = np.log(np.exp(kept).sum(-1))
    true_logits = np.take_along_axis(logits, y_true[..., None], -1)[..., 0]
    expected = (log_normalizer - true_logits)[y_true != 0].mean()
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", [None, "float16", "mixed_bfloat16"])
def test_loss_of_half_precision_logits_is_computed_in_float32(
    y_true, logits, precision, dtype
):
    half = ops.cast(logits, precision)
    rounded = ops.convert_to_numpy(ops.cast(half, "float32"))
    loss = SequenceCrossentropy(0.1, dtype=dtype)(y_true, half)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    np.testing.assert_allclose(float(loss), loop_loss(y_true, rounded, 0.1), rtol=1e-6)


def test_half_precision_loss_does_not_round_large_ids(random):
    y_true = np.array([[4999, 3001]])
    logits = random.normal(size=(1, 2, 5003)).astype("float32")
    half, single = (SequenceCrossentropy(dtype=d) for d in ("float16", "float32"))
    assert float(half(y_true, logits)) == float(single(y_true, logits))


def test_loss_of_logits_beyond_the_range_of_exp_is_finite(y_true):
    logits = np.zeros((B, T, V), "float32")
    logits[..., 1] = 5000.0
    assert np.isfinite(float(SequenceCrossentropy(0.1)(y_true, logits)))


def test_the_config_survives_a_round_trip():
    loss = SequenceCrossentropy(0.1, pad_token_id=3, name="tokens", dtype="float64")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is SequenceCrossentropy
    assert restored.get_config() == loss.get_config()
    assert (restored.label_smoothing, restored.pad_token_id) == (0.1, 3)
    assert (restored.name, restored.dtype) == ("tokens", "float64")


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, "a", None, float("nan")])
def test_rejects_label_smoothing_outside_its_range(label_smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing={label_smoothing!r}"):
        SequenceCrossentropy(label_smoothing)


@pytest.mark.parametrize("pad_token_id", [False, 0.5, "<pad>"])
def test_rejects_a_pad_token_id_that_is_not_an_integer(pad_token_id):
    with pytest.raises(ValueError, match=f"pad_token_id={pad_token_id!r}"):
        SequenceCrossentropy(pad_token_id=pad_token_id)


def test_rejects_token_ids_instead_of_logits(y_true):
    with pytest.raises(ValueError, match=r"y_pred of shape \(3, 5\)"):
        SequenceCrossentropy()(y_true, y_true)


def test_evaluate_reports_the_token_mean_with_and_without_a_keras_mask(y_true, random):
    table = random.normal(size=(V, V)).astype("float32")
    losses = []
    for mask_zero in (True, False):
        embedding = keras.layers.Embedding(V, V, mask_zero=mask_zero, weights=[table])
        model = keras.Sequential([keras.Input((None,), dtype="int32"), embedding])
        model.compile("sgd", loss=SequenceCrossentropy(0.1))
        losses.append(model.evaluate(y_true, y_true, verbose=0))
    np.testing.assert_allclose(losses, loop_loss(y_true, table[y_true], 0.1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 2, 5), (3, 1, 5), (3, 4, 5)])
def test_rejects_logits_with_other_numbers_of_rows_or_steps(shape):
    y_true, logits = np.ones((3, 2), "int32"), np.zeros(shape, "float32")
    for measure in (SequenceCrossentropy(), TokenAccuracy(), ExactMatch()):
        with pytest.raises(ValueError, match=r"of shape \(3, 2\), y_pred of shape"):
            measure(y_true, logits)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0, float(V), 1.5])
def test_invalid_label_raises_or_makes_the_loss_nan(wrong, logits, y_true):
    labels = y_true.astype("float32")
    expected = SequenceCrossentropy()(y_true, logits)
    assert float(SequenceCrossentropy()(labels, logits)) == pytest.approx(
        float(expected)
    )
    labels[2, 2] = wrong
    with pytest.raises(ValueError, match=f"Received: y_true with {wrong}"):
        SequenceCrossentropy()(labels, logits)
    inputs = keras.Input((T, V))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(loss=SequenceCrossentropy(), jit_compile=False)
    try:
        loss = model.evaluate(logits, labels, verbose=0)
    except Exception as error:
        assert "y_true with" in str(error)
    else:
        assert np.isnan(loss)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "int64"])
@pytest.mark.parametrize("mask", [np.ones((1, 4), "bool"), np.arange(4)[None] < 3])
def test_labels_of_all_integer_types_give_the_same_loss(dtype, mask, random):
    """In an unsigned type -1 would be 255, which is a label here and not padding."""
    y_true = np.array([[255, 254, 3, 0]])
    logits = random.normal(size=(1, 4, 300)).astype("float32")
    loss = SequenceCrossentropy(pad_token_id=-1)
    measured = float(loss(y_true.astype(dtype), with_mask(logits, mask)))
    surprise = -np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(surprise, y_true[..., None], -1)[..., 0][mask].mean()
    np.testing.assert_allclose(measured, expected, rtol=1e-5)
