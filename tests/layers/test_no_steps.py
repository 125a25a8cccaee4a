"""Sequences without a step: as if all of them were padding."""

import numpy as np
import pytest

from kseq.layers import TransformerDecoder, TransformerEncoder
from tests.helpers import array, assert_close, random_array
from tests.layers.test_pooling import POOLINGS

B, T, S, D = 2, 3, 5, 8
NOTHING = random_array(B, 0, D)
STEPS, MEMORY = random_array(B, T, D), random_array(B, S, D)
DEAD = np.zeros((B, S), bool)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_of_no_steps_a_pooling_makes_zeros(pooling):
    assert (array(pooling()(NOTHING)) == np.zeros((B, D))).all()


@pytest.mark.parametrize("options", [{}, {"rotary": True}])
def test_an_encoder_gives_no_steps_for_none(options):
    for encoder in (TransformerEncoder(2, 2, **options) for _ in range(2)):
        assert array(encoder(NOTHING)).shape == (B, 0, D)
        assert array(encoder(STEPS)).shape == (B, T, D)
        assert array(encoder(NOTHING)).shape == (B, 0, D)


@pytest.mark.parametrize("options", [{}, {"cross_attention": False}])
def test_a_decoder_reads_no_memory_and_writes_no_steps(options):
    decoder = TransformerDecoder(2, 2, **options)
    without = array(decoder(STEPS, NOTHING))
    assert_close(without, array(decoder(STEPS, MEMORY, memory_mask=DEAD)))
    assert array(decoder(NOTHING, MEMORY)).shape == (B, 0, D)
    assert array(decoder(NOTHING, NOTHING)).shape == (B, 0, D)
