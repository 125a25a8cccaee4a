"""Arguments of searches: accepted forms, and errors for others."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from kseq.decoding import BannedTokens, BeamSearch, GreedySearch, Sampling
from tests.helpers import array, assert_close

SEARCHES = [GreedySearch(), BeamSearch(2), Sampling(seed=1)]
SEARCHES = {type(search).__name__: search for search in SEARCHES}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
TABLE = np.log(np.array([[0.1, 0.2, 0.4, 0.3]] * 4, "float32"))


def step(token_ids, state, constants):
    return ops.take(TABLE, token_ids, axis=0), state


def run_search(search, **changes):
    call = {"start_token_ids": [0, 2], "end_token_id": 1, "max_length": 3}
    call = {"step": step, "state": (), "constants": (), **call, **changes}
    return array(search(**call).token_ids).tolist()


def make_state(search, *more):
    return np.ones((2, search.num_beams, *more), "float32")


@each_search
def test_numbers_can_be_lists_arrays_or_tensors(search):
    given = {"start_token_ids": [0, 2], "max_lengths": [2, 3], "prefix": [[2], [3]]}
    if isinstance(search, Sampling):
        given["row_seeds"] = [5, 7]
    expected = run_search(search, **given)
    kinds = [tuple, np.array, lambda x: np.array(x, "int64"), ops.convert_to_tensor]
    for kind in kinds:
        assert run_search(search, **{k: kind(v) for k, v in given.items()}) == expected


WRONG = {
    "start_token_ids": [0, None, "ab", [[0, 2]], [-1, 2], [0.5, 1]],
    "prefix": [3, [2, 3], [[2], [2, 3]], [[-1], [2]], [[2.0], [2.0]]],
    "max_lengths": [2, [[2, 2]], [0, 1], [1.5, 1], "ab"],
    "end_token_id": [None, -1, 2.0, "2", True, [1]],
    "pad_token_id": [None, -1, 2.5, True],
}


@each_search
@pytest.mark.parametrize("name, value", [(k, v) for k in WRONG for v in WRONG[k]])
def test_error_names_the_invalid_argument(search, name, value):
    kind = "a token id|integers of at least"
    message = f"`{name}` must be ({kind}).*Received: {name}={re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        run_search(search, **{name: value})


@each_search
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"end_token_id": 0}, "must be different tokens.*Received: 0 for both"),
        (
            {"end_token_id": 4},
            "of the model, which are below 4.*token_id with 4",
        ),
        ({"prefix": [[4], [2]]}, "which are below 4. Received: prefix with 4"),
        ({"prefix": [[2]]}, "1 rows of prefix and 2 start tokens"),
        ({"max_lengths": [1, 1, 1]}, "3 rows of max_lengths and 2 start tokens"),
        ({"prefix": [[2, 1, 2], [2, 2, 2]]}, r"follow the end token, 1.*: \[2, 1, 2\]"),
        ({"prefix": [[2] * 4] * 2}, "max_length=3 for a prefix of 4 tokens"),
    ],
)
def test_rejects_ids_and_rows_that_do_not_fit(search, changes, message):
    with pytest.raises(ValueError, match=message):
        run_search(search, **changes)


def test_banning_the_end_token_gives_the_maximum_length():
    token_ids = run_search(GreedySearch([BannedTokens([1])]), max_length=7)
    assert token_ids == [[[2] * 7]] * 2


@each_search
def test_logits_must_have_a_beam_axis(search):
    def flat(token_ids, state, constants):
        return ops.take(TABLE, token_ids[:, 0], axis=0), state

    with pytest.raises(ValueError, match=r"logits of the shape \(B, K, V\).*\(2, 4\)"):
        run_search(search, step=flat)


@each_search
@pytest.mark.parametrize("shape", [(), (2,), (3,), "one beam more", "one row more"])
def test_a_state_must_have_a_row_for_each_hypothesis(search, shape):
    more = {"one beam more": (0, 1), "one row more": (1, 0)}
    if shape in more:
        shape = tuple(np.add((2, search.num_beams), more[shape]))
    with pytest.raises(ValueError, match=r"shape \(B, K, ...\) = \(2, .*\['h'\]"):
        run_search(search, state={"h": np.ones(shape, "float32")})
    shared = {"shared": np.ones((2,), "float32")}
    assert run_search(search, state=shared) == run_search(search)


CHANGES = {
    "missing key": lambda x: {"h": x["h"]},
    "additional tensor": lambda x: {**x, "c": [x["c"], x["c"]]},
    "longer axis": lambda x: {**x, "c": ops.concatenate([x["c"]] * 2, axis=2)},
    "additional axis": lambda x: {**x, "h": x["h"][..., None]},
    "half precision": lambda x: {**x, "h": ops.cast(x["h"], "float16")},
    "missing axis": lambda x: {**x, "c": x["c"][..., 0]},
}


@each_search
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_rejects_a_state_that_changes_its_form(search, change):
    def changing_step(token_ids, state, constants):
        return ops.take(TABLE, token_ids, axis=0), change(state)

    state = {"h": make_state(search), "c": make_state(search, 3)}
    message = "A state must keep its shapes and dtypes|state in the same structure"
    with pytest.raises(ValueError, match=message):
        run_search(search, step=changing_step, state=state)


@each_search
def test_a_state_can_be_numpy_arrays_with_a_full_size_cache(search):
    """The error for a state that changes its form suggests such a cache."""

    def step_with_cache(token_ids, state, constants):
        is_here = ops.arange(3) == state["t"][..., None]
        seen = ops.where(is_here, token_ids[..., None] + 1, state["seen"])
        logits = ops.take(TABLE, token_ids, axis=0)
        return logits, {"seen": seen, "t": state["t"] + 1}

    state = {"seen": np.zeros((2, search.num_beams, 3), "int32")}
    state["t"] = np.zeros((2, search.num_beams), "int32")
    assert run_search(search, step=step_with_cache, state=state) == run_search(search)


@pytest.mark.parametrize("temperature", [0, 0.0])
def test_error_for_zero_temperature_suggests_greedy_search(temperature):
    with pytest.raises(ValueError, match=r"temperature=0.* `GreedySearch\(\)`"):
        Sampling(temperature)


def test_a_hypothesis_does_not_end_in_a_gap_of_the_prefix():
    likely_end = np.log(np.array([[0.1, 0.7, 0.1, 0.1]] * 4, "float32"))

    def step(token_ids, state, constants):
        return ops.take(likely_end, token_ids, axis=0), state

    prefix = [[3, 0, 2], [0, 0, 3], [0, 0, 0], [3, 0, 0]]
    for search in SEARCHES.values():
        result = search(step, (), (), [2] * 4, 1, 5, prefix=prefix)
        tokens, lengths = array(result.token_ids)[:, 0], array(result.lengths)[:, 0]
        assert tokens[0, [0, 2]].tolist() == [3, 2] and tokens[1, 2] == 3
        assert (lengths[:2] > 3).all()
    greedy = GreedySearch()(step, (), (), [2] * 4, 1, 5, prefix=prefix)
    assert array(greedy.lengths)[:, 0].tolist() == [4, 4, 1, 2]
    assert_close(greedy.log_probs[2], np.log([0.7]))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a graph")
def test_values_of_a_graph_are_not_checked():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None], "int32")])
    def compiled(prefix):
        start = ops.zeros_like(prefix[:, 0])
        return GreedySearch()(step, (), (), start, 1, 3, prefix=prefix).token_ids

    assert array(compiled(np.array([[3, 2]])))[0, 0].tolist() == [3, 2, 2]
