"""Highlighted texts: which words a model has read."""

import numpy as np

from kseq.plots.figures import drawable, new_figure, require_matplotlib, visible

WIDTH, LINE, GAP, MARGIN = 9.0, 0.3, 0.09, 0.15  # inches
SIZE, TITLE_SIZE = 11, 9  # points
CAPTION = "The darker a word, the more it was read."


def highlighted_texts(texts, weights, titles=None, caption=CAPTION):
    """Draws texts whose tokens are the darker, the more a model has read them.

    The colours of a text span from nothing to its own largest weight.

    Args:
        texts: List of texts, each a list of its tokens.
        weights: For each text the weights of its tokens, none negative, such as
            `kseq.layers.AttentionPooling` returns with `return_attention_scores=True`.
        titles: A line above each text, such as what the model called it. None for none.
        caption: A line below all texts that says what the colours mean. None for none.

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
    ['good', 'what', 'a', 'joy', 'The darker a word, the more it was read.']
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
    words, titles, caption = iter(labels), labels[len(words) : -1], labels[-1]
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
                next(words),
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
