"""Fan charts: a forecast, and how sure it is.

Axes in shape comments: N draws, T steps, S steps seen.
"""

import numpy as np

from kseq.plots.figures import new_figure, require_matplotlib

SEEN, TRUTH, FORECAST = "0.6", "#51127c", "#f1605d"


def fan_chart(draws, seen=None, truth=None, levels=(0.5, 0.9), title=None, ax=None):
    """Draws a forecast as its median with a band for each level around it.

    Args:
        draws: `(N, T)`, N draws of the T steps of one series, such as
            `forecast.draws[0, :, :, 0]`.
        seen: `(S,)`, what was known before, or None. It ends at step -1.
        truth: `(T,)`, what came, or None.
        levels: Shares of the draws that lie within a band, each between 0 and 1.
        title: Text above the chart, or None.
        ax: Matplotlib axes to draw on. None for a new figure.

    Returns:
        The axes; `axes.figure.savefig("forecast.png")` writes the picture.

    Raises:
        ValueError: The draws are not those of one series, the truth has other steps, or
            a level is not between 0 and 1.
        ImportError: matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from kseq.plots import fan_chart
    >>> draws = np.random.default_rng(0).normal(size=(100, 24)).cumsum(axis=1)
    >>> axes = fan_chart(draws, seen=np.zeros(48), truth=np.ones(24))
    >>> [line.get_label() for line in axes.lines]
    ['seen', 'what came', 'median']
    """
    require_matplotlib()
    draws = np.asarray(draws, "float64")
    if draws.ndim != 2 or 0 in draws.shape:
        raise ValueError(
            "`draws` must be those of one series, shape (N, T). Received: draws of "
            f"shape {draws.shape}. Of the first row's first feature they are "
            "`forecast.draws[0, :, :, 0]`."
        )
    if truth is not None and np.shape(truth) != draws.shape[1:]:
        raise ValueError(
            "`truth` must have the steps of the draws, shape (T,). Received: truth of "
            f"shape {np.shape(truth)}, draws of shape {draws.shape}."
        )
    if not all(0 < level < 1 for level in levels):
        raise ValueError(
            f"`levels` must be numbers between 0 and 1. Received: levels={levels}. "
            "Ninety percent are 0.9."
        )
    is_new = ax is None
    if is_new:
        ax = new_figure(figsize=(7, 2.6), layout="constrained").subplots()
    steps, look = np.arange(draws.shape[1]), {"color": FORECAST, "lw": 0}
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
        ax.plot(steps, truth, color=TRUTH, lw=1.2, label="what came")
    ax.plot(steps, np.median(draws, axis=0), color=FORECAST, lw=1.6, label="median")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, labelcolor="0.4", color="0.7")
    if title is not None:
        ax.set_title(title, loc="left", size=10)
    if is_new:
        ax.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    return ax
