import keras
import numpy as np
import pytest

from kseq.layers import FeedForward
from tests.helpers import array, assert_close, check_layer, random_array, randomize

B, S, D, INTERMEDIATE = 2, 5, 3, 7


def test_feed_forward_keeps_the_contract_of_layers():
    check_layer(
        FeedForward,
        {
            "intermediate_dim": INTERMEDIATE,
            "activation": "gelu",
            "dropout": 0.3,
            "kernel_initializer": lambda: keras.initializers.RandomNormal(stddev=0.3),
        },
        {"inputs": random_array(B, S, D)},
    )


def test_feed_forward_equals_a_loop():
    layer = FeedForward(INTERMEDIATE)
    x = random_array(B, S, D)
    layer(x)
    randomize(layer)
    w1, b1, w2, b2 = (array(weight) for weight in layer.weights)
    for b, s in np.ndindex(B, S):
        expected = np.maximum(x[b, s] @ w1 + b1, 0) @ w2 + b2
        assert_close(layer(x)[b, s], expected)


def test_rejects_a_wrong_size():
    with pytest.raises(ValueError, match="`intermediate_dim` must be a positive"):
        FeedForward(0)
