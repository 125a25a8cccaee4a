"""Checks of the state of a step function, whose structure and shapes must not change.

Axes in shape comments: B batch, K beams.
"""

from typing import Any

import keras
from keras import ops

from kseq.typing import Shape, Tensor, Tree


def begun_state(state: Tree, num_rows: int | None, num_beams: int) -> Tree:
    """Return a state as tensors. Raise unless each is `(B, K, ...)`.

    Tensors under a key `"shared"` may be `(B, ...)`.
    """
    leaves = []
    for path, leaf in keras.tree.flatten_with_path(state):
        tensor = ops.convert_to_tensor(leaf)
        shape = tuple(tensor.shape)
        expected = (num_rows,) if "shared" in path else (num_rows, num_beams)
        fits = len(shape) >= len(expected) and all(
            None in pair or pair[0] == pair[1]
            for pair in zip(shape, expected, strict=False)
        )
        if not fits:
            raise ValueError(
                "A state must be a tree of tensors with a row for each hypothesis, "
                f"shape (B, K, ...) = ({num_rows}, {num_beams}, ...). Received: a "
                f"state with {named(path)}of shape {shape}. Start a decoder of kseq "
                f"with this number of beams: `start(..., num_beams={num_beams})`."
            )
        leaves.append(tensor)
    return keras.tree.pack_sequence_as(state, leaves)


def check_form(before: Tree, after: Tree) -> None:
    """Raise if a step has changed the structure, a shape or a dtype of its state."""
    try:
        keras.tree.assert_same_structure(before, after)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "A step must return its state in the same structure. Received: "
            f"{form(after)} for {form(before)}."
        ) from error
    for old, new in zip(
        keras.tree.flatten_with_path(before), keras.tree.flatten(after), strict=True
    ):
        path, old = old
        if not same_shape(old.shape, new.shape) or dtype(old) != dtype(new):
            raise ValueError(
                "A state must keep its shapes and dtypes from step to step, since the "
                f"loop is compiled. Received: a state with {named(path)}of "
                f"{dtype(old)} {tuple(old.shape)} before a step, of {dtype(new)} "
                f"{tuple(new.shape)} after it. Allocate a growing tensor at its full "
                "size, and keep the step number in the state."
            )


def same_shape(before: Shape, after: Shape) -> bool:
    """Compare two shapes. An unknown size equals any other."""
    pairs = zip(tuple(before), tuple(after), strict=False)
    return len(before) == len(after) and all(None in p or p[0] == p[1] for p in pairs)


def dtype(tensor: Tensor) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


def named(path: tuple[Any, ...]) -> str:
    """Return the path of a tensor in its tree as words for a message."""
    return "a tensor " if not path else f"{list(path)} "


def form(tree: Tree) -> Tree:
    """Return the shapes of the tensors of a tree."""
    return keras.tree.map_structure(lambda x: tuple(getattr(x, "shape", ())), tree)
