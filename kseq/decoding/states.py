"""Checks of the state that a step function hands on, which a loop keeps in its form.

Axes in shape comments: B batch, K beams.
"""

import keras
from keras import ops


def begun_state(state, num_rows, num_beams):
    """Returns a state as tensors if each has a row for each hypothesis, `(B, K, ...)`.

    What stands under a key `"shared"` may be `(B, ...)`.
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
                f"state with {named(path)}of shape {shape}. A decoder of kseq starts "
                f"with as many beams: `start(..., num_beams={num_beams})`."
            )
        leaves.append(tensor)
    return keras.tree.pack_sequence_as(state, leaves)


def check_form(before, after):
    """Refuse a state that a step has given another structure, shape or dtype."""
    try:
        keras.tree.assert_same_structure(before, after)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "A step must return its state in the structure in which it came. Received: "
            f"{form(after)} for {form(before)}."
        ) from error
    for old, new in zip(
        keras.tree.flatten_with_path(before), keras.tree.flatten(after), strict=True
    ):
        path, old = old
        if not same_shape(old.shape, new.shape) or dtype(old) != dtype(new):
            raise ValueError(
                "A state must keep its shape and dtype from step to step, since a loop "
                f"of fixed size carries it. Received: a state with {named(path)}of "
                f"{dtype(old)} {tuple(old.shape)} before a step, of {dtype(new)} "
                f"{tuple(new.shape)} behind it. What grows needs all its room from the "
                "beginning, and the number of the step."
            )


def same_shape(before, after):
    pairs = zip(tuple(before), tuple(after), strict=False)
    return len(before) == len(after) and all(None in p or p[0] == p[1] for p in pairs)


def dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def named(path):
    """The place of a tensor in its tree, for a message."""
    return "a tensor " if not path else f"{list(path)} "


def form(tree):
    return keras.tree.map_structure(lambda x: tuple(getattr(x, "shape", ())), tree)
