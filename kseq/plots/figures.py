"""What every plot needs: matplotlib, a figure, and labels that can be drawn."""

import functools
import unicodedata

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


def new_figure(width, height):
    """A figure of its own, in inches: no display, no state of pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def visible(token):
    """A token in which spaces, control characters and lone accents can be seen."""
    if token and unicodedata.combining(token[0]):
        token = DOTTED_CIRCLE + token
    return "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in token.replace(" ", SPACE)
    )


def drawable(texts):
    """Finds fonts for the texts.

    Returns:
        The font families, and the texts with a code point, such as U+D55C, in place of
        each character that no installed font has.
    """
    families = [BASE_FONT]
    lacking = set("".join(texts)) - characters(BASE_FONT)
    for family in installed_fonts() if lacking else ():
        if lacking & characters(family):
            families.append(family)
            lacking -= characters(family)
        if not lacking:
            break
    points = {character: f"U+{ord(character):04X}" for character in lacking}
    return families, ["".join(points.get(c, c) for c in text) for text in texts]


def installed_fonts():
    """Font families for text, those with the most scripts first."""
    from matplotlib import font_manager

    families = {font.name for font in font_manager.fontManager.ttflist}
    others = sorted(f for f in families if not f.startswith(NO_TEXT_FONTS))
    return [f for f in PREFERRED_FONTS if f in families] + others


@functools.cache
def characters(family):
    """The characters that a font family can draw."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(font_manager.findfont(family))
    except (OSError, RuntimeError):  # a bitmap font, or a damaged file
        return frozenset()
    return frozenset(map(chr, font.get_charmap()))
