"""Results of a search: a table of trials, the best model, a report."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import keras
import keras_tuner

from kseq.layers.validation import positive_integer
from kseq.tuning.building import as_hypermodel
from kseq.tuning.importance import importances
from kseq.tuning.report import write_report
from kseq.tuning.trials.events import CREATED, ENDED, FAILED, best_event, of_kind
from kseq.tuning.trials.files import read_json
from kseq.tuning.trials.identity import objective_of
from kseq.tuning.trials.journal import Journal, Record
from kseq.tuning.trials.layout import SearchDirectory, TrialDirectory
from kseq.typing import PathLike


class Results:
    """The trials of a search, in the order in which they were proposed.

    Args:
        space: The `keras_tuner.HyperModel` that was searched, or None.
        objective: The `keras_tuner.Objective`.
        journal: The `Journal` of the search, or its `Record`.
    """

    def __init__(
        self,
        space: keras_tuner.HyperModel | None,
        objective: keras_tuner.Objective,
        journal: Journal | Record,
    ) -> None:
        self.space = space
        self.objective = objective
        self.directory = Path(journal.directory)
        self.identity = journal.identity
        created = of_kind(journal.events, CREATED)
        self._values = {event["trial"]: event["values"] for event in created}
        self._ended = {e["trial"]: e for e in of_kind(journal.events, ENDED)}
        for trial_id, event in self._ended.items():
            if event["space"] is not None:  # `fit` or `build` added hyperparameters
                self._values[trial_id] = event["space"]["values"]
        self._failed = [event["trial"] for event in of_kind(journal.events, FAILED)]

    @classmethod
    def load(
        cls,
        directory: PathLike,
        space: keras_tuner.HyperModel | Callable[..., Any] | None = None,
    ) -> Self:
        """Open a finished, stopped or running search without its data.

        Args:
            directory: The directory that was passed to `search`. It is not changed.
            space: The searched space or function, for `best_model`. None to create
                models from their saved config; their classes must be registered with
                Keras, as those of Keras and kseq are.

        Returns:
            `Results`.

        Raises:
            ValueError: The directory contains no search.
        """
        record = Record(directory)
        space = None if space is None else as_hypermodel(space)
        return cls(space, objective_of(record.identity["objective"]), record)

    def table(self) -> list[dict[str, Any]]:
        """Return a dictionary for each trial.

        Its keys are `trial`, `score`, `status` (`"completed"`, `"stopped"`, `"failed"`
        or `"unfinished"`), `epoch` (the best one, from 1), `epochs` (trained),
        `parameters` (of the model), `seconds`, `attempts`, `reason` (of a failure) and
        `values`: the hyperparameters that the trial used, without inactive ones.
        """
        return [self._row(trial_id) for trial_id in self._values]

    def _row(self, trial_id: str) -> dict[str, Any]:
        event = self._ended.get(trial_id, {})
        score = event.get("score")
        status = "unfinished"
        if event:
            status = "stopped" if event["stopped"] else "completed"
            status = "failed" if score is None else status
        return {
            "trial": trial_id,
            "score": score,
            "status": status,
            "epoch": None if score is None else event["epoch"] + 1,
            "epochs": len(event.get("curve", [])),
            "parameters": event.get("parameters"),
            "seconds": event.get("seconds"),
            "attempts": self._failed.count(trial_id) + bool(event),
            "reason": event.get("reason"),
            "values": dict(self._values[trial_id]),
        }

    def curves(self, trial_id: str) -> dict[str, list[Any]]:
        """Return the metrics of a trial, `{name: [value of each epoch]}`.

        Raises:
            ValueError: The search has no such trial.
        """
        if trial_id not in self._values:
            raise ValueError(
                f"`trial_id` must be one of {', '.join(self._values)}. Received: "
                f"trial_id={trial_id!r}."
            )
        files = self._files_of(trial_id)
        for event in of_kind(read_json(files.events) or [], ENDED):
            return {self.objective.name: event["curve"], **event["curves"]}
        return {}

    def dataframe(self) -> Any:
        """Return the table as a pandas `DataFrame` with a column per hyperparameter.

        Hyperparameters that were inactive in a trial are missing (NaN). A
        hyperparameter with the name of another column, such as `epochs`, gets the
        column `values/epochs`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`dataframe` needs the package pandas. Install it with `pip install "
                "kseq[tuning]`, or use `table()`, which needs nothing."
            ) from error
        return pandas.DataFrame(map(flat, self.table())).set_index("trial")

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best trial.

        Raises:
            ValueError: No trial has completed.
        """
        event = best_event(self._ended.values(), self.objective)
        if event is None:
            raise ValueError(
                "At least one trial must have completed. Received: a search with "
                f"{len(self._ended)} failed trials and no other; see `table()`."
            )
        return self._row(event["trial"])

    def best_values(self) -> dict[str, Any]:
        """Return the hyperparameters of the best trial, `{name: value}`."""
        return visible(self.best["values"])

    def best_hyperparameters(self, number: int) -> list[dict[str, Any]]:
        """Return the hyperparameters of the best trials, the best first.

        Each is `{name: value}`, as `first` of another search and `Space.build` take it.

        Args:
            number: Number of trials; fewer are returned if fewer have a score.

        Raises:
            ValueError: No trial has completed, or `number` is not positive.
        """
        return [visible(row["values"]) for row in self._best(number)]

    def best_model(self) -> Any:
        """Return the model of the best trial, with the weights of its best epoch.

        If a trial calls `fit` several times, for phases, folds or executions, the best
        call counts, among those that train the same weights with the same loss.

        Raises:
            ValueError: No trial has completed, or the best trial has not trained a
                model with the weights that the space builds.
        """
        return self._model(self.best)

    def best_models(self, number: int) -> list[Any]:
        """Return the models of the best trials, the best first, for `kseq.ensemble`.

        Args:
            number: Number of models; fewer are returned if fewer trials have a score.
                Of equal scores, the earlier trial comes first.

        Returns:
            A list of models, like that of `best_model`: with the weights of their best
            epochs, and compiled if the space compiles them.

        Raises:
            ValueError: No trial has completed, or `number` is not positive.

        References:
            - [Caruana et al., 2004](https://doi.org/10.1145/1015330.1015432), 2
        """
        return [self._model(row) for row in self._best(number)]

    def importance(self) -> dict[str, float | None]:
        """Return the importance of each hyperparameter, the highest first.

        It is the share of the ranking of trials that the hyperparameter alone explains,
        from 0 to 1, among the trials that used it; see
        `kseq.tuning.importance.importance`. It is uncertain with few trials, and None
        with fewer than five. A hyperparameter that had one value in all trials is left
        out.
        """
        scored = [row for row in self.table() if row["score"] is not None]
        rows = [(visible(row["values"]), row["score"]) for row in scored]
        return {name: share for name, share, _ in importances(rows)}

    def _best(self, number: int) -> list[dict[str, Any]]:
        number = positive_integer("number", number)
        rows = [self._row(trial_id) for trial_id in self._ended]
        scored = [row for row in rows if row["score"] is not None] or [self.best]
        return sorted(scored, key=self._rank)[:number]

    def _model(self, row: dict[str, Any]) -> Any:
        if not self._ended[row["trial"]].get("weights", True):
            raise ValueError(
                "A trial must have trained a model. Received: trial "
                f"{row['trial']}, whose `fit` trained no model with the shapes of the "
                "model from `build`. Train the model passed to `fit`, or other models "
                "from `build`, or use `best_values()`."
            )
        files = self._files_of(row["trial"])
        if self.space is None:
            model = saved_model(files.model)
        else:
            hp = keras_tuner.HyperParameters()
            hp.values = dict(row["values"])
            model = self.space.build(hp)
        if not model.built:
            model.build_from_config(read_json(files.build_config))
        if getattr(model, "optimizer", None) is not None:
            # The file contains the optimizer's variables, which a new one lacks.
            model.optimizer.build(model.trainable_variables)
        with warnings.catch_warnings():
            # The optimizer of a phase may have trained only some layers.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model.load_weights(files.weights)
        return model

    def _files_of(self, trial_id: str) -> TrialDirectory:
        return SearchDirectory(self.directory).trial(trial_id)

    def report(self, path: PathLike) -> PathLike:
        """Write a self-contained HTML report; see `write_report`.

        Returns:
            The path.

        Raises:
            ValueError: The path is a folder, or cannot be written to.
        """
        return write_report(self, path)

    def __str__(self) -> str:
        lines = [f"{'trial':>8} {'status':<11} {self.objective.name:>14}  values"]
        ordered = sorted(self.table(), key=self._rank)
        for row in ordered:
            score = "" if row["score"] is None else f"{row['score']:.6g}"
            values = ", ".join(map(shown, visible(row["values"]).items()))
            lines.append(f"{row['trial']:>8} {row['status']:<11} {score:>14}  {values}")
        return "\n".join(lines)

    def _rank(self, row: dict[str, Any]) -> tuple[bool, float]:
        sign = -1 if self.objective.direction == "max" else 1
        return (row["score"] is None, sign * (row["score"] or 0))


def saved_model(path: Path) -> Any:
    """Create a model from the config that a trial saved."""
    try:
        return keras.models.model_from_json(path.read_text("utf-8"))
    except Exception as error:  # anything may be raised without the classes
        raise ValueError(
            "Without its space, a model needs a config of registered classes. "
            f"Received: {type(error).__name__}: {error}. Pass the space: "
            "`Results.load(directory, space)`."
        ) from error


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with a column for each hyperparameter."""
    values = row.pop("values")
    named = {f"values/{k}" if k in row else k: v for k, v in values.items()}
    return {**row, **named}


def visible(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters without Hyperband's own entries."""
    return {name: v for name, v in values.items() if not name.startswith("tuner/")}


def shown(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
