"""What a search of models that write shall reach: measured on what they do write."""

import contextlib
import importlib

import keras
import keras_tuner
import numpy as np

from kseq.layers.validation import positive_integer
from kseq.training import EditDistanceRate
from kseq.training.directions import known_direction

SCORES = ("exact_match", "edit_distance_rate", "bleu", "chrf")
OF_TEXTS = ("bleu", "chrf")


def objective(name, direction=None):
    """The objective of a search, with its direction.

    Args:
        name: A value that `fit` reports, such as "val_loss", or that
            `GenerationScores` adds to it, such as "val_written_bleu".
        direction: "min" or "max". None for what is known of the name: losses, errors
            and rates of errors fall, accuracies, F1, exact match, BLEU and chrF rise;
            else what KerasTuner knows of Keras' metrics.

    Returns:
        A `keras_tuner.Objective`.

    Raises:
        ValueError: The direction is neither of these, or is not known.

    Example:

    >>> from kseq.tuning import objective
    >>> objective("val_written_edit_distance_rate").direction
    'min'
    """
    if direction in ("min", "max"):
        return keras_tuner.Objective(name, direction)
    if direction is None:
        with contextlib.suppress(ValueError):
            return make_objective(name)
    raise ValueError(
        '`direction` must be "min" or "max", and may be None for a value that is known '
        f"to rise or fall. Received: name={name!r}, direction={direction!r}."
    )


def make_objective(objective):
    """Returns KerasTuner's `Objective`, its direction inferred where that is possible.

    Args:
        objective: A name, a pair of a name and a direction, an `Objective`, or a list
            of these.

    Raises:
        ValueError: The direction of a metric is not known.
    """
    if isinstance(objective, list) and is_plain(objective):
        parts = [make_objective(part) for part in objective]
        return keras_tuner.oracles.RandomSearchOracle(objective=parts).objective
    found = objective
    if isinstance(objective, tuple) and len(objective) == 2:
        found = keras_tuner.Objective(*objective)
    elif isinstance(objective, str):
        found = inferred(objective)
    ok = isinstance(found, keras_tuner.Objective)
    if not ok or found.direction not in ("min", "max"):
        name = objective if isinstance(objective, str) else "val_loss"
        raise ValueError(
            "`objective` must be a metric of Keras or kseq, or a metric and whether "
            "less or more of it is better, or a list of these. Received: objective="
            f'{objective!r}. Pass ("{getattr(found, "name", name)}", "max") or (..., '
            '"min"); several go into one list: ["val_loss", ("val_rank", "max")].'
        )
    return found


def is_plain(objectives):
    """Tell whether a list has parts, none of which are lists."""
    return bool(objectives) and not any(isinstance(x, list) for x in objectives)


def names_of(objective):
    """Return the metrics that an objective reads: a name, or a list of names."""
    parts = getattr(objective, "objectives", None)
    return [part.name for part in parts] if parts else objective.name


def inferred(name):
    """The objective of a name, or None if its direction is known to nobody."""
    if known := known_direction(name):
        return keras_tuner.Objective(name, known)
    with contextlib.suppress(ValueError):  # KerasTuner asks Keras' metrics
        return keras_tuner.oracles.RandomSearchOracle(objective=name).objective
    return None


class GenerationScores(keras.callbacks.Callback):
    """Measures a model on what it writes, after each epoch.

    Loss and accuracy under teacher forcing say how well a model goes on from the truth;
    this decodes, and adds to the values of the epoch, so that every later callback, the
    history and any tuner see them:

    - `val_written_exact_match`: share of the sources whose target is written as it is
    - `val_written_edit_distance_rate`: edit distance over tokens of the references
    - `val_written_bleu`, `val_written_chrf`: sacrebleu's, 0 to 100, of texts

    In a search, give it to `tuner.search(callbacks=[...])`, or as a Space to
    `Training`. Callbacks that read its values must stand behind it.

    Args:
        source: N sources, as the model's `generate` takes them.
        target: N references: rows of token ids up to and including the end token,
            padded or not; a start token in front, as `teacher_forcing` wants it, is
            left out.
        scores: Which of the four, without `val_written_`.
        to_text: For BLEU and chrF: function from rows of token ids to texts, such as a
            vocabulary's `decode`.
        search: A search of `kseq.decoding`. None for greedy search.
        max_length: Most tokens to write. None for the longest reference and a half.
        batch_size: Most sources to decode at a time.
        every: Decode after every so many epochs; between, the last values stand.

    Raises:
        ValueError: There are no rows, or not as many targets as sources; a score is
            unknown, or has no `to_text`; a number is not a positive integer.
        ImportError: sacrebleu is needed and not installed.

    Example:

    >>> import keras, kseq
    >>> from kseq.tuning import GenerationScores
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

    References:
        - [Papineni et al., 2002](https://aclanthology.org/P02-1040/) (BLEU)
        - [Popović, 2015](https://aclanthology.org/W15-3049/) (chrF)
        - [Post, 2018](https://aclanthology.org/W18-6319/) (sacrebleu)
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
        sacrebleu = importlib.import_module("sacrebleu")
        measure = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
        written, wanted = list(self.to_text(written)), list(self.to_text(wanted))
        return float(measure(written, [wanted]).score)


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
    rows = source if isinstance(source, int) else len(source)
    if not len(target) or rows != len(target):
        raise ValueError(
            "Every source needs its reference, and there must be one at least. "
            f"Received: {rows} rows of source and {len(target)} of target."
        )


def _checked_scores(scores, to_text):
    scores = [scores] if isinstance(scores, str) else list(scores)
    if not scores or any(name not in SCORES for name in scores):
        raise ValueError(
            f"`scores` must be one or more of {list(SCORES)}. Received: "
            f"scores={scores!r}."
        )
    if set(scores) & set(OF_TEXTS):
        if to_text is None:
            raise ValueError(
                "`to_text` must be given for BLEU and chrF, which compare texts. "
                f"Received: to_text=None with scores={scores}. A vocabulary's `decode` "
                "is such a function."
            )
        try:
            importlib.import_module("sacrebleu")
        except ImportError as error:
            raise ImportError(
                "BLEU and chrF are sacrebleu's. Install it: pip install kseq[recipes]"
            ) from error
    return scores
