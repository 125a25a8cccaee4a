"""Split texts into words and punctuation marks, and join them again.

If at least one of two neighbouring symbols is a mark, the mark determines whether a
space is expected between them: `word,` expects none before the comma and one after it.
Where a text differs, an extra symbol records it: SPACE for an unexpected space, JOINED
for a missing one. Both are white space characters, so no symbol of a text can be
confused with them. Every text is restored exactly, except that runs of white space
become single spaces.

Axes in shape comments: B texts, L symbols of a text. An L in parentheses is ragged.
"""

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

SPACING = SPACE, JOINED = "\N{NO-BREAK SPACE}", "\N{HAIR SPACE}"
CLOSING = ",.!?;:)]}%…»”~"  # no space before, one after
OPENING = "([{«„“‘¿¡$€£#@"  # a space before, none after
INNER = "-'’/_·、。，．！？：；（）「」『』【】《》〈〉"  # none on either side


def characters(text: str) -> str:
    """Return the characters escaped for a bracket expression of RE2."""
    return "".join(rf"\x{{{ord(character):x}}}" for character in text)


# A mark is any character but a letter, accent, number, control or space.
NO_MARK = r"\pL\pM\pN\pC\pZ"
EXPECTS_BEFORE = rf"([^\pZ{characters(CLOSING + INNER)}])"
MARK_EXPECTS_BEFORE = rf"([^{NO_MARK}{characters(CLOSING + INNER)}])"
MARK_EXPECTS_AFTER = rf"([^{NO_MARK}{characters(OPENING + INNER)}])"
MISSING = (rf"{MARK_EXPECTS_AFTER}{EXPECTS_BEFORE}", rf"\1{JOINED}\2")
REWRITES = (
    (r"[\s\v\pZ\x{85}]+", " "),
    (rf"([{characters(OPENING + INNER)}]) ", rf"\1{SPACE}"),
    (rf" ([{characters(CLOSING + INNER)}])", rf"{SPACE}\1"),
    MISSING,
    MISSING,  # between the first matches, since matches do not overlap
    (rf"([\pL\pM\pN\pC]){MARK_EXPECTS_BEFORE}", rf"\1{JOINED}\2"),
    (r"([^\pL\pM\pN\pC ])", r" \1 "),
)


def is_mark(symbol: str) -> bool:
    """Tell whether a symbol of `split_marks` is a mark, or SPACE or JOINED."""
    return len(symbol) == 1 and unicodedata.category(symbol)[0] not in "LMNC"


def split_marks(texts: "tf.Tensor") -> "tf.RaggedTensor":
    """Split texts `(B,)` into words and marks, `B (L)`."""
    import tensorflow as tf

    texts = tf.strings.strip(tf.strings.regex_replace(texts, *REWRITES[0]))
    for pattern, rewritten in REWRITES[1:]:
        texts = tf.strings.regex_replace(texts, pattern, rewritten)
    return tf.strings.split(texts)


def join_marks(symbols: Iterable[str]) -> str:
    """Join words and marks, with spaces where expected or given by a symbol."""
    text, gap = "", None
    for symbol in symbols:
        if symbol in SPACING:
            gap = " " if symbol == SPACE else ""
            continue
        if gap is None:
            joined = text[-1:] in OPENING + INNER or symbol in CLOSING + INNER
            gap = "" if joined else " "
        text += gap + symbol if text else symbol
        gap = None
    return text
