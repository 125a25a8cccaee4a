"""Laws of the CRF: masks, precisions, gradients and errors.

Axes in shape comments: B batch, S steps, L labels.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import CRF
from tests.helpers import (
    array,
    assert_close,
    call,
    check_call_stores_nothing_on_the_layer,
    check_config_keeps_every_argument,
    check_every_sublayer_is_built,
    check_frozen_layers_stay_frozen,
    check_other_precisions,
    check_outputs_survive_saving,
    check_padding_changes_nothing,
    check_seeded_weights,
    compiled,
    compiled_on_jax,
    functional_model,
    gradient,
    gradient_of_gradient,
    length_mask,
    make_layer,
    random_array,
    randomize,
    with_keras_mask,
)
from tests.layers.test_crf import FEW, MANY, MASK, B, U, case, small_crf


@pytest.mark.parametrize("size", [FEW, MANY])
def test_padding_changes_nothing(size):
    crf, potentials, _ = case(size)
    numbers = np.arange(B, dtype="int32")[:, None] % size

    def decode(potentials, mask):
        labels = ops.ones(mask.shape, "int32") * ops.array(numbers)
        loss = crf.negative_log_likelihood(labels, potentials, mask)
        paths = crf.best_paths(potentials, 2, mask)[1]
        steps = [crf.marginals(potentials, mask), crf.best_scores(potentials, mask)]
        return steps, [loss, paths]

    check_padding_changes_nothing(decode, potentials, MASK)


def test_padding_has_no_gradient():
    crf, potentials, labels = case()
    for garbage in (0.0, np.nan):
        given = np.where(MASK[..., None], potentials, np.float32(garbage))
        slope = gradient(
            lambda x: ops.sum(crf.negative_log_likelihood(labels, x, MASK)), given
        )
        assert np.isfinite(slope).all() and (slope[~MASK] == 0).all()
        assert (slope[MASK] != 0).any()


def test_the_mask_of_the_potentials_is_used():
    crf, potentials, labels = case()
    masked = with_keras_mask(potentials, MASK)
    expected = crf.negative_log_likelihood(labels, potentials, MASK)
    assert_close(crf.negative_log_likelihood(labels, masked), expected)
    assert_close(crf.marginals(masked), crf.marginals(potentials, MASK))


@pytest.mark.parametrize("size", [FEW, MANY])
def test_a_row_without_steps_has_zero_loss(size):
    crf = small_crf(size)
    nothing, labels = np.zeros((2, 0, size), "float32"), np.zeros((2, 0), "int32")
    assert array(crf.negative_log_likelihood(labels, nothing)).tolist() == [0, 0]
    assert (
        crf.marginals(nothing).shape == crf.best_scores(nothing).shape == (2, 0, size)
    )


INPUTS = random_array(2, 5, U)
INPUTS_AND_MASK = {"inputs": INPUTS, "mask": length_mask(3, 0, size=5)}
ARGUMENTS = {
    "num_labels": 3,
    "labels": ["O", "B-a", "I-a"],
    "allowed": [[True, True, False], [True, True, True], [True, False, True]],
    "allowed_first": [True, True, False],
    "allowed_last": [True, False, True],
    "kernel_initializer": lambda: keras.initializers.HeNormal(),
}


def test_the_crf_keeps_the_contract_of_layers():
    """A call does not use the weights of transitions, so `check_layer` would fail."""
    check_config_keeps_every_argument(CRF, ARGUMENTS)
    check_seeded_weights(CRF, ARGUMENTS, INPUTS_AND_MASK)
    check_frozen_layers_stay_frozen(CRF, ARGUMENTS, INPUTS_AND_MASK)
    layer = make_layer(CRF, ARGUMENTS)
    model = functional_model(layer, INPUTS_AND_MASK)
    check_every_sublayer_is_built(layer)
    randomize(layer)
    expected = check_call_stores_nothing_on_the_layer(layer, INPUTS_AND_MASK)
    check_outputs_survive_saving(model, INPUTS_AND_MASK, expected)
    check_other_precisions(layer, ARGUMENTS, INPUTS_AND_MASK, None, expected)


def test_potentials_equal_a_dense_layer():
    crf = small_crf()
    [found] = call(crf, {"inputs": INPUTS})
    assert_close(found, INPUTS @ array(crf.kernel) + array(crf.bias))


def test_rejects_a_second_gradient():
    crf, potentials, labels = case()
    # On PyTorch Keras' `custom_gradient` fails before it asks for the second one.
    on_torch = keras.backend.backend() == "torch"
    error = (TypeError, "backward") if on_torch else (NotImplementedError, "one grad")
    with pytest.raises(error[0], match=error[1]):
        gradient_of_gradient(
            lambda x: ops.sum(crf.negative_log_likelihood(labels, x) ** 2), potentials
        )


@pytest.mark.parametrize("method", ["marginals", "best_scores"])
def test_rejects_gradients_of_decoded_values(method):
    crf, potentials, _ = case()
    with pytest.raises(NotImplementedError, match="one gradient"):
        gradient(lambda x: ops.sum(getattr(crf, method)(x)), potentials)


# Errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "`num_labels` must be .*num_labels=None"),
        ({"num_labels": 0}, "`num_labels` must be .*num_labels=0"),
        ({"num_labels": 3, "labels": ["a", "b"]}, "num_labels=3 and 2 labels"),
        ({"labels": "abc"}, "`labels` must be a list of strings.*'abc'"),
        ({"labels": []}, "`labels` must be a list of strings"),
        ({"labels": ["a", "a"]}, "`labels` must be unique"),
        ({"num_labels": 2, "allowed": [[1, 1]]}, r"`allowed` .*\(2, 2\).*\(1, 2\)"),
        ({"num_labels": 2, "allowed": [[1, 1], [1]]}, r"`allowed` must .*\(2, 2\)"),
        (
            {"num_labels": 2, "allowed": [[0, -1e9], [0, 0]]},
            "`allowed` must be boolean",
        ),
        (
            {"num_labels": 2, "allowed_last": [0, 0]},
            "every length.* no path of 1 labels",
        ),
        ({"num_labels": 2, "allowed": [[0, 1], [0, 0]]}, "no path of 3 labels"),
    ],
)
def test_error_names_the_wrong_option(options, message):
    with pytest.raises(ValueError, match=message):
        CRF(**options)


def test_invalid_labels_raise_or_give_a_nan_loss():
    crf, potentials, labels = case()
    wrong = np.where(MASK, labels, 99)  # masked, so ignored
    expected = crf.negative_log_likelihood(labels, potentials, MASK)
    loss = compiled_on_jax(crf.negative_log_likelihood)
    assert_close(loss(wrong, potentials, MASK), expected)
    for number in (-1, FEW):
        wrong[1, 0] = number
        with pytest.raises(ValueError, match=f"from 0 to 2 .*labels with {number}"):
            crf.negative_log_likelihood(wrong, potentials, MASK)
        if keras.backend.backend() != "torch":
            losses = array(
                compiled(crf.negative_log_likelihood)(wrong, potentials, MASK)
            )
            assert np.isnan(losses).tolist() == [False, True, False, False, False]
    with pytest.raises(ValueError, match=r"`labels` must be an integer.*\(5, 4, 3\)"):
        crf.negative_log_likelihood(potentials, potentials)


def test_rejects_potentials_that_do_not_fit():
    crf, potentials, _ = case()
    for wrong in (potentials[..., :2], potentials[0]):
        with pytest.raises(ValueError, match="`potentials` must be the output"):
            crf.marginals(wrong)
    with pytest.raises(ValueError, match="before the layer was called"):
        CRF(FEW).marginals(potentials)
    with pytest.raises(ValueError, match="`num_paths` must be"):
        crf.best_paths(potentials, 0)
