"""Factorized head of codes, compared with sums over their digits in NumPy.

Axes in shape comments: B batch, T steps, D features, V tokens.
"""

import keras
import numpy as np
import pytest

from kseq.layers import FactorizedHead, FiniteScalarQuantizer
from tests.helpers import array, assert_close, check_layer, random_array, randomize

LEVELS = [4, 3, 2]
INPUTS = random_array(2, 5, 6)
MASK = np.array([[1, 1, 1, 0, 0], [0] * 5], "bool")


@pytest.mark.parametrize("rank", [0, 2])
def test_factorized_head_keeps_the_contract_of_layers(rank):
    options = {"levels": LEVELS, "rank": rank, "num_special": 3}
    options["kernel_initializer"] = lambda: keras.initializers.HeNormal()
    check_layer(FactorizedHead, options, {"inputs": INPUTS, "mask": MASK})


@pytest.mark.parametrize("rank", [0, 2])
def test_the_logit_of_a_code_is_the_sum_over_its_digits(rank):
    head = FactorizedHead(LEVELS, rank, num_special=2)
    head(INPUTS)
    randomize(head)
    parts = array(head.digits(INPUTS))  # B T 2+9
    own = array(head.up(head.down(INPUTS))) if rank else np.zeros((2, 5, 26))
    quantizer = FiniteScalarQuantizer(LEVELS)
    codes = array(quantizer.ids_to_codes(np.arange(24)))
    digits = np.rint((codes + 1) * (np.array(LEVELS) // 2)).astype(int)  # 24 3
    expected = [parts[..., n] + own[..., n] for n in range(2)]
    for number, (first, second, third) in enumerate(digits):
        logit = parts[..., 2 + first] + parts[..., 6 + second] + parts[..., 9 + third]
        expected.append(logit + own[..., 2 + number])
    assert_close(head(INPUTS), np.stack(expected, axis=-1))


def test_digits_are_independent_without_a_rank():
    head = FactorizedHead(LEVELS, rank=0, num_special=0)
    head(INPUTS)
    randomize(head)
    logits = array(head(INPUTS))
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares = (shares / shares.sum(axis=-1, keepdims=True)).reshape(2, 5, 2, 3, 4)
    third, second, first = shares.sum((3, 4)), shares.sum((2, 4)), shares.sum((2, 3))
    assert_close(shares, np.einsum("btk,btj,bti->btkji", third, second, first))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"levels": (1, 5)}, "levels"),
        ({"levels": LEVELS, "rank": -1}, "rank"),
        ({"levels": LEVELS, "rank": 1.5}, "rank"),
        ({"levels": LEVELS, "num_special": -1}, "num_special"),
    ],
)
def test_error_names_the_wrong_option(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        FactorizedHead(**options)
