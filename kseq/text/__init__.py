from kseq.text.images import TextToImage
from kseq.text.labels import Label, TextToLabels
from kseq.text.loading import load
from kseq.text.pipeline import Hypothesis, TextToText
from kseq.text.vectors import TokenVectors, read_vectors
from kseq.text.vocabulary import Vocabulary
from kseq.text.writer import TextWriter
