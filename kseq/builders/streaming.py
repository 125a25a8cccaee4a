"""Streaming: a search over a model that yields one token at a time.

Two Keras models replace the loop of `generate`: one starts, and one takes a step each
time it is called. Values between steps are NumPy arrays, as Keras returns them, so that
two streams of one model are independent.

Axes in shape comments: B batch.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.builders.generate_loop import (
    SearchingModel,
    num_rows,
    without_retracing_warning,
)
from kseq.decoding.loop import Fields, SearchLoop
from kseq.layers.backends import predict_on_batch
from kseq.typing import Tensor, Tree

INPUTS = ("prefix", "max_lengths", "row_seeds")


class StreamStart(SearchingModel):
    """State before the first step: the source is encoded, no token is generated.

    Call arguments:
        inputs: The source, and any of `INPUTS`, by name.

    Returns:
        The tree of tensors that `StreamStep` takes.
    """

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tree]:
        source, writer = inputs["source"], self.writer
        state, constants = self.start(source)
        others = {name: value for name, value in inputs.items() if name in INPUTS}
        loop = search_loop(self, constants, others)
        start = ops.full((num_rows(source),), writer.start_token_id, "int32")
        carried = loop.begin(start, state)
        return {"carried": packed(*carried), "constants": constants, "inputs": others}


class StreamStep(SearchingModel):
    """One step of a search.

    Call arguments:
        inputs: Outputs of `StreamStart`, updated by those of the last step.

    Returns:
        The part of the tree that a step changes.
    """

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tree]:
        inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
        loop = search_loop(self, inputs["constants"], inputs["inputs"])
        return {"carried": packed(*loop.advance(*unpacked(inputs["carried"])))}


def search_loop(
    model: SearchingModel, constants: Tree, inputs: Mapping[str, Tensor]
) -> SearchLoop:
    """Return the decoding loop of a search over a model."""
    writer = model.writer
    return model.search.loop(
        writer.step,
        constants,
        writer.end_token_id,
        model.max_length,
        pad_token_id=writer.pad_token_id,
        **inputs,
    )


def packed(t: Tensor, last: Tensor, written: Fields, state: Tree) -> dict[str, Tree]:
    """Return the loop variables by name, the step as a vector.

    Keras cannot return scalars.
    """
    step = ops.expand_dims(t, 0)
    return {"step": step, "last": last, "written": written, "state": state}


def unpacked(carried: dict[str, Tree]) -> tuple[Tensor, Tensor, Fields, Tree]:
    """Return the loop variables in order; the inverse of `packed`."""
    return carried["step"][0], carried["last"], carried["written"], carried["state"]


def stream(
    beginning: SearchingModel,
    stepping: SearchingModel,
    batch: dict[str, Any],
    count: int,
) -> Iterator[np.ndarray]:
    """Yield the tokens of the first `count` rows, `(B,)`, until all have ended."""
    with without_retracing_warning():
        tree = predict_on_batch(beginning, batch)
    for _ in range(beginning.max_length):
        with without_retracing_warning():
            tree = {**tree, **predict_on_batch(stepping, tree)}
        yield np.array(tree["carried"]["last"][:count, 0])
        if tree["carried"]["written"]["finished"][:count].all():
            return
