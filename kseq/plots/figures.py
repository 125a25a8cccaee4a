"""Figures, fonts and labels for all plots."""

import functools
import importlib.util
import pathlib
import unicodedata
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE_FONT = "DejaVu Sans"  # comes with matplotlib
PREFERRED_FONTS = (
    "Noto Sans",
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Noto Sans CJK JP",
)
NO_TEXT_FONTS = ("Last Resort", "STIX", "cm", "Noto Color", "Apple Color")
SPACE, DOTTED_CIRCLE = "\N{OPEN BOX}", "\N{DOTTED CIRCLE}"


def require_matplotlib() -> None:
    """Raise an error with an install command if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib. Install it with `pip install kseq[plots]`."
        ) from error


def new_figure(**options: Any) -> "Figure":
    """Return a new figure without a display and without the state of pyplot."""
    from matplotlib.figure import Figure

    return Figure(dpi=150, **options)


def fit_figure(ax: "Axes", width: float, height: float, margin: float = 0.1) -> None:
    """Set the size of axes in inches, and fit the figure around them."""
    figure: Any = ax.figure  # not a subfigure
    figure.set_size_inches(width, height)
    ax.set_position((0, 0, 1, 1))
    bounds: Any = ax.get_tightbbox()
    box = bounds.transformed(figure.dpi_scale_trans.inverted()).padded(margin)
    figure.set_size_inches(box.width, box.height)
    ax.set_position(
        (
            -box.x0 / box.width,
            -box.y0 / box.height,
            width / box.width,
            height / box.height,
        )
    )


def visible(token: str) -> str:
    """Return a token with visible spaces, control characters and single accents."""
    if token and unicodedata.combining(token[0]):
        token = DOTTED_CIRCLE + token
    return "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in token.replace(" ", SPACE)
    )


def legible(figure: "Figure") -> "Figure":
    """Set fonts that have all characters in the texts of a figure, such as Korean.

    Dollar signs are shown as they are and do not start a formula. Call this function on
    your own figure when it is complete. The figures of `kseq.plots` do not need it.

    Args:
        figure: A `matplotlib.figure.Figure`.

    Returns:
        The same figure.

    Example:

    >>> from matplotlib.figure import Figure
    >>> from kseq.plots import legible
    >>> figure = Figure()
    >>> title = figure.suptitle("매출, in $")
    >>> figure = legible(figure)
    >>> title.get_parse_math()
    False
    """
    from matplotlib.text import Text

    written = [text for text in figure.findobj(Text) if text.get_text()]
    fonts, labels = drawable([text.get_text() for text in written])
    for text, label in zip(written, labels, strict=True):
        text.set(text=label, family=fonts, parse_math=False)
    return figure


def drawable(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find fonts for texts.

    Returns:
        The font families, and the texts. A character that is in no installed font is
        replaced by its code point, such as U+D55C, with a warning.
    """
    import matplotlib

    families, lacking = [], set("".join(texts))
    for family, file in installed_fonts().items():
        if family == BASE_FONT or lacking & characters(file):
            families.append(family)
            lacking -= characters(file)
        if not lacking:
            break
    if lacking:
        some = "".join(sorted(lacking)[:10])
        warnings.warn(
            f"No installed font has {some!r}, so code points are shown. Install a font "
            "that has them, such as Noto Sans CJK, and delete matplotlib's cache in "
            f"{matplotlib.get_cachedir()}.",
            stacklevel=3,
        )
    points = {character: f"U+{ord(character):04X}" for character in lacking}
    return families, ["".join(points.get(c, c) for c in text) for text in texts]


def installed_fonts() -> dict[str, str]:
    """Return the font families for text with a file of each, preferred ones first."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    if file := packaged_hangul():
        if file not in {font.fname for font in manager.ttflist}:
            manager.addfont(file)
    files = {font.name: font.fname for font in manager.ttflist}
    others = sorted(f for f in files if not f.startswith(NO_TEXT_FONTS))
    families = [f for f in (BASE_FONT, *PREFERRED_FONTS) if f in files] + others
    return {family: files[family] for family in families}


@functools.cache
def packaged_hangul() -> str | None:
    """Return the file of NanumGothic that `kseq[plots]` installs, or None."""
    package = importlib.util.find_spec("koreanize_matplotlib")  # is not imported
    if package is None:
        return None
    [folder] = list(package.submodule_search_locations or ())
    return str(pathlib.Path(folder, "fonts", "NanumGothic.ttf"))


@functools.cache
def characters(file: str) -> frozenset[str]:
    """Return the characters of a font file."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(file)
    except (OSError, RuntimeError):  # a bitmap font, or a damaged file
        return frozenset()
    return frozenset(map(chr, font.get_charmap()))
