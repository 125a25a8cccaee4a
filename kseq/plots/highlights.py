"""Highlighted texts: the weight of each word as its colour."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kseq.plots.figures import drawable, new_figure, require_matplotlib, visible
from kseq.typing import TensorLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, LINE, GAP, MARGIN = 9.0, 0.3, 0.09, 0.15  # inches
SIZE, TITLE_SIZE = 11, 9  # points
CAPTION = "Darker words have a higher weight."


def highlighted_texts(
    texts: Sequence[Sequence[str]],
    weights: Sequence[TensorLike],
    titles: Sequence[str] | None = None,
    caption: str | None = CAPTION,
) -> "Figure":
    """Plot texts with tokens that are darker the higher their weight is.

    The colours of each text range from 0 to its own highest weight.

    Args:
        texts: List of texts, each a list of its tokens.
        weights: For each text the non-negative weights of its tokens, such as those
            that `kseq.layers.AttentionPooling` returns with
            `return_attention_scores=True`.
        titles: A line above each text, such as the predicted class, or None.
        caption: A line below all texts that explains the colours, or None.

    Returns:
        The figure. Save it by `figure.savefig("words.png")`.

    Raises:
        ValueError: There are no texts, the number of weights differs from that of the
            tokens, the number of titles differs from that of the texts, or a weight is
            negative or NaN.
        ImportError: matplotlib is not installed.

    Example:

    >>> from kseq.plots import highlighted_texts
    >>> figure = highlighted_texts([["what", "a", "joy"]], [[0.1, 0.0, 0.9]], ["good"])
    >>> [text.get_text() for text in figure.texts]
    ['good', 'what', 'a', 'joy', 'Darker words have a higher weight.']
    """
    require_matplotlib()
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    titles = [""] * len(texts) if titles is None else list(titles)
    weights = _checked(texts, weights, titles)
    figure = new_figure(figsize=(WIDTH, 1))
    renderer = FigureCanvasAgg(figure).get_renderer()
    words = [visible(token) for tokens in texts for token in tokens]
    fonts, labels = drawable([*words, *titles, caption or ""])
    titles, caption = labels[len(words) : -1], labels[-1]
    remaining = iter(labels)
    colors = colormaps["magma_r"]

    def write(word, **options):
        return figure.text(0, 0, word, family=fonts, parse_math=False, **options)

    def width_of(text):
        return text.get_window_extent(renderer).width / figure.dpi

    places, y, right = [], -MARGIN / 2, 0  # inches from the upper left corner
    for row, title in zip(weights, titles, strict=True):
        if title:
            y -= LINE
            places.append((write(title, size=TITLE_SIZE, color="0.4"), MARGIN, y))
            right = max(right, MARGIN + width_of(places[-1][0]))
        x, y = MARGIN, y - LINE
        row = row / (row.max(initial=0) or 1)
        for shade in 0.75 * row:
            text = write(
                next(remaining),
                size=SIZE,
                color="white" if shade > 0.4 else "black",
                bbox={"facecolor": colors(shade), "lw": 0, "pad": 2},
            )
            width = width_of(text)
            if x + width > WIDTH - MARGIN and x > MARGIN:
                x, y = MARGIN, y - LINE
            places.append((text, x, y))
            right = max(right, x + width)
            x += width + GAP
        y -= LINE / 2
    if caption:
        places.append((write(caption, size=TITLE_SIZE, color="0.4"), MARGIN, y - LINE))
        right, y = max(right, MARGIN + width_of(places[-1][0])), y - LINE
    width, height = right + MARGIN, MARGIN - y
    figure.set_size_inches(width, height)
    for text, x, y in places:
        text.set_position((x / width, 1 + y / height))
    return figure


def _checked(
    texts: Sequence[Sequence[str]], weights: Sequence[TensorLike], titles: Sequence[str]
) -> list[np.ndarray]:
    """Return the weights as arrays. Raise unless they fit the texts and titles."""
    rows = [np.asarray(row, "float64") for row in weights]
    lengths = [len(tokens) for tokens in texts]
    if not texts or [row.shape for row in rows] != [(n,) for n in lengths]:
        raise ValueError(
            "`weights` must hold one number for each token of each text. Received: "
            f"texts of {lengths} tokens, weights of shapes {[r.shape for r in rows]}."
        )
    if len(titles) != len(texts):
        raise ValueError(
            f"`titles` must be one for each text. Received: {len(titles)} titles, "
            f"{len(texts)} texts."
        )
    if any(not (row >= 0).all() for row in rows):
        lowest = np.concatenate(rows).min()
        raise ValueError(
            "`weights` must be non-negative numbers. Received: weights with a minimum "
            f"of {lowest:g}."
        )
    return rows
