"""Scheduled sampling: rate of replacement and replaced tokens."""

import math

import keras
import numpy as np
import pytest

from kseq.layers import ScheduledSampling
from tests.helpers import array, assert_close, check_config_keeps_every_argument

PAD, SIZE = 0, 7
IDS = np.array([[2, 4, 5, 6, 4], [2, 5, PAD, PAD, PAD]], "int32")


def built(*args, **options):
    layer = ScheduledSampling(*args, **options)
    layer.build((None, None))
    return layer


def predict_next(token_ids):
    """Return logits that predict the id after each token."""
    following = 1 + array(token_ids) % (SIZE - 1)
    return keras.ops.convert_to_tensor(50.0 * np.eye(SIZE)[following], "float32")


def test_config_keeps_every_argument_and_a_call_changes_nothing():
    options = {"schedule": "linear", "steps": 70, "max_rate": 0.5, "passes": 2}
    options |= {"choice": "argmax", "seed": 3}
    check_config_keeps_every_argument(ScheduledSampling, options)
    assert_close(ScheduledSampling(**options)(IDS, training=True), IDS)


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        ("constant", lambda i: 0.6),
        ("linear", lambda i: min(i / 50, 0.6)),
        ("exponential", lambda i: min(1 - math.exp(-1 / 50) ** i, 0.6)),
        ("inverse_sigmoid", lambda i: min(1 - 50 / (50 + math.exp(i / 50)), 0.6)),
    ],
)
def test_the_rate_follows_the_formula(schedule, rate):
    layer = built(schedule, steps=50, max_rate=0.6)
    for step in (0, 1, 20, 100, 300, 9_000):
        layer.step.assign(step)
        assert_close(layer.rate(), rate(step), atol=1e-6)


def test_the_replaced_share_equals_the_rate_and_each_call_is_a_step():
    layer = built("constant", max_rate=0.3, choice="argmax", seed=1)
    token_ids = np.full((211, 97), 3, "int32")
    mixed = array(layer.mix(token_ids, predict_next, PAD))
    assert_close(mixed[:, 0], token_ids[:, 0])
    share = (mixed[:, 1:] == 4).mean()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / mixed[:, 1:].size)
    assert ((mixed == 3) | (mixed == 4)).all()
    assert int(layer.step) == 1


def test_predictions_are_shifted_by_one_and_padding_is_unchanged():
    mixed = built("constant").mix(IDS, predict_next, PAD)
    assert_close(mixed, np.array([[2, 3, 5, 6, 1], [2, 3, PAD, PAD, PAD]]))


def test_each_pass_reads_the_predictions_of_the_last():
    mixed = built("constant", passes=4).mix(IDS, predict_next, PAD)
    assert_close(mixed, np.array([[2, 3, 4, 5, 6], [2, 3, PAD, PAD, PAD]]))


def test_padding_is_never_predicted():
    def predict_padding(token_ids):
        return keras.ops.convert_to_tensor(
            np.broadcast_to(9.0 * np.eye(SIZE)[PAD], (*token_ids.shape, SIZE)),
            "float32",
        )

    for choice in ("sample", "argmax"):
        mixed = built("constant", choice=choice, seed=5).mix(IDS, predict_padding, PAD)
        assert_close(array(mixed) == PAD, IDS == PAD)


def test_samples_follow_the_probabilities():
    probabilities = np.array([0, 0.1, 0.2, 0.4, 0.3, 0, 0]) + 1e-9

    def predict(token_ids):
        shape = (*token_ids.shape, SIZE)
        return keras.ops.convert_to_tensor(
            np.broadcast_to(np.log(probabilities), shape), "float32"
        )

    token_ids = np.full((97, 211), 5, "int32")
    mixed = array(built("constant", seed=2).mix(token_ids, predict, PAD))[:, 1:]
    shares = np.bincount(mixed.flatten(), minlength=SIZE) / mixed.size
    deviation = np.sqrt(probabilities * (1 - probabilities) / mixed.size)
    assert (abs(shares - probabilities) < 4.5 * deviation + 1e-6).all()


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "quadratic"},
        {"steps": 0},
        {"max_rate": 0},
        {"max_rate": 1.1},
        {"passes": 1.5},
        {"choice": "beam"},
        {"seed": "a"},
    ],
)
def test_error_names_the_invalid_option(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=f"`{name}` must .*{name}={value!r}"):
        ScheduledSampling(**options)
