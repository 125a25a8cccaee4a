"""Recurrent cells: named or given, copied, stepped, and run over time.

Axes in shape comments: B batch, T steps, K beams, D features, U units.
"""

import keras
from keras import ops

from kseq.layers.initializers import reseeded
from kseq.layers.validation import positive_integer, sequence_shape, shapes_compatible

CELLS = {
    "rnn": keras.layers.SimpleRNNCell,
    "lstm": keras.layers.LSTMCell,
    "gru": keras.layers.GRUCell,
}


def resolve_cell(cell, units):
    """Checks a cell, given by name or as an object, and returns it with its units."""
    if isinstance(cell, str):
        if cell not in CELLS:
            listed = ", ".join(f'"{name}"' for name in CELLS)
            raise ValueError(
                f"`cell` must be one of {listed}, or a Keras cell. Received: "
                f"cell={cell!r}."
            )
        return cell, positive_integer("units", units)
    if not hasattr(cell, "state_size") or isinstance(cell, keras.layers.RNN):
        raise ValueError(
            "`cell` must be a name or a Keras cell, which has a `state_size`. "
            f"Received: cell={cell}. Pass for example `keras.layers.LSTMCell(64)`."
        )
    if isinstance(cell, keras.layers.StackedRNNCells):
        raise ValueError(
            f"`cell` must be one cell. Received: cell={cell}. Give one of them and "
            f"`num_layers={len(cell.cells)}`."
        )
    output_size = getattr(cell, "output_size", None) or state_sizes(cell)[0]
    if units is not None and units != output_size:
        raise ValueError(
            f"`units` must agree with the cell. Received: units={units} with a cell of "
            f"output size {output_size}. Leave `units` out."
        )
    return cell, output_size


def state_sizes(cell):
    """The sizes of a cell's states, `[U]` or for an LSTM `[U, U]`."""
    size = cell.state_size
    return list(size) if isinstance(size, (list, tuple)) else [size]


def copy_cell(cell, name):
    """Return a cell with the same options, and weights and seeds of its own.

    Args:
        cell: Keras cell.
        name: Another name for each copy, of which its seeds are made, and its name.
    """
    config = {**reseeded(cell.get_config(), name), "name": f"{cell.name}_{name}"}
    return cell.__class__.from_config(config)


def serialize_cell(cell):
    return cell if isinstance(cell, str) else keras.saving.serialize_keras_object(cell)


def deserialize_cell(cell):
    return (
        keras.saving.deserialize_keras_object(cell) if isinstance(cell, dict) else cell
    )


def loop_over_time(advance, inputs, states, mask=None):
    """Runs `advance(inputs (B, D), states) -> (output, states)` over `(B, T, D)`.

    `keras.layers.RNN` is the one loop that every backend differentiates and compiles,
    under XLA too, which `ops.scan` on TensorFlow is not. Masked steps leave the states
    as they were, and with them the output, which is the first of them.
    """
    step = LoopStep(advance, [s.shape[-1] for s in states], inputs.dtype)
    loop = keras.layers.RNN(step, return_sequences=True, dtype=inputs.dtype)
    outputs = loop.call(inputs, initial_state=states, mask=mask)
    return outputs if mask is None else begin_with(states[0], outputs, mask)


def begin_with(first, outputs, mask):
    """Outputs `(B, T, U)` of Keras' loop, but `first (B, U)` until a step is real.

    Keras puts zeros there on TensorFlow and torch, and the first state on JAX.
    """
    has_begun = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0  # B T
    return ops.where(has_begun[..., None], outputs, first[:, None])


def check_steps(name, sequences):
    """Refuse sequences without a step, which have no first one."""
    if sequence_shape(name, sequences.shape)[1] == 0:
        raise ValueError(
            f"`{name}` must have at least one step. Received: {name} of shape "
            f"{tuple(sequences.shape)}. A step that is masked is skipped, so pad what "
            "is empty."
        )


def check_states(cell, states, batch):
    """Refuses first states that are not those of the cell, for so many rows."""
    sizes, received = state_sizes(cell), keras.tree.flatten(states)
    expected = [(batch, size) for size in keras.tree.flatten(sizes)]
    if len(received) != len(expected) or not all(
        shapes_compatible(shape_of(state), shape)
        for state, shape in zip(received, expected, strict=True)
    ):
        shapes = [
            keras.tree.map_structure(lambda size: (batch, size), sizes),
            keras.tree.map_structure(shape_of, states),
        ]
        raise ValueError(
            f"`initial_state` must have the shapes {shapes[0]}. Received: the shapes "
            f"{shapes[1]}. A layer of the same cell with `return_state=True` returns "
            "its last states after the output."
        )


def shape_of(state):
    return tuple(getattr(state, "shape", ()))


def first_output(cell, states):
    """The state `(B, U)` that a cell, or the last of stacked ones, puts out."""
    is_stacked = isinstance(cell, keras.layers.StackedRNNCells)
    return keras.tree.flatten(states[-1] if is_stacked else states)[0]


class LoopStep:
    """A function with the attributes that `keras.layers.RNN` asks of a cell."""

    def __init__(self, advance, state_size, compute_dtype):
        self.call, self.state_size = advance, state_size
        self.compute_dtype = keras.backend.standardize_dtype(compute_dtype)

    def __call__(self, inputs, states):
        return self.call(inputs, states)


def step_cell(cell, inputs, states):
    """Runs a Keras cell on `(B, K, D)` with its states `(B, K, U)`."""
    beams = ops.shape(inputs)[1]
    flat = [ops.reshape(x, (-1, x.shape[-1])) for x in (inputs, *states)]  # BK D
    _, new_states = cell(flat[0], flat[1:])
    return [ops.reshape(s, (-1, beams, s.shape[-1])) for s in new_states]
