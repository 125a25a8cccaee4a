"""Encoder-decoder models: one sequence in, another sequence out.

Axes in shape comments: B batch, S source steps, T target steps, D features,
V vocabulary.
"""

from kseq.builders.copying import as_pointer_generator
from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.forecaster import Forecaster, is_of_numbers
from kseq.builders.shorthands import (
    as_decoder,
    as_embedding,
    as_embeddings,
    as_encoders,
)


def encoder_decoder(
    source,
    target,
    encoder="gru",
    decoder="gru",
    width=256,
    head=None,
    tie_embeddings=None,
    start_token_id=2,
    end_token_id=3,
    source_dropout=0.0,
    covariates=None,
    copy=None,
    name="encoder_decoder",
):
    """A model that reads a source sequence and writes a target sequence.

        source ids ──source──> (B,S,D) ──encoder──> memory, states
                                                       │
        target ids ──target──> (B,T,D) ─────────────decoder──> head ──> logits (B,T,V)

    Encoders are recurrent, convolutional or Transformers, decoders recurrent or
    Transformers; any goes with any.

    Args:
        source: Embedding of the source, or its vocabulary size, short for
            `TokenEmbedding(size, width)`, with sinusoidal positions and scaled under a
            Transformer. A `PatchEmbedding` reads pictures, which makes captions. A
            dictionary is several sources by name, `{"lemma": 40, "tags": 30}`, and the
            decoder attends to all of them at a time.
        target: Embedding of the target, or its vocabulary size. A `FeatureEmbedding`
            writes numbers, step by step.
        encoder: Layer `(B, S, D) -> (B, S, U)`, or `"rnn"`, `"lstm"`, `"gru"`, short
            for `RecurrentEncoder(name, width)`, or `"transformer"`, short for
            `TransformerEncoder(num_heads=width // 64, width=width)`, or `"conv"`, short
            for `ConvEncoder(width)`. Of several sources one for all, or a dictionary.
        decoder: A `kseq.layers.Decoder`, such as `RecurrentDecoder` and
            `TransformerDecoder`, or `"rnn"`, `"lstm"`, `"gru"`, short for a decoder
            with Bahdanau's attention, or `"transformer"`.
        width: Size of the parts that are given by name or number.
        head: Layer `(B, T, U) -> (B, T, V)`. Defaults to a dense layer that gives
            float32 logits. Of a target of numbers `"mean"`, the default, `"gaussian"`,
            `"student_t"`, `"negative_binomial"`, `"quantiles"`, or a `ForecastHead`.
        tie_embeddings: `"target"` lets the head use the table of the target's
            embedding, `"all"` that of the one embedding of source and target, which
            must be one layer, or one vocabulary size.
        start_token_id: The token that the decoder reads first.
        end_token_id: The token that ends a sequence.
        source_dropout: Share of the sources that are taken away in training, so that
            the model also learns to write without one, as `kseq.decoding.Guidance`
            needs it.
        covariates: `FeatureEmbedding` of what is known of each step of a target of
            numbers before it is written, such as its hour and weekday; added to what
            the decoder reads.
        copy: `True` lets the model copy what its decoder attends to in the source, so
            that it writes names, numbers and other words that it has not learned, as
            `kseq.text.TextToText` does; source and target have one vocabulary. Or for
            two vocabularies the target's id of each id of the source,
            `kseq.text.alignment(source, target)`. Short for a
            `kseq.layers.PointerGenerator`, which may also add a coverage loss.
        name: Name of the model.

    Returns:
        An uncompiled `keras.Model` that maps `{"source": (B, S), "target": (B, T)}`,
        the target shifted right (see `kseq.training.teacher_forcing`), to logits
        `(B, T, V)`, and that has `generate` and `score`; one that copies to natural
        logarithms of probabilities, which stand wherever logits do. Of a target of
        numbers a `Forecaster`, whose `generate` returns a `Forecast`.

    Raises:
        ValueError: A part is unknown or does not fit its neighbour.

    Example:

    >>> import kseq
    >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
    >>> model.output_shape
    (None, None, 13)
    >>> result = model.generate([[4, 5, 6], [7]], max_length=5)
    >>> result.token_ids.shape
    (2, 1, 5)

    Two days of three series in, the next day of one out, in nine draws:

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
        - [See et al., 2017](https://arxiv.org/abs/1704.04368), 2.2 (copies)
    """
    encoder, decoder = as_encoders(encoder, width, source), as_decoder(decoder, width)
    shared = tie_embeddings == "all" and source == target
    target = as_embedding(target, width, reader=decoder)
    parts = {
        "source": target if shared else as_embeddings(source, width, encoder),
        "target": target,
        "encoder": encoder,
        "decoder": decoder,
        "head": head,
        "source_dropout": source_dropout,
        "name": name,
    }
    copy = as_pointer_generator(copy)
    if is_of_numbers(target, tie_embeddings, covariates, copy):
        return Forecaster(covariates=covariates, **parts)
    return EncoderDecoder(
        copy=copy,
        tie_embeddings=tie_embeddings,
        start_token_id=start_token_id,
        end_token_id=end_token_id,
        **parts,
    )
