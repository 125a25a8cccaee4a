"""Fan charts: a forecast with its uncertainty.

Axes in shape comments: N draws, T steps, S steps seen.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kseq.plots.figures import new_figure, require_matplotlib
from kseq.typing import TensorLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEN, TRUTH, FORECAST = "0.6", "#51127c", "#f1605d"


def fan_chart(
    draws: TensorLike,
    seen: TensorLike | None = None,
    truth: TensorLike | None = None,
    levels: Sequence[float] = (0.5, 0.9),
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Plot a forecast as its median, with a band around it for each level.

    Args:
        draws: `(N, T)`, N samples of the T steps of one series, such as
            `forecast.draws[0, :, :, 0]`.
        seen: `(S,)`, the series before the forecast, or None. It ends at step -1.
        truth: `(T,)`, the true values, or None.
        levels: Fraction of the samples within each band, between 0 and 1.
        title: Text above the chart, or None.
        ax: Matplotlib axes to draw on. None for a new figure.

    Returns:
        The axes. Save the image by `axes.figure.savefig("forecast.png")`.

    Raises:
        ValueError: The draws are not those of one series, the truth has another number
            of steps, or a level is not between 0 and 1.
        ImportError: matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from kseq.plots import fan_chart
    >>> draws = np.random.default_rng(0).normal(size=(100, 24)).cumsum(axis=1)
    >>> axes = fan_chart(draws, seen=np.zeros(48), truth=np.ones(24))
    >>> [line.get_label() for line in axes.lines]
    ['seen', 'truth', 'median']
    """
    require_matplotlib()
    draws = np.asarray(draws, "float64")
    if draws.ndim != 2 or 0 in draws.shape:
        raise ValueError(
            "`draws` must be those of one series, shape (N, T). Received: draws of "
            f"shape {draws.shape}. For the first feature of the first series pass "
            "`forecast.draws[0, :, :, 0]`."
        )
    if truth is not None and np.shape(truth) != draws.shape[1:]:
        raise ValueError(
            "`truth` must have the same steps as the draws, shape (T,). Received: "
            "truth of "
            f"shape {np.shape(truth)}, draws of shape {draws.shape}."
        )
    if not all(0 < level < 1 for level in levels):
        raise ValueError(
            f"`levels` must be numbers between 0 and 1. Received: levels={levels}. "
            "For 90 percent pass 0.9."
        )
    is_new = ax is None
    if ax is None:
        ax = new_figure(figsize=(7, 2.6), layout="constrained").subplots()
    steps = np.arange(draws.shape[1])
    look: dict[str, Any] = {"color": FORECAST, "lw": 0}
    for place, level in enumerate(sorted(levels, reverse=True)):
        low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        label = f"{100 * level:g} %"
        ax.fill_between(
            steps, low, high, alpha=0.2 + 0.2 * min(place, 2), **look, label=label
        )
    if seen is not None:
        seen = np.asarray(seen)
        ax.plot(np.arange(-len(seen), 0), seen, color=SEEN, lw=1, label="seen")
    if truth is not None:
        ax.plot(steps, truth, color=TRUTH, lw=1.2, label="truth")
    ax.plot(steps, np.median(draws, axis=0), color=FORECAST, lw=1.6, label="median")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, labelcolor="0.4", color="0.7")
    if title is not None:
        ax.set_title(title, loc="left", size=10)
    if is_new:
        ax.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    return ax
