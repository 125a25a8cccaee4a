"""What a search found: a table of trials, the best model, a report."""

import warnings
from pathlib import Path

import keras
import keras_tuner

from kseq.layers.validation import positive_integer
from kseq.tuning.building import as_hypermodel
from kseq.tuning.report import write_report
from kseq.tuning.trials.events import CREATED, ENDED, FAILED, best_event, of_kind
from kseq.tuning.trials.files import read_json
from kseq.tuning.trials.identity import objective_of
from kseq.tuning.trials.journal import Record
from kseq.tuning.trials.layout import SearchDirectory


class Results:
    """The trials of a search, in the order in which they were proposed.

    Args:
        space: The `keras_tuner.HyperModel` that was searched, or None.
        objective: The `keras_tuner.Objective`.
        journal: The `Journal` of the search, or its `Record`.
    """

    def __init__(self, space, objective, journal):
        self.space = space
        self.objective = objective
        self.directory = Path(journal.directory)
        self.identity = journal.identity
        created = of_kind(journal.events, CREATED)
        self._values = {event["trial"]: event["values"] for event in created}
        self._ended = {e["trial"]: e for e in of_kind(journal.events, ENDED)}
        for trial_id, event in self._ended.items():
            if event["space"] is not None:  # its build asked for more than was known
                self._values[trial_id] = event["space"]["values"]
        self._failed = [event["trial"] for event in of_kind(journal.events, FAILED)]

    @classmethod
    def load(cls, directory, space=None):
        """Opens a search without its data, whether it has ended, stopped or runs.

        Args:
            directory: The one that `search` was given. Nothing in it is changed.
            space: The space that was searched, or the function, for `best_model`. None
                for a model from its saved config: its classes must be registered with
                Keras, as those of Keras and kseq are.

        Returns:
            `Results`.

        Raises:
            ValueError: The directory holds no search.
        """
        record = Record(directory)
        space = None if space is None else as_hypermodel(space)
        return cls(space, objective_of(record.identity["objective"]), record)

    def table(self):
        """Returns a dictionary for each trial.

        Its keys are `trial`, `status` (`"completed"`, `"stopped"`, `"failed"` or
        `"unfinished"`), `score`, `epoch` (the best one, from 1), `epochs` (trained),
        `parameters` (of the model), `seconds`, `attempts`, `reason` (of a failure) and
        `values`, the hyperparameters that the trial used: what was inactive is absent.
        """
        return [self._row(trial_id) for trial_id in self._values]

    def _row(self, trial_id):
        event = self._ended.get(trial_id, {})
        score = event.get("score")
        status = "unfinished"
        if event:
            status = "stopped" if event["stopped"] else "completed"
            status = "failed" if score is None else status
        return {
            "trial": trial_id,
            "status": status,
            "score": score,
            "epoch": None if score is None else event["epoch"] + 1,
            "epochs": len(event.get("curve", [])),
            "parameters": event.get("parameters"),
            "seconds": event.get("seconds"),
            "attempts": self._failed.count(trial_id) + bool(event),
            "reason": event.get("reason"),
            "values": dict(self._values[trial_id]),
        }

    def curves(self, trial_id):
        """Returns the metrics of a trial, `{name: [number of each epoch]}`.

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

    def dataframe(self):
        """Returns the table as a pandas `DataFrame`, a column for each hyperparameter.

        What was inactive in a trial is missing (NaN) in its row. A hyperparameter with
        the name of another column, as `epochs`, is in a column `values/epochs`.

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
    def best(self):
        """The row of the best trial.

        Raises:
            ValueError: No trial has completed.
        """
        event = best_event(self._ended.values(), self.objective)
        if event is None:
            raise ValueError(
                "A trial must have completed. Received: a search with "
                f"{len(self._ended)} failed trials and no other; `table()` says why."
            )
        return self._row(event["trial"])

    def best_values(self):
        """Returns the hyperparameters of the best trial, `{name: value}`."""
        return visible(self.best["values"])

    def best_hyperparameters(self, number):
        """Returns the hyperparameters of the best trials, the best first.

        Each is `{name: value}`, as `first` of another search and `Space.build` take it.

        Args:
            number: How many; fewer come if fewer trials have a score.

        Raises:
            ValueError: No trial has completed, or `number` is not positive.
        """
        return [visible(row["values"]) for row in self._best(number)]

    def best_model(self):
        """Returns the model of the best trial, with the weights of its best epoch.

        Of several calls of `fit` in one trial, such as phases, folds or executions, the
        best counts, among those that train the same weights with the same loss.

        Raises:
            ValueError: No trial has completed, or the best has trained no such model as
                the space builds.
        """
        return self._model(self.best)

    def best_models(self, number):
        """Returns the models of the best trials, the best first: for `kseq.ensemble`.

        Args:
            number: How many; fewer come if fewer trials have a score. Of equal scores
                the earlier trial comes first.

        Returns:
            A list of models, as `best_model` returns one: with the weights of their
            best epochs, and compiled if the space compiles them.

        Raises:
            ValueError: No trial has completed, or `number` is not positive.

        References:
            - [Caruana et al., 2004](https://doi.org/10.1145/1015330.1015432), 2
        """
        return [self._model(row) for row in self._best(number)]

    def _best(self, number):
        number = positive_integer("number", number)
        rows = [self._row(trial_id) for trial_id in self._ended]
        scored = [row for row in rows if row["score"] is not None] or [self.best]
        return sorted(scored, key=self._rank)[:number]

    def _model(self, row):
        if not self._ended[row["trial"]].get("weights", True):
            raise ValueError(
                "A trial must have trained a model to have one. Received: trial "
                f"{row['trial']}, whose `fit` has trained no model of the shapes that "
                "`build` made. Train the model that `fit` is given, or others that "
                "`build` makes, or take `best_values()`."
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
            # The file holds the optimizer's variables too, which a new one has not yet.
            model.optimizer.build(model.trainable_variables)
        with warnings.catch_warnings():
            # Of a phase that trained some layers only, which the optimizer shows.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model.load_weights(files.weights)
        return model

    def _files_of(self, trial_id):
        return SearchDirectory(self.directory).trial(trial_id)

    def report(self, path):
        """Writes one HTML file that needs no other: `write_report` says what is in it.

        Returns:
            The path.

        Raises:
            ValueError: The path is that of a folder, or nothing can be written there.
        """
        return write_report(self, path)

    def __str__(self):
        lines = [f"{'trial':>8} {'status':<11} {self.objective.name:>14}  values"]
        ordered = sorted(self.table(), key=self._rank)
        for row in ordered:
            score = "" if row["score"] is None else f"{row['score']:.6g}"
            values = ", ".join(map(shown, visible(row["values"]).items()))
            lines.append(f"{row['trial']:>8} {row['status']:<11} {score:>14}  {values}")
        return "\n".join(lines)

    def _rank(self, row):
        sign = -1 if self.objective.direction == "max" else 1
        return (row["score"] is None, sign * (row["score"] or 0))


def saved_model(path):
    """The model of a config, which a trial saves where its model has one."""
    try:
        return keras.models.model_from_json(path.read_text("utf-8"))
    except Exception as error:  # whatever a config without its classes may raise
        raise ValueError(
            "A model without its space must have a config of registered classes. "
            f"Received: {type(error).__name__}: {error}. Give the space too: "
            "`Results.load(directory, space)`."
        ) from error


def flat(row):
    """The row with a column for each hyperparameter."""
    values = row.pop("values")
    named = {f"values/{k}" if k in row else k: v for k, v in values.items()}
    return {**row, **named}


def visible(values):
    """The hyperparameters without what Hyperband notes among them."""
    return {name: v for name, v in values.items() if not name.startswith("tuner/")}


def shown(item):
    name, value = item
    return f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
