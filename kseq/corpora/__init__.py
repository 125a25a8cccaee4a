"""Large files of text: encoded to train on them, and written by a saved pipeline."""

from kseq.corpora.encoding import encode_file
from kseq.corpora.generation import generate_file
from kseq.corpora.lines import Lines
from kseq.corpora.output import WrittenFile

__all__ = ["Lines", "WrittenFile", "encode_file", "generate_file"]
