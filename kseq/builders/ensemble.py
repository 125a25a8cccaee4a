"""Ensembles: several models combined into one.

Axes in shape comments: B batch, K beams, S source steps, T target steps, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from kseq.builders.encoder_decoder_model import over_heads
from kseq.builders.forecaster import Forecaster
from kseq.builders.generation import GenerativeModel
from kseq.builders.sharing import check_shared, deserialize_models, serialize_models
from kseq.builders.target_tokens import check_graph
from kseq.layers import MeanProbability, PointerGenerator, backends
from kseq.layers.labels_from_zero import LabelsFromZero
from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels
from kseq.typing import Config, Shape, Tensor, Tree

# Attributes that must be equal in all models of an ensemble that generates.
ALIKE = (
    "start_token_id",
    "end_token_id",
    "pad_token_id",
    "source_size",
    "target_size",
    "source_padding",
)


def ensemble(models: Sequence[keras.Model], name: str = "ensemble") -> "Ensemble":
    """Build a model that returns the mean of the probabilities of several models.

        inputs ──> each model ──> logits ──MeanProbability──> log-probabilities

    Models trained on one task from different initial weights make different errors, so
    that together they are right more often than the best of them. If the models
    generate, so does the ensemble: each step of `generate` uses the mean of all.

    Train the models before, or together with `fit` of the ensemble. Then each learns by
    its own loss, which must take logits, as if it were alone. The exception is a
    `global_clipnorm` of the optimizer, which is computed over all models. `evaluate`
    and metrics use the mean. TensorFlow runs the models in parallel. On a CPU this is
    often faster with one thread per operation: set `TF_NUM_INTRAOP_THREADS=1` in the
    environment.

    Args:
        models: A list of models with inputs of the same shapes and dtypes that return
            logits, not probabilities, of the same classes: models of
            `kseq.many_to_one`, `kseq.many_to_many`, `kseq.encoder_decoder` or
            `kseq.one_to_many`, or other functional or Sequential models. They may
            differ in size and kind, and may share layers such as an embedding. They are
            not copied. For models that do not generate, make sure that they use the
            same vocabulary; this is not checked.
        name: Name of the ensemble.

    Returns:
        An uncompiled `keras.Model` that maps the inputs of the models to
        log-probabilities (natural logarithm) of the shape of their logits. With
        `training=True` it returns a list of the logits of each model. If the models
        generate, it has `generate` and `score`. It is saved with all models in one
        file.

    Raises:
        ValueError: There are no models, one is not a Keras model or not built, only
            some of them generate, they differ in inputs, classes or tokens, or they
            share a part of a layer.

    Example:

    >>> import kseq
    >>> words = {"source": 11, "target": 13}
    >>> small = kseq.encoder_decoder(**words, width=8)
    >>> large = kseq.encoder_decoder(**words, encoder="lstm", width=12)
    >>> both = kseq.ensemble([small, large])
    >>> result = both.generate([[4, 5, 6], [7]], kseq.decoding.BeamSearch(3), 5)
    >>> scores = both.score([[4, 5, 6], [7]], result)
    >>> bool(abs(scores - result.log_probs).max() < 1e-4)
    True

    References:
        - [Dietterich, 2000](https://doi.org/10.1007/3-540-45014-9_1), 2
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 3.6
    """
    check_models(models)
    models = list(models)
    writing = {isinstance(model, GenerativeModel) for model in models}
    if len(writing) != 1:
        raise ValueError(
            "`models` must be one or more models of which all generate or none does. "
            f"Received: models={models}."
        )
    for attribute in ALIKE if writing == {True} else ():
        check_alike(attribute, [getattr(model, attribute) for model in models])
    check_alike("input", [keras.tree.map_structure(spec, inputs_of(m)) for m in models])
    check_alike("output", [m.output_shape for m in models])
    check_shared(models)
    kind = WritingEnsemble if writing == {True} else Ensemble
    return kind(models=models, name=name)


def check_models(models: Any) -> None:
    """Raise unless `models` is a list of models with known inputs and one output."""
    if not isinstance(models, (list, tuple)):
        raise ValueError(
            f"`models` must be a list of models. Received: models={models!r}."
        )
    for model in models:
        if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
            raise ValueError(
                "`models` must hold functional models, or Sequential ones with a "
                f"`keras.Input`. Received: {model!r}."
            )
        head = getattr(model, "loss_head", None)
        if head is not None:
            raise ValueError(
                "A model of an ensemble must return logits, and take its loss from "
                f"`compile`. Received: {model.name}, which ends with a "
                f"{type(head).__name__} that defines the loss. Build it without "
                "`head`."
            )
        if isinstance(model, Forecaster):
            raise ValueError(
                "An ensemble computes the mean of probabilities, which models that "
                f"generate numbers do not return. Received: {model.name}. Combine the "
                "draws: `np.concatenate([one.draws, other.draws], axis=1)` of two "
                "forecasts."
            )
        if len(model.outputs) != 1:
            raise ValueError(
                "A model of an ensemble must have one output, the logits. Received: "
                f"{model.name} with {len(model.outputs)} outputs. Build a "
                "`keras.Model` with one of them."
            )


def check_alike(attribute: str, values: Sequence[Any]) -> None:
    """Raise unless the values are equal for all models."""
    if any(value != values[0] for value in values):
        raise ValueError(
            f"The models of an ensemble must have the same `{attribute}`. Received: "
            f"{values}. Build them on the same vocabularies, labels or features."
        )


def spec(symbol: keras.KerasTensor) -> tuple[Shape, str]:
    return symbol.shape, symbol.dtype


def inputs_of(model: keras.Model) -> Tree:
    """Return the symbolic inputs of a model in their structure, also of Sequential."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def inputs_like(model: keras.Model) -> Tree:
    """Return new symbolic inputs like those of a model."""
    return keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name),
        inputs_of(model),
    )


@keras.saving.register_keras_serializable(package="kseq")
class Members(keras.layers.Layer):
    """Models of an ensemble as one layer, from their inputs to log-probabilities.

    As separate calls in a functional model, they would lose the masks of their outputs.
    """

    def __init__(self, models: Sequence[keras.Model], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.models = list(models)
        self.merge = MeanProbability(dtype="float32")

    def build(self, inputs_shape: Tree) -> None:
        self.merge.build([model.output_shape for model in self.models])

    def call(self, inputs: Tree, training: bool = False) -> Tensor:
        return self.merge(each_reads(self.models, inputs, training=training))

    def compute_output_spec(
        self, inputs: Tree, training: bool = False
    ) -> keras.KerasTensor:
        return keras.KerasTensor(self.models[0].output_shape, "float32")

    def get_config(self) -> Config:
        return {**super().get_config(), **serialize_models(self.models)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        options = {name: config[name] for name in config if name != "shared"}
        return cls(**{**options, "models": deserialize_models(config)})


@keras.saving.register_keras_serializable(package="kseq")
class Ensemble(LabelsFromZero, StepLabels, WholeFiles, keras.Model):
    """Model that `kseq.ensemble` returns for models that do not generate."""

    def __init__(
        self,
        *graph: Any,
        models: Any = None,
        name: str = "ensemble",
        **kwargs: Any,
    ) -> None:
        if not graph:  # Keras' `clone_model` passes inputs and outputs
            inputs = inputs_like(models[0])
            graph = inputs, Members(models, name="members")(inputs)
        super().__init__(*graph, name=name, **kwargs)
        parts = [
            x for x in self.operations if not isinstance(x, keras.layers.InputLayer)
        ]
        check_graph(self, [type(x) for x in parts] == [Members])
        [self.members] = parts

    @property
    def models(self) -> list[keras.Model]:
        """The models of the ensemble."""
        return self.members.models

    def call(
        self, inputs: Tree, training: bool | None = None, mask: Tree = None
    ) -> Any:
        if not training:
            return super().call(inputs, training=training, mask=mask)
        logits = each_reads(self.models, inputs, training=True)
        return keras.tree.flatten(logits)  # also those of ensembles among them

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the ensemble, without those of its models."""
        # Keras would add those of compiled models, under the same names.
        of_members = {id(metric) for model in self.models for metric in model.metrics}
        return [metric for metric in super().metrics if id(metric) not in of_members]

    def compute_loss(
        self,
        x: Tree = None,
        y: Tree = None,
        y_pred: Tree = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        if not isinstance(y_pred, list):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        total = sum(
            super(Ensemble, self).compute_loss(x, y, logits, sample_weight, training)
            for logits in y_pred
        )
        # Each loss includes the penalties of all models.
        total = total - (len(y_pred) - 1) * sum(self.losses)
        # The value is the mean, to compare with one model. The gradient is that of the
        # sum, so that each model learns as it would alone.
        return total - ops.stop_gradient(total * (1 - 1 / len(y_pred)))

    def compute_metrics(
        self, x: Tree, y: Tree, y_pred: Tree, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        if isinstance(y_pred, list):
            y_pred = self.members.merge(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def zero_grad(self, set_to_none: bool = True) -> None:
        # Keras identifies a torch weight by its path alone, which models may share.
        for model in self.models:
            model.zero_grad(set_to_none)

    def get_config(self) -> Config:
        return {**serialize_models(self.models), "name": self.name}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        models = deserialize_models(config, custom_objects)
        return cls(models=models, name=config["name"])


# `call` of the second base takes further options, which an ensemble does not have.
@keras.saving.register_keras_serializable(package="kseq")
class WritingEnsemble(Ensemble, GenerativeModel):  # type: ignore[misc]
    """Model that `kseq.ensemble` returns for models that generate."""

    labels_count_from_zero = False

    def __init__(self, *graph: Any, **kwargs: Any) -> None:
        super().__init__(*graph, **kwargs)
        for attribute in ALIKE[:-1]:
            setattr(self, attribute, getattr(self.models[0], attribute))
        for attribute in ("source_length", "target_length"):
            lengths = [getattr(model, attribute) for model in self.models]
            setattr(self, attribute, least(lengths))

    @property
    def source_padding(self) -> Any:
        """Padding of short sources, or None if all must have the same shape."""
        return self.models[0].source_padding

    @property
    def can_be_guided(self) -> bool:
        """True if all models can be guided."""
        return all(model.can_be_guided for model in self.models)

    @property
    def pointer_generator(self) -> PointerGenerator | None:
        """The first pointer generator if all copy by the same alignment, or None."""
        copying: list[Any] = [
            getattr(model, "pointer_generator", None) for model in self.models
        ]
        if None in copying:
            return None
        if any(each.alignment != copying[0].alignment for each in copying):
            return None
        return copying[0]

    def start(
        self,
        source: Tree,
        num_beams: int = 1,
        max_length: int | None = None,
        **options: Any,
    ) -> tuple[Tree, Tree]:
        """Return the initial states and constants of all models."""
        begun = [m.start(source, num_beams, max_length, **options) for m in self.models]
        states, constants = map(list, zip(*begun, strict=True))
        return joined_states(states), constants

    def step(
        self, token_ids: Tensor, state: Tree, constants: Tree
    ) -> tuple[Tensor, Tree]:
        """Return the mean log-probabilities `(B, K, V)`, and the next states."""
        pairs = zip(self.models, state["members"], constants, strict=True)
        taken = [model.step(token_ids, *each) for model, *each in pairs]
        logits, states = map(list, zip(*taken, strict=True))
        return self.members.merge(logits), joined_states(states)

    def read(
        self, source: Tree, target: Tensor, return_attention_scores: bool = False
    ) -> Any:
        """Return the log-probabilities of a target, and its attention if asked for."""
        each = [m.read(source, target, return_attention_scores) for m in self.models]
        if not return_attention_scores:
            return self.members.merge(each)
        logits, weights = map(list, zip(*each, strict=True))
        weights = keras.tree.map_structure(
            lambda *same: mean([over_heads(w) for w in same]), *weights
        )  # by name for several sources
        return self.members.merge(logits), weights


def each_reads(
    models: Sequence[keras.Model], inputs: Tree, training: bool
) -> list[Any]:
    """Return the outputs of each model; equal loops are compiled once."""
    with backends.sharing():
        return [model(inputs, training=training) for model in models]


def joined_states(states: Sequence[Tree]) -> dict[str, Tree]:
    """Return the state of an ensemble, with the mean coverage of its models."""
    state = {"members": states}
    if all("coverage" in each for each in states):
        state["coverage"] = mean([each["coverage"] for each in states])  # B K S
    return state


def mean(tensors: Sequence[Tensor]) -> Tensor:
    return ops.mean(ops.stack(tensors), axis=0)


def least(lengths: Sequence[Any]) -> Any:
    """Return the least length that is not None; by name for several sources."""
    if isinstance(lengths[0], dict):
        first = lengths[0]
        return {name: least([each[name] for each in lengths]) for name in first}
    return min(filter(None, lengths), default=None)
