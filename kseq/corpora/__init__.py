"""Large text files: read and encode them for training, or process them by a pipeline.

- `Lines`: the lines of text files, for `Vocabulary.adapt` and `encode_file`.
- `encode_file`: encode a corpus once, and map its token ids into memory.
- `generate_file`: generate a text for each line of a file (`TextToText`).
- `label_file`: label each line, or each of its tokens (`TextToLabels`).
- `score_file`: write the log-probability of each line (`TextToText`, `TextWriter`).

The last three return a `WrittenFile`, resume after an interruption, and can run on
several processes or hosts.
"""

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
