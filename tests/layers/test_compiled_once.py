"""Law of compiled functions: another mask of the same shape compiles nothing.

TensorFlow compiles a function anew for each value of an input that it takes for a
constant, such as the length of a slice. If that value comes from a mask, every batch
takes a second, and what was compiled stays in memory.
"""

import time

import keras
import numpy as np
import pytest

from kseq import layers
from kseq.layers import backends, linear_chain
from tests.helpers import random_array
from tests.layers.small_layers import RECURRENT, B

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="how TensorFlow compiles"
)
S = 8
LENGTHS = [(8, 5), (7, 3), (6, 6), (8, 2), (5, 8)]
CHAIN = {
    "crf.negative_log_likelihood": layers.CRF,
    "crf.marginals": layers.CRF,
    "crf.best_scores": layers.CRF,
    "crf.best_paths": layers.CRF,
    "ctc.log_likelihood": layers.CTC,
    "ctc.align": layers.CTC,
}


@pytest.fixture(autouse=True)
def compile_small_layers(monkeypatch):
    monkeypatch.setattr(backends, "SMALLEST_UNITS", 1)
    monkeypatch.setattr(linear_chain, "SMALLEST_LABELS", 1)


def check_compiles_once(function, *inputs):
    """Check that a function of masks and inputs is slow only with the first masks."""
    import tensorflow as tf

    compiled, seconds = tf.function(function), []
    for lengths in LENGTHS:
        mask = tf.constant(np.arange(S) < np.array(lengths)[:, None])
        began = time.perf_counter()
        compiled(mask, *inputs)
        seconds.append(time.perf_counter() - began)
    first, *others = seconds
    assert min(others) < first / 40, seconds


def gradient(layer, mask, inputs, masked):
    """Return the gradient of the sum of a layer's outputs."""
    import tensorflow as tf

    masks = dict.fromkeys(masked, mask)
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(layer(**inputs, **masks))
        total = sum(tf.reduce_sum(output) for output in outputs)
    return tape.gradient(total, layer.trainable_variables)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_layer_compiles_once_for_all_masks(kind):
    case = RECURRENT[kind]
    layer = case.make()
    inputs = {name: random_array(B, S, width) for name, width in case.widths.items()}
    layer(**inputs)
    masked = list(case.masks)
    check_compiles_once(lambda mask, x: gradient(layer, mask, x, masked), inputs)


@pytest.mark.parametrize("name", CHAIN)
def test_a_chain_of_labels_compiles_once_for_all_masks(name):
    import tensorflow as tf

    layer = CHAIN[name](5)
    labels = np.array([[1, 2, 1, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0]])
    inputs = random_array(B, S, 6)
    layer(inputs)
    method = getattr(layer, name.partition(".")[2])

    def run(mask, labels, inputs):
        given = (labels,) if "likelihood" in name or "align" in name else ()
        with tf.GradientTape() as tape:
            results = method(*given, layer(inputs, mask=mask), mask=mask)
        if "negative" not in name:
            return results
        return tape.gradient(results, layer.trainable_variables)

    check_compiles_once(run, labels, inputs)
