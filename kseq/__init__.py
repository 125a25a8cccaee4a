"""kseq: sequence models for Keras 3.

Layers, builders that assemble them into Keras models, and a decoding engine for all
models, on TensorFlow, JAX and PyTorch:

- `kseq.layers`: masks, embeddings, attention, pooling, recurrent networks,
  Transformers.
- `kseq.many_to_one`, `kseq.many_to_many`: models with one answer for a sequence, or for
  each of its steps.
- `kseq.one_to_many`, `kseq.encoder_decoder`: models that generate a sequence, with
  `generate` and `score`.
- `kseq.vision_transformer`: `many_to_one` on the patches of an image.
  `kseq.resize_positions` adapts it to images of another size.
- `kseq.image_tokenizer`, `kseq.text_to_image`: images as tokens, and images from
  captions: a small DALL-E.
- `kseq.text_image_matcher`: matching of texts and images, a small CLIP.
- `kseq.ensemble`: several models combined. `kseq.average`: one model with the mean of
  the weights of several models of one training.
- `kseq.mask_report`: where a model creates, uses and loses its padding mask.
- `kseq.decoding`: greedy search, beam search and sampling for any step function, and
  constraints on the generated tokens.
- `kseq.training`: losses, metrics, batches and callbacks for Keras' own `fit`.
- `kseq.text`: vocabularies, and conversion of texts to token ids and back.
- `kseq.datasets`: named data sets, read from disk or downloaded, with checksums.
- `kseq.plots`: attention maps and training curves (`pip install kseq[plots]`).
- `kseq.tuning`: search spaces for all of these, for KerasTuner.
- `kseq.corpora`: reading and writing of large text files.

The last four are imported on first use. The others are imported by `import kseq`, so
that Keras knows every class of a saved model.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:  # for type checkers and editors; imported on first use
    from kseq import corpora, datasets, plots, tuning

try:
    __version__ = metadata.version("kseq")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

_LAZY_PACKAGES = ("corpora", "datasets", "plots", "tuning")


def __getattr__(name: str) -> Any:
    if name in _LAZY_PACKAGES:
        return import_module(f"kseq.{name}")
    raise AttributeError(f"module 'kseq' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_PACKAGES})
