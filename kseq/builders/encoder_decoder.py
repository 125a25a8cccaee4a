"""Encoder-decoder models: generate a target sequence from a source sequence.

Axes in shape comments: B batch, S source steps, T target steps, D features,
V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, Literal, overload

import keras

from kseq.builders.copying import as_pointer_generator
from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.forecaster import Forecaster, is_of_numbers
from kseq.builders.sampling import as_scheduled_sampling
from kseq.builders.shorthands import (
    as_decoder,
    as_embedding,
    as_embeddings,
    as_encoders,
)
from kseq.layers import FeatureEmbedding, PointerGenerator, ScheduledSampling
from kseq.layers.pointer_generator import Alignment
from kseq.typing import LayerLike


# Keras' layers are `Any` to mypy, so that it finds the second signature covered.
@overload
def encoder_decoder(
    source: LayerLike | Mapping[str, LayerLike],
    target: keras.layers.Layer,
    *args: Any,
    **options: Any,
) -> Any: ...


@overload
def encoder_decoder(  # type: ignore[overload-cannot-match]
    source: LayerLike | Mapping[str, LayerLike],
    target: int,
    encoder: LayerLike | Mapping[str, LayerLike | None] | None = "gru",
    decoder: LayerLike = "gru",
    width: int = 256,
    head: LayerLike | None = None,
    tie_embeddings: Literal["target", "all"] | None = None,
    start_token_id: int = 2,
    end_token_id: int = 3,
    source_dropout: float = 0.0,
    covariates: None = None,
    copy: bool | Alignment | PointerGenerator | None = None,
    scheduled_sampling: ScheduledSampling | float | None = None,
    name: str = "encoder_decoder",
) -> EncoderDecoder: ...


def encoder_decoder(
    source: LayerLike | Mapping[str, LayerLike],
    target: LayerLike,
    encoder: LayerLike | Mapping[str, LayerLike | None] | None = "gru",
    decoder: LayerLike = "gru",
    width: int = 256,
    head: LayerLike | None = None,
    tie_embeddings: Literal["target", "all"] | None = None,
    start_token_id: int = 2,
    end_token_id: int = 3,
    source_dropout: float = 0.0,
    covariates: FeatureEmbedding | None = None,
    copy: bool | Alignment | PointerGenerator | None = None,
    scheduled_sampling: ScheduledSampling | float | None = None,
    name: str = "encoder_decoder",
) -> Any:
    """Build a model that generates a target sequence from a source sequence.

        source ids ──source──> (B,S,D) ──encoder──> memory, states
                                                       │
        target ids ──target──> (B,T,D) ─────────────decoder──> head ──> logits (B,T,V)

    Encoders may be recurrent, convolutional or Transformers, and decoders recurrent or
    Transformers. All combinations work.

    Args:
        source: Embedding of the source. A vocabulary size is shorthand for
            `TokenEmbedding(size, width)`, scaled and with sinusoidal positions if the
            encoder is a Transformer. Use a `PatchEmbedding` for image captioning. Pass
            a dictionary such as `{"lemma": 40, "tags": 30}` for several named sources;
            the decoder attends to all of them.
        target: Embedding of the target, or its vocabulary size. With a
            `FeatureEmbedding` the model generates numbers step by step.
        encoder: Layer `(B, S, D) -> (B, S, U)`. `"rnn"`, `"lstm"`, `"gru"` and
            `"mingru"` are shorthand for `RecurrentEncoder(name, width)`,
            `"transformer"` for `TransformerEncoder(num_heads=width // 64,
            width=width)`, and `"conv"` for `ConvEncoder(width)`. For several sources
            pass a name for all of them or a dictionary.
        decoder: A `kseq.layers.Decoder`, such as `RecurrentDecoder` or
            `TransformerDecoder`. `"rnn"`, `"lstm"`, `"gru"` and `"mingru"` are
            shorthand for a `RecurrentDecoder` with Bahdanau's attention, and
            `"transformer"` for a `TransformerDecoder`.
        width: Size of components given by name or number.
        head: Layer `(B, T, U) -> (B, T, V)`. Defaults to a dense layer with float32
            logits. For a target of numbers: `"mean"`, the default, `"gaussian"`,
            `"student_t"`, `"negative_binomial"`, `"quantiles"` or a `ForecastHead`.
        tie_embeddings: With `"target"` the head uses the table of the target's
            embedding. With `"all"` source, target and head share one table; pass the
            same layer or the same vocabulary size as source and target.
        start_token_id: Token id that the decoder reads first.
        end_token_id: Token id that ends a sequence.
        source_dropout: Fraction of the sources dropped in training, so that the model
            also learns to generate without a source. `kseq.decoding.Guidance` requires
            this.
        covariates: `FeatureEmbedding` of values known in advance for each step of a
            target of numbers, such as hour and weekday. It is added to the input of the
            decoder.
        copy: `True` lets the model copy attended source tokens, so that it can generate
            names, numbers and other unknown words, as `kseq.text.TextToText` does.
            Source and target must share one vocabulary. For two vocabularies pass the
            target id of each source id, `kseq.text.alignment(source, target)`. For
            several sources pass either by name, `{"lemma": True}`; the others are only
            read. All are shorthand for a `kseq.layers.PointerGenerator`, which can also
            add a coverage loss.
        scheduled_sampling: Rate at which the decoder reads its own predictions in
            training, or a `kseq.layers.ScheduledSampling` for a rate that grows.
        name: Name of the model.

    Returns:
        An uncompiled `keras.Model` that maps `{"source": (B, S), "target": (B, T)}`,
        with the target shifted right (see `kseq.training.teacher_forcing`), to logits
        `(B, T, V)`, and that has `generate` and `score`. A model that copies returns
        log-probabilities (natural logarithm) in place of logits. For a target of
        numbers a `Forecaster`, whose `generate` returns a `Forecast`.

    Raises:
        ValueError: A component is unknown or does not fit the others.

    Example:

    >>> import kseq
    >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
    >>> model.output_shape
    (None, None, 13)
    >>> result = model.generate([[4, 5, 6], [7]], max_length=5)
    >>> result.token_ids.shape
    (2, 1, 5)

    Two days of three series as the source, and nine samples of the next day of one:

    >>> import numpy as np
    >>> past, future = np.ones((2, 48, 3)), np.ones((2, 24, 1))
    >>> model = kseq.encoder_decoder(
    ...     source=kseq.layers.FeatureEmbedding(3, 8),
    ...     target=kseq.layers.FeatureEmbedding(1, 8),
    ...     head="gaussian",
    ... )
    >>> model.compile("adam", loss=kseq.training.ForecastLoss("gaussian"))
    >>> history = model.fit(kseq.training.teacher_forcing(past, future), verbose=0)
    >>> forecast = model.generate(past, num_steps=24, num_draws=9, seed=1)
    >>> forecast.draws.shape, forecast.mean.shape, forecast.quantile(0.9).shape
    ((2, 9, 24, 1), (2, 24, 1), (2, 24, 1))

    References:
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215)
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078)
        - [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473)
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.1, 3.4 (tied)
        - [Salinas et al., 2020](https://arxiv.org/abs/1704.04110), 3 (numbers)
        - [Bengio et al., 2015](https://arxiv.org/abs/1506.03099) (scheduled sampling)
        - [See et al., 2017](https://arxiv.org/abs/1704.04368), 2.2 (copying)
    """
    encoder, decoder = as_encoders(encoder, width, source), as_decoder(decoder, width)
    shared = tie_embeddings == "all" and source == target
    target = as_embedding(target, width, reader=decoder)
    parts: dict[str, Any] = {
        "source": target if shared else as_embeddings(source, width, encoder),
        "target": target,
        "encoder": encoder,
        "decoder": decoder,
        "head": head,
        "source_dropout": source_dropout,
        "name": name,
    }
    pointer_generator = as_pointer_generator(copy, encoder)
    sampling = as_scheduled_sampling(scheduled_sampling, target)
    if is_of_numbers(target, tie_embeddings, covariates, pointer_generator):
        return Forecaster(covariates=covariates, **parts)
    return EncoderDecoder(
        copy=pointer_generator,
        scheduled_sampling=sampling,
        tie_embeddings=tie_embeddings,
        start_token_id=start_token_id,
        end_token_id=end_token_id,
        **parts,
    )
