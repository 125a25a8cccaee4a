"""The pointer-generator, compared with the equations of the paper in loops.

Axes in shape comments: B batch, T target steps, S source steps, D features, U units,
V vocabulary.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import PointerGenerator, backends
from kseq.training import SequenceCrossentropy
from tests.helpers import (
    array,
    assert_close,
    check_layer,
    gradient,
    length_mask,
    random_array,
    randomize,
    sigmoid,
    with_keras_mask,
)

B, T, S, D, U, V = 3, 2, 5, 4, 6, 7
ALIGNMENT = [0, 1, 2, 3, 6, 1, -1, 5, 4, 1, 1]  # of 11 ids of a source
TOKEN_IDS = np.array([[4, 6, 4, 5, 8], [7, 1, 0, 0, 0], [5, 4, 0, 0, 0]], "int32")
MEMORY_MASK = length_mask(5, 2, 0, size=S)


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def call_arguments(mask=None):
    """Return call arguments by name; masked steps get no attention."""
    scores = random_array(B, T, S, seed=5)
    scores = scores if mask is None else np.where(mask[:, None], scores, -1e9)
    weights = softmax(scores) * (True if mask is None else mask[:, None])
    return {
        "logits": 2 * random_array(B, T, V),
        "outputs": random_array(B, T, U),
        "inputs": random_array(B, T, D),
        "memory": random_array(B, S, D, seed=1),
        "token_ids": TOKEN_IDS % V,
        "weights": weights.astype("float32"),
    }


def random_layer(arguments, **options):
    layer = PointerGenerator(**options)
    layer(**arguments)
    randomize(layer)
    return layer


def by_formula(layer, logits, outputs, inputs, memory, token_ids, weights):
    """Compute equations 8 and 9 of See et al., 2017, in loops: `(B, T, V)`."""
    kernels = {weight.name: array(weight) for weight in layer.weights}
    probabilities = np.zeros(logits.shape)
    for b, t in np.ndindex(*logits.shape[:2]):
        context = sum(weights[b, t, i] * memory[b, i] for i in range(memory.shape[1]))
        p_gen = sigmoid(
            context @ kernels["context_kernel"]
            + outputs[b, t] @ kernels["output_kernel"]
            + inputs[b, t] @ kernels["input_kernel"]
            + kernels["bias"]
        )[0]
        probabilities[b, t] = p_gen * softmax(logits[b, t].astype("float64"))
        for i, token_id in enumerate(token_ids[b]):
            word = token_id if layer.alignment is None else layer.alignment[token_id]
            if word >= 0:
                probabilities[b, t, word] += (1 - p_gen) * weights[b, t, i]
    return probabilities


def test_the_layer_keeps_the_contract_of_layers():
    arguments = call_arguments() | {"token_ids": TOKEN_IDS}
    masks = {"memory_mask": MEMORY_MASK, "inputs_mask": length_mask(2, 1, 0, size=T)}
    options = {
        "alignment": ALIGNMENT,
        "coverage": 0.5,
        "kernel_initializer": keras.initializers.HeNormal(),
    }
    check_layer(PointerGenerator, options, arguments | masks)


@pytest.mark.parametrize("alignment", [None, ALIGNMENT])
def test_probabilities_equal_the_formula_of_the_paper(alignment):
    arguments = call_arguments()
    if alignment is not None:
        arguments["token_ids"] = TOKEN_IDS
    layer = random_layer(arguments, alignment=alignment)
    expected = by_formula(layer, **arguments)
    assert_close(np.exp(array(layer(**arguments))), expected)
    if alignment is None:
        assert_close(expected.sum(axis=-1), np.ones((B, T)))


def test_a_transformer_copies_by_the_mean_head_of_its_last_layer():
    arguments = call_arguments()
    layer = random_layer(arguments)
    weights = softmax(3 * random_array(B, 3, 2, T, S))  # B layers H T S
    arguments["weights"] = weights[:, -1].mean(axis=1)
    expected = by_formula(layer, **arguments)
    arguments["weights"] = weights.astype("float32")
    assert_close(np.exp(array(layer(**arguments))), expected)


def test_padding_is_never_copied_whatever_its_values():
    arguments = call_arguments(MEMORY_MASK)
    layer = random_layer(arguments)
    expected = layer(**arguments, memory_mask=MEMORY_MASK)
    probabilities = np.exp(array(expected))
    assert_close(probabilities, by_formula(layer, **arguments))
    p_gen = probabilities[2].sum(axis=-1, keepdims=True)  # nothing can be copied
    assert_close(probabilities[2] / p_gen, softmax(arguments["logits"][2]))
    garbage = dict(arguments)
    hidden = ~MEMORY_MASK
    garbage["memory"] = np.where(hidden[..., None], np.nan, arguments["memory"])
    garbage["token_ids"] = np.where(hidden, 3, arguments["token_ids"])
    garbage["weights"] = arguments["weights"] + 0.1 * hidden[:, None]
    garbage = {k: v.astype(arguments[k].dtype) for k, v in garbage.items()}
    copied = array(layer(**garbage, memory_mask=MEMORY_MASK))
    assert_close(copied, expected)


def test_outputs_have_the_mask_of_the_logits():
    arguments, mask = call_arguments(), length_mask(2, 1, 0, size=T)
    arguments["logits"] = with_keras_mask(arguments["logits"], mask)
    assert (
        array(random_layer(call_arguments())(**arguments)._keras_mask) == mask
    ).all()


# Numerics ---------------------------------------------------------------------------


def naive(layer, logits, arguments):
    """Compute the formula in float32 operations of Keras."""
    arguments = {k: ops.convert_to_tensor(x) for k, x in arguments.items()}
    constants = layer.start(arguments["memory"], arguments["token_ids"])
    read = ops.sum(arguments["weights"] * constants["read"][:, None], axis=-1)
    gate = layer.bias + read[..., None]
    for name in ("output", "input"):
        kernel = getattr(layer, f"{name}_kernel")[:, 0]
        gate = gate + ops.sum(arguments[f"{name}s"] * kernel, axis=-1, keepdims=True)
    words = ops.one_hot(arguments["token_ids"], V)
    copied = ops.einsum("bts,bsv->btv", arguments["weights"], words)
    p_gen = ops.sigmoid(gate)
    return ops.log(p_gen * ops.softmax(logits) + (1 - p_gen) * copied)


def test_gradients_equal_those_of_the_formula():
    arguments = call_arguments()
    layer = random_layer(arguments)

    def total(log_probs):
        return ops.sum(ops.sin(3 * log_probs))

    for name in ("logits", "weights", "memory", "outputs"):

        def exact(x, name=name):
            return total(layer(**{**arguments, name: x}))

        def simple(x, name=name):
            changed = {**arguments, name: x}
            return total(naive(layer, changed["logits"], changed))

        expected = gradient(simple, arguments[name])
        assert (expected != 0).any()
        assert_close(gradient(exact, arguments[name]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0, 1e4])
def test_values_and_gradients_are_finite_at_every_scale(scale):
    arguments = call_arguments()
    arguments["weights"] = softmax(scale * random_array(B, T, S)).astype("float32")
    arguments["logits"] *= scale
    layer = random_layer(arguments)
    for bias in (-scale, scale):
        layer.bias.assign([bias])
        assert np.isfinite(array(layer(**arguments))).all()
        for name in ("logits", "weights"):

            def loss(x, name=name):
                log_probs = layer(**{**arguments, name: x})
                return SequenceCrossentropy(0.1)(np.array([[1, 2]] * B), log_probs)

            assert np.isfinite(gradient(loss, arguments[name])).all()


def test_losses_accept_the_log_probabilities_as_logits():
    arguments, labels = call_arguments(), np.array([[4, 2], [1, 0], [5, 6]])
    layer = random_layer(arguments)
    probabilities = by_formula(layer, **arguments)
    costs = [
        0.9 * -np.log(probabilities[b, t, labels[b, t]])
        + 0.1 * -np.log(probabilities[b, t]).mean()
        for b, t in zip(*np.nonzero(labels), strict=True)
    ]
    loss = SequenceCrossentropy(label_smoothing=0.1)(labels, layer(**arguments))
    assert_close(loss, np.mean(costs))


def test_sum_by_id_is_the_same_in_portable_exports():
    weights, token_ids = random_array(B, T, S), TOKEN_IDS % V - 1
    expected = np.zeros((B, T, V))
    for b, t, i in np.ndindex(B, T, S):
        if token_ids[b, i] >= 0:
            expected[b, t, token_ids[b, i]] += weights[b, t, i]
    weights, token_ids = map(ops.convert_to_tensor, (weights, token_ids))
    assert_close(backends.sum_by_id(weights, token_ids, V), expected)
    with backends.portable():
        assert_close(backends.sum_by_id(weights, token_ids, V), expected)


# Coverage ---------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0]])])
def test_coverage_loss_equals_the_formula_of_the_paper(mask):
    arguments, steps = call_arguments(), 3
    weights = softmax(random_array(B, steps, S))
    for name in ("logits", "outputs", "inputs"):
        arguments[name] = np.repeat(arguments[name][:, :1], steps, axis=1)
    arguments["weights"] = weights.astype("float32")
    masks = {} if mask is None else {"inputs_mask": mask.astype(bool)}
    layer = random_layer(arguments, coverage=0.7)
    losses = []
    for b in range(B):
        coverage = np.zeros(S)  # equation 10
        for t in range(steps):
            if mask is None or mask[b, t]:
                losses.append(np.minimum(weights[b, t], coverage).sum())  # 12
                coverage = coverage + weights[b, t]
    layer(**arguments, **masks, training=True)
    [loss] = layer.losses
    assert_close(loss, 0.7 * np.mean(losses))


def test_coverage_loss_needs_training_and_a_weight():
    arguments = call_arguments()
    for options in ({"coverage": 0.5}, {"training": True}):
        training = options.pop("training", False)
        layer = random_layer(arguments, **options)
        layer(**arguments, training=training)
        assert not layer.losses


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", [[0, 1.5], [0, -2], [], "all", [True], 7, [[0]]])
def test_rejects_an_alignment_that_is_not_ids(alignment):
    with pytest.raises(ValueError, match="`alignment` must be integers.* Received"):
        PointerGenerator(alignment)


def test_an_alignment_may_be_an_array():
    layer = PointerGenerator(np.array(ALIGNMENT))
    assert layer.get_config()["alignment"] == ALIGNMENT


@pytest.mark.parametrize("coverage", [-1, "much", float("nan")])
def test_rejects_a_coverage_that_is_not_a_weight(coverage):
    with pytest.raises(ValueError, match="`coverage` must be a .*number. Received"):
        PointerGenerator(coverage=coverage)


@pytest.mark.parametrize("name", ["memory", "token_ids", "weights"])
def test_rejects_different_numbers_of_steps(name):
    arguments = call_arguments()
    last = (..., slice(1, None))
    cut = last if name != "memory" else (slice(None), slice(1, None))
    arguments[name] = arguments[name][cut]
    with pytest.raises(ValueError, match="for each source token.* Received"):
        PointerGenerator()(**arguments)
