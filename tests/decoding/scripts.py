"""Models that are tables, and every sequence that they can write.

A script is a table `(B, P, V)` of logits: for each row what follows each prefix, that
is, every sequence of tokens. Prefix 0 is empty, and word `w` makes prefix
`p * V + w + 1` of prefix `p`. A step function knows the prefixes from its state
alone, so a state that is not reordered with its hypothesis shows.

Axes in shape comments: B batch, K beams, N hypotheses, P prefixes, V vocabulary.
"""

import numpy as np
from keras import ops

from kseq.decoding import Generation
from tests.helpers import array, assert_close, cached

PAD, END, VOCABULARY_SIZE = 0, 1, 5
LENGTH = 5
ALL_SEQUENCES = sum(3**n for n in range(5)) + 3**5  # ended, and cut off


def random_script(rows, seed=0, length=LENGTH):
    num_prefixes = sum(VOCABULARY_SIZE**n for n in range(length))
    random = np.random.default_rng(seed)
    return random.normal(0, 1.5, (rows, num_prefixes, VOCABULARY_SIZE))


def search(script, how, max_length=LENGTH, step=None, **options):
    rows, num_prefixes, vocabulary_size = script.shape
    table = script.reshape(-1, vocabulary_size).astype("float32")

    def scripted(token_ids, prefixes, constants):
        prefixes = ops.where(
            prefixes < 0, 0, prefixes * vocabulary_size + token_ids + 1
        )
        known = ops.minimum(prefixes, num_prefixes - 1)  # where one has ended
        places = constants["row"] * num_prefixes + known  # B K
        return ops.take(table, places, axis=0), prefixes

    def run():
        return vars(
            how(
                scripted if step is None else step(scripted),
                ops.full((rows, how.num_beams), -1, dtype="int32"),
                {"row": ops.arange(rows, dtype="int32")[:, None]},
                np.full(rows, 3),
                END,
                max_length,
                **options,
            )
        )

    # JAX compiles an eager loop anew at every call, and slowly.
    return Generation(**cached(run)())


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def brute_force(table, penalty, max_length=LENGTH, may_write=None, constrain=None):
    """Every sequence of one row, `(tokens, log_probs, score)`, best first.

    Args:
        table: `(P, V)`, the script of the row.
        penalty: Function of the length, what the score is divided by.
        max_length: The length at which sequences are cut off.
        may_write: Function of a sequence, whether it may be written.
        constrain: Function `(tokens, log_probs (V,)) -> (V,)`.
    """
    found = []

    def go_on(prefix, tokens, gained, score):
        follows = log_softmax(table[prefix])
        ranked = follows if constrain is None else constrain(tokens, follows)
        for token in range(1, len(follows)):  # all but padding
            longer, sums = [*tokens, token], [*gained, follows[token]]
            if may_write is not None and not may_write(longer):
                continue
            if token == END or len(longer) == max_length:
                found.append((longer, sums, score + ranked[token]))
            else:
                number = prefix * len(follows) + token + 1
                go_on(number, longer, sums, score + ranked[token])

    go_on(0, [], [], 0.0)
    return sorted(found, key=lambda x: -x[2] / penalty(len(x[0])))


def power(exponent):
    return lambda length: length**exponent


def padded(sequences, fill, length=LENGTH):
    return np.array([x + [fill] * (length - len(x)) for x in sequences])


def assert_is(result, row, expected):
    """The hypotheses of a row are those of brute force, and then none."""
    tokens, gained, _ = zip(*expected, strict=True)
    real, rest = slice(len(tokens)), slice(len(tokens), None)
    lengths = np.array([len(x) for x in tokens])
    np.testing.assert_array_equal(
        array(result.token_ids[row])[real], padded(tokens, PAD)
    )
    np.testing.assert_array_equal(array(result.lengths[row])[real], lengths)
    log_probs = array(result.log_probs[row])
    assert_close(array(result.token_log_probs[row])[real], padded(gained, 0.0))
    assert_close(log_probs[real], np.array([sum(x) for x in gained]))
    assert (array(result.token_ids[row])[rest] == PAD).all()
    assert (array(result.lengths[row])[rest] == 0).all()
    assert (array(result.token_log_probs[row])[rest] == 0).all()
    assert (log_probs[rest] == -np.inf).all()


def assert_same(result, expected):
    """Both are a `Generation`."""
    np.testing.assert_array_equal(array(result.token_ids), array(expected.token_ids))
    np.testing.assert_array_equal(array(result.lengths), array(expected.lengths))
    assert_close(result.log_probs, expected.log_probs)
    assert_close(result.token_log_probs, expected.token_log_probs)
