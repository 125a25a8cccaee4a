"""Words and punctuation marks as symbols of their own, and texts from them.

Between two symbols of which at least one is a mark, the marks say whether a space is
expected: `word,` has none before the comma and one behind it. Where a text has it
otherwise, a symbol says so: SPACE for a space that is not expected, JOINED for one that
is lacking. Both are white space themselves, so no symbol of a text can be mistaken for
one, and every text comes back, its runs of white space as single spaces.

Axes in shape comments: B texts, L symbols of a text. An L in brackets is ragged.
"""

import unicodedata

SPACING = SPACE, JOINED = "\N{NO-BREAK SPACE}", "\N{HAIR SPACE}"
CLOSING = ",.!?;:)]}%…»”~"  # no space before, one behind
OPENING = "([{«„“‘¿¡$€£#@"  # a space before, none behind
INNER = "-'’/_·、。，．！？：；（）「」『』【】《》〈〉"  # none on either side


def characters(text):
    """The characters as a regular expression of RE2 names them inside brackets."""
    return "".join(rf"\x{{{ord(character):x}}}" for character in text)


# A mark is what is no letter, accent, number, control or space.
NO_MARK = r"\pL\pM\pN\pC\pZ"
EXPECTS_BEFORE = rf"([^\pZ{characters(CLOSING + INNER)}])"
MARK_EXPECTS_BEFORE = rf"([^{NO_MARK}{characters(CLOSING + INNER)}])"
MARK_EXPECTS_BEHIND = rf"([^{NO_MARK}{characters(OPENING + INNER)}])"
LACKING = (rf"{MARK_EXPECTS_BEHIND}{EXPECTS_BEFORE}", rf"\1{JOINED}\2")
REWRITES = (
    (r"[\s\v\pZ\x{85}]+", " "),
    (rf"([{characters(OPENING + INNER)}]) ", rf"\1{SPACE}"),
    (rf" ([{characters(CLOSING + INNER)}])", rf"{SPACE}\1"),
    LACKING,
    LACKING,  # between the matches of the first time, which do not overlap
    (rf"([\pL\pM\pN\pC]){MARK_EXPECTS_BEFORE}", rf"\1{JOINED}\2"),
    (r"([^\pL\pM\pN\pC ])", r" \1 "),
)


def is_mark(symbol):
    """Whether a symbol that `split_marks` gives is a mark, or says how marks stand."""
    return len(symbol) == 1 and unicodedata.category(symbol)[0] not in "LMNC"


def split_marks(texts):
    """Cuts texts `(B,)` into words and marks, `B (L)`."""
    import tensorflow as tf

    texts = tf.strings.strip(tf.strings.regex_replace(texts, *REWRITES[0]))
    for pattern, rewritten in REWRITES[1:]:
        texts = tf.strings.regex_replace(texts, pattern, rewritten)
    return tf.strings.split(texts)


def join_marks(symbols):
    """Puts words and marks together, with spaces where they are expected or told."""
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
