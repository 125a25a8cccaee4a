"""Scores of generated sequences, measured by decoding after each epoch."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from kseq.layers.validation import positive_integer
from kseq.training.metrics import EditDistanceRate
from kseq.training.named_rows import each_input
from kseq.training.row_kinds import Rows
from kseq.training.text_scores import PACKAGES, checked_scores, text_scores

OF_IDS = ("exact_match", "edit_distance_rate")
SCORES = (*OF_IDS, *(name for name in PACKAGES if name not in OF_IDS))


class GenerationScores(keras.callbacks.Callback):
    """Scores of what the model generates, measured after each epoch.

    Loss and accuracy under teacher forcing measure how well a model continues the
    truth. This callback generates sequences, and adds their scores to the values of the
    epoch, where later callbacks, the history and any tuner see them:

    - `val_written_exact_match`: fraction of the sources whose target is generated
      exactly
    - `val_written_edit_distance_rate`: edit distance over tokens of the references
    - `val_written_bleu`, `val_written_chrf`, `val_written_ter`, `val_written_wer`,
      `val_written_cer`: scores of texts, from `text_scores`

    In a search, pass it to `tuner.search(callbacks=[...])`, or as a Space to
    `Training`. Place callbacks that use its values after it.

    Args:
        source: N sources, in the form that the model's `generate` takes.
        target: N references: rows of token ids up to and including the end token, with
            or without padding. A start token, as `teacher_forcing` needs, is ignored.
        scores: Names of the scores, without `val_written_`.
        to_text: Function from rows of token ids to texts, such as a vocabulary's
            `decode`. Needed for scores of texts.
        search: A search of `kseq.decoding`. None for greedy search.
        max_length: Maximum number of tokens to generate. None for 1.5 times the longest
            reference.
        batch_size: Maximum number of sources to decode at a time.
        every: Number of epochs between measurements. In between, the last values are
            repeated.

    Raises:
        ValueError: There are no rows; the numbers of sources and targets differ; a
            score is unknown or needs `to_text`; a number is not a positive integer.
        ImportError: The package of a score is not installed. Install `kseq[metrics]`.

    Example:

    >>> import keras, kseq
    >>> from kseq.training import GenerationScores
    >>> keras.utils.set_random_seed(0)
    >>> source = [[4, 5], [6], [7, 5]] * 8
    >>> target = [[2, 5, 3], [2, 6, 3], [2, 5, 3]] * 8
    >>> model = kseq.encoder_decoder(8, 8, width=16)
    >>> model.compile(keras.optimizers.Adam(0.03), kseq.training.SequenceCrossentropy())
    >>> scores = GenerationScores(source[:3], target[:3], every=6)
    >>> history = model.fit(kseq.training.teacher_forcing(source, target), epochs=6,
    ...                     callbacks=[scores], verbose=0)
    >>> history.history["val_written_exact_match"][-1]
    1.0
    """

    def __init__(
        self,
        source: Any,
        target: Rows,
        scores: str | Iterable[str] = ("exact_match", "edit_distance_rate"),
        to_text: Callable[[list[list[int]]], Iterable[str]] | None = None,
        search: Any = None,
        max_length: int | None = None,
        batch_size: int = 128,
        every: int = 1,
    ) -> None:
        super().__init__()
        _check_rows(source, target)
        self.scores = _checked_scores(scores, to_text)
        self.source, self.target = source, [_ids(row) for row in target]
        self.to_text, self.search, self.batch_size = to_text, search, batch_size
        longest = max(map(len, self.target))
        self.max_length = max_length or longest + longest // 2 + 1
        self.every = positive_integer("every", every)
        self._last: dict[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        is_last = epoch + 1 == (self.params or {}).get("epochs")
        if not self._last or is_last or (epoch + 1) % self.every == 0:
            self._last = {
                f"val_written_{name}": value
                for name, value in self.measure(self.model, self.search).items()
            }
        if logs is not None:
            logs.update(self._last)

    def measure(self, model: Any, search: Any = None) -> dict[str, float]:
        """Return the scores of a model by name, without `val_written_`."""
        result = model.generate(
            self.source, search, max_length=self.max_length, batch_size=self.batch_size
        )
        ends = {model.end_token_id, model.pad_token_id}
        written = [_cut(row, ends) for row in result.token_ids[:, 0]]
        wanted = [
            _cut(row[int(row[0] == model.start_token_id) :], ends) if len(row) else []
            for row in self.target
        ]
        return {name: self._score(name, wanted, written) for name in self.scores}

    def _score(
        self, name: str, wanted: list[list[int]], written: list[list[int]]
    ) -> float:
        if name == "exact_match":
            pairs = zip(wanted, written, strict=True)
            return float(np.mean([a == b for a, b in pairs]))
        if name == "edit_distance_rate":
            return _edit_distance_rate(wanted, written)
        to_text: Any = self.to_text  # not None, since `__init__` checks it
        texts = list(to_text(written)), list(to_text(wanted))
        return text_scores(*texts, name)[name]


def _edit_distance_rate(wanted: list[list[int]], written: list[list[int]]) -> float:
    """Return the edit distance rate. Pads with -1, because 0 may be a token."""
    rate, padding = EditDistanceRate(pad_token_id=-1), -1
    longest = max(len(row) for row in (*wanted, *written))
    padded = [
        np.array([row + [padding] * (longest - len(row)) for row in rows], "int32")
        for rows in (wanted, written)
    ]
    return float(rate(*padded)) if longest else 0.0


def _ids(row: Any) -> np.ndarray:
    return np.asarray(row, "int32")


def _cut(row: Any, ends: set[int]) -> list[int]:
    """Return the token ids before the first one that ends the row."""
    ids: list[int] = []
    for token_id in np.asarray(row).tolist():
        if token_id in ends:
            break
        ids.append(token_id)
    return ids


def _check_rows(source: Any, target: Rows) -> None:
    rows = source if isinstance(source, int) else len(each_input(source)[0])
    if not len(target) or rows != len(target):
        raise ValueError(
            "`target` must have one reference per source, and at least one. "
            f"Received: {rows} rows of source and {len(target)} of target."
        )


def _checked_scores(scores: str | Iterable[str], to_text: Any) -> list[str]:
    scores = checked_scores(scores, SCORES)
    of_texts = [name for name in scores if name not in OF_IDS]
    if of_texts and to_text is None:
        raise ValueError(
            f"`to_text` is needed for {', '.join(of_texts)}, which compare texts. "
            f"Received: to_text=None with scores={scores}. Pass a function from token "
            "ids to texts, such as a vocabulary's `decode`."
        )
    return scores
