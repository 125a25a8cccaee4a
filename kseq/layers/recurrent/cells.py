"""Helpers for recurrent cells: resolve, copy, save, step and loop over time.

Axes in shape comments: B batch, T steps, K beams, D features, U units.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kseq.layers.initializers import reseeded
from kseq.layers.recurrent.cell_variants import MinGRUCell
from kseq.layers.validation import positive_integer, sequence_shape, shapes_compatible
from kseq.typing import Config, Shape, Tensor, Tree

CELLS = {
    "rnn": keras.layers.SimpleRNNCell,
    "lstm": keras.layers.LSTMCell,
    "gru": keras.layers.GRUCell,
    "mingru": MinGRUCell,
}


def resolve_cell(
    cell: keras.layers.Layer | str, units: int | None
) -> tuple[keras.layers.Layer | str, int]:
    """Check a cell, which is a name or an object, and return it with its units."""
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
            f"Received: cell={cell}. Pass, for example, `keras.layers.LSTMCell(64)`."
        )
    if isinstance(cell, keras.layers.StackedRNNCells):
        raise ValueError(
            f"`cell` must be one cell. Received: cell={cell}. Pass a single cell and "
            f"`num_layers={len(cell.cells)}`."
        )
    output_size = getattr(cell, "output_size", None) or state_sizes(cell)[0]
    if units is not None and units != output_size:
        raise ValueError(
            f"`units` must match the cell. Received: units={units} with a cell of "
            f"output size {output_size}. Omit `units`."
        )
    return cell, output_size


def state_sizes(cell: keras.layers.Layer) -> list[Any]:
    """Return the sizes of a cell's states: `[U]`, or `[U, U]` for an LSTM.

    Stacked cells have the sizes of each cell instead.
    """
    size = cell.state_size
    return list(size) if isinstance(size, (list, tuple)) else [size]


def copy_cell(cell: keras.layers.Layer, name: str | int) -> keras.layers.Layer:
    """Return a cell with the same options but its own weights and seeds.

    Args:
        cell: Keras cell.
        name: A different name or number for each copy. It becomes part of the copy's
            name, and the copy's seeds are derived from it.
    """
    config = reseeded(cell.get_config(), str(name))
    config["name"] = f"{cell.name}_{name}"
    return cell.__class__.from_config(config)


def serialize_cell(cell: keras.layers.Layer | str) -> Config | str:
    return cell if isinstance(cell, str) else keras.saving.serialize_keras_object(cell)


def deserialize_cell(cell: Config | str) -> keras.layers.Layer | str:
    return (
        keras.saving.deserialize_keras_object(cell) if isinstance(cell, dict) else cell
    )


def loop_over_time(
    advance: Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
    inputs: Tensor,
    states: list[Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """Run `advance(inputs (B, D), states) -> (output, states)` over `(B, T, D)`.

    `keras.layers.RNN` is the only loop that every backend can differentiate and
    compile, XLA included; `ops.scan` cannot be compiled by XLA on TensorFlow. A masked
    step leaves the states unchanged, and so the output, which is the first state.
    """
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    dtypes = [keras.backend.standardize_dtype(s.dtype) for s in states]
    is_mixed = set(dtypes) != {dtype}
    dtype = keras.backend.result_type(dtype, *dtypes)

    # The loop casts all states to one dtype.
    def advance_in_dtypes(step_inputs, states):
        states = [ops.cast(s, d) for s, d in zip(states, dtypes, strict=True)]
        output, states = advance(step_inputs, states)
        return output, [ops.cast(s, dtype) for s in states]

    run = advance_in_dtypes if is_mixed else advance
    step = LoopStep(run, [s.shape[-1] for s in states], dtype)
    loop = keras.layers.RNN(step, return_sequences=True, dtype=inputs.dtype)
    outputs = loop.call(inputs, initial_state=states, mask=mask)
    return outputs if mask is None else start_with(states[0], outputs, mask)


def start_with(first: Tensor, outputs: Tensor, mask: Tensor) -> Tensor:
    """Replace the outputs `(B, T, U)` before the first real step by `first (B, U)`.

    Keras' loop returns zeros there on TensorFlow and torch, and the initial state on
    JAX.
    """
    has_begun = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0  # B T
    return ops.where(has_begun[..., None], outputs, first[:, None])


def check_steps(name: str, sequences: Tensor) -> None:
    """Raise if sequences have no steps."""
    if sequence_shape(name, sequences.shape)[1] == 0:
        raise ValueError(
            f"`{name}` must have at least one step. Received: {name} of shape "
            f"{tuple(sequences.shape)}. Pad empty sequences with masked steps, which "
            "are skipped."
        )


def check_states(cell: keras.layers.Layer, states: Tree, batch: int | None) -> None:
    """Raise unless the initial states have the cell's sizes and `batch` rows."""
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
            f"{shapes[1]}. A layer with the same cell and `return_state=True` returns "
            "such states after its output."
        )


def shape_of(state: Any) -> Shape:
    return tuple(getattr(state, "shape", ()))


def output_state(cell: keras.layers.Layer, states: list[Any]) -> Tensor:
    """Return the state `(B, U)` that is the output of a cell, or of stacked cells."""
    is_stacked = isinstance(cell, keras.layers.StackedRNNCells)
    return keras.tree.flatten(states[-1] if is_stacked else states)[0]


class LoopStep:
    """A function with the attributes that `keras.layers.RNN` needs from a cell."""

    def __init__(
        self,
        advance: Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
        state_size: list[int],
        compute_dtype: str,
    ) -> None:
        self.call, self.state_size = advance, state_size
        self.compute_dtype = keras.backend.standardize_dtype(compute_dtype)

    def __call__(
        self, inputs: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        return self.call(inputs, states)


def step_cell(
    cell: keras.layers.Layer, inputs: Tensor, states: list[Tensor]
) -> list[Tensor]:
    """Run a Keras cell on `(B, K, D)` with states `(B, K, U)`; return the new ones."""
    beams = ops.shape(inputs)[1]
    flat = [ops.reshape(x, (-1, x.shape[-1])) for x in (inputs, *states)]  # BK D
    _, new_states = cell(flat[0], flat[1:])
    return [ops.reshape(s, (-1, beams, s.shape[-1])) for s in new_states]
