"""Sequences without steps, which are treated like padding."""

import numpy as np
import pytest

from kseq.layers import TransformerDecoder, TransformerEncoder
from tests.helpers import array, assert_close, random_array
from tests.layers.test_pooling import POOLINGS

B, T, S, D = 2, 3, 5, 8
NO_STEPS = random_array(B, 0, D)
STEPS, MEMORY = random_array(B, T, D), random_array(B, S, D)
ALL_PADDING = np.zeros((B, S), bool)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_without_steps_gives_zeros(pooling):
    assert (array(pooling()(NO_STEPS)) == np.zeros((B, D))).all()


@pytest.mark.parametrize("options", [{}, {"rotary": True}])
def test_an_encoder_without_steps_returns_no_steps(options):
    for encoder in (TransformerEncoder(2, 2, **options) for _ in range(2)):
        assert array(encoder(NO_STEPS)).shape == (B, 0, D)
        assert array(encoder(STEPS)).shape == (B, T, D)
        assert array(encoder(NO_STEPS)).shape == (B, 0, D)


@pytest.mark.parametrize("options", [{}, {"cross_attention": False}])
def test_a_decoder_accepts_an_empty_memory_and_no_steps(options):
    decoder = TransformerDecoder(2, 2, **options)
    without = array(decoder(STEPS, NO_STEPS))
    assert_close(without, array(decoder(STEPS, MEMORY, memory_mask=ALL_PADDING)))
    assert array(decoder(NO_STEPS, MEMORY)).shape == (B, 0, D)
    assert array(decoder(NO_STEPS, NO_STEPS)).shape == (B, 0, D)
