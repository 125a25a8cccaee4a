"""Models that write numbers: each step is read to write the next one.

What `generate` is given goes this way: a `ForecastRequest` (`forecast_request.py`)
checks it and cuts it into batches; a `ForecastLoop` (`forecast_loop.py`), which Keras
compiles, starts the model for a batch and takes all steps.

Axes in shape comments: B batch, N draws, K draws at a time, T target steps, S source
steps, F features, C covariates, P parameters.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from kseq.builders.forecast import Forecast
from kseq.builders.forecast_loop import ForecastLoop
from kseq.builders.forecast_request import ForecastRequest
from kseq.builders.generate_loop import kept, run
from kseq.builders.shorthands import encode
from kseq.builders.target_numbers import PARTS, TargetNumbers
from kseq.builders.target_tokens import check_graph
from kseq.builders.token_inputs import TokenInputs
from kseq.layers import FeatureEmbedding, ForecastHead, SourceDropout
from kseq.layers.distributions import NAMES
from kseq.layers.masking import mask_of
from kseq.layers.saving import WholeFiles
from kseq.layers.validation import rate

# Of a Transformer each draw is compared with the steps of all that are made at a time.
DRAWS_AT_A_TIME = 16


@keras.saving.register_keras_serializable(package="kseq")
class Forecaster(TokenInputs, WholeFiles, keras.Model):
    """The model that the builders return where the target is a `FeatureEmbedding`.

        source ──source──> (B,S,D) ──encoder──> memory, states
                                                    │
        numbers of the step before ──target──> (B,T,D) ──decoder──> head ──> (B,T,F,P)
                         covariates ──────────────┘

    It maps `{"source", "target", "covariates"}`, those that it has, to the parameters
    of its head. A NaN in the target is a number that is not known, as all are before
    the first step; `kseq.training.teacher_forcing` shifts the target so.

    Two arguments by position are the inputs and outputs of a graph of such a model:
    `keras.models.clone_model` calls the class with them.
    """

    start_token_id = end_token_id = pad_token_id = None  # it writes no tokens
    source_size = source_length = None

    def __init__(
        self,
        *graph,
        source=None,
        target=None,
        covariates=None,
        encoder=None,
        decoder=None,
        head=None,
        source_dropout=0.0,
        numbers=None,
        name="forecaster",
        **kwargs,
    ):
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

    def _find_parts(self):
        """Sets what the model writes with, from the layers of its graph."""
        kinds = (x for x in self.operations if isinstance(x, TargetNumbers))
        self.numbers = numbers = next(kinds, None)
        check_graph(self, numbers and numbers.num_operations == len(self.operations))
        for part, place in numbers.places.items():
            setattr(self, part, None if place is None else self.operations[place])
        dropouts = (x for x in self.operations if isinstance(x, SourceDropout))
        self.source_dropout = next(dropouts, None)
        if self.source is not None:
            self.source_size = self.source.vocabulary_size
            self.source_length = self.source.num_positions

    @property
    def target(self):
        return self.numbers.target

    @property
    def covariates(self):
        return self.numbers.covariates

    @property
    def source_padding(self):
        return 0 if self.source is None else self.source.padding

    def start(self, source, num_draws=1, num_steps=None):
        """Prepares the first state, and what stays the same at every step.

        Args:
            source: What the model reads, or for one without a source any tensor with B
                rows.
            num_draws: Number of draws K that ride on each row.
            num_steps: Most steps that will be taken.

        Returns:
            `(state, constants)`: trees of tensors `(B, K, ...)` and `(B, ...)`.
        """
        if self.source is None:  # an empty memory says how many rows there are
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

    def step(self, inputs, state, constants):
        """Says what the next step of every draw will be.

        Args:
            inputs: Dictionary of `"target"`, the step before, `(B, K, F)`, NaN where it
                is not known, and where the model has them `"covariates"`, those of this
                step, `(B, 1, C)`.
            state: From `start` or the last step.
            constants: From `start`.

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
        source=None,
        num_steps=None,
        num_draws=None,
        seed=None,
        covariates=None,
        prefix=None,
        batch_size=128,
        jit_compile=None,
    ):
        """Writes the steps that follow on each source.

        Args:
            source: What the embedding of the source takes, with the axis B in front:
                features `(B, S, F)`, or a list of arrays of different lengths where the
                embedding has a `mask_value`. For a model without a source the number of
                series, or nothing beside a prefix.
            num_steps: Number of steps T to write.
            num_draws: Number of draws N of each series: a number is drawn at each step
                and read at the next one. None for one path, on which each step is the
                mean of what the model says after the steps before it.
            seed: Integer, of which 32 bits count, that the draws follow from. The same
                seed gives the same draws, with any `batch_size`, with more draws beside
                them and more rows behind. None draws anew at every call, following
                Python's `random`.
            covariates: `(B, T, C)`, what is known of the steps to be written; with a
                prefix of P steps `(B, P + T, C)`, of the prefix first.
            prefix: `(B, P, F)`, what the target begins with, NaN where it is not known,
                which is written then. The steps to be written stand behind it.
            batch_size: Most rows to work on at a time.
            jit_compile: As for `generate` of a model that writes tokens.

        Returns:
            A `Forecast` of NumPy arrays, without the steps of the prefix.

        Raises:
            ValueError: Something is missing, holds NaN where it may not, or does not
                fit the model or the other arguments.
        """
        request = ForecastRequest(
            self, source, num_steps, num_draws, seed, covariates, prefix, jit_compile
        )
        count = num_draws or 1
        at_a_time = min(count, DRAWS_AT_A_TIME)
        loop = kept(
            self,
            ForecastLoop,
            request.num_steps,
            request.num_known,
            num_draws and at_a_time,
            jit_compile,
        )
        results = []
        for batch in request.batches(batch_size):
            draws = [
                run(loop, with_first_draw(batch, first))["draws"]
                for first in range(0, count, at_a_time)
            ]
            draws = np.concatenate(draws, axis=1)[:, :count]  # B N T F
            results.append({"draws": draws})
        return Forecast(**request.outputs(results))

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        parts = {name: getattr(self, name) for name in (*PARTS, "numbers")}
        return {
            **{name: part and serialize(part) for name, part in parts.items()},
            "source_dropout": getattr(self.source_dropout, "dropout", 0.0),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        options = dict(config)
        for part in (*PARTS, "numbers"):
            options[part] = options[part] and keras.saving.deserialize_keras_object(
                options[part], custom_objects=custom_objects
            )
        return cls(**options)


def with_first_draw(batch, first):
    """A `Batch` that is told which of all draws it begins with."""
    rows = {**batch.rows, "first_draw": [np.int32(first)] * len(batch)}
    return dataclasses.replace(batch, rows=rows)


def is_of_numbers(target, tie_embeddings=None, covariates=None, copy=None):
    """Tell whether a target is numbers; options of the other kind are refused."""
    if isinstance(target, FeatureEmbedding):
        if tie_embeddings is not None:
            raise ValueError(
                "`tie_embeddings` is for a target of tokens, whose head can use their "
                f"table. Received: tie_embeddings={tie_embeddings!r} with a "
                "`FeatureEmbedding`. Leave it out."
            )
        if copy is not None:
            raise ValueError(
                "`copy` is for a target of tokens, which are words of the source. "
                f"Received: copy={copy} with a `FeatureEmbedding`. Leave it out."
            )
        return True
    if covariates is not None:
        raise ValueError(
            "`covariates` are for a target of numbers. Received: covariates="
            f"{covariates} with target={target}. Leave them out, or take "
            "`target=kseq.layers.FeatureEmbedding(num_features, width)`."
        )
    return False


def as_forecast_head(head, target):
    """`"gaussian"` is short for `ForecastHead("gaussian", num_features)`, in float32.

    None is short for `"mean"`.
    """
    head = "mean" if head is None else head
    if isinstance(head, str) and head in NAMES:
        features = target.num_features
        return ForecastHead(head, features, dtype="float32", name="head")
    names = ", ".join(f'"{name}"' for name in NAMES)
    if not isinstance(head, ForecastHead):
        raise ValueError(
            f"`head` of a target of numbers must be one of {names}, or a "
            f"`kseq.layers.ForecastHead`. Received: head={head!r}. For quantiles of "
            'your own take `kseq.layers.ForecastHead("quantiles", '
            f"{target.num_features}, quantiles=(0.1, 0.5, 0.9))`."
        )
    if head.num_features != target.num_features:
        raise ValueError(
            "`head` must say as many numbers as a step of the target has. Received: "
            f"head of num_features={head.num_features}, target of num_features="
            f"{target.num_features}. Take `kseq.layers.ForecastHead(..., "
            f"num_features={target.num_features})`."
        )
    return head


def check_embeddings(source, target, covariates):
    """Raise unless the embeddings of a step fit together."""
    if source is target:
        raise ValueError(
            "`source` and `target` of numbers must be embeddings of their own. "
            f"Received: one for both, {target.name}. Make two: "
            f"`kseq.layers.FeatureEmbedding({target.num_features}, {target.width})`."
        )
    if target.mask_value is not None:
        raise ValueError(
            "A target of numbers needs no `mask_value`: NaN is what is not known. "
            f"Received: target with mask_value={target.mask_value}. Leave it out, and "
            "fill up short targets with NaN, as `teacher_forcing` does."
        )
    if covariates is None:
        return
    if not isinstance(covariates, FeatureEmbedding) or covariates.padding is not None:
        raise ValueError(
            "`covariates` must be a `kseq.layers.FeatureEmbedding` without a "
            f"`mask_value`. Received: covariates={covariates}. Take "
            "`covariates=kseq.layers.FeatureEmbedding(num_covariates, "
            f"{target.width})`."
        )
    if covariates.width != target.width:
        raise ValueError(
            "`covariates` must have the width of the target, to which they are added. "
            f"Received: covariates of width={covariates.width}, target of width="
            f"{target.width}. Take `kseq.layers.FeatureEmbedding("
            f"{covariates.num_features}, {target.width})`."
        )
