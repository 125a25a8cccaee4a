"""Scores of what a model writes, measured after each epoch by decoding."""

import keras
import numpy as np

from kseq.layers.validation import positive_integer
from kseq.training.metrics import EditDistanceRate
from kseq.training.named_rows import each_input
from kseq.training.text_scores import PACKAGES, checked_scores, text_scores

OF_IDS = ("exact_match", "edit_distance_rate")
SCORES = (*OF_IDS, *(name for name in PACKAGES if name not in OF_IDS))


class GenerationScores(keras.callbacks.Callback):
    """Measures a model on what it writes, after each epoch.

    Loss and accuracy under teacher forcing say how well a model goes on from the truth;
    this decodes, and adds to the values of the epoch, so that every later callback, the
    history and any tuner see them:

    - `val_written_exact_match`: share of the sources whose target is written as it is
    - `val_written_edit_distance_rate`: edit distance over tokens of the references
    - `val_written_bleu`, `val_written_chrf`, `val_written_ter`, `val_written_wer`,
      `val_written_cer`: those of `text_scores`, of texts

    In a search, give it to `tuner.search(callbacks=[...])`, or as a Space to
    `Training`. Callbacks that read its values must stand behind it.

    Args:
        source: N sources, as the model's `generate` takes them.
        target: N references: rows of token ids up to and including the end token,
            padded or not; a start token in front, as `teacher_forcing` wants it, is
            left out.
        scores: Which of these, without `val_written_`.
        to_text: For scores of texts: function from rows of token ids to texts, such as
            a vocabulary's `decode`.
        search: A search of `kseq.decoding`. None for greedy search.
        max_length: Most tokens to write. None for the longest reference and a half.
        batch_size: Most sources to decode at a time.
        every: Decode after every so many epochs; between, the last values stand.

    Raises:
        ValueError: There are no rows, or not as many targets as sources; a score is
            unknown, or has no `to_text`; a number is not a positive integer.
        ImportError: The package of a score is not installed: `kseq[metrics]`.

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
        source,
        target,
        scores=("exact_match", "edit_distance_rate"),
        to_text=None,
        search=None,
        max_length=None,
        batch_size=128,
        every=1,
    ):
        super().__init__()
        _check_rows(source, target)
        self.scores = _checked_scores(scores, to_text)
        self.source, self.target = source, [_ids(row) for row in target]
        self.to_text, self.search, self.batch_size = to_text, search, batch_size
        longest = max(map(len, self.target))
        self.max_length = max_length or longest + longest // 2 + 1
        self.every = positive_integer("every", every)
        self._last = {}

    def on_epoch_end(self, epoch, logs=None):
        is_last = epoch + 1 == (self.params or {}).get("epochs")
        if not self._last or is_last or (epoch + 1) % self.every == 0:
            self._last = {
                f"val_written_{name}": value
                for name, value in self.measure(self.model, self.search).items()
            }
        logs.update(self._last)

    def measure(self, model, search=None):
        """The scores of a model by name, without `val_written_`."""
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

    def _score(self, name, wanted, written):
        if name == "exact_match":
            pairs = zip(wanted, written, strict=True)
            return float(np.mean([a == b for a, b in pairs]))
        if name == "edit_distance_rate":
            return _edit_distance_rate(wanted, written)
        texts = list(self.to_text(written)), list(self.to_text(wanted))
        return text_scores(*texts, name)[name]


def _edit_distance_rate(wanted, written):
    """Padded with an id of its own, for 0 may be a token."""
    rate, padding = EditDistanceRate(pad_token_id=-1), -1
    longest = max(len(row) for row in (*wanted, *written))
    padded = [
        np.array([row + [padding] * (longest - len(row)) for row in rows], "int32")
        for rows in (wanted, written)
    ]
    return float(rate(*padded)) if longest else 0.0


def _ids(row):
    return np.asarray(row, "int32")


def _cut(row, ends):
    """The token ids before the first that ends the row."""
    ids = []
    for token_id in np.asarray(row).tolist():
        if token_id in ends:
            break
        ids.append(token_id)
    return ids


def _check_rows(source, target):
    rows = source if isinstance(source, int) else len(each_input(source)[0])
    if not len(target) or rows != len(target):
        raise ValueError(
            "Every source needs its reference, and there must be one at least. "
            f"Received: {rows} rows of source and {len(target)} of target."
        )


def _checked_scores(scores, to_text):
    scores = checked_scores(scores, SCORES)
    of_texts = [name for name in scores if name not in OF_IDS]
    if of_texts and to_text is None:
        raise ValueError(
            f"`to_text` must be given for {', '.join(of_texts)}, which compare texts. "
            f"Received: to_text=None with scores={scores}. A vocabulary's `decode` is "
            "such a function."
        )
    return scores
