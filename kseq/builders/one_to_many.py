"""One-to-many models: generate a sequence from a class, vector, image or nothing.

Axes in shape comments: B batch, S steps of the condition, T target steps, D features,
V vocabulary.
"""

import numbers
from typing import Any, Literal, overload

import keras

from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.forecaster import Forecaster, is_of_numbers
from kseq.builders.sampling import as_scheduled_sampling
from kseq.builders.shorthands import as_decoder, as_embedding, as_encoder
from kseq.layers import ClassEmbedding, FeatureEmbedding, ScheduledSampling
from kseq.layers.validation import rate
from kseq.typing import LayerLike


# Keras' layers are `Any` to mypy, so that it finds the second signature covered.
@overload
def one_to_many(
    target: keras.layers.Layer,
    *args: Any,
    **options: Any,
) -> Any: ...


@overload
def one_to_many(  # type: ignore[overload-cannot-match]
    target: int,
    condition: LayerLike | None = None,
    encoder: LayerLike | None = None,
    decoder: LayerLike = "gru",
    width: int = 256,
    head: LayerLike | None = None,
    tie_embeddings: Literal["target"] | None = None,
    start_token_id: int = 2,
    end_token_id: int = 3,
    condition_dropout: float = 0.0,
    covariates: None = None,
    scheduled_sampling: ScheduledSampling | float | None = None,
    name: str = "one_to_many",
) -> EncoderDecoder: ...


def one_to_many(
    target: LayerLike,
    condition: LayerLike | None = None,
    encoder: LayerLike | None = None,
    decoder: LayerLike = "gru",
    width: int = 256,
    head: LayerLike | None = None,
    tie_embeddings: Literal["target"] | None = None,
    start_token_id: int = 2,
    end_token_id: int = 3,
    condition_dropout: float = 0.0,
    covariates: FeatureEmbedding | None = None,
    scheduled_sampling: ScheduledSampling | float | None = None,
    name: str = "one_to_many",
) -> Any:
    """Build a model that generates a sequence, with or without a condition.

        condition ──condition──> (B,S,D) ──encoder, if any──> memory
                                                                │
        target ids ──target──> (B,T,D) ──────────────────────decoder──> head
                                                                          │
                                                         logits (B,T,V) <─┘

    Without a condition this is a language model.

    Args:
        target: Embedding of the target. A vocabulary size is shorthand for
            `TokenEmbedding(size, width)`, scaled and with sinusoidal positions if the
            decoder is a Transformer. With a `FeatureEmbedding` the model generates
            numbers step by step.
        condition: Layer that returns a memory `(B, S, D)`, such as `VectorEmbedding` or
            `PatchEmbedding`, or None. A number of classes is shorthand for
            `ClassEmbedding(number, width)`.
        encoder: Encoder of the embedded condition, as for `kseq.encoder_decoder`. With
            None the decoder reads the embedded condition itself.
        decoder: A `kseq.layers.Decoder`. `"rnn"`, `"lstm"`, `"gru"` and `"mingru"` are
            shorthand for a `RecurrentDecoder`, with Bahdanau's attention if there is a
            condition. `"transformer"` is shorthand for a `TransformerDecoder` that
            reads the condition as a prefix (`cross_attention=False`).
        width: Size of components given by name or number.
        head: Layer `(B, T, U) -> (B, T, V)`. Defaults to a dense layer with float32
            logits. For a target of numbers as for `kseq.encoder_decoder`.
        tie_embeddings: With `"target"` the head uses the table of the target's
            embedding.
        start_token_id: Token id that the decoder reads first.
        end_token_id: Token id that ends a sequence.
        condition_dropout: Fraction of the conditions dropped in training, as
            `source_dropout` of `kseq.encoder_decoder`.
        covariates: As for `kseq.encoder_decoder`.
        scheduled_sampling: As for `kseq.encoder_decoder`.
        name: Name of the model.

    Returns:
        An uncompiled `keras.Model` that maps `{"source": condition, "target": (B, T)}`,
        or `{"target": (B, T)}` without a condition, to logits `(B, T, V)`, and that has
        `generate` and `score`. For a target of numbers a `Forecaster`.

    Raises:
        ValueError: A component is unknown or does not fit the others, or
            `condition_dropout` is not in [0, 1).

    Example:

    >>> import kseq
    >>> digits = kseq.one_to_many(target=17, condition=10, width=8)
    >>> digits.generate([3, 7, 7], max_length=5).token_ids.shape
    (3, 1, 5)
    >>> language_model = kseq.one_to_many(target=17, decoder="transformer", width=8)
    >>> language_model.generate(2, max_length=5).token_ids.shape
    (2, 1, 5)

    A forecasting model that continues a time series, like DeepAR:

    >>> import numpy as np
    >>> model = kseq.one_to_many(
    ...     kseq.layers.FeatureEmbedding(1, 8), decoder="lstm", width=8, head="gaussian"
    ... )
    >>> past = np.ones((2, 5, 1))
    >>> model.generate(prefix=past, num_steps=3, num_draws=9, seed=1).draws.shape
    (2, 9, 3, 1)

    References:
        - [Vinyals et al., 2015](https://arxiv.org/abs/1411.4555), 3 (from an image)
        - [Liu et al., 2018](https://arxiv.org/abs/1801.10198), 4.2.3 (decoder only)
    """
    if condition is None and encoder is not None:
        raise ValueError(
            "An encoder needs a condition to read. Received: condition=None with "
            f"encoder={encoder}. Leave `encoder` out."
        )
    rate("condition_dropout", condition_dropout)
    sampling = as_scheduled_sampling(scheduled_sampling, target)
    encoder = None if encoder is None else as_encoder(encoder, width)
    is_number = isinstance(condition, numbers.Integral)
    if is_number and not isinstance(condition, bool):
        num_classes: Any = condition
        condition = ClassEmbedding(num_classes, width)
    elif condition is not None:
        condition = as_embedding(condition, width)
    has_memory = condition is not None and decoder != "transformer"
    decoder = as_decoder(decoder, width, cross_attention=has_memory)
    parts: dict[str, Any] = {
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
        scheduled_sampling=sampling,
        tie_embeddings=tie_embeddings,
        start_token_id=start_token_id,
        end_token_id=end_token_id,
        **parts,
    )
