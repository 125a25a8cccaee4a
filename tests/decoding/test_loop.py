"""Search loop: its states, compilation and stopping.

Axes in shape comments: B batch, K beams, P prefixes, V vocabulary.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kseq.decoding import (
    AllowedSequences,
    BannedSequences,
    BeamSearch,
    ForcedTokens,
    GreedySearch,
    MaximumLength,
    MinimumLength,
    NoRepeatNGrams,
    RepetitionPenalty,
    Sampling,
)
from kseq.decoding.loop import reorder
from tests.helpers import array, assert_close, without_jit

PAD, END, START, VOCABULARY_SIZE = 0, 1, 2, 5
CONSTRAINTS = [
    MinimumLength(2),
    MaximumLength(7),
    ForcedTokens([None, 4]),
    BannedSequences([[3, 3], [2, 4, 2]]),
    NoRepeatNGrams(3),
    RepetitionPenalty(1.3),
    AllowedSequences(
        [[a, 4, c, d, 4, 3, 2] for a in (2, 3) for c in (2, 4) for d in (2, 3)]
    ),
]
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3, 0.6),
    "groups": BeamSearch(4, 0.6, length_penalty_form="gnmt", num_groups=2),
    "one result": BeamSearch(3, 0.6, num_results=1),
    "sampling": Sampling(0.8, top_k=4, top_p=0.95, typical_p=0.9, num_draws=3, seed=1),
    "constrained": GreedySearch(CONSTRAINTS),
    "constrained beams": BeamSearch(3, 0.6, constraints=CONSTRAINTS),
}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


def random_table(num_prefixes=41, seed=0):
    random = np.random.default_rng([seed, num_prefixes])
    size = (num_prefixes, VOCABULARY_SIZE)
    return random.normal(0, 1.5, size).astype("float32")


def hashed(prefixes, token_ids):
    """Return a number below 41 for each prefix, as a row of a table."""
    return (prefixes * 7 + token_ids * 3 + 1) % 41


def scripted(table, dtype="float32"):
    """Return a step function in which all tokens of the prefix decide the next."""

    def step(token_ids, prefixes, constants):
        prefixes = hashed(prefixes, token_ids)
        return ops.cast(ops.take(table, prefixes, axis=0), dtype), prefixes

    return step


def run_search(search, step, rows=3, state=None, constants=(), max_length=6, **options):
    if state is None:
        state = initial_prefixes(rows, search.num_beams)
    start_token_ids = np.full(rows, START, "int32")
    result = search(step, state, constants, start_token_ids, END, max_length, **options)
    return values(result)


def initial_prefixes(rows, num_beams):
    """Return the initial number of each row, the same for its beams, `(B, K)`."""
    return ops.repeat(ops.arange(rows, dtype="int32")[:, None], num_beams, axis=1)


def values(result):
    return {k: v for k, v in vars(result).items() if v is not None}


def assert_same(result, expected):
    assert result.keys() == expected.keys()
    for name in expected:
        assert_close(result[name], expected[name])


@each_search
def test_a_state_of_nested_lists_and_dicts_follows_its_hypothesis(search):
    table = random_table()
    plain = run_search(search, scripted(table))

    def step(token_ids, state, constants):
        leaves = [
            state["prefixes"],
            ops.max(state["nested"][0], axis=-1),
            ops.min(state["nested"][1]["deep"], axis=(2, 3)),
        ]
        # The logits equal the table only if all leaves have the same prefix.
        tokens = [hashed(ops.cast(leaf, "int32"), token_ids) for leaf in leaves]
        logits = sum(ops.take(table, x, axis=0) for x in tokens) / 3
        return logits, tree(tokens[0])

    def tree(prefixes):
        wide = ops.cast(prefixes, "float32")[..., None]  # B K 1
        return {
            "prefixes": prefixes,
            "nested": [
                ops.repeat(wide, 2, axis=2),
                {"deep": ops.repeat(ops.repeat(wide, 3, axis=2)[..., None], 2, -1)},
            ],
        }

    state = tree(initial_prefixes(3, search.num_beams))
    assert_same(run_search(search, step, state=state), plain)


def test_reorder_gathers_the_parents_in_every_tensor():
    parents = np.array([[2, 0, 2], [1, 1, 0]], "int32")  # B K
    state = {
        "a": np.arange(6, dtype="int32").reshape(2, 3),
        "b": [np.arange(84, dtype="float32").reshape(2, 3, 2, 7)],
    }
    for old, new in zip(
        keras.tree.flatten(state),
        keras.tree.flatten(reorder(state, ops.convert_to_tensor(parents))),
        strict=True,
    ):
        for row in range(2):
            np.testing.assert_array_equal(array(new)[row], old[row][parents[row]])


def test_reorder_does_not_move_shared_tensors():
    parents = ops.convert_to_tensor(np.array([[1, 1], [1, 0]], "int32"))
    state = {"own": np.arange(4).reshape(2, 2), "shared": [{"x": np.arange(6)}]}
    new = reorder([state], parents)[0]
    assert array(new["own"]).tolist() == [[1, 1], [3, 2]]
    assert array(new["shared"][0]["x"]).tolist() == list(range(6))


@each_search
def test_constants_are_neither_tiled_nor_reordered(search):
    table, rows = random_table(), 3
    memory = np.arange(21, dtype="int32").reshape(rows, 7)  # B S
    constants = {"memory": ops.convert_to_tensor(memory), "other": [memory[:, 0]]}

    def step(token_ids, state, constants):
        assert tuple(token_ids.shape) == (rows, search.num_beams)
        assert tuple(state.shape) == (rows, search.num_beams)
        assert constants["memory"] is given["memory"]
        assert constants["other"] is given["other"]
        first = constants["memory"][:, :1] // 7  # B 1
        logits, state = scripted(table)(token_ids, state + first, constants)
        return logits, state - first

    given = constants
    result = run_search(
        search,
        step,
        state=initial_prefixes(rows, search.num_beams) * 0,
        constants=constants,
    )

    def alone(row):
        def step(token_ids, state, constants):
            logits, state = scripted(table)(token_ids, state + row, constants)
            return logits, state - row

        options = {"row_seeds": seeds[row : row + 1]} if seeds is not None else {}
        return run_search(search, step, rows=1, **options)

    seeds = search.row_seeds(rows) if isinstance(search, Sampling) else None

    for row in range(rows):
        assert_same({k: v[row : row + 1] for k, v in result.items()}, alone(row))


@each_search
def test_half_precision_logits_get_float32_scores(search):
    table = random_table().astype("float16")
    half = run_search(search, scripted(table.astype("float32"), "float16"))
    assert_same(half, run_search(search, scripted(table.astype("float32"))))
    for name in ("log_probs", "token_log_probs"):
        assert keras.backend.standardize_dtype(half[name].dtype) == "float32"


@each_search
def test_token_log_probs_sum_to_the_log_prob_of_the_hypothesis(search):
    result = run_search(search, scripted(random_table()))
    tokens, lengths = array(result["token_ids"]), array(result["lengths"])
    written = np.arange(6) < lengths[..., None]
    assert_close(ops.sum(result["token_log_probs"], axis=-1), result["log_probs"])
    assert ((tokens != PAD) == written).all()
    assert ((array(result["token_log_probs"]) != 0) == written).all()
    is_last = np.arange(6) == lengths[..., None] - 1
    assert ((tokens == END) <= is_last).all()
    assert ((tokens == END).any(-1) | (lengths == 6)).all()


@pytest.mark.parametrize(
    "ends, calls", [([1, 1, 1], 1), ([1, 4, 2], 4), ([9, 3, 1], 6)]
)
def test_the_loop_stops_when_every_row_has_ended(ends, calls):
    seen = []

    def step(token_ids, steps_left, constants):
        seen.append(1)
        is_end = ops.arange(VOCABULARY_SIZE) == END
        end_logits = ops.where(steps_left <= 1, 9.0, -9.0)[..., None]  # B 1 1
        return ops.where(is_end, end_logits, 0.0), steps_left - 1

    steps_left = ops.convert_to_tensor(np.array(ends, "int32")[:, None])  # B 1
    with without_jit():
        result = run_search(GreedySearch(), step, state=steps_left)
    assert array(result["lengths"])[:, 0].tolist() == [min(end, 6) for end in ends]
    assert len(seen) == calls


def test_the_loop_stops_when_every_beam_has_ended():
    seen = []

    def step(token_ids, state, constants):
        seen.append(1)
        words = np.array([-np.inf, 0, -np.inf, -1, -2], "float32")
        end = np.array([-np.inf, 0, -np.inf, -np.inf, -np.inf], "float32")
        return ops.where(token_ids[..., None] == START, words, end), state

    with without_jit():
        result = run_search(BeamSearch(2), step, max_length=9)
    assert array(result["lengths"]).max() == len(seen) == 2


COMPILED = {"tensorflow": ["graph", "xla"], "jax": ["jit"]}


@pytest.mark.parametrize("mode", COMPILED.get(keras.backend.backend(), []))
@each_search
def test_compiled_searches_give_the_same_results(search, mode):
    table = random_table()

    def run(prefixes):
        """Run one row for each initial number, `(B,)`."""
        return values(
            search(
                scripted(table),
                ops.repeat(prefixes[:, None], search.num_beams, axis=1),
                (),
                ops.full_like(prefixes, START),
                END,
                6,
            )
        )

    prefixes = ops.arange(4, dtype="int32")
    expected = run(prefixes)
    if mode == "jit":
        import jax

        compiled = jax.jit(run)
    else:
        import tensorflow as tf

        signature = [tf.TensorSpec([None], "int32")]
        compiled = tf.function(run, signature, jit_compile=mode == "xla")
    assert_same(compiled(prefixes), expected)


@pytest.mark.parametrize("max_length", [0, -1, 2.5, "7", None])
@each_search
def test_rejects_an_invalid_max_length(search, max_length):
    with pytest.raises(
        ValueError, match=f"`max_length` must be a positive.*{max_length!r}"
    ):
        run_search(search, scripted(random_table()), max_length=max_length)
