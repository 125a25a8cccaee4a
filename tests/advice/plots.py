"""Plots: bad calls, their advice, and corrected calls."""

from kseq.plots import attention_heads, attention_heatmap
from tests.helpers import random_array

WEIGHTS = abs(random_array(2, 5))
SOURCE, TARGET = ["a", "b", "c"], ["X", "Y"]

ADVICE = {
    "the weights of padding": (
        lambda: attention_heatmap(WEIGHTS, SOURCE, TARGET),
        "Remove the weights of padding.",
        lambda: attention_heatmap(WEIGHTS[:, :3], SOURCE, TARGET),
    ),
    "the weights of one head": (
        lambda: attention_heads(WEIGHTS[:, :3], SOURCE, TARGET),
        "For one head pass `weights[None]`.",
        lambda: attention_heads(WEIGHTS[:, :3][None], SOURCE, TARGET),
    ),
}
