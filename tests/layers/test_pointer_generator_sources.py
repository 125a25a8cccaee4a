"""The pointer-generator over the joined memory of several sources.

Axes in shape comments: B batch, T target steps, S source steps, D features, U units,
V vocabulary.
"""

import json

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import PointerGenerator
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_layer,
    gradient,
    length_mask,
    random_array,
    randomize,
    sigmoid,
)
from tests.layers.test_pointer_generator import softmax

B, T, D, U, V = 3, 2, 4, 6, 7
LEMMA, NUMBERS, WORD = 5, 2, 3  # steps
S = LEMMA + NUMBERS + WORD
WORD_IDS = [0, 1, 2, 3, 6, 1, -1, 5, 4]  # of 9 ids of a source, to 7
ALIGNMENT = {"lemma": True, "numbers": False, "word": WORD_IDS}
TOKEN_IDS = {
    "lemma": np.array([[4, 6, 4, 5, 2], [3, 1, 0, 0, 0], [0, 0, 0, 0, 0]], "int32"),
    "numbers": random_array(B, NUMBERS, 3),
    "word": np.array([[8, 6, 4], [7, 0, 0], [0, 0, 0]], "int32"),
}
MEMORY_MASK = np.concatenate(
    [
        length_mask(5, 2, 0, size=LEMMA),
        length_mask(2, 1, 2, size=NUMBERS),
        length_mask(3, 1, 0, size=WORD),
    ],
    axis=1,
)  # the last row has nothing to copy


def call_arguments(mask=MEMORY_MASK):
    """Return call arguments by name; masked steps get no attention."""
    scores = np.where(mask[:, None], random_array(B, T, S, seed=5), -1e9)
    return {
        "logits": 2 * random_array(B, T, V),
        "outputs": random_array(B, T, U),
        "inputs": random_array(B, T, D),
        "memory": random_array(B, S, D, seed=1),
        "token_ids": TOKEN_IDS,
        "weights": softmax(scores).astype("float32"),
    }


def random_layer(arguments, **options):
    layer = PointerGenerator(**{"alignment": ALIGNMENT, **options})
    layer(**arguments)
    randomize(layer)
    return layer


def target_id(name, token_id):
    """Return the target id that copying a token generates, or -1."""
    if ALIGNMENT[name] is True:
        return int(token_id)
    return WORD_IDS[int(token_id)]


def by_formula(layer, logits, outputs, inputs, memory, token_ids, weights):
    """Compute the docstring's formula in loops: probabilities `(B, T, V)`."""
    kernels = {weight.name: array(weight) for weight in layer.weights}
    probabilities = np.zeros(logits.shape)
    for b, t in np.ndindex(B, T):
        context = sum(weights[b, t, i] * memory[b, i] for i in range(S))
        p_gen = sigmoid(
            context @ kernels["context_kernel"]
            + outputs[b, t] @ kernels["output_kernel"]
            + inputs[b, t] @ kernels["input_kernel"]
            + kernels["bias"]
        )[0]
        total = p_gen
        probabilities[b, t] = p_gen * softmax(logits[b, t].astype("float64"))
        start = 0
        for name in ("lemma", "numbers", "word"):
            for i, token_id in enumerate(token_ids[name][b]):
                word = -1 if name == "numbers" else target_id(name, token_id)
                if word >= 0 and MEMORY_MASK[b, start + i]:
                    probabilities[b, t, word] += (1 - p_gen) * weights[b, t, start + i]
                    total += (1 - p_gen) * weights[b, t, start + i]
            start += len(token_ids[name][b])
        probabilities[b, t] /= total
    return probabilities


def test_several_sources_keep_the_contract_of_layers():
    token_ids = {**TOKEN_IDS, "numbers": np.ones((B, NUMBERS), "int32")}
    masks = {"memory_mask": MEMORY_MASK, "inputs_mask": length_mask(2, 1, 0, size=T)}
    options = {
        "alignment": ALIGNMENT,
        "coverage": 0.5,
        "kernel_initializer": keras.initializers.HeNormal(),
    }
    check_layer(
        PointerGenerator, options, call_arguments() | {"token_ids": token_ids} | masks
    )


def test_a_config_keeps_the_order_of_the_sources():
    config = PointerGenerator(ALIGNMENT).get_config()
    config = json.loads(json.dumps(config))
    assert list(PointerGenerator.from_config(config).alignment) == list(ALIGNMENT)


def test_probabilities_equal_the_formula_and_sum_to_one():
    arguments = call_arguments()
    layer = random_layer(arguments)
    probabilities = np.exp(array(layer(**arguments, memory_mask=MEMORY_MASK)))
    assert_close(probabilities, by_formula(layer, **arguments))
    assert_close(probabilities.sum(axis=-1), np.ones((B, T)))


def test_without_anything_to_copy_the_model_generates():
    arguments = call_arguments()
    layer = random_layer(arguments)
    probabilities = np.exp(array(layer(**arguments, memory_mask=MEMORY_MASK)))
    assert_close(probabilities[2], softmax(arguments["logits"][2]))
    nothing = np.zeros_like(MEMORY_MASK)
    arguments["weights"] = np.zeros((B, T, S), "float32")
    probabilities = np.exp(array(layer(**arguments, memory_mask=nothing)))
    assert_close(probabilities, softmax(arguments["logits"]))


def test_attention_to_a_source_that_is_only_read_favours_neither_way():
    """Halving the attention to all that can be copied halves the odds of copying."""
    arguments = call_arguments(np.ones_like(MEMORY_MASK))
    arguments["memory"] = np.zeros_like(arguments["memory"])  # the gate stays the same
    layer = random_layer(arguments)
    is_read = slice(LEMMA, LEMMA + NUMBERS)
    odds = []
    for attention in (0.0, 0.5):
        weights = arguments["weights"].copy()
        weights[..., is_read] = 0
        weights *= (1 - attention) / weights.sum(axis=-1, keepdims=True)
        weights[..., is_read] = attention / NUMBERS
        probabilities = np.exp(array(layer(**{**arguments, "weights": weights})))
        generated = softmax(arguments["logits"])
        # No step is copied as token 3, so its share is that of generating.
        share = (probabilities / generated)[1, :, 2:3]
        odds.append((1 - share) / share)
    assert_close(odds[1] / odds[0], np.full((T, 1), 0.5), rtol=1e-3)


def test_a_batch_equals_its_rows():
    arguments = call_arguments()
    layer = random_layer(arguments)
    names = list(TOKEN_IDS)

    def apply(logits, outputs, inputs, memory, weights, mask, *token_ids):
        token_ids = dict(zip(names, token_ids, strict=True))
        given = (logits, outputs, inputs, memory, token_ids, weights)
        return layer(*given, memory_mask=mask)

    rest = [arguments[x] for x in ("logits", "outputs", "inputs", "memory", "weights")]
    check_batch_equals_rows(apply, *rest, MEMORY_MASK, *TOKEN_IDS.values())


def test_the_order_of_the_arguments_does_not_matter():
    arguments = call_arguments()
    layer = random_layer(arguments)
    expected = array(layer(**arguments))
    arguments["token_ids"] = dict(reversed(TOKEN_IDS.items()))
    assert_close(layer(**arguments), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0, 1e4])
def test_values_and_gradients_are_finite(scale):
    arguments = call_arguments()
    layer = random_layer(arguments)
    arguments["logits"] *= scale
    for bias in (-scale, scale):
        layer.bias.assign([bias])
        for name in ("logits", "weights"):

            def total(x, name=name):
                changed = {**arguments, name: x}
                return ops.sum(ops.sin(layer(**changed, memory_mask=MEMORY_MASK)))

            assert np.isfinite(array(total(arguments[name])))
            assert np.isfinite(gradient(total, arguments[name])).all()


def test_coverage_counts_only_steps_that_can_be_copied():
    arguments = call_arguments()
    layer = random_layer(arguments, coverage=0.7)
    layer(**arguments, memory_mask=MEMORY_MASK, training=True)
    [loss] = layer.losses
    can_be_copied = MEMORY_MASK.copy()
    can_be_copied[:, LEMMA : LEMMA + NUMBERS] = False
    can_be_copied[0, LEMMA + NUMBERS + 1] = False  # id 6 is never copied
    weights = arguments["weights"] * can_be_copied[:, None]
    losses = np.minimum(weights[:, 1], weights[:, 0]).sum(axis=-1)
    assert_close(loss, 0.7 * losses.sum() / (B * T))


def test_error_names_the_missing_source():
    arguments = call_arguments()
    arguments["token_ids"] = {"lemma": TOKEN_IDS["lemma"], "word": TOKEN_IDS["word"]}
    with pytest.raises(ValueError, match=r"`token_ids` must have.* without \['numb"):
        PointerGenerator(ALIGNMENT)(**arguments)


def test_rejects_sources_with_other_steps():
    arguments = call_arguments()
    arguments["token_ids"] = {**TOKEN_IDS, "word": TOKEN_IDS["word"][:, 1:]}
    with pytest.raises(ValueError, match="for each source token.* Received"):
        PointerGenerator(ALIGNMENT)(**arguments)


@pytest.mark.parametrize(
    "alignment, message",
    [
        ({"lemma": False, "tags": False}, "a source to copy from. Received"),
        ({}, "a source to copy from. Received"),
        ({"lemma": "all"}, "`alignment` must be integers.* Received"),
        ({"lemma": None}, "`alignment` must be integers.* Received"),
    ],
)
def test_rejects_an_alignment_that_copies_nothing(alignment, message):
    with pytest.raises(ValueError, match=message):
        PointerGenerator(alignment)
