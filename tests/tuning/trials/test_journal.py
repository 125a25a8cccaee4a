import pytest

from kseq.tuning.trials.files import read_json, write_json
from kseq.tuning.trials.journal import Journal, check_directory

IDENTITY = {"objective": "val_loss", "seed": 3}


def fill_journal(directory):
    journal = Journal(directory, IDENTITY)
    for trial in ("0000", "0001"):
        journal.append("created", trial, values={"units": 5})
        journal.append("ended", trial, score=0.5, curves={"loss": [0.7, 0.5]})
    journal.append("idle")
    journal.append("created", "0002", values={"units": 7})
    journal.close()
    return journal.events


def reopen_journal(directory):
    journal = Journal(directory, IDENTITY)
    journal.close()
    return journal.events


def files(directory):
    return {p: p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_a_journal_reads_what_it_wrote(tmp_path):
    expected = fill_journal(tmp_path / "new" / "search")
    assert reopen_journal(tmp_path / "new" / "search") == expected


@pytest.mark.parametrize("damage", ["", '{"identity": {"obj', None])
def test_a_damaged_journal_is_restored_from_its_trials(tmp_path, damage):
    expected = fill_journal(tmp_path)
    if damage is None:
        (tmp_path / "journal.json").unlink()
    else:
        (tmp_path / "journal.json").write_text(damage)
    with pytest.warns(UserWarning, match="journal.json .* restored"):
        events = reopen_journal(tmp_path)
    kinds = [event["event"] for event in expected]
    assert [e["event"] for e in events] == ["lost" if k == "idle" else k for k in kinds]
    assert [e for e in events if e["trial"]] == [e for e in expected if e["trial"]]
    assert reopen_journal(tmp_path) == events  # restored, without a warning


def test_a_damaged_trial_is_restored_from_the_journal(tmp_path):
    expected = fill_journal(tmp_path)
    path = tmp_path / "trials" / "0001" / "trial.json"
    path.write_text(path.read_text()[:40])
    with pytest.warns(UserWarning, match="trials/0001/trial.json .* restored"):
        events = reopen_journal(tmp_path)
    assert [{**e, "curves": 0} for e in events] == [
        {**e, "curves": 0} for e in expected
    ]
    assert read_json(path) == [e for e in events if e["trial"] == "0001"]


def test_event_that_only_the_trial_has_saved_is_restored(tmp_path):
    expected = fill_journal(tmp_path)
    journal = read_json(tmp_path / "journal.json")
    journal["events"].pop()
    write_json(tmp_path / "journal.json", journal)
    assert reopen_journal(tmp_path) == expected


def test_trial_without_events_is_removed(tmp_path):
    expected = fill_journal(tmp_path)
    (tmp_path / "trials" / "0003").mkdir()
    assert reopen_journal(tmp_path) == expected
    assert not (tmp_path / "trials" / "0003").exists()


@pytest.mark.parametrize("intact", [True, False])
def test_rejects_another_search_and_does_not_change_it(tmp_path, intact):
    fill_journal(tmp_path)
    if not intact:
        (tmp_path / "journal.json").write_text("{")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="seed: there 3, here 5.*Nothing was changed"):
        Journal(tmp_path, {**IDENTITY, "seed": 5})
    assert files(tmp_path) == before


def test_rejects_a_directory_with_other_files_and_does_not_change_it(tmp_path):
    (tmp_path / "thesis.tex").write_text("long work")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="must be empty, .*which contains thesis.tex"):
        Journal(tmp_path, IDENTITY)
    assert files(tmp_path) == before
    with pytest.raises(ValueError, match="must be a directory.*which is a file"):
        Journal(tmp_path / "thesis.tex", IDENTITY)


def test_rejects_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="that you can write to.*/file/new' .Not a"):
        check_directory(tmp_path / "file" / "new")
    check_directory(tmp_path / "new" / "search")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_searches_cannot_share_a_directory_at_once(tmp_path):
    journal = Journal(tmp_path, IDENTITY)
    with pytest.raises(ValueError, match="another process is searching"):
        check_directory(tmp_path)
    journal.close()
    reopen_journal(tmp_path)


def test_failed_search_without_a_score_can_be_replaced(tmp_path):
    journal = Journal(tmp_path, IDENTITY)
    journal.append("created", "0000", values={"units": 5})
    journal.append("ended", "0000", score=None, curves={})
    journal.give_up("no such metric")
    journal.give_up("no such metric")
    journal.close()
    assert [e["event"] for e in reopen_journal(tmp_path)] == [
        "created",
        "ended",
        "gave up",
    ]
    other = Journal(tmp_path, {**IDENTITY, "seed": 5})
    other.close()
    assert other.events == [] and list(tmp_path.glob("trials/*")) == []
    assert read_json(tmp_path / "search.json")["seed"] == 5


@pytest.mark.parametrize("score, gave_up", [(0.5, True), (None, False)])
def test_search_with_a_score_or_in_progress_cannot_be_replaced(
    tmp_path, score, gave_up
):
    journal = Journal(tmp_path, IDENTITY)
    journal.append("created", "0000", values={"units": 5})
    journal.append("ended", "0000", score=score, curves={})
    if gave_up:
        journal.give_up("all others have failed")
    journal.close()
    with pytest.raises(ValueError, match="another search"):
        Journal(tmp_path, {**IDENTITY, "seed": 5})
    assert reopen_journal(tmp_path) == journal.events
