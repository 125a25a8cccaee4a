import io
import types

import keras_tuner
import pytest

from kseq.tuning.trials.loop import Run
from kseq.tuning.trials.table import LiveTable
from tests.tuning.journals import written

LOSS = keras_tuner.Objective("val_loss", "min")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_is_shown_says_how_each_trial_ended_and_which_is_best(stream, tmp_path):
    journal, trial = written(tmp_path), types.SimpleNamespace(trial_id="3")
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


def test_what_is_not_verbose_is_silent(tmp_path):
    journal = written(tmp_path)
    table = LiveTable(False, LOSS, io.StringIO())
    with table:
        table.show_end(journal.events[-1])
    assert table.stream.getvalue() == ""
