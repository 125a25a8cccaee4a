"""Models given as tables, and searches over all of their sequences in plain loops.

A script is a table `(B, P, V)` with the logits of the next token, for each row and each
prefix, a sequence of tokens. Prefix 0 is empty, and token `w` extends prefix `p` to
prefix `p * V + w + 1`. A step function knows the prefix from its state only, so that a
state that is not reordered with its hypothesis gives wrong logits.

Axes in shape comments: B batch, K beams, N hypotheses, P prefixes, V vocabulary.
"""

import collections

import numpy as np
from keras import ops

from kseq.decoding import Generation
from tests.helpers import array, assert_close, compiled_on_jax

PAD, END, VOCABULARY_SIZE = 0, 1, 5
LENGTH = 5
NUM_SEQUENCES = sum(3**n for n in range(5)) + 3**5  # ended or cut off


def random_script(rows, seed=0, length=LENGTH):
    num_prefixes = sum(VOCABULARY_SIZE**n for n in range(length))
    random = np.random.default_rng(seed)
    return random.normal(0, 1.5, (rows, num_prefixes, VOCABULARY_SIZE))


def run_search(script, search, max_length=LENGTH, step=None, **options):
    rows, num_prefixes, vocabulary_size = script.shape
    table = script.reshape(-1, vocabulary_size).astype("float32")

    def scripted(token_ids, prefixes, constants):
        prefixes = ops.where(
            prefixes < 0, 0, prefixes * vocabulary_size + token_ids + 1
        )
        known = ops.minimum(prefixes, num_prefixes - 1)  # for ended hypotheses
        places = constants["row"] * num_prefixes + known  # B K
        return ops.take(table, places, axis=0), prefixes

    def run():
        return vars(
            search(
                scripted if step is None else step(scripted),
                ops.full((rows, search.num_beams), -1, dtype="int32"),
                {"row": ops.arange(rows, dtype="int32")[:, None]},
                np.full(rows, 3),
                END,
                max_length,
                **options,
            )
        )

    # JAX compiles a loop anew in every eager call, and slowly.
    return Generation(**compiled_on_jax(run)())


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def prefix_index(tokens, vocabulary_size=VOCABULARY_SIZE):
    """Return the index of a prefix in a script."""
    number = 0
    for token in tokens:
        number = number * vocabulary_size + token + 1
    return number


def brute_force(
    table, penalty, max_length=LENGTH, is_allowed=None, constrain=None, forced=()
):
    """Return all sequences of one row, `(tokens, log_probs, score)`, best first.

    Args:
        table: `(P, V)`, the script of the row.
        penalty: Function of the length that returns the divisor of the score.
        max_length: Length at which sequences are cut off.
        is_allowed: Function of a sequence that returns whether it is allowed.
        constrain: Function `(tokens, log_probs (V,)) -> (V,)`.
        forced: Positions whose tokens do not count in the ranking.
    """
    found = []

    def extend(prefix, tokens, token_log_probs, score):
        follows = log_softmax(table[prefix])
        ranked = follows if constrain is None else constrain(tokens, follows)
        if len(tokens) in forced:
            ranked = np.where(ranked > -np.inf, 0.0, ranked)
        for token in range(1, len(follows)):  # all but padding
            longer, sums = [*tokens, token], [*token_log_probs, follows[token]]
            if is_allowed is not None and not is_allowed(longer):
                continue
            if token == END or len(longer) == max_length:
                found.append((longer, sums, score + ranked[token]))
            else:
                number = prefix * len(follows) + token + 1
                extend(number, longer, sums, score + ranked[token])

    def rank(hypothesis):
        tokens, _, score = hypothesis
        chosen = [i for i in range(len(tokens)) if i not in forced]
        return score / penalty(max(len(chosen), 1))

    extend(0, [], [], 0.0)
    return sorted(found, key=rank, reverse=True)


def two_pools(
    table,
    num_beams,
    penalty,
    strength=0.0,
    num_groups=1,
    results=None,
    is_early=False,
    max_length=LENGTH,
):
    """Run beam search for one row in plain loops, and return its pool, best first.

    A hypothesis is `(tokens, log_probs, score)`. Groups are as in Vijayakumar et al.,
    2016, algorithm 1.

    Args:
        table: `(P, V)`, the script of the row.
        num_beams: Number of open hypotheses, and size of the pool.
        penalty: Function of the length that returns the divisor of the score.
        strength: Loss of a token for each hypothesis of earlier groups that has it.
        num_groups: Number of groups.
        results: Number of hypotheses wanted, for `num_groups=1`.
        is_early: Whether to stop early, as with `early_stopping`.
        max_length: Length at which sequences are cut off.
    """
    size = num_beams // num_groups
    wanted = results or size
    groups = [([([], [], 0.0)], []) for _ in range(num_groups)]

    def rank(hypothesis):
        return hypothesis[2] / penalty(len(hypothesis[0]))

    def is_done(opened, ended):
        if len(ended) < wanted:
            return False
        worst = rank(ended[wanted - 1])
        if size == 1 or is_early:
            return len(ended) == size or all(rank(x) <= worst for x in opened)
        longer = range(len(opened[0][0]) + 1, max_length + 1) if opened else ()
        return all(x[2] / penalty(n) <= worst for x in opened for n in longer)

    for length in range(1, max_length + 1):
        written = collections.Counter()
        for g, (opened, ended) in enumerate(groups):
            found = []
            for tokens, token_log_probs, score in opened:
                follows = log_softmax(table[prefix_index(tokens)])
                for token in range(1, VOCABULARY_SIZE):
                    gain = follows[token] - strength * written[token]
                    sums = [*token_log_probs, follows[token]]
                    found.append(([*tokens, token], sums, score + gain))
            found = [x for x in found if x[2] > -np.inf]
            found.sort(key=rank, reverse=True)
            over = [x[0][-1] == END or length == max_length for x in found]
            new = [x for x, is_over in zip(found[:size], over, strict=False) if is_over]
            ended = sorted([*ended, *new], key=rank, reverse=True)[:size]
            opened = [x for x, is_over in zip(found, over, strict=True) if not is_over]
            opened = opened[:size]
            opened = [] if is_done(opened, ended) else opened
            kept = opened + [x for x in ended if len(x[0]) == length]
            written.update(x[0][-1] for x in kept)
            groups[g] = opened, ended
    every = [x for _, ended in groups for x in ended]
    if num_groups > 1:
        every.sort(key=lambda x: sum(x[1]) / penalty(len(x[0])), reverse=True)
    return every[:results]


def one_pool(table, num_beams, penalty, max_length=LENGTH):
    """Run beam search for one row, with ended hypotheses among the beams."""
    pool = [([], 0.0)]
    for _ in range(max_length):
        found = [x for x in pool if END in x[0]]
        for tokens, score in pool:
            if END not in tokens:
                follows = log_softmax(table[prefix_index(tokens)])
                words = range(1, VOCABULARY_SIZE)
                found += [([*tokens, w], score + follows[w]) for w in words]
        found.sort(key=lambda x: x[1] / penalty(len(x[0])), reverse=True)
        pool = found[:num_beams]
    return pool


def begins_with(prefix):
    """Return a function that tells whether a sequence begins with the prefix."""
    pairs = [(i, token) for i, token in enumerate(prefix) if token != PAD]  # no gaps
    last = max((i for i, _ in pairs), default=0)
    return lambda x: (
        END not in x[:last] and all(x[i] == token for i, token in pairs if i < len(x))
    )


def forced_positions(prefix):
    """Return the positions of the tokens of a prefix with gaps."""
    return {i for i, token in enumerate(prefix) if token != PAD}


def power(exponent):
    return lambda length: length**exponent


def gnmt(exponent):
    """Return the length penalty of Wu et al., 2016, (14)."""
    return lambda length: ((5 + length) / 6) ** exponent


PENALTIES = {"power": power, "gnmt": gnmt}


def padded(sequences, fill, length=LENGTH):
    return np.array([x + [fill] * (length - len(x)) for x in sequences])


def assert_row_equals(result, row, expected):
    """Check that a row has the expected hypotheses, followed by empty ones."""
    tokens, token_log_probs, _ = zip(*expected, strict=True)
    real, rest = slice(len(tokens)), slice(len(tokens), None)
    lengths = np.array([len(x) for x in tokens])
    np.testing.assert_array_equal(
        array(result.token_ids[row])[real], padded(tokens, PAD)
    )
    np.testing.assert_array_equal(array(result.lengths[row])[real], lengths)
    log_probs = array(result.log_probs[row])
    assert_close(array(result.token_log_probs[row])[real], padded(token_log_probs, 0.0))
    assert_close(log_probs[real], np.array([sum(x) for x in token_log_probs]))
    assert (array(result.token_ids[row])[rest] == PAD).all()
    assert (array(result.lengths[row])[rest] == 0).all()
    assert (array(result.token_log_probs[row])[rest] == 0).all()
    assert (log_probs[rest] == -np.inf).all()


def assert_same(result, expected):
    """Check that two `Generation`s are equal."""
    np.testing.assert_array_equal(array(result.token_ids), array(expected.token_ids))
    np.testing.assert_array_equal(array(result.lengths), array(expected.lengths))
    assert_close(result.log_probs, expected.log_probs)
    assert_close(result.token_log_probs, expected.token_log_probs)
