"""Many-to-one models: one answer for each sequence.

Axes in shape comments: B batch, S steps, D features, U units.
"""

import keras

from kseq.builders.shorthands import (
    as_embedding,
    as_encoder,
    as_head,
    as_pooling,
    check_reads_both_ways,
    checked_answers,
    checked_steps,
    checked_vectors,
)
from kseq.builders.token_inputs import TokenInputs
from kseq.builders.trainable import TrainableModel
from kseq.layers import ClassToken
from kseq.layers.saving import WholeFiles
from kseq.layers.validation import rate
from kseq.typing import LayerLike


def many_to_one(
    source: LayerLike,
    num_outputs: int,
    encoder: LayerLike = "gru",
    pooling: LayerLike = "attention",
    width: int = 256,
    dropout: float = 0.0,
    head: LayerLike | None = None,
    name: str = "many_to_one",
) -> "ManyToOne":
    """Build a model that gives one answer for a sequence: a class or a number.

        source ids ──embedding──> (B,S,D) ──encoder──> (B,S,U) ──pooling──> (B,U)
                                                                              │
                                          logits or values (B,num_outputs) <──head

    Args:
        source: Embedding of the source. A vocabulary size is shorthand for
            `TokenEmbedding(size, width)`.
        num_outputs: Number of classes or of values. Use 1 for a regression.
        encoder: Layer `(B, S, D) -> (B, S, U)` that keeps the mask. `"rnn"`,
            `"lstm"`, `"gru"` and `"mingru"` are shorthand for
            `RecurrentEncoder(name, width)`, `"conv"` for `ConvEncoder(width)`, and
            `"transformer"` for a `TransformerEncoder`.
        pooling: Layer `(B, S, U) -> (B, U)`. `"mean"`, `"max"`, `"last"` and
            `"attention"` are shorthand for a pooling layer of `kseq.layers`.
            `"class_token"` prepends a `ClassToken` to the encoder's input and takes
            the encoder's output at that token.
        width: Size of components given by name or number.
        dropout: Dropout rate of the pooled features.
        head: Layer `(B, U) -> (B, num_outputs)`. Defaults to a dense layer with float32
            logits.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` that maps the source, `(B, S)`, to logits
        or values `(B, num_outputs)`. Components that were not passed as layers are
        named `"embedding"`, `"encoder"`, `"pooling"` and `"head"` for
        `model.get_layer`.

    Raises:
        ValueError: A component is unknown or does not fit the others, a size is not a
            positive integer, or `dropout` is not in [0, 1).

    Example:

    >>> import keras, numpy as np
    >>> import kseq
    >>> model = kseq.many_to_one(source=11, num_outputs=2, width=8)
    >>> model.output_shape
    (None, 2)

    Use the components to read the attention weights of a trained model:

    >>> encoder = keras.Model(model.input, model.get_layer("encoder").output)
    >>> steps = encoder(np.array([[4, 5, 6], [7, 0, 0]]))
    >>> pooling = model.get_layer("pooling")
    >>> pooled, weights = pooling(steps, return_attention_scores=True)
    >>> keras.ops.convert_to_numpy(weights)[1].tolist()
    [1.0, 0.0, 0.0]

    References:
        - [Yang et al., 2016](https://aclanthology.org/N16-1174/), 2.2 (attention)
        - [Devlin et al., 2019](https://arxiv.org/abs/1810.04805), 3 (class token)
    """
    encoder = as_encoder(encoder, width, name="encoder")
    embedding = as_embedding(source, width, name="embedding", reader=encoder)
    head_layer = as_head(head, num_outputs)
    drop = keras.layers.Dropout(rate("dropout", dropout), name="dropout")

    source = embedding.symbolic_input("source")
    steps = embedding(source)  # B S D
    if pooling == "class_token":
        check_reads_both_ways(encoder)
        steps = ClassToken(name="class_token")(steps)  # B 1+S D
    pooling = as_pooling(pooling, name="pooling")
    steps = checked_steps(encoder, encoder(steps))  # B S U
    pooled = checked_vectors(pooling, pooling(steps))  # B U
    answer = checked_answers(head_layer, head_layer(drop(pooled)), num_outputs)
    return ManyToOne(source, answer, name=name)


@keras.saving.register_keras_serializable(package="kseq")
class ManyToOne(TokenInputs, TrainableModel, WholeFiles, keras.Model):
    """Functional model that `kseq.many_to_one` returns."""
