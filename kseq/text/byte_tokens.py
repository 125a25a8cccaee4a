"""Fixed tokens that are not learned: the bytes of UTF-8, and the jamo of Hangul.

A Hangul syllable is encoded as its two or three jamo. Every other character is encoded
as its bytes, including a jamo that stands alone. So each text has exactly one encoding,
from which it is restored.

Axes in shape comments: B texts, N characters of all texts, L tokens of a text. An L in
parentheses is ragged.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kseq.text.token_ids import END, Ids

if TYPE_CHECKING:
    import tensorflow as tf

FIRST_BYTE = END + 1
FIRST_JAMO = FIRST_BYTE + 256
LEADS, VOWELS, TAILS = 19, 21, 28  # numbers of jamo; "no tail" counts as a tail
FIRST_VOWEL, FIRST_TAIL = FIRST_JAMO + LEADS, FIRST_JAMO + LEADS + VOWELS
SYLLABLES = "가", "힣"  # the first and the last
JAMO = [
    chr(first + i)
    for first, count in ((0x1100, LEADS), (0x1161, VOWELS), (0x11A8, TAILS - 1))
    for i in range(count)
]
NUMBERS = {jamo: number for number, jamo in enumerate(JAMO)}


def byte_name(byte: int) -> str:
    """Return the spelling of a byte: a printable ASCII character, or its number."""
    return chr(byte) if 0x20 <= byte < 0x7F else f"<0x{byte:02X}>"


BYTES = {byte_name(byte): bytes([byte]) for byte in range(256)}


class ByteIds(Ids):
    """Ids of bytes (`"byte"`), or of Hangul jamo and bytes (`"jamo"`).

    Args:
        split: `"byte"` or `"jamo"`.
    """

    def __init__(self, split: str) -> None:
        self.has_jamo = split == "jamo"
        super().__init__([*BYTES, *(JAMO if self.has_jamo else [])])

    def numbers(self, texts: "tf.Tensor") -> "tf.RaggedTensor":
        """Return ids `B (L)` of texts `(B,)`."""
        import tensorflow as tf

        characters = tf.strings.unicode_split(texts, "UTF-8")
        raw = tf.io.decode_raw(characters.values, "uint8", fixed_length=4)
        raw = tf.cast(raw, "int32")  # N 4, padded with 0, which occurs in no text
        ids = tf.where(raw > 0, FIRST_BYTE + raw, 0)
        if self.has_jamo:
            jamo, is_syllable = jamo_ids(raw)
            ids = tf.where(is_syllable[:, None], jamo, ids)
        is_token = ids > 0
        lengths = tf.reduce_sum(tf.cast(is_token, "int64"), axis=1)
        lengths = tf.reduce_sum(characters.with_values(lengths), axis=1)  # B
        return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(ids, is_token), lengths)

    def unknown(self, texts: "tf.Tensor") -> list[bytes]:
        return []

    def join(self, symbols: Iterable[str]) -> str:
        """Return the text of symbols; invalid or truncated UTF-8 becomes U+FFFD."""
        parts = [BYTES.get(symbol) or symbol.encode() for symbol in compose(symbols)]
        return b"".join(parts).decode("utf-8", "replace")


def jamo_ids(raw: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
    """Return the jamo of syllables, `(N, 4)`, and a mask of the syllables, `(N,)`.

    Args:
        raw: The bytes of each character, `(N, 4)`, padded with 0.
    """
    import tensorflow as tf

    first, last = map(ord, SYLLABLES)
    number = tf.reduce_sum((raw - [0xE0, 0x80, 0x80, 0]) * [4096, 64, 1, 0], axis=1)
    is_syllable = (raw[:, 2] > 0) & (raw[:, 3] == 0)  # three bytes
    is_syllable &= (number >= first) & (number <= last)
    number -= first
    lead, vowel = number // (VOWELS * TAILS), number // TAILS % VOWELS
    tail = number % TAILS
    tail = tf.where(tail > 0, FIRST_TAIL + tail - 1, 0)
    jamo = [FIRST_JAMO + lead, FIRST_VOWEL + vowel, tail, tf.zeros_like(tail)]
    return tf.stack(jamo, axis=1), is_syllable


def compose(symbols: Iterable[str]) -> list[str]:
    """Return the symbols with jamo joined into syllables wherever they form one."""
    composed: list[str] = []
    last = None  # the last jamo of an unfinished syllable: "lead", "vowel" or None
    for symbol in symbols:
        number = NUMBERS.get(symbol, -1)
        is_vowel = LEADS <= number < LEADS + VOWELS
        if is_vowel and last == "lead":
            lead = NUMBERS[composed.pop()]
            number = (lead * VOWELS + number - LEADS) * TAILS
            composed.append(chr(ord(SYLLABLES[0]) + number))
            last = "vowel"
        elif number >= LEADS + VOWELS and last == "vowel":
            tail = number - LEADS - VOWELS + 1
            composed.append(chr(ord(composed.pop()) + tail))
            last = None
        else:
            composed.append(symbol)
            last = "lead" if 0 <= number < LEADS else None
    return composed
