"""Keras models that run the loops of `generate` and `score`, compiled by Keras.

Axes in shape comments: B batch, T target steps, S source steps, V vocabulary.
"""

import collections
import contextlib
import logging
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from kseq.builders.requests import Batch
from kseq.builders.searches import check_guidance
from kseq.builders.snapshots import snapshot
from kseq.decoding import Search
from kseq.decoding.guidance import PARTS, WITHOUT
from kseq.layers.backends import overwriting, predict_on_batch, recorder
from kseq.typing import Tensor, Tree

if TYPE_CHECKING:
    from kseq.builders.generation import GenerativeModel


class LoopCache:
    """Recently used compiled loops of a model, which Keras does not save.

    A loop is reused if tracing it again would give the same: the options are equal, the
    functions in them read the same values, and the model has the same weights.
    """

    MOST = 16  # a loop takes about 10 MB

    def __init__(self) -> None:
        self.models: collections.OrderedDict[Hashable, keras.Model]
        self.models = collections.OrderedDict()
        self.weights: list[keras.Variable] = []

    def get(
        self, writer: "GenerativeModel", kind: type, options: tuple[Any, ...]
    ) -> keras.Model:
        """Return the Keras model that runs a kind of loop; create it if needed."""
        weights = writer.weights
        if list(map(id, self.weights)) != list(map(id, weights)):  # after `quantize`
            self.models.clear()
            self.weights = weights
        tokens = writer.start_token_id, writer.end_token_id, writer.pad_token_id
        key = kind, options, tokens, snapshot(options)
        if key not in self.models:
            self.models[key] = kind(writer, *options)
        self.models.move_to_end(key)
        while len(self.models) > self.MOST:
            self.models.popitem(last=False)
        return self.models[key]


def cached_loop(writer: keras.Model, kind: type, *options: Any) -> keras.Model:
    """Return the Keras model that runs a loop, cached with its generative model."""
    cache = writer.__dict__.setdefault("_compiled_loops", LoopCache())
    return cache.get(writer, kind, options)


class SearchingModel(keras.Model):
    """Keras model of a search over a generative model, or of a part of a search."""

    def __init__(
        self,
        writer: "GenerativeModel",
        search: Search,
        max_length: int,
        jit_compile: bool | None,
    ) -> None:
        super().__init__(name=type(self).__name__.lower(), autocast=False)
        check_guidance(search, writer)
        self.writer, self.search, self.max_length = writer, search, max_length
        if jit_compile is not None:
            self.jit_compile = jit_compile
        self.built = True

    def start(self, source: Tree) -> tuple[Tree, Tree]:
        """Start the generative model with the number of beams of the search."""
        options = {"with_coverage": True} if self.search.needs_coverage else {}
        size = self.search.num_beams, self.max_length
        if self.search.guidance is None:
            return self.writer.start(source, *size, **options)
        begun = (
            self.writer.start(source, *size, without_source=part == WITHOUT)
            for part in PARTS
        )
        states, constants = zip(*begun, strict=True)
        return (
            dict(zip(PARTS, states, strict=True)),
            dict(zip(PARTS, constants, strict=True)),
        )


class GenerateLoop(SearchingModel):
    """Keras model of a whole search."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.recorder = recorder()

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tensor]:
        source, writer = inputs["source"], self.writer
        state, constants = self.start(source)
        rows = (num_rows(source),)
        start_token_ids = ops.full(rows, writer.start_token_id, "int32")
        step = self.recorder.steps_of(writer.step) if self.recorder else writer.step
        with overwriting():  # nothing else holds the state
            result = self.search(
                step,
                state,
                constants,
                start_token_ids,
                end_token_id=writer.end_token_id,
                max_length=self.max_length,
                pad_token_id=writer.pad_token_id,
                **{name: value for name, value in inputs.items() if name != "source"},
            )
        return {k: v for k, v in vars(result).items() if v is not None}


class ScoreLoop(keras.Model):
    """Keras model of the log-probabilities of given targets."""

    def __init__(
        self, writer: "GenerativeModel", return_attention_scores: bool
    ) -> None:
        super().__init__(name="score_loop")
        self.writer, self.with_scores = writer, return_attention_scores
        self.built = True

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tree]:
        source, target = inputs["source"], inputs["target"]
        start = ops.full_like(target[:, :1], self.writer.start_token_id)
        shifted = ops.concatenate([start, target[:, :-1]], axis=1)  # B T
        is_real = target != self.writer.pad_token_id  # B T
        # There may be no position after the last token.
        shifted = ops.where(is_real, shifted, self.writer.pad_token_id)
        outputs = self.writer.read(source, shifted, self.with_scores)
        logits = outputs[0] if self.with_scores else outputs
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)  # B T V
        log_probs = ops.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]
        # Padding may be impossible, with a log-probability of minus infinity.
        result = {"log_probs": ops.sum(ops.where(is_real, log_probs, 0.0), axis=-1)}
        if self.with_scores:
            result["attention"] = keras.tree.map_structure(
                lambda attention: of_real_steps(attention, is_real), outputs[1]
            )
        return result


def of_real_steps(attention: Tensor, is_real: Tensor) -> Tensor:
    """Return attention `(B, ..., T, S)` in float32, with zeros after the target."""
    attention = ops.cast(attention, "float32")
    axes = list(range(1, len(attention.shape) - 2))
    is_real = ops.cast(is_real, "float32")[..., None]  # B T 1
    return attention * ops.expand_dims(is_real, axes)


def num_rows(source: Tree) -> int | Tensor:
    """Return the number of rows of a source, also of several inputs by name."""
    return ops.shape(keras.tree.flatten(source)[0])[0]


def run(
    loop: keras.Model, batch: Batch, has_compiled_parts: bool = False
) -> dict[str, Any]:
    """Run a loop on a `Batch`, and return its outputs by name, one row for each row.

    With `has_compiled_parts` each shape is compiled even if Keras does not compile the
    loop.
    """
    arrays = batch.arrays(to_power_of_two=loop.jit_compile or has_compiled_parts)
    with without_retracing_warning():
        outputs = predict_on_batch(loop, arrays)
    return keras.tree.map_structure(lambda value: value[: len(batch)], outputs)


@contextlib.contextmanager
def without_retracing_warning() -> Iterator[None]:
    """Silence TensorFlow's retracing warning.

    It takes the loops of all models for one function, and warns of the fifth.
    """

    def is_other(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
