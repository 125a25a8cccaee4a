"""Initializers and copies of cells: different random numbers for each weight."""

import keras
import numpy as np
import pytest

from kseq.layers import (
    Bidirectional,
    LayerNormLSTMCell,
    RecurrentDecoder,
    RecurrentEncoder,
    Zoneout,
)
from kseq.layers.initializers import initializer_of
from kseq.layers.recurrent.cells import copy_cell
from tests.helpers import (
    array,
    assert_close,
    check_initial_weights_differ,
    random_array,
)

UNITS = 5
SEQUENCES = random_array(2, 3, UNITS)


def seeded_cell(cell_class=keras.layers.LSTMCell):
    initializers = {
        "kernel_initializer": keras.initializers.GlorotUniform(seed=3),
        "recurrent_initializer": keras.initializers.GlorotUniform(seed=4),
    }
    return cell_class(UNITS, **initializers)


SEEDED = {
    "encoder": lambda: RecurrentEncoder(seeded_cell(), num_layers=3),
    "both directions": lambda: RecurrentEncoder(seeded_cell(), bidirectional=True),
    "layer normalization": lambda: RecurrentEncoder(
        seeded_cell(LayerNormLSTMCell), None, 2, True
    ),
    "decoder": lambda: RecurrentDecoder(seeded_cell(), num_layers=2),
    "zoneout": lambda: Bidirectional(Zoneout(seeded_cell(), return_sequences=True)),
}


@pytest.mark.parametrize("make", SEEDED.values(), ids=SEEDED)
def test_copies_of_a_seeded_cell_have_different_weights(make):
    layer, again = make(), make()
    for each in (layer, again):
        each(SEQUENCES)
        check_initial_weights_differ(each)
    pairs = zip(layer.weights, again.weights, strict=True)
    assert all((array(x) == array(y)).all() for x, y in pairs if "cell" in x.path)


def test_copies_with_a_seed_generator_have_different_weights():
    seed = keras.random.SeedGenerator(3)
    cell = keras.layers.GRUCell(
        UNITS,
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        recurrent_initializer=keras.initializers.GlorotUniform(seed),
    )
    encoder = RecurrentEncoder(cell, num_layers=2)
    encoder(SEQUENCES)
    check_initial_weights_differ(encoder)


def test_copies_of_a_cell_have_different_dropout_masks():
    cell = keras.layers.GRUCell(UNITS, dropout=0.5, seed=3)
    masks = [
        array(c.get_dropout_mask(keras.ops.ones((7, UNITS))))
        for c in (cell, copy_cell(cell, 1), copy_cell(cell, 2))
    ]
    assert all((masks[i] != masks[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(
    "initializer",
    [
        keras.initializers.Constant(2.0),
        keras.initializers.get(np.full((2, 3), 2.0, "float32")),
        lambda shape, dtype=None: keras.ops.full(shape, 2.0, dtype),
    ],
)
def test_initializers_without_randomness_are_unchanged(initializer):
    assert_close(initializer_of("kernel", initializer)((2, 3)), np.full((2, 3), 2.0))
