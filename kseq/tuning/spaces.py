"""Ready search spaces: a network for each builder, its training, and its decoding.

The ranges are those that studies searched or recommend, cut to models that train in
minutes to hours on one machine:

- units, widths: 20 to 200 a layer, on a logarithmic scale, [Greff et al., 2017](
  https://arxiv.org/abs/1503.04069), "Hyperparameter Search"; here up to 256. They find
  the learning rate to matter most and the size next, nearly independent of the rest.
- recurrent layers: one to three, and dropout up to .5, [Reimers and Gurevych, 2017](
  https://arxiv.org/abs/1707.06799); two to four for translation, LSTM before GRU,
  additive attention before multiplicative, [Britz et al., 2017](
  https://arxiv.org/abs/1703.03906).
- Transformer: layers, heads and dropout are varied around 6, 8 and .1 by [Vaswani et
  al., 2017](https://arxiv.org/abs/1706.03762), table 3. With little data fewer layers
  and more dropout are better: [van Biljon et al., 2020](
  https://arxiv.org/abs/2004.04418), [Araabi and Monz, 2020](
  https://arxiv.org/abs/2011.02266).
- convolutional: kernels of 3 to 7 steps in layers whose dilation doubles, [Bai et al.,
  2018](https://arxiv.org/abs/1803.01271), appendix A, table 2.
- vision: [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), table 1 and
  appendix D.4, cut to small pictures.

The default of each dimension is a customary value, so the first trial of `GridSearch`,
or `space.build({})`, is a sensible model.
"""

import keras

import kseq.builders as builders
from kseq.decoding import BeamSearch
from kseq.training import SequenceCrossentropy
from kseq.training import batches as reading_batches
from kseq.tuning import part_spaces as parts
from kseq.tuning.dimensions import Choice, Float, Int
from kseq.tuning.part_spaces import (
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


def many_to_one(source, num_outputs, network="both", **fixed):
    """Networks that read a sequence and give one answer.

    Args:
        source: As for `kseq.many_to_one`: a vocabulary size, or a Space of an
            embedding.
        num_outputs: Number of classes, or of values.
        network: "recurrent", "transformer" or "both" of these, "conv", or "all" three.
        **fixed: Further arguments of the builder, in place of what is searched:
            values, dimensions or Spaces.

    Returns:
        A `Space` of `kseq.many_to_one`.

    Raises:
        ValueError: `network` is none of these, or the builder takes no such argument.

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


def many_to_many(source, num_outputs, network="both", **fixed):
    """Networks that read a sequence and give an answer at each step.

    Args:
        source: As for `many_to_one`, and so are the arguments after it. Labels may be
            searched with and without a CRF: `head=Choice(None, "crf")`. With
            `head="ctc"` they are shorter rows than the source.

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


def encoder_decoder(source, target, network="both", **fixed):
    """Networks that read a sequence and write another.

    With "both", encoder and decoder are chosen each for itself, for every encoder goes
    with every decoder. No decoder is convolutional: with "conv" and "all" it is one of
    both others.

    Args:
        source: As for `kseq.encoder_decoder`: a vocabulary size, or a Space of an
            embedding; or a dictionary of these, each of which has an encoder then.
        target: The same.
        network: As for `many_to_one`, and so are the arguments after it. Whether to
            copy may be searched too: `copy=Choice(False, True)`.

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
    encoder = parts.encoder_of(network)
    if isinstance(source, dict):
        encoder = {name: parts.encoder_of(network) for name in source}
    searched = {
        "encoder": encoder,
        "decoder": parts.decoder_of(network),
        "width": parts.width(),
    }
    return Space(builders.encoder_decoder, source, target, **{**searched, **fixed})


def one_to_many(target, condition=None, network="both", **fixed):
    """Networks that write a sequence, from a condition or from nothing.

    Args:
        target: As for `kseq.one_to_many`: a vocabulary size, or a Space of an
            embedding.
        condition: A number of classes, a Space of an embedding, or None.
        network: "recurrent", "transformer" or "both"; what comes after it is as for
            `many_to_one`.

    Returns:
        A `Space` of `kseq.one_to_many`.
    """
    searched = {"decoder": parts.writer_of(network), "width": parts.width()}
    return Space(builders.one_to_many, target, condition, **{**searched, **fixed})


def vision_transformer(image_shape, patch_size, num_outputs, **fixed):
    """Vision Transformers.

    Args:
        image_shape: As for `kseq.vision_transformer`.
        patch_size: A size, or a dimension: sizes that divide the picture.
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
    model, num_rows, loss=None, batches=None, epochs=10, learning_rate=None, **fixed
):
    """How to train a network: the learning rate above all, its course, and the batches.

    AdamW with gradients cut to norm 1, as Reimers and Gurevych recommend; the learning
    rate on a logarithmic scale (Greff et al.), warmed up over a share of the training
    (Vaswani et al., 5.3) and lowered along half a cosine
    ([Loshchilov and Hutter, 2017](https://arxiv.org/abs/1608.03983)); batches of 16 to
    128 ([Masters and Luschi, 2018](https://arxiv.org/abs/1804.07612), who find small
    ones best); label smoothing up to .2 around the .1 of Vaswani et al., 5.4.

    Args:
        model: A Space of an uncompiled model.
        num_rows: Number of rows to train on, from which the course of the learning
            rate follows.
        loss: A loss, or a Space of one. None for `SequenceCrossentropy` with label
            smoothing searched, for models that write or tag.
        batches: A function that makes a data set of the data, with a `batch_size`.
            None for `kseq.training.batches`; `kseq.training.teacher_forcing` for
            models that write.
        epochs: A number, or a dimension.
        learning_rate: The highest of the course: a number, or a dimension. None for
            1e-4 to 1e-2 on a logarithmic scale.
        **fixed: Further options of `Training`, in place of what is searched.

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
    searched = {
        "optimizer": Space(
            keras.optimizers.AdamW, rate, weight_decay=decay, global_clipnorm=1.0
        ),
        "loss": loss or Space(SequenceCrossentropy, Float(0.0, 0.2, 0.1, default=0.1)),
        "batches": Space(batches or reading_batches, batch_size=batch_size),
        "epochs": epochs,
    }
    return Training(model, **{**searched, **fixed})


def beam_search():
    """Beam searches: up to ten beams, length penalties from none to that of a mean.

    Britz et al. find five to ten beams best and far more to be worse, and so do [Koehn
    and Knowles, 2017](https://arxiv.org/abs/1706.03872), 3.6; [Wu et al., 2016](
    https://arxiv.org/abs/1609.08144), 7, search length penalties from 0 to 1.

    Returns:
        A `Space` of `kseq.decoding.BeamSearch`, for `Decoding`.
    """
    return Space(
        BeamSearch,
        num_beams=Int(1, 10, default=4),
        length_penalty=Float(0.0, 1.0, step=0.2),
    )
