"""Ensembles: several models that decide together.

Axes in shape comments: B batch, K beams, S source steps, T target steps, V vocabulary.
"""

import keras
from keras import ops

from kseq.builders.encoder_decoder_model import over_heads
from kseq.builders.forecaster import Forecaster
from kseq.builders.generation import GenerativeModel
from kseq.builders.sharing import check_shared, deserialize_models, serialize_models
from kseq.builders.target_tokens import check_graph
from kseq.layers import MeanProbability, backends
from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels

# What the members of an ensemble that writes have to agree on.
ALIKE = (
    "start_token_id",
    "end_token_id",
    "pad_token_id",
    "source_size",
    "target_size",
    "source_padding",
)


def ensemble(models, name="ensemble"):
    """A model that gives the mean of the probabilities of several.

        inputs ──> each model ──> logits ──MeanProbability──> log-probabilities

    Models that have learned the same task from different beginnings err at different
    places; together they are right more often than the best of them. Where the models
    write, the ensemble does: each step of `generate` takes the mean of all.

    The models may have been trained before, or learn in one `fit` of the ensemble: each
    by its own loss, which must take logits, as if it were alone, but for a
    `global_clipnorm` of the optimizer, whose norm is that of all. `evaluate`, and the
    metrics, are of the mean. TensorFlow runs them side by side: on a CPU they often are
    faster with one thread an operation, `TF_NUM_INTRAOP_THREADS=1` in the environment.

    Args:
        models: A list of models whose inputs have the same shapes and dtypes, and that
            give logits, not probabilities, of the same classes: of `kseq.many_to_one`,
            `kseq.many_to_many` or any other functional or Sequential models, or of
            `kseq.encoder_decoder` and `kseq.one_to_many`. Their sizes and kinds may
            differ, and they may share layers, as an embedding. They are not copied, and
            that those which only read have learned the same vocabulary is for you to
            know.
        name: Name of the ensemble.

    Returns:
        An uncompiled `keras.Model` from the inputs of the models to the natural
        logarithms of probabilities, in the shape of their logits, and with
        `training=True` to a list of the logits of each; of models that write one with
        `generate` and `score`. It saves all of them in one file.

    Raises:
        ValueError: There are no models, or something else among them, or one that has
            not been built; some write and others do not; they differ in inputs, classes
            or tokens, or share a part of a layer.

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
            "`models` must be one or more models, which all write or none of which "
            f"does. Received: models={models}."
        )
    for attribute in ALIKE if writing == {True} else ():
        check_alike(attribute, [getattr(model, attribute) for model in models])
    check_alike("input", [keras.tree.map_structure(spec, inputs_of(m)) for m in models])
    check_alike("output", [m.output_shape for m in models])
    check_shared(models)
    kind = WritingEnsemble if writing == {True} else Ensemble
    return kind(models=models, name=name)


def check_models(models):
    """Raises unless there is a list of models with known inputs and one output."""
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
                "A model of an ensemble must give logits, of which probabilities are "
                f"made, and learn by a loss. Received: {model.name}, which ends with a "
                f"{type(head).__name__}, and has its own. Build it without `head`."
            )
        if isinstance(model, Forecaster):
            raise ValueError(
                "An ensemble takes the mean of probabilities, which models that write "
                f"numbers do not give. Received: {model.name}. Put the draws of each "
                "together: `np.concatenate([one.draws, other.draws], axis=1)` of two "
                "forecasts."
            )
        if len(model.outputs) != 1:
            raise ValueError(
                "A model of an ensemble must have one output, the logits. Received: "
                f"{model.name} with {len(model.outputs)} outputs. Make a `keras.Model` "
                "of one of them."
            )


def check_alike(attribute, values):
    """Raises unless all models have the same."""
    if any(value != values[0] for value in values):
        raise ValueError(
            f"The models of an ensemble must have the same `{attribute}`. Received: "
            f"{values}. Build them on the same vocabularies, labels or features."
        )


def spec(symbol):
    return symbol.shape, symbol.dtype


def inputs_of(model):
    """The symbolic inputs of a model in their structure, of a Sequential one too."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def inputs_like(model):
    """New symbolic inputs like those of a model."""
    return keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name),
        inputs_of(model),
    )


@keras.saving.register_keras_serializable(package="kseq")
class Members(keras.layers.Layer):
    """The models of an ensemble, as one layer from their inputs to what all say.

    Called one by one in a functional model they would lose the mask of their outputs.
    """

    def __init__(self, models, **kwargs):
        super().__init__(**kwargs)
        self.models = list(models)
        self.merge = MeanProbability(dtype="float32")

    def build(self, inputs_shape):
        self.merge.build([model.output_shape for model in self.models])

    def call(self, inputs, training=False):
        return self.merge(each_reads(self.models, inputs, training=training))

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor(self.models[0].output_shape, "float32")

    def get_config(self):
        return {**super().get_config(), **serialize_models(self.models)}

    @classmethod
    def from_config(cls, config):
        options = {name: config[name] for name in config if name != "shared"}
        return cls(**{**options, "models": deserialize_models(config)})


@keras.saving.register_keras_serializable(package="kseq")
class Ensemble(StepLabels, WholeFiles, keras.Model):
    """The model that `kseq.ensemble` returns where the models do not write."""

    def __init__(self, *graph, models=None, name="ensemble", **kwargs):
        if not graph:  # which is given, inputs and outputs, by Keras' `clone_model`
            inputs = inputs_like(models[0])
            graph = inputs, Members(models, name="members")(inputs)
        super().__init__(*graph, name=name, **kwargs)
        parts = [
            x for x in self.operations if not isinstance(x, keras.layers.InputLayer)
        ]
        check_graph(self, [type(x) for x in parts] == [Members])
        [self.members] = parts

    @property
    def models(self):
        return self.members.models

    def call(self, inputs, training=None, mask=None):
        if not training:
            return super().call(inputs, training=training, mask=mask)
        logits = each_reads(self.models, inputs, training=True)
        return keras.tree.flatten(logits)  # of ensembles among them, too

    @property
    def metrics(self):
        # Keras would add those of members that were compiled, under the same names.
        of_members = {id(metric) for model in self.models for metric in model.metrics}
        return [metric for metric in super().metrics if id(metric) not in of_members]

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if not isinstance(y_pred, list):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        total = sum(
            super(Ensemble, self).compute_loss(x, y, logits, sample_weight, training)
            for logits in y_pred
        )
        # Each has added the penalties of all.
        total = total - (len(y_pred) - 1) * sum(self.losses)
        # The mean, to be compared with that of one model, with the gradient of the sum,
        # so that each model learns as it would alone.
        return total - ops.stop_gradient(total * (1 - 1 / len(y_pred)))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if isinstance(y_pred, list):
            y_pred = self.members.merge(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def zero_grad(self, set_to_none=True):
        # Keras knows a weight of torch by its path alone, which members may share.
        for model in self.models:
            model.zero_grad(set_to_none)

    def get_config(self):
        return {**serialize_models(self.models), "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        models = deserialize_models(config, custom_objects)
        return cls(models=models, name=config["name"])


@keras.saving.register_keras_serializable(package="kseq")
class WritingEnsemble(Ensemble, GenerativeModel):
    """The model that `kseq.ensemble` returns where the models write."""

    def __init__(self, *graph, **kwargs):
        super().__init__(*graph, **kwargs)
        for attribute in ALIKE[:-1]:
            setattr(self, attribute, getattr(self.models[0], attribute))
        for attribute in ("source_length", "target_length"):
            lengths = [getattr(model, attribute) for model in self.models]
            setattr(self, attribute, least(lengths))

    @property
    def source_padding(self):
        return self.models[0].source_padding

    @property
    def can_be_guided(self):
        return all(model.can_be_guided for model in self.models)

    @property
    def pointer_generator(self):
        """That of the first, where all copy by the same alignment; else None."""
        copying = [getattr(model, "pointer_generator", None) for model in self.models]
        if None in copying or len({each.alignment for each in copying}) > 1:
            return None
        return copying[0]

    def start(self, source, num_beams=1, max_length=None, **options):
        begun = [m.start(source, num_beams, max_length, **options) for m in self.models]
        states, constants = map(list, zip(*begun, strict=True))
        return together(states), constants

    def step(self, token_ids, state, constants):
        pairs = zip(self.models, state["members"], constants, strict=True)
        taken = [model.step(token_ids, *each) for model, *each in pairs]
        logits, states = map(list, zip(*taken, strict=True))
        return self.members.merge(logits), together(states)

    def read(self, source, target, return_attention_scores=False):
        each = [m.read(source, target, return_attention_scores) for m in self.models]
        if not return_attention_scores:
            return self.members.merge(each)
        logits, weights = map(list, zip(*each, strict=True))
        weights = keras.tree.map_structure(
            lambda *same: mean([over_heads(w) for w in same]), *weights
        )  # by name, where there are several sources
        return self.members.merge(logits), weights


def each_reads(models, inputs, training):
    """What each model says; loops that are alike are compiled once for all."""
    with backends.sharing():
        return [model(inputs, training=training) for model in models]


def together(states):
    """The state of an ensemble, with the mean of what its members have covered."""
    state = {"members": states}
    if all("coverage" in each for each in states):
        state["coverage"] = mean([each["coverage"] for each in states])  # B K S
    return state


def mean(tensors):
    return ops.mean(ops.stack(tensors), axis=0)


def least(lengths):
    """The least length of those that are not None; of several sources by name."""
    if isinstance(lengths[0], dict):
        first = lengths[0]
        return {name: least([each[name] for each in lengths]) for name in first}
    return min(filter(None, lengths), default=None)
