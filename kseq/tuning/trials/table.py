"""What a search shows while it runs: a live table, or lines that a log can hold."""

import sys
import time

from kseq.tuning.trials.events import best_event, duration, outcome

try:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
except ImportError:
    Live = None


class LiveTable:
    """Shows the trials that ended, the running ones, the best, and the time left.

    On a terminal, with the package rich, that is one table that changes; elsewhere, a
    line for each trial that ends.

    Args:
        verbose: False shows nothing.
        objective: The `keras_tuner.Objective` of the search.
    """

    def __init__(self, verbose, objective, stream=None):
        self.verbose = verbose
        self.objective = objective
        self.stream = stream or sys.stdout
        self.ended = []
        self.before = 0  # trials of earlier calls
        self.max_trials = None
        self.live = None

    def __enter__(self):
        self.began = time.monotonic()
        if self.verbose and Live is not None and self.stream.isatty():
            console = Console(file=self.stream)
            self.live = Live(console=console, auto_refresh=False)
            self.live.__enter__()
        return self

    def __exit__(self, *error):
        if self.live is not None:
            self.live.update(self._rich(), refresh=True)
            self.live.__exit__(None, None, None)
            self.live = None
        self.running = {}

    def show_past(self, ended, max_trials):
        self.ended = list(ended)
        self.before = len(ended)
        self.max_trials = max_trials
        if ended:
            self.say(f"goes on after {len(ended)} trials; {self._best_text()}")

    def show_end(self, event):
        self.ended.append(event)
        if self.live is None:
            self.say(self._line(event))

    def say(self, text):
        if not self.verbose:
            return
        if self.live is not None:
            self.live.console.print(text, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def update(self, running):
        self.running = running
        if self.live is not None:
            self.live.update(self._rich(), refresh=True)

    def _line(self, event):
        how = outcome(event, self.objective.name)
        running = len(getattr(self, "running", {}))
        parts = [f"trial {event['trial']}", how, self._best_text(), self._count()]
        if running:
            parts.append(f"{running} running")
        if self.time_left() is not None:
            parts.append(f"about {duration(self.time_left())} left")
        return " | ".join(parts)

    def _count(self):
        of = f" of {self.max_trials}" if self.max_trials else ""
        return f"{len(self.ended)}{of} trials"

    def _best_text(self):
        best = best_event(self.ended, self.objective)
        if best is None:
            return "no best yet"
        return f"best {best['score']:.5g} (trial {best['trial']})"

    def time_left(self):
        """Seconds, from the pace of this call, or None while that is not known."""
        done = len(self.ended) - self.before
        if not self.max_trials or not done or not hasattr(self, "began"):
            return None
        pace = (time.monotonic() - self.began) / done
        return max(0, self.max_trials - len(self.ended)) * pace

    def _rich(self, most=12):
        title = f"{self._count()}, {self._best_text()}"
        if self.time_left() is not None:
            title += f", about {duration(self.time_left())} left"
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
