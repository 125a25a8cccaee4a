"""Laws of CTC: masks, batches, the contract of layers, and errors.

Axes in shape comments: B batch, S steps, V labels with the blank.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import CTC
from tests.helpers import (
    array,
    assert_close,
    call,
    check_batch_equals_rows,
    check_layer,
    check_padding_changes_nothing,
    compiled,
    compiled_on_jax,
    gradient,
    length_mask,
    random_array,
    with_keras_mask,
)
from tests.layers.test_ctc import LABELS, MASK, B, S, U, case


def test_ctc_keeps_the_contract_of_layers():
    arguments = {
        "num_labels": 3,
        "kernel_initializer": lambda: keras.initializers.HeNormal(),
    }
    inputs = {
        "inputs": random_array(2, 5, U),
        "mask": length_mask(3, 0, size=5),
    }
    check_layer(CTC, arguments, inputs)


def test_logits_equal_a_dense_layer():
    ctc, inputs = CTC(3), random_array(2, 5, U)
    [found] = call(ctc, {"inputs": inputs})
    ctc.bias.assign([1.0, 2.0, 3.0])
    [found] = call(ctc, {"inputs": inputs})
    assert_close(found, inputs @ array(ctc.kernel) + [1.0, 2.0, 3.0])


def test_padding_changes_nothing():
    ctc, logits = case()

    def decode(logits, mask):
        loss = ctc.negative_log_likelihood(LABELS, logits, mask)
        best = ctc.best_path(logits, mask)[:, :3]
        state, constants = ctc.start(logits, mask, 2)
        first, state = ctc.step(np.zeros((B, 2), "int32"), state, constants)
        second, state = ctc.step(np.full((B, 2), 1, "int32"), state, constants)
        # The difference of infinite log-probabilities would be NaN.
        nexts = [ops.maximum(x, -1e9) for x in (first, second)]
        return [], [loss, ctc.log_likelihood(LABELS, logits, mask), best, *nexts]

    check_padding_changes_nothing(decode, logits, MASK)


def test_aligned_steps_count_padding():
    ctc, logits = case()
    steps, _ = map(array, ctc.align(LABELS, logits, MASK))
    padded = np.pad(logits, ((0, 0), (2, 1), (0, 0)))
    later, _ = ctc.align(LABELS, padded, np.pad(MASK, ((0, 0), (2, 1))))
    assert (array(later) == np.where(steps < 0, -1, steps + 2)).all()


def test_padding_of_labels_can_be_anywhere():
    ctc, logits = case()
    spread = np.zeros((B, 7), "int32")
    spread[:, 1::2] = LABELS
    for method in (ctc.negative_log_likelihood, ctc.log_likelihood):
        expected = method(LABELS, logits, MASK)
        assert_close(method(spread, logits, MASK), expected)
    assert_close(
        ctc.align(spread, logits, MASK)[0][:, :3], ctc.align(LABELS, logits, MASK)[0]
    )


def test_a_batch_equals_its_rows():
    ctc, logits = case()
    check_batch_equals_rows(
        compiled_on_jax(ctc.negative_log_likelihood), LABELS, logits, MASK
    )
    check_batch_equals_rows(compiled_on_jax(ctc.log_likelihood), LABELS, logits, MASK)
    check_batch_equals_rows(compiled_on_jax(ctc.align), LABELS, logits, MASK)
    check_batch_equals_rows(compiled_on_jax(ctc.best_path), logits, MASK)


def test_padding_has_no_gradient():
    ctc, logits = case()
    for garbage in (0.0, np.nan):
        given = np.where(MASK[..., None], logits, np.float32(garbage))
        slope = gradient(
            lambda x: ops.sum(ctc.negative_log_likelihood(LABELS, x, MASK)), given
        )
        assert np.isfinite(slope).all() and (slope[~MASK] == 0).all()
        assert (slope[MASK] != 0).any()


def test_the_mask_of_the_logits_is_used():
    ctc, logits = case()
    masked = with_keras_mask(logits, MASK)
    expected = ctc.negative_log_likelihood(LABELS, logits, MASK)
    assert_close(ctc.negative_log_likelihood(LABELS, masked), expected)
    assert_close(ctc.best_path(masked), ctc.best_path(logits, MASK))


def test_rows_without_steps_or_labels_are_valid():
    ctc = CTC(3)
    nothing, no_labels = np.zeros((2, 0, 3), "float32"), np.zeros((2, 0), "int32")
    for labels in (no_labels, np.zeros((2, 2), "int32")):
        assert array(ctc.negative_log_likelihood(labels, nothing)).tolist() == [0, 0]
        assert array(ctc.log_likelihood(labels, nothing)).tolist() == [0, 0]
    assert ctc.best_path(nothing).shape == (2, 0)
    assert ctc.align(no_labels, nothing)[0].shape == (2, 0)
    logits = random_array(2, S, 3)
    assert_close(
        ctc.negative_log_likelihood(no_labels, logits),
        -array(ctc.log_likelihood(np.zeros((2, 1), "int32"), logits)),
    )


# Errors -------------------------------------------------------------------------------


def test_rejects_a_wrong_number_of_labels():
    with pytest.raises(ValueError, match="`num_labels` must be .*num_labels=0"):
        CTC(0)


TOO_LONG = LABELS.copy()
TOO_LONG[1] = [2, 2, 2]  # in three steps


def test_error_names_the_steps_that_labels_need():
    ctc, logits = case()
    with pytest.raises(ValueError, match=r"labels\[1\], which need 5 steps and have 3"):
        ctc.negative_log_likelihood(TOO_LONG, logits, MASK)
    with pytest.raises(ValueError, match=r"labels\[0\], which need 4 steps and have 2"):
        ctc.negative_log_likelihood(LABELS[:1], logits[:1, :2])
    found = array(ctc.log_likelihood(TOO_LONG, logits, MASK))
    assert np.isneginf(found).tolist() == [False, True, *[False] * 4]


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch compiles nothing"
)
def test_labels_that_are_too_long_raise_or_give_nan_in_a_compiled_function():
    ctc, logits = case()
    loss = compiled(ctc.negative_log_likelihood)
    assert np.isfinite(array(loss(LABELS, logits, MASK))).all()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with pytest.raises(tf.errors.InvalidArgumentError, match="need one real step"):
            loss(TOO_LONG, logits, MASK)
        return
    found = array(loss(TOO_LONG, logits, MASK))
    assert np.isnan(found).tolist() == [False, True, *[False] * 4]


def test_error_names_invalid_labels():
    ctc, logits = case()
    for number in (-1, 3):
        wrong = LABELS.copy()
        wrong[2, 0] = number
        with pytest.raises(ValueError, match=f"from 1 to 2.*labels with {number}"):
            ctc.negative_log_likelihood(wrong, logits, MASK)
        if keras.backend.backend() == "jax":
            found = array(compiled(ctc.negative_log_likelihood)(wrong, logits, MASK))
            assert np.isnan(found).tolist() == [False, False, True, *[False] * 3]
    with pytest.raises(ValueError, match=r"`labels` must be integers.*\(6, 5, 3\)"):
        ctc.negative_log_likelihood(logits, logits)
    with pytest.raises(ValueError, match=r"`labels` must be integers.*\(6, T\)"):
        ctc.align(LABELS[:2], logits)


def test_rejects_logits_of_another_shape():
    ctc, logits = case()
    for wrong in (logits[..., :2], logits[0]):
        with pytest.raises(ValueError, match="`logits` must be the output"):
            ctc.best_path(wrong)
