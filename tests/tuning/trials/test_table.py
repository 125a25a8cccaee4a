import io
import types

import keras_tuner
import pytest

from kseq.tuning.trials.loop import Run
from kseq.tuning.trials.table import LiveTable
from tests.tuning.journals import write_journal

LOSS = keras_tuner.Objective("val_loss", "min")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_table_shows_the_outcome_of_each_trial_and_the_best(stream, tmp_path):
    journal, trial = write_journal(tmp_path), types.SimpleNamespace(trial_id="3")
    table = LiveTable(True, LOSS, stream())
    table.show_past([], 4)
    with table:
        for event in journal.events:
            if event["event"] == "ended":
                table.show_end(event)
        table.update({"attempt": Run(trial, table.began)})
    shown = " ".join(table.stream.getvalue().split())
    for expected in ("0.75", "0.25", "3 of 4 trials", "too <wide>", "left"):
        assert expected in shown
    assert "best 0.25 (trial 0)" in shown
    assert ("running" in shown) == (stream is Terminal)
    assert ("\x1b" in table.stream.getvalue()) == (stream is Terminal)


def test_table_counts_trials_and_says_why_they_end(tmp_path):
    ended = [e for e in write_journal(tmp_path).events if e["event"] == "ended"]
    table = LiveTable(True, LOSS, io.StringIO())
    table.show_past(ended[:1], 2)
    table.show_exhaustion(points=1)
    table.show_exhaustion(points=float("inf"))
    table.show_past(ended[:2], 2)
    table.show_exhaustion(points=2)
    lines = table.stream.getvalue().splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "continues after 1 trial",
        "ends after 1 of 2 trials: the space has only 1 different points",
        "ends after 1 of 2 trials: the tuner has nothing else to try",
        "continues after 2 trials",
    ]


def test_table_is_silent_unless_verbose(tmp_path):
    journal = write_journal(tmp_path)
    table = LiveTable(False, LOSS, io.StringIO())
    with table:
        table.show_end(journal.events[-1])
    assert table.stream.getvalue() == ""
