"""Text that comes token by token, in pieces that no later token changes."""

import functools
import unicodedata

from kseq.text.copying import spelled
from kseq.text.pieces import CONTINUED
from kseq.text.token_ids import REPLACEMENT, UNKNOWN
from kseq.text.tokenizers import COMPOSED

JAMO = (("\u1160", "\u11ff"), ("\ud7b0", "\ud7fb"))  # vowels and final consonants


class TextStream:
    """Turns the tokens of one text into pieces of it, as they come.

    A piece is given out as soon as no token of the vocabulary could still change it: a
    syllable of Hangul when its last letter has come, a letter with its accents. The
    pieces together are what `Vocabulary.decode` makes of all tokens.

    Args:
        vocabulary: The `Vocabulary` that decodes. With `split=None` the pieces are
            lists of symbols.
        copy: A function of the ids so far, of which the last is unknown, that gives the
            word which stands in its place; None where nothing does.

    Example:

    >>> from kseq.text import Vocabulary
    >>> from kseq.text.streaming import TextStream
    >>> letters = Vocabulary("character", normalization="NFD").adapt(["한국"])
    >>> stream = TextStream(letters)
    >>> [stream.push([token]) for token in letters.encode(["한국"])[0]], stream.close()
    (['', '', '한', '', '', '국'], '')
    """

    def __init__(self, vocabulary, copy=None):
        self.vocabulary, self.ids, self.given = vocabulary, [], 0
        self.copy, self.words = copy, {}  # by their places
        self.form = COMPOSED[vocabulary.normalization] or "NFC"
        self.has_bytes = "<0xE2>" in vocabulary.tokens
        self.joining = joining_characters(vocabulary.tokens)
        if copy or self.has_bytes and vocabulary.normalization:
            self.joining = every_joining_character()

    def push(self, ids):
        """Takes the next tokens; returns what is certain now and was not before."""
        for token_id in ids:
            self.ids.append(token_id)
            if self.copy and token_id == UNKNOWN:
                self.words[len(self.ids) - 1] = self.copy(self.ids)
        text = self._text()
        return self._give(text, self._certain(text))

    def close(self):
        """Returns the rest, when no token comes any more."""
        text = self._text()
        return self._give(text, len(text))

    def _text(self):
        return self.vocabulary.join(spelled(self.vocabulary, self.ids, self.words))

    def _give(self, text, end):
        piece, self.given = text[self.given : end], max(end, self.given)
        return piece

    def _certain(self, text):
        """How much of a text no further token can change."""
        has_ended = self.vocabulary.end_token_id in self.ids
        if has_ended or not isinstance(text, str):  # symbols, each by itself
            return len(text)
        if self.has_bytes:  # some of which may be the beginning of a character
            text = text.rstrip(REPLACEMENT)
        first = len(text) - 1
        while first > 0 and is_joining(text[first]):
            first -= 1
        tail = unicodedata.normalize(self.form, text[max(first, 0) :])
        is_certain = all(
            unicodedata.normalize(self.form, tail + character).startswith(tail)
            for character in self.joining
        )
        return len(text) if is_certain else first


def text_pieces(vocabulary, tokens, copiers):
    """Pieces of B texts, a list of B, for each `(B,)` of a stream that brings some.

    For each text there is a function that copies, or None, as for `TextStream`.
    """
    streams = [TextStream(vocabulary, copy) for copy in copiers]
    for ids in tokens:
        pieces = [s.push([i]) for s, i in zip(streams, ids.tolist(), strict=True)]
        if any(pieces):
            yield pieces
    rest = [stream.close() for stream in streams]
    if any(rest):
        yield rest


def joining_characters(tokens):
    """The characters by which a token can change what stands before it."""
    parts = (token.removeprefix(CONTINUED) for token in tokens)
    return sorted({part[0] for part in parts if part and is_joining(part[0])})


@functools.cache
def every_joining_character():
    """The characters that belong to the one before, of which bytes can come to any."""
    return [chr(i) for i in range(0x20000) if is_joining(chr(i))]


def is_joining(character):
    """Whether a character belongs to the one before: an accent, or a part of Hangul."""
    is_jamo = any(first <= character <= last for first, last in JAMO)
    return is_jamo or unicodedata.category(character).startswith("M")
