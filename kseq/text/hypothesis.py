"""The result type of generation.

Axes in shape comments: T target tokens, S source tokens.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A generated text with its score.

    Attributes:
        text: The text, decoded by the target vocabulary; a list of symbols if that
            vocabulary has `split=None`.
        tokens: Its T tokens, without the end token. A copied word that the target
            vocabulary lacks is spelled as in the source.
        log_prob: Its log-probability, including the end token.
        source_tokens: The S tokens of the source, in a dictionary by name if the model
            has several sources; an unknown token is U+FFFD.
        attention: The attention of each token to the source, `(T, S)`, or
            `(layers, heads, T, S)` for a Transformer; a dictionary by name if the model
            has several sources; None if it was not requested.

    Example:

    >>> import numpy as np
    >>> from kseq.text import Hypothesis
    >>> Hypothesis("ho", ["h", "o"], -0.5, ["h", "i"], np.eye(2)).text
    'ho'
    """

    text: str | list[str]
    tokens: list[str]
    log_prob: float
    source_tokens: list[str] | dict[str, list[str]]
    attention: Any = dataclasses.field(  # an array, a dictionary of arrays or None
        default=None, repr=False, compare=False
    )
