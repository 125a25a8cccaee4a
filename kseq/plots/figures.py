"""What every plot needs: matplotlib, a figure, and labels that can be drawn."""

import functools
import importlib.util
import pathlib
import unicodedata
import warnings

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


def require_matplotlib():
    """Fails early, and says what to install."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib. Install it with `pip install kseq[plots]`."
        ) from error


def new_figure(**options):
    """A figure of its own: no display, no state of pyplot."""
    from matplotlib.figure import Figure

    return Figure(dpi=150, **options)


def fit_figure(ax, width, height, margin=0.1):
    """Gives axes a size in inches, and their figure the size that shows all of them."""
    figure = ax.figure
    figure.set_size_inches(width, height)
    ax.set_position([0, 0, 1, 1])
    box = (
        ax.get_tightbbox().transformed(figure.dpi_scale_trans.inverted()).padded(margin)
    )
    figure.set_size_inches(box.width, box.height)
    ax.set_position(
        [
            -box.x0 / box.width,
            -box.y0 / box.height,
            width / box.width,
            height / box.height,
        ]
    )


def visible(token):
    """A token in which spaces, control characters and lone accents can be seen."""
    if token and unicodedata.combining(token[0]):
        token = DOTTED_CIRCLE + token
    return "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in token.replace(" ", SPACE)
    )


def legible(figure):
    """Gives the texts of a figure fonts that have their characters, Korean ones too.

    A dollar sign is then a dollar sign, and no formula. Call it on a figure of your own
    when it is ready; those of `kseq.plots` are legible.

    Args:
        figure: A `matplotlib.figure.Figure`.

    Returns:
        The figure.

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


def drawable(texts):
    """Finds fonts for the texts.

    Returns:
        The font families, and the texts with a code point, such as U+D55C, in place of
        each character that no installed font has, of which a warning tells.
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
            f"No installed font has {some!r}, so code points are drawn. Install a font "
            "that has, such as Noto Sans CJK, and delete matplotlib's cache in "
            f"{matplotlib.get_cachedir()}.",
            stacklevel=3,
        )
    points = {character: f"U+{ord(character):04X}" for character in lacking}
    return families, ["".join(points.get(c, c) for c in text) for text in texts]


def installed_fonts():
    """Font families for text, the preferred ones first, with a file of each."""
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
def packaged_hangul():
    """The file of NanumGothic that `kseq[plots]` brings with it, or None."""
    package = importlib.util.find_spec("koreanize_matplotlib")  # is not imported
    if package is None:
        return None
    [folder] = package.submodule_search_locations
    return str(pathlib.Path(folder, "fonts", "NanumGothic.ttf"))


@functools.cache
def characters(file):
    """The characters that a font file can draw."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(file)
    except (OSError, RuntimeError):  # a bitmap font, or a damaged file
        return frozenset()
    return frozenset(map(chr, font.get_charmap()))
