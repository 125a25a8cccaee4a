"""Training curves: the history of `fit` by epoch."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kseq.plots.figures import new_figure, require_matplotlib

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINING, VALIDATION = "#51127c", "#f1605d"
MOST_COLUMNS = 3


def training_curve(
    history: "keras.callbacks.History | dict[str, list[float]]",
    metrics: Sequence[str] | None = None,
    figure: "Figure | None" = None,
) -> "Figure":
    """Plot the loss and each metric by epoch, one panel each.

    Args:
        history: The `History` that `fit` returns, or its dictionary.
        metrics: Names of the panels, such as `["loss", "accuracy"]`. None for all.
        figure: Matplotlib figure to draw on. None for a new one of suitable size.

    Returns:
        The figure. Save it by `figure.savefig("history.png")`.

    Raises:
        ValueError: The history is empty, or a metric is not in it.
        ImportError: matplotlib is not installed.

    Example:

    >>> from kseq.plots import training_curve
    >>> figure = training_curve({"loss": [2.0, 1.0], "val_loss": [2.1, 1.4]})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['training', 'validation']
    """
    require_matplotlib()
    from matplotlib.ticker import MaxNLocator

    values = history if isinstance(history, dict) else history.history
    names = [name for name in values if name.removeprefix("val_") == name]
    metrics = names if metrics is None else list(metrics)
    unknown = [name for name in metrics if name not in names]
    if unknown or not metrics or not len(values[metrics[0]]):
        raise ValueError(
            "`metrics` must name at least one metric of a history of at least one "
            f"epoch. Received: metrics={metrics}; the history has {names}."
        )
    epochs = [epoch + 1 for epoch in getattr(history, "epoch", ())]
    epochs = epochs or list(range(1, len(values[metrics[0]]) + 1))

    columns = min(len(metrics), MOST_COLUMNS)
    rows = math.ceil(len(metrics) / columns)
    if figure is None:
        figure = new_figure(
            figsize=(0.6 + 3.6 * columns, 3 * rows), layout="constrained"
        )
    for place, name in enumerate(metrics):
        ax = figure.add_subplot(rows, columns, place + 1)
        draw(ax, epochs, values[name], "training", TRAINING)
        if len(values.get(f"val_{name}", ())):
            draw(ax, epochs, values[f"val_{name}"], "validation", VALIDATION)
            ax.legend(frameon=False, labelcolor="linecolor", handlelength=1)
        ax.set_title(name.replace("_", " "), loc="left", size=11)
        ax.set_xlabel("epoch", color="0.4", size=9)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color("0.7")
        ax.tick_params(length=0, labelsize=9, labelcolor="0.4")
    return figure


def draw(
    ax: "Axes", epochs: Sequence[int], values: Sequence[float], label: str, color: str
) -> None:
    """Draw a line. With `validation_freq` it has values for some epochs only."""
    step = max(1, len(epochs) // len(values))
    epochs = epochs[step - 1 :: step][: len(values)]
    marker = "o" if len(values) <= 30 else None
    ax.plot(
        epochs, values, label=label, color=color, marker=marker, markersize=3.5, lw=1.8
    )
