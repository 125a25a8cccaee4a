"""Progress of a running search: a live table, or lines for a log."""

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from kseq.tuning.trials.events import Event, best_event, duration, outcome, trials

Live: Any
try:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
except ImportError:
    Live = None


class LiveTable:
    """A display of ended and running trials, the best one, and the remaining time.

    On a terminal, with the package rich, it is one table that is updated. Elsewhere, it
    is one line for each trial that ends.

    Args:
        verbose: Whether to show anything.
        objective: The `keras_tuner.Objective` of the search.
    """

    def __init__(
        self, verbose: bool, objective: Any, stream: IO[str] | None = None
    ) -> None:
        self.verbose = verbose
        self.objective = objective
        self.stream = stream or sys.stdout
        self.ended: list[Event] = []
        self.before = 0  # number of trials of earlier calls
        self.max_trials: int | None = None
        self.live: Any = None

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        if self.verbose and Live is not None and self.stream.isatty():
            console = Console(file=self.stream)
            self.live = Live(console=console, auto_refresh=False)
            self.live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.update(self._rich(), refresh=True)
            self.live.__exit__(None, None, None)
            self.live = None
        self.running: Mapping[Any, Any] = {}

    def show_past(self, ended: Sequence[Event], max_trials: int | None) -> None:
        self.ended = list(ended)
        self.before = len(ended)
        self.max_trials = max_trials
        if ended:
            self.say(f"continues after {trials(len(ended))}; {self._best_text()}")

    def show_end(self, event: Event) -> None:
        self.ended.append(event)
        if self.live is None:
            self.say(self._line(event))

    def show_exhaustion(self, points: float) -> None:
        """Say why a search ends before `max_trials`.

        Args:
            points: Number of different points of its space.
        """
        if self.max_trials and len(self.ended) < self.max_trials:
            why = "the tuner has nothing else to try"
            if points <= len(self.ended):
                why = f"the space has only {points:,} different points"
            self.say(f"ends after {self._count()}: {why}")

    def say(self, text: str) -> None:
        if not self.verbose:
            return
        if self.live is not None:
            self.live.console.print(text, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def update(self, running: Mapping[Any, Any]) -> None:
        self.running = running
        if self.live is not None:
            self.live.update(self._rich(), refresh=True)

    def _line(self, event: Event) -> str:
        how = outcome(event, self.objective.name)
        running = len(getattr(self, "running", {}))
        parts = [f"trial {event['trial']}", how, self._best_text(), self._count()]
        if running:
            parts.append(f"{running} running")
        left = self.time_left()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return " | ".join(parts)

    def _count(self) -> str:
        ended = len(self.ended)
        if not self.max_trials:
            return trials(ended)
        return f"{ended} of {trials(self.max_trials)}"

    def _best_text(self) -> str:
        best = best_event(self.ended, self.objective)
        if best is None:
            return "no best yet"
        return f"best {best['score']:.5g} (trial {best['trial']})"

    def time_left(self) -> float | None:
        """Return seconds, from the pace of this call, or None if unknown."""
        done = len(self.ended) - self.before
        if not self.max_trials or not done or not hasattr(self, "began"):
            return None
        pace = (time.monotonic() - self.began) / done
        return max(0, self.max_trials - len(self.ended)) * pace

    def _rich(self, most: int = 12) -> Any:
        title = f"{self._count()}, {self._best_text()}"
        left = self.time_left()
        if left is not None:
            title += f", about {duration(left)} left"
        table = Table(title=title, title_justify="left")
        for name in ("trial", "state", self.objective.name, "epochs", "seconds"):
            table.add_column(name, justify="left" if name == "state" else "right")
        best = best_event(self.ended, self.objective)
        for event in self.ended[-most:]:
            failed = event["score"] is None
            score = "" if failed else f"{event['score']:.5g}"
            state = event["reason"][:50] if failed else "stopped early"
            if not failed and not event["stopped"]:
                state = "done"
            cells = [state, score, str(len(event["curve"])), f"{event['seconds']:.1f}"]
            style = "bold" if event is best else "red" if failed else None
            table.add_row(event["trial"], *cells, style=style)
        for run in getattr(self, "running", {}).values():
            seen = [value for value in run.curve if value is not None]
            score = f"{seen[-1]:.5g}" if seen else ""
            took = f"{time.monotonic() - run.began:.1f}"
            cells = ["running", score, str(len(run.curve)), took]
            table.add_row(run.trial.trial_id, *cells, style="cyan")
        return table
