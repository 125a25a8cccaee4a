"""Many-to-many models: one answer for each step of a sequence.

Axes in shape comments: B batch, S steps, D features, U units.
"""

import keras

from kseq.builders.crf import CRFOutputs
from kseq.builders.ctc import CTCModel
from kseq.builders.shorthands import (
    as_embedding,
    as_encoder,
    as_step_head,
    checked_answers,
    checked_steps,
)
from kseq.builders.token_inputs import TokenInputs
from kseq.builders.trainable import TrainableModel
from kseq.layers import CTC
from kseq.layers.labels_from_zero import LabelsFromZero
from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels
from kseq.layers.validation import rate
from kseq.typing import LayerLike


def many_to_many(
    source: LayerLike,
    num_outputs: int,
    encoder: LayerLike = "gru",
    width: int = 256,
    dropout: float = 0.0,
    head: LayerLike | None = None,
    name: str = "many_to_many",
) -> "ManyToMany | CTCModel":
    """Build a model that gives an answer for each step of a sequence, such as a tagger.

        source ids ──embedding──> (B,S,D) ──encoder──> (B,S,U)
                                                          │
                  logits or values (B,S,num_outputs) <──head

    The Keras mask of the source is passed on to the outputs, so the losses and metrics
    of Keras only count real steps. Labels of padding are ignored, but must be valid
    labels. Labels count from 0, so losses and metrics of `kseq.training` need
    `pad_token_id=-1`; `compile` warns of those that ignore label 0 by default.
    `kseq.training.TokenAccuracy(-1)` gives every step the same weight. In
    contrast, with Keras' accuracy, weighted or not, a batch counts less the more it is
    padded. `kseq.training.batches` takes weights of sequences, steps and classes. The
    `class_weight` of `fit` would weight whole sequences and raises an error.

    Args:
        source: Embedding of the source. A vocabulary size is shorthand for
            `TokenEmbedding(size, width)`.
        num_outputs: Number of classes or of values for each step.
        encoder: Layer `(B, S, D) -> (B, S, U)` that keeps the mask. `"rnn"`,
            `"lstm"`, `"gru"` and `"mingru"` are shorthand for
            `RecurrentEncoder(name, width)`, `"conv"` for `ConvEncoder(width)`, and
            `"transformer"` for a `TransformerEncoder`.
        width: Size of components given by name or number.
        dropout: Dropout rate of the encoded features. The same features are dropped at
            every step.
        head: Layer `(B, S, U) -> (B, S, num_outputs)`. Defaults to a dense layer with
            float32 logits. `"crf"` is shorthand for `kseq.layers.CRF(num_outputs)`,
            which learns the transitions between labels and has its own loss, so compile
            without one. Then a call returns potentials, and `predict` the scores of the
            best paths: the label with the highest score is the best (`ManyToMany`).
            `"ctc"` is shorthand for `kseq.layers.CTC(num_outputs)`, for label sequences
            shorter than the source. Then the model is a `CTCModel`, which also has its
            own loss, and `generate` and `score`. Id 0 is the blank and the padding.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` that maps the source, `(B, S)`, to logits
        or values `(B, S, num_outputs)`. Components that were not passed as layers are
        named `"embedding"`, `"encoder"` and `"head"` for `model.get_layer`.

    Raises:
        ValueError: A component is unknown or does not fit the others, a size is not a
            positive integer, or `dropout` is not in [0, 1).

    Example:

    >>> import keras, numpy as np
    >>> import kseq
    >>> model = kseq.many_to_many(source=11, num_outputs=3, encoder="lstm", width=8)
    >>> model.output_shape
    (None, None, 3)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss, metrics=[kseq.training.TokenAccuracy(-1)])
    >>> words, tags = np.array([[4, 5, 6], [7, 0, 0]]), np.array([[2, 1, 2], [1, 0, 0]])
    >>> history = model.fit(words, tags, verbose=0)

    With a CRF that never lets `I-` follow `O`:

    >>> crf = kseq.layers.CRF(labels=["O", "B-city", "I-city"])
    >>> model = kseq.many_to_many(source=11, num_outputs=3, width=8, head=crf)
    >>> model.compile("adam", metrics=[kseq.training.TokenAccuracy(-1)])
    >>> history = model.fit(words, tags, verbose=0)
    >>> model.predict(words, verbose=0).argmax(axis=-1).shape  # the best paths
    (2, 3)

    With CTC, read the letters of a line from its columns, without segmentation:

    >>> columns = kseq.layers.FeatureEmbedding(num_features=4, width=8)
    >>> model = kseq.many_to_many(columns, num_outputs=27, width=8, head="ctc")
    >>> model.compile("adam", metrics=[kseq.training.EditDistanceRate()])
    >>> lines, letters = np.ones((2, 9, 4)), np.array([[3, 1, 2], [20, 15, 0]])
    >>> history = model.fit(lines, letters, verbose=0)
    >>> model.generate(lines).token_ids.shape[:2]  # the best path of each
    (2, 1)
    >>> found = model.generate(lines, kseq.decoding.BeamSearch(4), max_length=5)
    >>> bool(np.allclose(model.score(lines, found), found.log_probs, atol=1e-4))
    True

    References:
        - [Graves, 2012](https://doi.org/10.1007/978-3-642-24797-2)
        - [Huang et al., 2015](https://arxiv.org/abs/1508.01991) (with a CRF)
        - [Graves et al., 2006](https://doi.org/10.1145/1143844.1143891) (with CTC)
    """
    encoder = as_encoder(encoder, width, name="encoder")
    embedding = as_embedding(source, width, name="embedding", reader=encoder)
    head_layer = as_step_head(head, num_outputs)
    drop = keras.layers.Dropout(
        rate("dropout", dropout), noise_shape=(None, 1, None), name="dropout"
    )

    source = embedding.symbolic_input("source")
    steps = checked_steps(encoder, encoder(embedding(source)))  # B S U
    answers = checked_answers(head_layer, head_layer(drop(steps)), num_outputs)
    kind = CTCModel if isinstance(head_layer, CTC) else ManyToMany
    return kind(source, answers, name=name)


@keras.saving.register_keras_serializable(package="kseq")
class ManyToMany(
    LabelsFromZero,
    CRFOutputs,
    TokenInputs,
    StepLabels,
    TrainableModel,
    WholeFiles,
    keras.Model,
):
    """Functional model that `kseq.many_to_many` returns.

    Call the class with inputs and outputs to use custom layers. If the last layer is a
    `kseq.layers.CRF`, the loss is the negative log-likelihood of the paths divided by
    the number of real steps of the batch, and `compile` takes no loss. A sequence is
    weighted by its sample weight or by the mean weight of its steps. A call returns
    potentials. Metrics, `predict` and `export` use the scores of the best paths: at
    each step the label with the highest score is the best one.

    Args:
        inputs: Symbolic inputs, as for `keras.Model`.
        outputs: Symbolic outputs.
        name: Name of the model.

    Raises:
        ValueError: A CRF is not the last layer.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.builders import ManyToMany
    >>> from kseq.layers import CRF
    >>> words = keras.Input((None,), dtype="int32")
    >>> x = keras.layers.Embedding(11, 8, mask_zero=True)(words)
    >>> x = keras.layers.Bidirectional(keras.layers.LSTM(8, return_sequences=True))(x)
    >>> model = ManyToMany(words, CRF(num_labels=3)(x))
    >>> model.compile("adam")
    >>> ids, tags = np.array([[4, 5, 6], [7, 0, 0]]), np.array([[2, 1, 2], [1, 0, 0]])
    >>> history = model.fit(ids, tags, verbose=0)
    >>> potentials = model(ids)
    >>> probabilities = model.crf.marginals(potentials)
    """
