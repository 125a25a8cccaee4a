"""Many-to-many models: one sequence in, one answer for each of its steps.

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
from kseq.layers import CTC
from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels
from kseq.layers.validation import rate


def many_to_many(
    source,
    num_outputs,
    encoder="gru",
    width=256,
    dropout=0.0,
    head=None,
    name="many_to_many",
):
    """A model that reads a sequence and gives an answer at each step: a tagger.

        source ids ──embedding──> (B,S,D) ──encoder──> (B,S,U)
                                                          │
                  logits or values (B,S,num_outputs) <──head

    The Keras mask of the source reaches the answers, so Keras' own losses and metrics
    count the real steps alone; what the labels hold elsewhere does not matter, as long
    as it is a label. `kseq.training.TokenAccuracy(-1)` counts every step the same;
    Keras' accuracy, also as a weighted metric, lets a batch count the less, the longer
    its rows are padded. `kseq.training.batches` gives rows, steps and classes weights;
    the `class_weight` of `fit`, which would weigh whole rows, is refused.

    Args:
        source: Embedding of the source, or its vocabulary size, short for
            `TokenEmbedding(size, width)`.
        num_outputs: Number of classes, or of values, for each step.
        encoder: Layer `(B, S, D) -> (B, S, U)` that keeps the mask, or `"rnn"`,
            `"lstm"`, `"gru"`, short for `RecurrentEncoder(name, width)`, or
            `"transformer"`, or `"conv"`, short for `ConvEncoder(width)`.
        width: Size of the parts that are given by name or number.
        dropout: Share of the encoded features to drop in training, the same ones at
            every step.
        head: Layer `(B, S, U) -> (B, S, num_outputs)`. Defaults to a dense layer that
            gives float32 logits. `"crf"` is short for `kseq.layers.CRF(num_outputs)`,
            which knows which labels go together, and has a loss of its own: compile
            without one. Then a call gives potentials, and `predict` the scores of the
            best paths, whose highest are the best labels (`ManyToMany`). `"ctc"` is
            short for `kseq.layers.CTC(num_outputs)`, which reads a row of labels that
            is shorter than the sequence: then the model is a `CTCModel`, which has a
            loss of its own too, `generate` and `score`; id 0 is the blank, and padding.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` that maps the source, `(B, S)`, to logits
        or values `(B, S, num_outputs)`. `model.get_layer` finds the parts that were not
        given as layers by `"embedding"`, `"encoder"` and `"head"`.

    Raises:
        ValueError: A part is unknown or does not fit its neighbour, a size is not a
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

    With a CRF, which here knows that no `I-` follows `O`:

    >>> crf = kseq.layers.CRF(labels=["O", "B-city", "I-city"])
    >>> model = kseq.many_to_many(source=11, num_outputs=3, width=8, head=crf)
    >>> model.compile("adam", metrics=[kseq.training.TokenAccuracy(-1)])
    >>> history = model.fit(words, tags, verbose=0)
    >>> model.predict(words, verbose=0).argmax(axis=-1).shape  # the best paths
    (2, 3)

    With CTC, letters are read from the columns of a line that nobody has cut:

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
    head = as_step_head(head, num_outputs)
    dropout = keras.layers.Dropout(
        rate("dropout", dropout), noise_shape=(None, 1, None), name="dropout"
    )

    source = embedding.symbolic_input("source")
    steps = checked_steps(encoder, encoder(embedding(source)))  # B S U
    answers = checked_answers(head, head(dropout(steps)), num_outputs)
    kind = CTCModel if isinstance(head, CTC) else ManyToMany
    return kind(source, answers, name=name)


@keras.saving.register_keras_serializable(package="kseq")
class ManyToMany(CRFOutputs, TokenInputs, StepLabels, WholeFiles, keras.Model):
    """The functional model that `kseq.many_to_many` returns.

    Called with inputs and outputs it makes one of layers of your own. Where the last is
    a `kseq.layers.CRF`, the model trains by the likelihood of paths, over the number of
    real steps of a batch; `compile` takes no loss. A row counts by its weight, or by
    the mean weight of its steps. A call gives potentials; metrics, `predict` and
    `export` have the scores of the best paths, of which the highest of each step is the
    best label.

    Args:
        inputs: Symbolic inputs, as for `keras.Model`.
        outputs: Symbolic outputs.
        name: Name of the model.

    Raises:
        ValueError: A CRF stands elsewhere than at the end.

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
