"""Predefined search spaces: one for each builder, for training, and for decoding.

The ranges follow published studies, reduced to models that train in minutes to hours on
one machine:

- units, widths: 20 to 200 per layer, on a logarithmic scale, [Greff et al., 2017](
  https://arxiv.org/abs/1503.04069), "Hyperparameter Search"; here up to 256. They find
  that the learning rate matters most, then the size, nearly independently of the rest.
- recurrent layers: one to three, and dropout up to .5, [Reimers and Gurevych, 2017](
  https://arxiv.org/abs/1707.06799); two to four for translation, LSTM before GRU,
  additive attention before multiplicative, [Britz et al., 2017](
  https://arxiv.org/abs/1703.03906).
- Transformer: [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), table 3, vary
  layers, heads and dropout around 6, 8 and .1. With little data, fewer layers and more
  dropout are better: [van Biljon et al., 2020](https://arxiv.org/abs/2004.04418),
  [Araabi and Monz, 2020](https://arxiv.org/abs/2011.02266).
- convolutional: kernels of 3 to 7 steps in layers whose dilation doubles, [Bai et al.,
  2018](https://arxiv.org/abs/1803.01271), appendix A, table 2.
- vision: [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), table 1 and
  appendix D.4, reduced to small pictures.

The default of each dimension is a common value, so the first trial of `GridSearch`, or
`space.build({})`, is a sensible model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

import kseq.builders as builders
from kseq.decoding import BeamSearch
from kseq.training import SequenceCrossentropy
from kseq.training import batches as reading_batches
from kseq.tuning import part_spaces as parts
from kseq.tuning.choice import Choice
from kseq.tuning.dimensions import Dimension, Float, Int
from kseq.tuning.part_spaces import (
    Network,
    Writer,
    conv_encoder,
    recurrent_decoder,
    recurrent_encoder,
    transformer_decoder,
    transformer_encoder,
)
from kseq.tuning.space import Space
from kseq.tuning.training import Training, training_steps

__all__ = [
    "beam_search",
    "conv_encoder",
    "encoder_decoder",
    "many_to_many",
    "many_to_one",
    "one_to_many",
    "recurrent_decoder",
    "recurrent_encoder",
    "training",
    "transformer_decoder",
    "transformer_encoder",
    "vision_transformer",
]


def many_to_one(
    source: int | Space | Dimension,
    num_outputs: int,
    network: Network = "both",
    **fixed: Any,
) -> Space:
    """Make a space of networks that map a sequence to one answer.

    Args:
        source: As for `kseq.many_to_one`: a vocabulary size, or a Space of an
            embedding.
        num_outputs: Number of classes, or of values.
        network: "recurrent", "transformer", "conv", "both" (recurrent and transformer)
            or "all" (all three).
        **fixed: Further arguments of the builder, which replace searched ones: values,
            dimensions or Spaces.

    Returns:
        A `Space` of `kseq.many_to_one`.

    Raises:
        ValueError: `network` is unknown, or the builder has no such argument.

    Example:

    >>> from kseq.tuning import spaces
    >>> spaces.many_to_one(20_000, 2, "recurrent").describe()
    many_to_one
      source = 20000
      num_outputs = 2
      encoder = RecurrentEncoder
        cell: lstm, gru
        units: 32 to 256, factor 2, log
        num_layers: 1 to 3
        bidirectional = True
        dropout: 0.0 to 0.5, step 0.1
      pooling: attention, mean, max
      width: 64 to 256, factor 2, log
      dropout: 0.0 to 0.5, step 0.1
    """
    searched = {
        "encoder": parts.encoder_of(network),
        "pooling": Choice("attention", "mean", "max"),
        "width": parts.width(),
        "dropout": parts.dropout(),
    }
    return Space(builders.many_to_one, source, num_outputs, **{**searched, **fixed})


def many_to_many(
    source: int | Space | Dimension,
    num_outputs: int,
    network: Network = "both",
    **fixed: Any,
) -> Space:
    """Make a space of networks that give an answer at each step of a sequence.

    Args:
        source: See `many_to_one` for this and the following arguments. To search with
            and without a CRF, pass `head=Choice(None, "crf")`. With `head="ctc"`,
            labels are rows shorter than the source.

    Returns:
        A `Space` of `kseq.many_to_many`.

    Example:

    >>> from kseq.tuning import Choice, spaces
    >>> space = spaces.many_to_many(2_000, 17, head=Choice(None, "crf"))
    >>> model = space.build({"width": 64, "head": "crf"})
    >>> type(model.crf).__name__
    'CRF'
    """
    searched = {
        "encoder": parts.encoder_of(network),
        "width": parts.width(),
        "dropout": parts.dropout(),
    }
    return Space(builders.many_to_many, source, num_outputs, **{**searched, **fixed})


def encoder_decoder(
    source: int | Space | Dimension | dict[str, Any],
    target: int | Space | Dimension,
    network: Network = "both",
    **fixed: Any,
) -> Space:
    """Make a space of networks that map a sequence to another sequence.

    With "both", encoder and decoder are chosen independently, because every encoder
    works with every decoder. There is no convolutional decoder: with "conv" and "all",
    the decoder is recurrent or a Transformer.

    Args:
        source: As for `kseq.encoder_decoder`: a vocabulary size, or a Space of an
            embedding. Or a dictionary of these, each of which gets its own encoder.
        target: A vocabulary size, or a Space of an embedding.
        network: See `many_to_one` for this and the following arguments. To search
            copying too, pass `copy=Choice(False, True)`.

    Returns:
        A `Space` of `kseq.encoder_decoder`.

    Example:

    >>> from kseq.tuning import spaces
    >>> space = spaces.encoder_decoder(30, 40)
    >>> space.count()
    233280
    >>> space.build({"encoder": "TransformerEncoder", "width": 64}).output_shape
    (None, None, 40)
    """
    encoder: Any = parts.encoder_of(network)
    if isinstance(source, dict):
        encoder = {name: parts.encoder_of(network) for name in source}
    searched = {
        "encoder": encoder,
        "decoder": parts.decoder_of(network),
        "width": parts.width(),
    }
    return Space(builders.encoder_decoder, source, target, **{**searched, **fixed})


def one_to_many(
    target: int | Space | Dimension,
    condition: int | Space | Dimension | None = None,
    network: Writer = "both",
    **fixed: Any,
) -> Space:
    """Make a space of networks that generate a sequence, with or without a condition.

    Args:
        target: As for `kseq.one_to_many`: a vocabulary size, or a Space of an
            embedding.
        condition: A number of classes, a Space of an embedding, or None.
        network: "recurrent", "transformer" or "both".
        **fixed: As for `many_to_one`.
    Returns:
        A `Space` of `kseq.one_to_many`.
    """
    searched = {"decoder": parts.writer_of(network), "width": parts.width()}
    return Space(builders.one_to_many, target, condition, **{**searched, **fixed})


def vision_transformer(
    image_shape: Sequence[int],
    patch_size: int | Dimension,
    num_outputs: int,
    **fixed: Any,
) -> Space:
    """Make a space of Vision Transformers.

    Args:
        image_shape: As for `kseq.vision_transformer`.
        patch_size: A size, or a dimension of sizes, which must divide the picture.
        num_outputs: Number of classes, or of values.
        **fixed: As for `many_to_one`.

    Returns:
        A `Space` of `kseq.vision_transformer`.
    """
    searched = {
        "width": Int(64, 256, step=64, default=192),
        "num_layers": Int(2, 12, step=2, default=4),
        "num_heads": Choice(2, 4, 8),
        "pooling": Choice("class_token", "mean"),
        "dropout": Float(0.0, 0.2, step=0.1, default=0.1),
    }
    sizes = image_shape, patch_size, num_outputs
    return Space(builders.vision_transformer, *sizes, **{**searched, **fixed})


def training(
    model: Space | Dimension,
    num_rows: int,
    loss: Any = None,
    batches: Callable[..., Any] | None = None,
    epochs: int | Dimension = 10,
    learning_rate: float | Dimension | None = None,
    **fixed: Any,
) -> Training:
    """Make a space of trainings: learning rate, its schedule, and batches.

    It uses AdamW with gradients clipped to norm 1, as Reimers and Gurevych recommend.
    The learning rate is searched on a logarithmic scale (Greff et al.), warmed up over
    a fraction of the training (Vaswani et al., 5.3) and decayed along half a cosine
    ([Loshchilov and Hutter, 2017](https://arxiv.org/abs/1608.03983)). Batches have 16
    to 128 rows ([Masters and Luschi, 2018](https://arxiv.org/abs/1804.07612), who find
    small ones best). Label smoothing is up to .2, around the .1 of Vaswani et al., 5.4.

    Args:
        model: A Space of an uncompiled model.
        num_rows: Number of training rows, which determines the learning rate schedule.
        loss: A loss, or a Space of one. None for `SequenceCrossentropy` with searched
            label smoothing, for models that generate or tag. Labels of a Space of
            `kseq.many_to_many` count from 0, so there it ignores no label.
        batches: A function that makes a data set from the data and a `batch_size`. None
            for `kseq.training.batches`; use `kseq.training.teacher_forcing` for models
            that generate.
        epochs: A number, or a dimension.
        learning_rate: The highest learning rate of the schedule: a number, or a
            dimension. None for 1e-4 to 1e-2 on a logarithmic scale.
        **fixed: Further options of `Training`, which replace searched ones.

    Returns:
        A `Training`.

    Example:

    >>> import keras
    >>> from kseq.tuning import spaces
    >>> space = spaces.training(
    ...     spaces.many_to_one(20_000, 2), num_rows=5000, metrics=["accuracy"],
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> [name for name in space.hyperparameters() if not name.startswith("model/")]
    ['batch_size', 'optimizer/learning_rate/warmup_target',
     'optimizer/learning_rate/warmup_steps/share', 'optimizer/weight_decay']
    """
    batch_size = Choice(16, 32, 64, 128, default=32, name="batch_size")
    warm_up = Float(0.0, 0.1, step=0.05, default=0.05)
    if learning_rate is None:
        learning_rate = Float(1e-4, 1e-2, scale="log", default=1e-3)
    rate = Space(
        keras.optimizers.schedules.CosineDecay,
        0.0,
        Space(training_steps, num_rows, batch_size, epochs),
        warmup_target=learning_rate,
        warmup_steps=Space(training_steps, num_rows, batch_size, epochs, warm_up),
    )
    decay = Float(1e-4, 1e-1, scale="log", default=1e-2)
    padding = {}
    if getattr(model, "function", None) is builders.many_to_many:
        padding = {"pad_token_id": -1}
    smoothing = Float(0.0, 0.2, 0.1, default=0.1)
    searched = {
        "optimizer": Space(
            keras.optimizers.AdamW, rate, weight_decay=decay, global_clipnorm=1.0
        ),
        "loss": loss or Space(SequenceCrossentropy, smoothing, **padding),
        "batches": Space(batches or reading_batches, batch_size=batch_size),
        "epochs": epochs,
    }
    return Training(model, **{**searched, **fixed})


def beam_search() -> Space:
    """Make a space of beam searches: up to ten beams, and length penalties from 0 to 1.

    Britz et al. find that five to ten beams are best and far more are worse, as do
    [Koehn and Knowles, 2017](https://arxiv.org/abs/1706.03872), 3.6. [Wu et al., 2016](
    https://arxiv.org/abs/1609.08144), 7, search length penalties from 0 to 1. A penalty
    of 1 ranks by the mean over tokens.

    Returns:
        A `Space` of `kseq.decoding.BeamSearch`, for `Decoding`.
    """
    return Space(
        BeamSearch,
        num_beams=Int(1, 10, default=4),
        length_penalty=Float(0.0, 1.0, step=0.2),
    )
