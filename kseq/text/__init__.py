"""Text in, text, labels or pictures out: vocabularies and pipelines.

A vocabulary turns texts into token ids and back; a pipeline holds a trained model and
its vocabularies in one `.keras` file:

- `Vocabulary` splits texts into words, characters, pieces, jamo or bytes.
- `TextToText`: an encoder-decoder; `generate` translates texts.
- `TextToLabels`: a classifier or a tagger; `label` names each text, or each word.
- `TextWriter`: a language model; `generate` continues prompts.
- `TextToImage`: a `kseq.text_to_image` model; `draw` gives pictures of captions.
- `load` reads any pipeline that was saved.
- `read_vectors` reads word2vec, GloVe and fastText files.
- `alignment`: the ids of one vocabulary in another, for models that copy.

`Hypothesis` and `Label` are what pipelines return, `TokenVectors` what is read.
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
    "alignment",
    "load",
    "read_vectors",
]
