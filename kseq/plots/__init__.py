"""Plots: attention maps, training curves, highlighted texts and fan charts.

They need matplotlib: `pip install kseq[plots]`.
"""

from kseq.plots.attention import attention_heads, attention_heatmap
from kseq.plots.fan import fan_chart
from kseq.plots.figures import legible
from kseq.plots.highlights import highlighted_texts
from kseq.plots.history import training_curve

__all__ = [
    "attention_heads",
    "attention_heatmap",
    "fan_chart",
    "highlighted_texts",
    "legible",
    "training_curve",
]
