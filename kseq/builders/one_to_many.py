"""One-to-many models: a class, a vector, a picture or nothing in, a sequence out.

Axes in shape comments: B batch, S steps of the condition, T target steps, D features,
V vocabulary.
"""

import numbers

from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.forecaster import Forecaster, is_of_numbers
from kseq.builders.shorthands import as_decoder, as_embedding, as_encoder
from kseq.layers import ClassEmbedding
from kseq.layers.validation import rate


def one_to_many(
    target,
    condition=None,
    encoder=None,
    decoder="gru",
    width=256,
    head=None,
    tie_embeddings=None,
    start_token_id=2,
    end_token_id=3,
    condition_dropout=0.0,
    covariates=None,
    name="one_to_many",
):
    """A model that writes a sequence, from a condition or from nothing.

        condition ──condition──> (B,S,D) ──encoder, if any──> memory
                                                                │
        target ids ──target──> (B,T,D) ──────────────────────decoder──> head
                                                                          │
                                                         logits (B,T,V) <─┘

    Without a condition it is a language model.

    Args:
        target: Embedding of the target, or its vocabulary size, short for
            `TokenEmbedding(size, width)`, with sinusoidal positions and scaled under a
            Transformer. A `FeatureEmbedding` writes numbers, step by step.
        condition: A number of classes, short for `ClassEmbedding(number, width)`, or a
            layer that makes a memory `(B, S, D)`: `VectorEmbedding`, `PatchEmbedding`
            and so on; or None.
        encoder: What reads the embedded condition, as for `kseq.encoder_decoder`, or
            None: the decoder reads it as it is.
        decoder: A `kseq.layers.Decoder`, or `"rnn"`, `"lstm"`, `"gru"`, short for a
            decoder with Bahdanau's attention if there is a condition, or
            `"transformer"`, short for a `TransformerDecoder` that reads the condition
            as a prefix (`cross_attention=False`).
        width: Size of the parts that are given by name or number.
        head: Layer `(B, T, U) -> (B, T, V)`. Defaults to a dense layer that gives
            float32 logits. Of a target of numbers as for `kseq.encoder_decoder`.
        tie_embeddings: `"target"` lets the head use the table of the target's
            embedding.
        start_token_id: The token that the decoder reads first.
        end_token_id: The token that ends a sequence.
        condition_dropout: Share of the conditions that are taken away in training, as
            `source_dropout` of `kseq.encoder_decoder`.
        covariates: As for `kseq.encoder_decoder`.
        name: Name of the model.

    Returns:
        An uncompiled `keras.Model` that maps `{"source": condition, "target": (B, T)}`,
        or `{"target": (B, T)}` without a condition, to logits `(B, T, V)`, and that has
        `generate` and `score`. Of a target of numbers a `Forecaster`.

    Raises:
        ValueError: A part is unknown or does not fit its neighbour, or
            `condition_dropout` is not in [0, 1).

    Example:

    >>> import kseq
    >>> digits = kseq.one_to_many(target=17, condition=10, width=8)
    >>> digits.generate([3, 7, 7], max_length=5).token_ids.shape
    (3, 1, 5)
    >>> language_model = kseq.one_to_many(target=17, decoder="transformer", width=8)
    >>> language_model.generate(2, max_length=5).token_ids.shape
    (2, 1, 5)

    A model of series that goes on from a past, as DeepAR does:

    >>> import numpy as np
    >>> model = kseq.one_to_many(
    ...     kseq.layers.FeatureEmbedding(1, 8), decoder="lstm", width=8, head="gaussian"
    ... )
    >>> past = np.ones((2, 5, 1))
    >>> model.generate(prefix=past, num_steps=3, num_draws=9, seed=1).draws.shape
    (2, 9, 3, 1)

    References:
        - [Vinyals et al., 2015](https://arxiv.org/abs/1411.4555), 3 (from a picture)
        - [Liu et al., 2018](https://arxiv.org/abs/1801.10198), 4.2.3 (decoder only)
    """
    if condition is None and encoder is not None:
        raise ValueError(
            "An encoder needs a condition to read. Received: condition=None with "
            f"encoder={encoder}. Leave `encoder` out."
        )
    rate("condition_dropout", condition_dropout)
    encoder = None if encoder is None else as_encoder(encoder, width)
    is_number = isinstance(condition, numbers.Integral)
    if is_number and not isinstance(condition, bool):
        condition = ClassEmbedding(condition, width)
    elif condition is not None:
        condition = as_embedding(condition, width)
    has_memory = condition is not None and decoder != "transformer"
    decoder = as_decoder(decoder, width, cross_attention=has_memory)
    parts = {
        "source": condition,
        "target": as_embedding(target, width, reader=decoder),
        "encoder": encoder,
        "decoder": decoder,
        "head": head,
        "source_dropout": condition_dropout,
        "name": name,
    }
    if is_of_numbers(target, tie_embeddings, covariates):
        return Forecaster(covariates=covariates, **parts)
    return EncoderDecoder(
        tie_embeddings=tie_embeddings,
        start_token_id=start_token_id,
        end_token_id=end_token_id,
        **parts,
    )
