"""The loop: its states, its compilation, its end.

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
    "draws": Sampling(0.8, top_k=4, top_p=0.95, typical_p=0.9, num_draws=3, seed=1),
    "constrained": GreedySearch(CONSTRAINTS),
    "constrained beams": BeamSearch(3, 0.6, constraints=CONSTRAINTS),
}
each_search = pytest.mark.parametrize("how", SEARCHES.values(), ids=SEARCHES)


def random_table(num_prefixes=41, seed=0):
    random = np.random.default_rng([seed, num_prefixes])
    size = (num_prefixes, VOCABULARY_SIZE)
    return random.normal(0, 1.5, size).astype("float32")


def hashed(prefixes, token_ids):
    """A number for each prefix, for a table of 41."""
    return (prefixes * 7 + token_ids * 3 + 1) % 41


def scripted(table, dtype="float32"):
    """Every token of the prefix decides the next, through a number in the state."""

    def step(token_ids, prefixes, constants):
        prefixes = hashed(prefixes, token_ids)
        return ops.cast(ops.take(table, prefixes, axis=0), dtype), prefixes

    return step


def search(how, step, rows=3, state=None, constants=(), max_length=6, **options):
    if state is None:
        state = rows_and_beams(rows, how.num_beams)
    start_token_ids = np.full(rows, START, "int32")
    result = how(step, state, constants, start_token_ids, END, max_length, **options)
    return values(result)


def rows_and_beams(rows, num_beams):
    """A first number for each row, the same for its beams: `(B, K)`."""
    return ops.repeat(ops.arange(rows, dtype="int32")[:, None], num_beams, axis=1)


def values(result):
    return {k: v for k, v in vars(result).items() if v is not None}


def assert_same(result, expected):
    assert result.keys() == expected.keys()
    for name in expected:
        assert_close(result[name], expected[name])


@each_search
def test_a_state_of_nested_lists_and_dicts_follows_its_hypothesis(how):
    table = random_table()
    plain = search(how, scripted(table))

    def step(token_ids, state, constants):
        leaves = [
            state["prefixes"],
            ops.max(state["nested"][0], axis=-1),
            ops.min(state["nested"][1]["deep"], axis=(2, 3)),
        ]
        # The logits are the table's only while every leaf tells the same prefix.
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

    state = tree(rows_and_beams(3, how.num_beams))
    assert_same(search(how, step, state=state), plain)


def test_reorder_takes_the_parents_of_every_tensor():
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


def test_reorder_leaves_what_is_shared_where_it_is():
    parents = ops.convert_to_tensor(np.array([[1, 1], [1, 0]], "int32"))
    state = {"own": np.arange(4).reshape(2, 2), "shared": [{"x": np.arange(6)}]}
    new = reorder([state], parents)[0]
    assert array(new["own"]).tolist() == [[1, 1], [3, 2]]
    assert array(new["shared"][0]["x"]).tolist() == list(range(6))


@each_search
def test_constants_are_neither_tiled_nor_reordered(how):
    table, rows = random_table(), 3
    memory = np.arange(21, dtype="int32").reshape(rows, 7)  # B S
    constants = {"memory": ops.convert_to_tensor(memory), "other": [memory[:, 0]]}

    def step(token_ids, state, constants):
        assert tuple(token_ids.shape) == (rows, how.num_beams)
        assert tuple(state.shape) == (rows, how.num_beams)
        assert constants["memory"] is given["memory"]
        assert constants["other"] is given["other"]
        first = constants["memory"][:, :1] // 7  # B 1
        logits, state = scripted(table)(token_ids, state + first, constants)
        return logits, state - first

    given = constants
    result = search(
        how, step, state=rows_and_beams(rows, how.num_beams) * 0, constants=constants
    )

    def alone(row):
        def step(token_ids, state, constants):
            logits, state = scripted(table)(token_ids, state + row, constants)
            return logits, state - row

        own = {"row_seeds": seeds[row : row + 1]} if seeds is not None else {}
        return search(how, step, rows=1, **own)

    seeds = how.row_seeds(rows) if isinstance(how, Sampling) else None

    for row in range(rows):
        assert_same({k: v[row : row + 1] for k, v in result.items()}, alone(row))


@each_search
def test_half_precision_logits_get_float32_scores(how):
    table = random_table().astype("float16")
    half = search(how, scripted(table.astype("float32"), "float16"))
    assert_same(half, search(how, scripted(table.astype("float32"))))
    for name in ("log_probs", "token_log_probs"):
        assert keras.backend.standardize_dtype(half[name].dtype) == "float32"


@each_search
def test_the_tokens_sum_up_to_the_hypothesis(how):
    result = search(how, scripted(random_table()))
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
        likes_end = ops.where(steps_left <= 1, 9.0, -9.0)[..., None]  # B 1 1
        return ops.where(is_end, likes_end, 0.0), steps_left - 1

    steps_left = ops.convert_to_tensor(np.array(ends, "int32")[:, None])  # B 1
    with without_jit():
        result = search(GreedySearch(), step, state=steps_left)
    assert array(result["lengths"])[:, 0].tolist() == [min(end, 6) for end in ends]
    assert len(seen) == calls


def test_it_stops_when_every_beam_has_ended():
    seen = []

    def step(token_ids, state, constants):
        seen.append(1)
        words = np.array([-np.inf, 0, -np.inf, -1, -2], "float32")
        end = np.array([-np.inf, 0, -np.inf, -np.inf, -np.inf], "float32")
        return ops.where(token_ids[..., None] == START, words, end), state

    with without_jit():
        result = search(BeamSearch(2), step, max_length=9)
    assert array(result["lengths"]).max() == len(seen) == 2


COMPILED = {"tensorflow": ["graph", "xla"], "jax": ["jit"]}


@pytest.mark.parametrize("mode", COMPILED.get(keras.backend.backend(), []))
@each_search
def test_compiled_searches_find_the_same(how, mode):
    table = random_table()

    def run(firsts):
        """One row for each first number, however many: `(B,)`."""
        return values(
            how(
                scripted(table),
                ops.repeat(firsts[:, None], how.num_beams, axis=1),
                (),
                ops.full_like(firsts, START),
                END,
                6,
            )
        )

    firsts = ops.arange(4, dtype="int32")
    expected = run(firsts)
    if mode == "jit":
        import jax

        compiled = jax.jit(run)
    else:
        import tensorflow as tf

        signature = [tf.TensorSpec([None], "int32")]
        compiled = tf.function(run, signature, jit_compile=mode == "xla")
    assert_same(compiled(firsts), expected)


@pytest.mark.parametrize("max_length", [0, -1, 2.5, "7", None])
@each_search
def test_a_length_that_is_none_is_an_error(how, max_length):
    with pytest.raises(
        ValueError, match=f"`max_length` must be a positive.*{max_length!r}"
    ):
        search(how, scripted(random_table()), max_length=max_length)
