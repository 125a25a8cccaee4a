"""Forecasting models: generate numbers step by step.

`generate` works in these steps. A `ForecastRequest` (`forecast_request.py`) checks the
arguments and splits them into batches. A `ForecastLoop` (`forecast_loop.py`), which
Keras compiles, starts the model for a batch and generates all steps.

Axes in shape comments: B batch, N draws, K draws at a time, T target steps, S source
steps, F features, C covariates, P parameters.
"""

import dataclasses
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from kseq.builders.forecast import Forecast
from kseq.builders.forecast_loop import ForecastLoop
from kseq.builders.forecast_request import ForecastRequest
from kseq.builders.generate_loop import cached_loop, run
from kseq.builders.requests import Batch
from kseq.builders.shorthands import encode
from kseq.builders.target_numbers import PARTS, TargetNumbers
from kseq.builders.target_tokens import check_graph
from kseq.builders.token_inputs import TokenInputs
from kseq.builders.trainable import TrainableModel
from kseq.layers import FeatureEmbedding, ForecastHead, SourceDropout
from kseq.layers.distributions import NAMES
from kseq.layers.masking import mask_of
from kseq.layers.saving import WholeFiles
from kseq.layers.validation import rate
from kseq.typing import Config, LayerLike, Tensor, TensorLike, Tree

# In a Transformer each draw attends to the steps of all draws generated together.
DRAWS_AT_A_TIME = 16


@keras.saving.register_keras_serializable(package="kseq")
class Forecaster(TokenInputs, TrainableModel, WholeFiles, keras.Model):
    """Model that the builders return if the target is a `FeatureEmbedding`.

        source ──source──> (B,S,D) ──encoder──> memory, states
                                                    │
        numbers of the step before ──target──> (B,T,D) ──decoder──> head ──> (B,T,F,P)
                         covariates ──────────────┘

    It maps `{"source", "target", "covariates"}`, as far as it has them, to the
    parameters of its head. A NaN in the target is an unknown number. All numbers are
    unknown before the first step; `kseq.training.teacher_forcing` shifts the target
    accordingly.

    Two positional arguments are the inputs and outputs of a graph of such a model, as
    `keras.models.clone_model` passes them.
    """

    start_token_id = end_token_id = pad_token_id = None  # there are no tokens
    source: keras.layers.Layer  # None without a source
    encoder: keras.layers.Layer  # may be None
    decoder: keras.layers.Layer
    head: keras.layers.Layer
    source_size: Any = None
    source_length: Any = None

    def __init__(
        self,
        *graph: Any,
        source: keras.layers.Layer | None = None,
        target: keras.layers.Layer = None,
        covariates: FeatureEmbedding | None = None,
        encoder: keras.layers.Layer | None = None,
        decoder: keras.layers.Layer = None,
        head: keras.layers.Layer | str | None = None,
        source_dropout: float = 0.0,
        numbers: TargetNumbers | None = None,
        name: str = "forecaster",
        **kwargs: Any,
    ) -> None:
        if graph:
            super().__init__(*graph, name=name, **kwargs)
            self._find_parts()
            return
        if numbers is None:
            check_embeddings(source, target, covariates)
            numbers = TargetNumbers(target, covariates, name="numbers")
        target, covariates = numbers.target, numbers.covariates
        head = as_forecast_head(head, target)
        inputs = {"target": target.symbolic_input("target")}
        memory = states = None
        if source is not None:
            inputs = {"source": source.symbolic_input("source"), **inputs}
            embedded = source(inputs["source"])
            if rate("source_dropout", source_dropout):
                embedded = SourceDropout(source_dropout, name="source_dropout")(
                    embedded
                )
            memory, states = encode(encoder, embedded)
        known = {}
        if covariates is not None:
            inputs["covariates"] = covariates.symbolic_input("covariates")
            known = {"covariates": inputs["covariates"]}
        vectors = numbers(inputs["target"], **known)  # B T D
        outputs = head(decoder(vectors, memory, initial_state=states))
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        numbers.note_places((source, encoder, decoder, head), self.operations)
        self._find_parts()

    def _find_parts(self) -> None:
        """Set the components used for generation from the layers of the graph."""
        kinds = (x for x in self.operations if isinstance(x, TargetNumbers))
        numbers: Any = next(kinds, None)
        self.numbers: TargetNumbers = numbers
        check_graph(self, numbers and numbers.num_operations == len(self.operations))
        for part, place in numbers.places.items():
            setattr(self, part, None if place is None else self.operations[place])
        dropouts = (x for x in self.operations if isinstance(x, SourceDropout))
        self.source_dropout = next(dropouts, None)
        if self.source is not None:
            self.source_size = self.source.vocabulary_size
            self.source_length = self.source.num_positions

    @property
    def target(self) -> FeatureEmbedding:
        """The embedding of the target."""
        return self.numbers.target

    @property
    def covariates(self) -> FeatureEmbedding | None:
        """The embedding of the covariates, or None."""
        return self.numbers.covariates

    @property
    def source_padding(self) -> Any:
        """Padding of short sources, or None if all must have the same shape."""
        return 0 if self.source is None else self.source.padding

    def start(
        self, source: Tree, num_draws: int = 1, num_steps: int | None = None
    ) -> tuple[Tree, Tree]:
        """Return the initial state, and the constants of all steps.

        Args:
            source: Inputs of the source, or for a model without a source any tensor
                with B rows.
            num_draws: Number of draws K for each row.
            num_steps: Maximum number of steps.

        Returns:
            `(state, constants)`: trees of tensors `(B, K, ...)` and `(B, ...)`.
        """
        if self.source is None:  # an empty memory of the right batch size
            shape = (ops.shape(source)[0], 0, self.target.width)
            memory, mask, states = ops.zeros(shape, self.compute_dtype), None, None
        else:
            memory, states = encode(self.encoder, self.source(source))
            mask = mask_of(memory)
        state, constants = self.decoder.start(
            memory, mask, states, num_draws, num_steps
        )
        first = ops.zeros((ops.shape(memory)[0], num_draws), "int32")  # B K
        return {"positions": first, "decoder": state}, constants

    def step(
        self, inputs: dict[str, Tensor], state: Tree, constants: Tree
    ) -> tuple[Tensor, Tree]:
        """Predict the next step of every draw.

        Args:
            inputs: Dictionary of `"target"`, the previous step, `(B, K, F)`, NaN if
                unknown, and, if the model has them, `"covariates"` of this step,
                `(B, 1, C)`.
            state: State returned by `start` or by the previous step.
            constants: Constants returned by `start`.

        Returns:
            `(parameters (B, K, F, P), state)`.
        """
        positions = state["positions"]  # B K
        vectors = self.numbers(
            inputs["target"], inputs.get("covariates"), positions
        )  # B K D
        outputs, new = self.decoder.step(vectors, state["decoder"], constants)
        return self.head(outputs), {"positions": positions + 1, "decoder": new}

    def generate(
        self,
        source: Any = None,
        num_steps: int | None = None,
        num_draws: int | None = None,
        seed: int | None = None,
        covariates: TensorLike | None = None,
        prefix: TensorLike | None = None,
        batch_size: int = 128,
        jit_compile: bool | None = None,
    ) -> Forecast:
        """Generate the next steps of each source.

        Args:
            source: Inputs of the source's embedding, with a leading axis B: features
                `(B, S, F)`, or a list of arrays of different lengths if the embedding
                has a `mask_value`. For a model without a source the number of series,
                which may be omitted with a prefix.
            num_steps: Number of steps T to generate.
            num_draws: Number of draws N of each series. Each step is sampled, and read
                at the next step. None returns one path, in which each step is the mean
                predicted after the steps before it.
            seed: Integer seed of the draws, of which 32 bits are used. The same seed
                gives the same draws for any `batch_size`, also if there are more draws
                or additional rows at the end. None gives new draws at every call, based
                on Python's `random`.
            covariates: `(B, T, C)`, known values of the steps to be generated. With a
                prefix of P steps `(B, P + T, C)`, starting with the prefix.
            prefix: `(B, P, F)`, the first steps of the target. Numbers that are NaN are
                generated. The T steps follow the prefix.
            batch_size: Maximum number of rows per batch.
            jit_compile: As for `generate` of a model that generates tokens.

        Returns:
            A `Forecast` of NumPy arrays, without the steps of the prefix.

        Raises:
            ValueError: An argument is missing, has NaN where it must not, or does not
                fit the model or the other arguments.
        """
        request = ForecastRequest(
            self, source, num_steps, num_draws, seed, covariates, prefix, jit_compile
        )
        count = num_draws or 1
        at_a_time = min(count, DRAWS_AT_A_TIME)
        loop = cached_loop(
            self,
            ForecastLoop,
            request.num_steps,
            request.num_known,
            num_draws and at_a_time,
            jit_compile,
        )
        results = []
        for batch in request.batches(batch_size):
            draws = [  # B K T F
                run(loop, with_first_draw(batch, first))["draws"]
                for first in range(0, count, at_a_time)
            ]
            results.append({"draws": np.concatenate(draws, axis=1)[:, :count]})
        return Forecast(**request.outputs(results))

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        parts = {name: getattr(self, name) for name in (*PARTS, "numbers")}
        return {
            **{name: part and serialize(part) for name, part in parts.items()},
            "source_dropout": getattr(self.source_dropout, "dropout", 0.0),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        options = dict(config)
        for part in (*PARTS, "numbers"):
            options[part] = options[part] and keras.saving.deserialize_keras_object(
                options[part], custom_objects=custom_objects
            )
        return cls(**options)


def with_first_draw(batch: Batch, first: int) -> Batch:
    """Return a `Batch` with the index of its first draw among all draws."""
    rows = {**batch.rows, "first_draw": [np.int32(first)] * len(batch)}
    return dataclasses.replace(batch, rows=rows)


def is_of_numbers(
    target: Any,
    tie_embeddings: str | None = None,
    covariates: Any = None,
    copy: Any = None,
) -> bool:
    """Return whether a target is numbers; raise for options of the other kind."""
    if isinstance(target, FeatureEmbedding):
        if tie_embeddings is not None:
            raise ValueError(
                "`tie_embeddings` needs a target of tokens, whose table the head can "
                f"use. Received: tie_embeddings={tie_embeddings!r} with a "
                "`FeatureEmbedding`. Leave it out."
            )
        if copy is not None:
            raise ValueError(
                "`copy` needs a target of tokens, which it copies from the source. "
                f"Received: copy={copy} with a `FeatureEmbedding`. Leave it out."
            )
        return True
    if covariates is not None:
        raise ValueError(
            "`covariates` need a target of numbers. Received: covariates="
            f"{covariates} with target={target}. Leave them out, or use "
            "`target=kseq.layers.FeatureEmbedding(num_features, width)`."
        )
    return False


def as_forecast_head(head: LayerLike | None, target: FeatureEmbedding) -> ForecastHead:
    """Return a head; `"gaussian"` is shorthand for `ForecastHead("gaussian", ...)`.

    A shorthand head is float32. None is shorthand for `"mean"`.
    """
    head = "mean" if head is None else head
    kind: Any = head
    if isinstance(head, str) and head in NAMES:
        features = target.num_features
        return ForecastHead(kind, features, dtype="float32", name="head")
    names = ", ".join(f'"{name}"' for name in NAMES)
    if not isinstance(head, ForecastHead):
        raise ValueError(
            f"`head` for a target of numbers must be one of {names}, or a "
            f"`kseq.layers.ForecastHead`. Received: head={head!r}. For custom "
            'quantiles use `kseq.layers.ForecastHead("quantiles", '
            f"{target.num_features}, quantiles=(0.1, 0.5, 0.9))`."
        )
    if head.num_features != target.num_features:
        raise ValueError(
            "`head` must predict as many numbers as a step of the target has. Received:"
            f" head of num_features={head.num_features}, target of num_features="
            f"{target.num_features}. Use `kseq.layers.ForecastHead(..., "
            f"num_features={target.num_features})`."
        )
    return head


def check_embeddings(
    source: keras.layers.Layer | None, target: FeatureEmbedding, covariates: Any
) -> None:
    """Raise unless the embeddings of a forecasting model fit together."""
    if source is target:
        raise ValueError(
            "`source` and `target` of numbers must be different embeddings. "
            f"Received: one for both, {target.name}. Create two: "
            f"`kseq.layers.FeatureEmbedding({target.num_features}, {target.width})`."
        )
    if target.mask_value is not None:
        raise ValueError(
            "A target of numbers must have no `mask_value`: NaN marks unknown numbers. "
            f"Received: target with mask_value={target.mask_value}. Leave it out, and "
            "pad short targets with NaN, as `teacher_forcing` does."
        )
    if covariates is None:
        return
    if not isinstance(covariates, FeatureEmbedding) or covariates.padding is not None:
        raise ValueError(
            "`covariates` must be a `kseq.layers.FeatureEmbedding` without a "
            f"`mask_value`. Received: covariates={covariates}. Use "
            "`covariates=kseq.layers.FeatureEmbedding(num_covariates, "
            f"{target.width})`."
        )
    if covariates.width != target.width:
        raise ValueError(
            "`covariates` must have the width of the target, to which they are added. "
            f"Received: covariates of width={covariates.width}, target of width="
            f"{target.width}. Use `kseq.layers.FeatureEmbedding("
            f"{covariates.num_features}, {target.width})`."
        )
