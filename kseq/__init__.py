"""kseq: sequence models for Keras 3.

Layers that compose, builders that assemble them into Keras models, and one decoding
engine that serves every model, on TensorFlow, JAX and PyTorch:

- `kseq.layers`: masks, embeddings, attention, pooling, recurrent networks, the
  Transformer.
- `kseq.many_to_one`, `kseq.many_to_many`: wire layers into a model that gives an answer
  for a sequence, or for each of its steps.
- `kseq.one_to_many`, `kseq.encoder_decoder`: wire layers into a model that writes a
  sequence, and can `generate` and `score`.
- `kseq.vision_transformer`: `many_to_one` on the patches of a picture;
  `kseq.resize_positions` makes it one for pictures of another size.
- `kseq.image_tokenizer`, `kseq.text_to_image`: pictures as tokens, and a caption in,
  such tokens out: a small DALL-E.
- `kseq.text_image_matcher`: which text belongs to which picture.
- `kseq.ensemble`: several models that decide together; `kseq.average`: the mean of
  their weights, where they are of one training.
- `kseq.mask_report`: where a model makes, uses and loses its padding mask.
- `kseq.decoding`: greedy search, beam search and sampling over any step function, and
  constraints on what they write.
- `kseq.training`: losses, metrics, batches and callbacks, for Keras' own `fit`.
- `kseq.text`: vocabularies, from text to token ids and back.
- `kseq.datasets`: named data sets, found on disk or downloaded, checked by checksum.
- `kseq.plots`: attention maps and training curves (`pip install kseq[plots]`).
- `kseq.tuning`: search spaces over all of it, for KerasTuner.
- `kseq.corpora`: large files of text, to learn from or to be written.

The last four of them are imported when they are first named.
The others come with `import kseq`, so that Keras knows every class of a saved model.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

from kseq import decoding, layers, text, training
from kseq.builders import (
    average,
    encoder_decoder,
    ensemble,
    image_tokenizer,
    many_to_many,
    many_to_one,
    mask_report,
    one_to_many,
    resize_positions,
    text_image_matcher,
    text_to_image,
    vision_transformer,
)

if TYPE_CHECKING:  # so that type checkers and editors know what is loaded later
    from kseq import corpora, datasets, plots, tuning

try:
    __version__ = metadata.version("kseq")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

_LAZY_ROOMS = ("corpora", "datasets", "plots", "tuning")


def __getattr__(name):
    if name in _LAZY_ROOMS:
        return import_module(f"kseq.{name}")
    raise AttributeError(f"module 'kseq' has no attribute '{name}'")


def __dir__():
    return sorted({*globals(), *_LAZY_ROOMS})
