"""Caption loss, compared with its formula in NumPy.

Axes in shape comments: B batch, S words, T steps, D features, V vocabulary.
"""

import numpy as np
import pytest

from kseq.layers import CaptionLoss
from tests.helpers import array, assert_close, check_layer, random_array, randomize

B, S, T, D, V = 2, 5, 3, 4, 7
OUTPUTS, CAPTION = random_array(B, T, D), random_array(B, S, D, seed=1)
IDS = np.array([[4, 5, 6, 3, 1], [2, 6, 0, 0, 0]], "int32")
INPUTS = {"outputs": OUTPUTS, "caption": CAPTION, "token_ids": IDS}


def test_caption_loss_keeps_the_contract_of_layers():
    check_layer(CaptionLoss, {"vocabulary_size": V, "weight": 0.3}, INPUTS)


def test_outputs_are_unchanged_and_the_mean_loss_of_words_is_added():
    layer = CaptionLoss(V, weight=0.3)
    layer(**INPUTS)
    randomize(layer)
    assert_close(layer(**INPUTS), OUTPUTS)
    kernel, bias = layer.get_weights()
    nats = []
    for row, step in np.ndindex(B, S - 1):
        if IDS[row, step + 1]:
            logits = CAPTION[row, step] @ kernel + bias
            log_sum = np.log(np.exp(logits).sum())
            nats.append(log_sum - logits[IDS[row, step + 1]])
    assert len(nats) == 5
    assert_close(layer.losses[-1], 0.3 * np.mean(nats))


def test_padding_after_a_caption_changes_nothing():
    layer = CaptionLoss(V, weight=1.0)
    layer(**INPUTS)
    before = array(layer.losses[-1])
    changed = CAPTION.copy()
    changed[1, 1:] += 7  # outputs at the last word and at padding
    layer(OUTPUTS, changed, IDS)
    assert_close(layer.losses[-1], before)


def test_a_caption_without_words_has_zero_loss():
    layer = CaptionLoss(V, weight=1.0)
    layer(OUTPUTS, CAPTION, np.zeros((B, S), "int32"))
    assert array(layer.losses[-1]) == 0


@pytest.mark.parametrize("weight", ["1", None, True])
def test_weight_must_be_a_number(weight):
    with pytest.raises(ValueError, match="weight"):
        CaptionLoss(V, weight)
