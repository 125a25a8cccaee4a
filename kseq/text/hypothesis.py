"""One text that a model wrote.

Axes in shape comments: T target tokens, S source tokens.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One text that a model wrote, with its score.

    Attributes:
        text: The text, as the target vocabulary decodes it; a list of symbols if that
            vocabulary has `split=None`.
        tokens: Its T tokens, without the end token; a word that was copied, and has no
            token, as it stands in the source.
        log_prob: Its log-probability, the end token counted.
        source_tokens: The S tokens of the source as the model read them, of several
            sources by name; an unknown one is U+FFFD.
        attention: What each token paid attention to: `(T, S)`, of a Transformer
            `(layers, heads, T, S)`, of several sources by name; or None.

    Example:

    >>> import numpy as np
    >>> from kseq.text import Hypothesis
    >>> Hypothesis("ho", ["h", "o"], -0.5, ["h", "i"], np.eye(2)).text
    'ho'
    """

    text: str
    tokens: list
    log_prob: float
    source_tokens: list
    attention: np.ndarray | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
