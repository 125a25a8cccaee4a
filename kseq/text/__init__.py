"""Vocabularies, and pipelines from text to text, labels or images.

A vocabulary converts texts to token ids and back. A pipeline holds a trained model and
its vocabularies in one `.keras` file.

Vocabularies:

- `Vocabulary`: words, characters, subword pieces, jamo or bytes.
- `WordCharacterVocabulary`: words together with the characters of each word.

Pipelines:

- `TextToText`: an encoder-decoder; `generate` translates texts into `Hypothesis`
  objects.
- `TextToLabels`: a classifier or a tagger; `label` returns a `Label` for each text
  (classifier), or for each token (tagger).
- `TextWriter`: a language model; `generate` continues prompts.
- `TextToImage`: a `kseq.text_to_image` model; `draw` returns images for captions.
- `load`: load a saved pipeline of any kind.

Pretrained vectors and copying:

- `read_vectors`: read word2vec, GloVe and fastText files into `TokenVectors`.
- `alignment`: map the ids of one vocabulary to those of another, for models that copy.
"""

from kseq.text.copying import alignment
from kseq.text.images import TextToImage
from kseq.text.labels import Label, TextToLabels
from kseq.text.loading import load
from kseq.text.pipeline import Hypothesis, TextToText
from kseq.text.vectors import TokenVectors, read_vectors
from kseq.text.vocabulary import Vocabulary
from kseq.text.word_characters import WordCharacterVocabulary
from kseq.text.writer import TextWriter

__all__ = [
    "Hypothesis",
    "Label",
    "TextToImage",
    "TextToLabels",
    "TextToText",
    "TextWriter",
    "TokenVectors",
    "Vocabulary",
    "WordCharacterVocabulary",
    "alignment",
    "load",
    "read_vectors",
]
