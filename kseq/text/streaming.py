"""Streaming: convert tokens to text in pieces that later tokens do not change."""

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kseq.text.copying import Copier, spelled
from kseq.text.pieces import CONTINUED
from kseq.text.token_ids import REPLACEMENT, UNKNOWN
from kseq.text.tokenizers import COMPOSED
from kseq.text.vocabulary import Vocabulary

JAMO = (("\u1160", "\u11ff"), ("\ud7b0", "\ud7fb"))  # vowels and final consonants


class TextStream:
    """A converter of the tokens of one text into pieces of text, as they arrive.

    A piece is returned as soon as no token of the vocabulary can change it: a Hangul
    syllable after its last jamo, a letter after its accents. The joined pieces are
    equal to `Vocabulary.decode` of all tokens.

    Args:
        vocabulary: The `Vocabulary` of the tokens. With `split=None` the pieces are
            lists of symbols.
        copy: A function of the ids so far, with an unknown id last, that returns the
            word in its place. None if words are not copied.

    Example:

    >>> from kseq.text import Vocabulary
    >>> from kseq.text.streaming import TextStream
    >>> letters = Vocabulary("character", normalization="NFD").adapt(["한국"])
    >>> stream = TextStream(letters)
    >>> [stream.push([token]) for token in letters.encode(["한국"])[0]], stream.close()
    (['', '', '한', '', '', '국'], '')
    """

    def __init__(self, vocabulary: Vocabulary, copy: Copier | None = None) -> None:
        self.vocabulary, self.copy = vocabulary, copy
        self.ids: list[int] = []
        self.words: dict[int, str | None] = {}  # copied words by position
        self.given = 0  # length of the text that was returned
        self.form = COMPOSED[vocabulary.normalization] or "NFC"
        self.has_bytes = "<0xE2>" in vocabulary.tokens
        self.joining = joining_characters(vocabulary.tokens)
        if copy or self.has_bytes and vocabulary.normalization:
            self.joining = every_joining_character()

    def push(self, ids: Iterable[int]) -> Any:
        """Add the next tokens; return the next piece that is final, or ""."""
        for token_id in ids:
            self.ids.append(token_id)
            if self.copy and token_id == UNKNOWN:
                self.words[len(self.ids) - 1] = self.copy(self.ids)
        text = self._text()
        return self._next_piece(text, self._final_length(text))

    def close(self) -> Any:
        """Return the rest of the text after the last token."""
        text = self._text()
        return self._next_piece(text, len(text))

    def _text(self) -> Any:
        return self.vocabulary.join(spelled(self.vocabulary, self.ids, self.words))

    def _next_piece(self, text: Any, end: int) -> Any:
        piece, self.given = text[self.given : end], max(end, self.given)
        return piece

    def _final_length(self, text: Any) -> int:
        """Return the length of the text that no further token can change."""
        has_ended = self.vocabulary.end_token_id in self.ids
        if has_ended or not isinstance(text, str):  # independent symbols
            return len(text)
        if self.has_bytes:  # the last ones may begin a character
            text = text.rstrip(REPLACEMENT)
        first = len(text) - 1
        while first > 0 and is_joining(text[first]):
            first -= 1
        tail = unicodedata.normalize(self.form, text[max(first, 0) :])
        is_final = all(
            unicodedata.normalize(self.form, tail + character).startswith(tail)
            for character in self.joining
        )
        return len(text) if is_final else first


def text_pieces(
    vocabulary: Vocabulary,
    tokens: Iterable[np.ndarray],
    copiers: Sequence[Copier | None],
) -> Iterator[list[Any]]:
    """Yield lists of the next pieces of B texts, skipping steps without any piece.

    Args:
        vocabulary: The `Vocabulary` of the tokens.
        tokens: The token ids of all texts at each step, `(B,)`.
        copiers: The `copy` argument of `TextStream` for each text.
    """
    streams = [TextStream(vocabulary, copy) for copy in copiers]
    for ids in tokens:
        pieces = [s.push([i]) for s, i in zip(streams, ids.tolist(), strict=True)]
        if any(pieces):
            yield pieces
    rest = [stream.close() for stream in streams]
    if any(rest):
        yield rest


def joining_characters(tokens: Iterable[str]) -> list[str]:
    """Return the first characters of tokens that join to the character before."""
    parts = (token.removeprefix(CONTINUED) for token in tokens)
    return sorted({part[0] for part in parts if part and is_joining(part[0])})


@functools.cache
def every_joining_character() -> list[str]:
    """Return all joining characters, any of which may be composed of bytes."""
    return [chr(i) for i in range(0x20000) if is_joining(chr(i))]


def is_joining(character: str) -> bool:
    """Tell whether a character joins to the one before: an accent, or a jamo."""
    is_jamo = any(first <= character <= last for first, last in JAMO)
    return is_jamo or unicodedata.category(character).startswith("M")
