"""Attention maps: the weights of the source tokens for each target token.

Axes in shape comments: T target tokens, S source tokens.
"""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kseq.plots.figures import (
    drawable,
    fit_figure,
    new_figure,
    require_matplotlib,
    visible,
)
from kseq.typing import TensorLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def attention_heatmap(
    weights: TensorLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Plot attention weights as a heat map, with source columns and target rows.

    Spaces and control characters are made visible. A character that is in no installed
    font is shown as its code point. Install a font for its script, such as Noto Sans
    CJK for Korean, Chinese and Japanese.

    Args:
        weights: `(T, S)`, the attention weights of each target token.
        source_tokens: The S source tokens.
        target_tokens: The T target tokens.
        title: Text above the map, or None.
        ax: Matplotlib axes to draw on. None for a new figure of suitable size.

    Returns:
        The axes. Save the image by `axes.figure.savefig("attention.png")`.

    Raises:
        ValueError: The number of tokens does not match the shape of the weights.
        ImportError: matplotlib is not installed.

    Example:

    >>> from kseq.plots import attention_heatmap
    >>> axes = attention_heatmap([[0.9, 0.1], [0.2, 0.8]], ["h", "i"], ["HH", "AY1"])
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['HH', 'AY1']
    """
    require_matplotlib()
    weights = np.asarray(weights, "float64")  # T S
    rows, columns = shape = (len(target_tokens), len(source_tokens))
    if weights.shape != shape or 0 in shape:
        raise ValueError(
            "`weights` must have one row for each target token and one column for each "
            f"source token. Received: weights of shape {weights.shape}, {rows} target "
            f"tokens and {columns} source tokens. Remove the weights of padding."
        )
    labels = [visible(token) for token in (*target_tokens, *source_tokens)]
    fonts, labels = drawable([*labels, title or ""])
    down, across, title_text = labels[:rows], labels[rows:-1], labels[-1]
    is_short = max(map(display_width, across)) <= 3

    cell = min(0.36, 10 / max(shape))  # inches
    size = min(10, 38 * cell)  # points
    is_new = ax is None
    ax = new_figure().subplots() if ax is None else ax
    text: dict[str, Any] = {"parse_math": False, "fontfamily": fonts}
    turn: dict[str, Any] = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"}
    image = ax.imshow(weights, cmap="magma_r", vmin=0, vmax=weights.max() or 1)
    ax.set_xticks(
        range(columns), across, size=size, **text, **({} if is_short else turn)
    )
    ax.set_yticks(range(rows), down, size=size, **text)
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.tick_params(which="both", length=0)
    ax.tick_params(labeltop=True, labelbottom=False)
    ax.grid(which="minor", color="white", linewidth=3 * cell)
    ax.spines[:].set_visible(False)
    place = ax.inset_axes((1 + 0.4 / columns, 0, 0.4 / columns, 1))
    bar = ax.figure.colorbar(image, cax=place)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor="0.4")
    if title is not None:
        ax.set_title(title_text, size=11, pad=10, loc="left", **text)
    if is_new:
        fit_figure(ax, cell * columns, cell * rows)
    return ax


def display_width(text: str) -> int:
    """Return the width of a text in Latin letters: a Hangul syllable counts twice."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def attention_heads(
    weights: TensorLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    title: str | None = None,
    columns: int = 4,
) -> "Figure":
    """Plot the attention weights of several heads side by side, one heat map each.

    Args:
        weights: `(H, T, S)`, the attention weights of each target token, by head.
        source_tokens: The S source tokens.
        target_tokens: The T target tokens.
        title: Text above all maps, or None.
        columns: Maximum number of maps in a row.

    Returns:
        The figure. Save it by `figure.savefig("heads.png")`.

    Raises:
        ValueError: The weights do not have three axes, or the number of tokens does not
            match their shape.
        ImportError: matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from kseq.plots import attention_heads
    >>> figure = attention_heads(np.full((3, 2, 2), 0.5), ["h", "i"], ["HH", "AY1"])
    >>> [axes.get_title("left") for axes in figure.axes]
    ['head 1', 'head 2', 'head 3']
    """
    require_matplotlib()
    weights = np.asarray(weights, "float64")  # H T S
    if weights.ndim != 3 or not len(weights):
        raise ValueError(
            "`weights` must have three axes, (heads, target, source). Received: "
            f"weights of shape {weights.shape}. For one head pass `weights[None]`."
        )
    columns = min(columns, len(weights))
    rows = -(-len(weights) // columns)
    cell = min(0.22, 8 / max(weights.shape[1:]))  # inches
    width, height = (cell * n + 1.3 for n in (len(source_tokens), len(target_tokens)))
    figure = new_figure(figsize=(columns * width, rows * height), layout="constrained")
    figure.suptitle(title or "")
    for head, head_weights in enumerate(weights):
        ax = figure.add_subplot(rows, columns, head + 1)
        name = f"head {head + 1}" if len(weights) > 1 else None
        attention_heatmap(head_weights, source_tokens, target_tokens, name, ax)
    return figure
