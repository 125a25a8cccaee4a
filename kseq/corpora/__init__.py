"""Large files of text: encoded for training, and written, labelled or scored."""

from kseq.corpora.encoding import encode_file
from kseq.corpora.generation import generate_file
from kseq.corpora.labelling import label_file
from kseq.corpora.lines import Lines
from kseq.corpora.output import WrittenFile
from kseq.corpora.scoring import score_file

__all__ = [
    "Lines",
    "WrittenFile",
    "encode_file",
    "generate_file",
    "label_file",
    "score_file",
]
