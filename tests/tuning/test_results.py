"""Results of a search, from a journal that the tests write."""

import re
import xml.etree.ElementTree as ElementTree

import keras_tuner
import pytest

from kseq.tuning.report import axis, limits
from kseq.tuning.results import Results
from kseq.tuning.trials.journal import Journal
from tests.tuning.journals import CURVES, VALUES, write_journal
from tests.tuning.searches import Small

LOSS = keras_tuner.Objective("val_loss", "min")


@pytest.fixture
def results(tmp_path):
    return Results(Small(), LOSS, write_journal(tmp_path / "search"))


def test_table_has_the_outcome_of_each_trial(results):
    rows = results.table()
    assert [row["status"] for row in rows] == [
        "completed",
        "stopped",
        "failed",
        "unfinished",
    ]
    assert [row["score"] for row in rows] == [0.25, 0.75, None, None]
    assert [row["epoch"] for row in rows] == [2, 1, None, None]
    assert [row["epochs"] for row in rows] == [3, 1, 0, 0]
    assert [row["attempts"] for row in rows] == [1, 1, 2, 0]
    assert [row["values"] for row in rows] == VALUES
    assert results.best["trial"] == "0" and results.best_values() == VALUES[0]
    assert results.curves("0") == {"val_loss": CURVES[0]} and results.curves("3") == {}


def test_importance_is_by_hyperparameter_from_the_highest(tmp_path):
    journal = Journal(tmp_path, {"tuner": "RandomSearch"})
    for number in range(6):
        values = {
            "seed": number % 2,
            "deep": number < 3,
            "size": 7,
            "tuner/round": number,
        }
        journal.append("created", str(number), values=values)
        facts = {"space": None, "epoch": 0, "stopped": False}
        journal.append("ended", str(number), score=number / 4, **facts)
    journal.append("created", "6", values={"deep": True})
    journal.close()
    found = Results(Small(), LOSS, journal).importance()
    assert list(found) == ["deep", "seed"]
    assert found == {"deep": pytest.approx(5 / 7), "seed": 0}


def test_importance_is_unknown_with_few_trials(results):
    assert results.importance() == {"deep": None, "rate": None}


def test_the_data_frame_has_a_column_for_each_hyperparameter(results):
    frame = results.dataframe()
    assert list(frame.index) == ["0", "1", "2", "3"] and frame.columns[0] == "score"
    assert frame["rate"].tolist() == [values["rate"] for values in VALUES]
    assert frame["units"].isna().tolist() == [False, True, False, True]
    assert frame.loc["2", "reason"] == "it was too <wide>"


def test_printed_results_list_the_best_first_with_short_numbers(results):
    lines = str(results).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    assert "rate=0.3" in lines[1] and "0.30000000000000004" not in lines[1]


def test_report_has_all_sections_and_escapes_html(results, tmp_path):
    page = results.report(tmp_path / "report.html").read_text("utf-8")
    ElementTree.fromstring(re.search("<body>.*</body>", page, re.S)[0])
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "The best trial",
        "Importance of hyperparameters",
        "All trials as parallel coordinates",
        "Learning curves",
        "Failures",
        "All trials",
    ]
    assert "1 completed, 1 stopped, 1 failed, 1 unfinished" in page
    assert "it was too &lt;wide&gt;" in page and "name=&lt;b&gt;&amp;" in page
    assert (
        page.count("<title>trial ") == 4
    )  # each scored trial has a line in two charts
    assert "http" not in page, "needs no other file"


def test_report_draws_a_dot_for_a_trial_of_one_epoch(results, tmp_path):
    page = results.report(tmp_path / "report.html").read_text("utf-8")
    dots = re.findall("<circle.*?><title>(.*?)</title></circle>", page)
    assert dots == ["trial 1: 0.75"]


def test_axes_are_marked_if_logarithmic_and_leave_out_only_far_outliers():
    assert axis([0.001, 0.01, 0.1])[0] == pytest.approx([0, 0.5, 1])
    assert [axis([0.001, high])[2] for high in (0.01, 0.1)] == [False, True]
    near, far = [3.0, 5.0, 7.0, 11.0, 13.0], 1000.0
    assert limits(near, "min") == limits(near, "max") == (3, 13)
    assert limits([*near, far], "max") == (3, far)
    low, high = limits([*near, far], "min")
    assert low == 3 and 13 < high < far
    assert limits([5.0] * 9 + [7.0], "min") == (5, 7)


def test_report_says_that_no_trial_has_completed(tmp_path):
    journal = Journal(tmp_path / "search", {"tuner": "RandomSearch"})
    journal.append("created", "0", values=VALUES[0])
    results = Results(Small(), LOSS, journal)
    journal.close()
    assert "No trial has completed" in results.report(tmp_path / "r.html").read_text()
    with pytest.raises(ValueError, match="At least one trial must have completed"):
        results.best_model()


def test_data_frame_keeps_a_column_with_the_name_of_a_hyperparameter(tmp_path):
    pytest.importorskip("pandas")
    journal = Journal(tmp_path, {"tuner": "RandomSearch"})
    journal.append("created", "0", values={"epochs": 7, "rate": 0.5})
    frame = Results(Small(), LOSS, journal).dataframe()
    journal.close()
    assert frame.loc["0", ["epochs", "values/epochs", "rate"]].tolist() == [0, 7, 0.5]
    assert "values" not in frame


def test_rejects_an_unknown_trial(results):
    with pytest.raises(ValueError, match="one of 0, 1, 2, 3. Received: trial_id='7'"):
        results.curves("7")


@pytest.mark.parametrize("directory", [None, 3, __file__, "nowhere"])
def test_rejects_a_directory_without_a_search(directory):
    with pytest.raises(ValueError, match="must contain a search"):
        Results.load(directory)


def test_results_of_a_function_are_loaded_with_the_function(tmp_path):
    identity = {"objective": ["val_loss", "min"]}
    Journal(tmp_path, identity).close()
    results = Results.load(tmp_path, Small().build)
    assert results.space.build(keras_tuner.HyperParameters()).built
    with pytest.raises(ValueError, match="`space` must be"):
        Results.load(tmp_path, 3)
