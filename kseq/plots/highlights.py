"""Highlighted texts: which words a model has read."""

import numpy as np

from kseq.plots.figures import drawable, new_figure, require_matplotlib, visible

WIDTH, LINE, SIZE, GAP = 9.0, 0.3, 11, 0.09  # inches, and points
MARGIN = 0.15


def highlighted_texts(texts, weights, titles=None):
    """Draws texts whose tokens are the darker, the more a model has read them.

    The colours of a text span from nothing to its own largest weight.

    Args:
        texts: List of texts, each a list of its tokens.
        weights: For each text the weights of its tokens, none negative, such as
            `kseq.layers.AttentionPooling` returns with `return_attention_scores=True`.
        titles: A line above each text, such as what the model called it. None for none.

    Returns:
        The figure; `figure.savefig("words.png")` writes the picture.

    Raises:
        ValueError: There are no texts, or not as many weights as tokens or titles as
            texts, or a weight is negative or no number.
        ImportError: matplotlib is not installed.

    Example:

    >>> from kseq.plots import highlighted_texts
    >>> figure = highlighted_texts([["what", "a", "joy"]], [[0.1, 0.0, 0.9]], ["good"])
    >>> [text.get_text() for text in figure.texts]
    ['good', 'what', 'a', 'joy']
    """
    require_matplotlib()
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    titles = [""] * len(texts) if titles is None else list(titles)
    weights = _checked(texts, weights, titles)
    figure = new_figure(figsize=(WIDTH, 1))
    renderer = FigureCanvasAgg(figure).get_renderer()
    fonts, _ = drawable([visible(t) for tokens in texts for t in tokens] + titles)
    colors = colormaps["magma_r"]

    def write(word, x, y, **options):
        [word] = drawable([visible(word)])[1] if options.get("bbox") else [word]
        return figure.text(
            x, y, word, family=fonts, parse_math=False, va="baseline", **options
        )

    places, y = [], -MARGIN  # of texts, in inches from the upper left corner
    for tokens, row, title in zip(texts, weights, titles, strict=True):
        if title:
            y -= LINE
            places.append((write(title, 0, 0, size=9, color="0.4"), MARGIN, y))
        x, y = MARGIN, y - LINE
        row = row / (row.max(initial=0) or 1)
        for token, weight in zip(tokens, row, strict=True):
            shade = 0.75 * weight
            text = write(
                token,
                0,
                0,
                size=SIZE,
                color="white" if shade > 0.4 else "black",
                bbox={"facecolor": colors(shade), "lw": 0, "pad": 2},
            )
            width = text.get_window_extent(renderer).width / figure.dpi
            if x + width > WIDTH - MARGIN and x > MARGIN:
                x, y = MARGIN, y - LINE
            places.append((text, x, y))
            x += width + GAP
        y -= LINE / 2
    height = -y + MARGIN / 2
    figure.set_size_inches(WIDTH, height)
    for text, x, y in places:
        text.set_position((x / WIDTH, 1 + y / height))
    return figure


def _checked(texts, weights, titles):
    """The weights as arrays, if they fit."""
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
        raise ValueError("`weights` must be numbers from 0 on. Received: another.")
    return rows
