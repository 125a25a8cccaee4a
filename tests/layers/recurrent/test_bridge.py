import numpy as np
import pytest

from kseq.layers import StateBridge
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_layer_runs,
    check_padding_changes_nothing,
    dense,
    length_mask,
    random_array,
    randomize,
)

B, S, D = 3, 7, 5

MASK = length_mask(4, 7, 1, size=S)
MASK[0, :2] = False  # left padding as well

MEMORY = random_array(B, S, D)


def states_of(*sizes):
    """Return random states, a list for each layer."""
    return [
        [random_array(B, size, seed=10 * i + j) for j, size in enumerate(layer)]
        for i, layer in enumerate(sizes)
    ]


def build(state_sizes, states):
    bridge = StateBridge(state_sizes, kind="dense")
    bridge(MEMORY, states)
    randomize(bridge)
    return bridge


def check_dense_layer(bridge, index, result, source):
    """Check that layer `index` of the result is a dense layer of `source`."""
    joint = np.concatenate(source, axis=-1)
    for projection, state in zip(bridge.projections[index], result[index], strict=True):
        assert_close(state, dense(projection, joint))


def test_a_copying_bridge_keeps_the_contract_of_layers():
    check_layer(
        StateBridge,
        {"state_sizes": [[2, 3], [11]], "kind": "copy"},
        {"memory": MEMORY, "states": states_of([2, 3], [11])},
    )


@pytest.mark.parametrize("kind", ["dense", "zero"])
def test_dense_and_zero_bridges_keep_the_contract_of_layers(kind):
    check_layer_runs(
        StateBridge,
        {"state_sizes": [[2, 3], [11]], "kind": kind},
        {"memory": MEMORY, "states": states_of([13, 17])},
    )


def test_a_bridge_from_the_memory_keeps_the_contract_of_layers():
    mask = MASK.copy()
    mask[1] = False
    check_layer_runs(
        StateBridge,
        {"state_sizes": [[2, 3], [11]]},
        {"memory": MEMORY, "memory_mask": mask},
    )


def test_copy_returns_the_same_states():
    states = states_of([2, 3], [11])
    assert_close(StateBridge([[2, 3], [11]], "copy")(MEMORY, states), states)


def test_zero_returns_zeros():
    states = StateBridge([[2, 3], [11]], "zero")(MEMORY, states_of([13]))
    assert [[tuple(s.shape) for s in layer] for layer in states] == [
        [(B, 2), (B, 3)],
        [(B, 11)],
    ]
    assert all((array(s) == 0).all() for layer in states for s in layer)


def test_dense_connects_lstm_and_gru_in_both_directions():
    for source, target in (([13, 17], [11]), ([11], [13, 17])):
        states = states_of(source)
        bridge = build([target], states)
        result = bridge(MEMORY, states)
        assert [s.shape[-1] for s in result[0]] == target
        check_dense_layer(bridge, 0, result, states[0])


def test_dense_aligns_layers_from_the_top():
    deep = states_of([13], [17], [19])
    bridge = build([[2], [3]], deep)
    result = bridge(MEMORY, deep)
    check_dense_layer(bridge, 0, result, deep[1])
    check_dense_layer(bridge, 1, result, deep[2])

    shallow = states_of([13], [17])
    bridge = build([[2], [3], [11]], shallow)
    result = bridge(MEMORY, shallow)
    check_dense_layer(bridge, 0, result, shallow[0])
    check_dense_layer(bridge, 1, result, shallow[0])
    check_dense_layer(bridge, 2, result, shallow[1])


def test_dense_without_states_reads_the_mean_of_the_real_memory():
    bridge = build([[2, 3], [11]], None)
    result = bridge(MEMORY, memory_mask=MASK)
    mean = np.stack([MEMORY[b, MASK[b]].mean(axis=0) for b in range(B)])
    check_dense_layer(bridge, 0, result, [mean])
    check_dense_layer(bridge, 1, result, [mean])
    check_dense_layer(bridge, 1, bridge(MEMORY), [MEMORY.mean(axis=1)])


def test_padding_does_not_change_the_states():
    bridge = build([[2, 3], [11]], None)
    check_padding_changes_nothing(
        lambda memory, mask: ([], bridge(memory, memory_mask=mask)), MEMORY, MASK
    )


def test_a_batch_equals_its_rows():
    bridge = build([[2, 3], [11]], None)
    check_batch_equals_rows(
        lambda memory, mask: bridge(memory, memory_mask=mask), MEMORY, MASK
    )


def test_a_fully_masked_row_is_finite():
    bridge = build([[2, 3], [11]], None)

    def apply(memory, mask):
        return sum(bridge(memory, memory_mask=mask), start=[])

    check_fully_masked_rows_are_finite(apply, MEMORY, MASK)


def test_rejects_an_additive_mask():
    bridge = build([[2]], None)
    with pytest.raises(ValueError, match=r"mask with the value -1000000000\.0"):
        additive = np.where(MASK, 0, -1e9).astype("float32")
        bridge(MEMORY, memory_mask=additive)


@pytest.mark.parametrize("states", [None, [[2]], [[3, 2]], [[2, 3], [2, 3]]])
def test_copy_rejects_states_that_do_not_fit(states):
    given = None if states is None else states_of(*states)
    received = [] if states is None else states
    message = (
        f"sizes [[2, 3]] (a list for each layer). Received: states of sizes {received}"
    )
    with pytest.raises(ValueError, match='bridge="copy" needs') as caught:
        StateBridge([[2, 3]], "copy")(MEMORY, given)
    assert message in str(caught.value)


def test_rejects_an_unknown_kind():
    with pytest.raises(ValueError, match="\"zero\". Received: kind='linear'"):
        StateBridge([[2]], "linear")
