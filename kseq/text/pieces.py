"""Word pieces: frequent words stay whole, others are split into frequent pieces.

A piece that continues a word begins with `##`; no word does, as `#` is a mark. Pieces
are learned by repeatedly merging the most frequent pair of neighbours (Sennrich et al.,
2016, 3.2). A word is split into the longest pieces, from the left (Wu et al., 2016;
Song et al., 2021).
"""

import collections
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from kseq.text.punctuation import is_mark
from kseq.text.token_ids import by_frequency

if TYPE_CHECKING:
    import tensorflow as tf

CONTINUED, UNKNOWN_WORD = "##", "[UNK]"
LONGEST_WORD = 1000  # bytes; a longer word is unknown
LONGEST_PIECE = 256  # bytes, without CONTINUED; the limit of FastWordpieceTokenizer


def learn_pieces(counts: Mapping[str, int], size: int, min_count: int) -> list[str]:
    """Learn at most `size` pieces from the counts of words and marks.

    Marks and letters come first and fill at most half of the pieces; each letter is
    present both alone and continued. Merged pieces follow.
    """
    letters: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    pieces: dict[str, None] = {}  # an ordered set
    for letter in by_frequency(letters):
        forms = [letter] if is_mark(letter) else [letter, CONTINUED + letter]
        if letters[letter] >= min_count and len(pieces) + len(forms) <= -(-size // 2):
            pieces.update(dict.fromkeys(forms))
    words = [
        ([word[0], *(CONTINUED + letter for letter in word[1:])], count)
        for word, count in sorted(counts.items())
    ]
    words = [(parts, count) for parts, count in words if pieces.keys() >= set(parts)]
    for piece in merges(words, min_count):
        if len(pieces) >= size:
            break
        pieces[piece] = None
    return list(pieces)


def merges(words: list[tuple[list[str], int]], min_count: int) -> Iterator[str]:
    """Merge the most frequent pair of neighbours repeatedly; yield each new piece."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    places: dict[tuple[str, str], set[int]] = collections.defaultdict(set)

    def count_pairs(index, sign):
        parts, count = words[index]
        for pair in itertools.pairwise(parts):
            counts[pair] += sign * count
            places[pair].add(index)
        return set(itertools.pairwise(parts))

    for index in range(len(words)):
        count_pairs(index, 1)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    while heap:
        count, pair = heapq.heappop(heap)
        if -count != counts[pair]:  # outdated: the new count is in the heap too
            continue
        if -count < max(min_count, 1):
            return
        merged = pair[0] + pair[1].removeprefix(CONTINUED)
        if len(merged.removeprefix(CONTINUED).encode()) > LONGEST_PIECE:
            continue
        yield merged
        changed = set()
        for index in places.pop(pair):
            changed |= count_pairs(index, -1)
            words[index] = merge_pair(words[index][0], pair, merged), words[index][1]
            changed |= count_pairs(index, 1)
        for other in changed:
            heapq.heappush(heap, (-counts[other], other))


def merge_pair(parts: list[str], pair: tuple[str, str], merged: str) -> list[str]:
    """Return the parts of a word with each occurrence of a pair merged."""
    result: list[str] = []
    for part in parts:
        if result and (result[-1], part) == pair:
            result[-1] = merged
        else:
            result.append(part)
    return result


def piece_tokenizer(
    pieces: list[str],
) -> "Callable[[tf.RaggedTensor], tf.RaggedTensor]":
    """Return a function from ragged words to pieces; an unknown word stays whole."""
    import tensorflow as tf

    tokenizer = tensorflow_text().FastWordpieceTokenizer(
        [UNKNOWN_WORD, *pieces],
        suffix_indicator=CONTINUED,
        max_bytes_per_word=LONGEST_WORD,
        token_out_type=tf.string,
        unknown_token=UNKNOWN_WORD,
        no_pretokenization=True,
    )

    def cut(words):
        pieces = tokenizer.tokenize(words.values)  # words (pieces of a word)
        whole = tf.gather(words.values, pieces.value_rowids())
        values = tf.where(pieces.values == UNKNOWN_WORD, whole, pieces.values)
        starts = tf.gather(pieces.row_splits, words.row_splits)
        return tf.RaggedTensor.from_row_splits(values, starts)

    return cut


def join_pieces(pieces: Iterable[str]) -> list[str]:
    """Join the pieces of one text into words and marks."""
    words: list[str] = []
    for piece in pieces:
        continues = piece.startswith(CONTINUED) and words and not is_mark(words[-1])
        before = words.pop() if continues else ""
        words.append(before + piece.removeprefix(CONTINUED))
    return words


def tensorflow_text() -> ModuleType:
    """Return the package tensorflow-text, which has no wheels for some systems."""
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError(
            "This vocabulary needs tensorflow-text. Install it with "
            "`pip install tensorflow-text`."
        ) from error
    return tensorflow_text
