"""Word pieces: frequent words whole, others in parts that are frequent.

A part that continues a word begins with `##`, which no word does, as `#` is a mark.
Pieces are learned by merging the most frequent pair of neighbours again and again
(Sennrich et al., 2016, 3.2), and a word is cut into the longest pieces from the left
(Wu et al., 2016; Song et al., 2021).
"""

import collections
import heapq
import itertools

from kseq.text.punctuation import is_mark
from kseq.text.token_ids import by_frequency

CONTINUED, UNKNOWN_WORD = "##", "[UNK]"
LONGEST_WORD = 1000  # bytes; a longer word is unknown
LONGEST_PIECE = 256  # bytes, without CONTINUED; what cuts words takes none longer


def learn_pieces(counts, size, min_count):
    """Learns `size` pieces at most, from how often each word and mark is seen.

    First come marks and letters, each letter alone and continued, which fill no more
    than a half; then what was merged.
    """
    letters = collections.Counter()
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    pieces = {}  # in order, as a dictionary keeps it
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


def merges(words, min_count):
    """Merges the most frequent pair of neighbours, and yields what comes of it."""
    counts, places = collections.Counter(), collections.defaultdict(set)

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
        if -count != counts[pair]:  # it has changed since, and is in the heap again
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


def merge_pair(parts, pair, merged):
    result = []
    for part in parts:
        if result and (result[-1], part) == pair:
            result[-1] = merged
        else:
            result.append(part)
    return result


def piece_tokenizer(pieces):
    """A function that cuts ragged words into pieces; an unknown word stays whole."""
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


def join_pieces(pieces):
    """Puts the pieces of one text together to words and marks."""
    words = []
    for piece in pieces:
        continues = piece.startswith(CONTINUED) and words and not is_mark(words[-1])
        before = words.pop() if continues else ""
        words.append(before + piece.removeprefix(CONTINUED))
    return words


def tensorflow_text():
    """The package that normalizes and cuts; it has no wheel for every system."""
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError(
            "This vocabulary needs tensorflow-text. Install it with "
            "`pip install tensorflow-text`."
        ) from error
    return tensorflow_text
