"""Large files of text: written line by line by a saved pipeline, on any executor."""

from kseq.corpora.generation import generate_file
from kseq.corpora.output import WrittenFile

__all__ = ["WrittenFile", "generate_file"]
