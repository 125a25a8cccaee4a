import pytest

from kseq.tuning.trials.files import read_json, write_json
from kseq.tuning.trials.journal import Journal

MINE = {"objective": "val_loss", "seed": 3}


def filled(directory):
    journal = Journal(directory, MINE)
    for trial in ("0000", "0001"):
        journal.append("created", trial, values={"units": 5})
        journal.append("ended", trial, score=0.5, curves={"loss": [0.7, 0.5]})
    journal.append("idle")
    journal.append("created", "0002", values={"units": 7})
    journal.close()
    return journal.events


def reopened(directory):
    journal = Journal(directory, MINE)
    journal.close()
    return journal.events


def files(directory):
    return {p: p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_a_journal_reads_what_it_wrote(tmp_path):
    written = filled(tmp_path / "new" / "search")
    assert reopened(tmp_path / "new" / "search") == written


@pytest.mark.parametrize("damage", ["", '{"identity": {"obj', None])
def test_a_damaged_journal_is_restored_from_its_trials(tmp_path, damage):
    written = filled(tmp_path)
    if damage is None:
        (tmp_path / "journal.json").unlink()
    else:
        (tmp_path / "journal.json").write_text(damage)
    with pytest.warns(UserWarning, match="journal.json .* restored"):
        events = reopened(tmp_path)
    kinds = [event["event"] for event in written]
    assert [e["event"] for e in events] == ["lost" if k == "idle" else k for k in kinds]
    assert [e for e in events if e["trial"]] == [e for e in written if e["trial"]]
    assert reopened(tmp_path) == events  # and is whole again, without a warning


def test_a_damaged_trial_is_restored_from_the_journal(tmp_path):
    written = filled(tmp_path)
    path = tmp_path / "trials" / "0001" / "trial.json"
    path.write_text(path.read_text()[:40])
    with pytest.warns(UserWarning, match="trials/0001/trial.json .* restored"):
        events = reopened(tmp_path)
    assert [{**e, "curves": 0} for e in events] == [{**e, "curves": 0} for e in written]
    assert read_json(path) == [e for e in events if e["trial"] == "0001"]


def test_an_event_that_only_the_trial_had_time_to_write_counts(tmp_path):
    written = filled(tmp_path)
    journal = read_json(tmp_path / "journal.json")
    journal["events"].pop()
    write_json(tmp_path / "journal.json", journal)
    assert reopened(tmp_path) == written


def test_a_trial_of_which_no_event_was_written_never_was(tmp_path):
    written = filled(tmp_path)
    (tmp_path / "trials" / "0003").mkdir()
    assert reopened(tmp_path) == written
    assert not (tmp_path / "trials" / "0003").exists()


@pytest.mark.parametrize("whole", [True, False])
def test_another_search_is_refused_and_left_as_it_was(tmp_path, whole):
    filled(tmp_path)
    if not whole:
        (tmp_path / "journal.json").write_text("{")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="seed: there 3, here 5.*Nothing was changed"):
        Journal(tmp_path, {**MINE, "seed": 5})
    assert files(tmp_path) == before


def test_a_directory_with_other_things_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "thesis.tex").write_text("long work")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="must be empty, .*which contains thesis.tex"):
        Journal(tmp_path, MINE)
    assert files(tmp_path) == before
    with pytest.raises(ValueError, match="must be a directory.*which is a file"):
        Journal(tmp_path / "thesis.tex", MINE)


def test_two_searches_cannot_share_a_directory_at_once(tmp_path):
    journal = Journal(tmp_path, MINE)
    with pytest.raises(ValueError, match="another process is searching"):
        Journal(tmp_path, MINE)
    journal.close()
    reopened(tmp_path)


def test_a_search_that_gave_up_without_a_score_gives_way_to_another(tmp_path):
    journal = Journal(tmp_path, MINE)
    journal.append("created", "0000", values={"units": 5})
    journal.append("ended", "0000", score=None, curves={})
    journal.give_up("no such metric")
    journal.give_up("no such metric")
    journal.close()
    assert [e["event"] for e in reopened(tmp_path)] == ["created", "ended", "gave up"]
    other = Journal(tmp_path, {**MINE, "seed": 5})
    other.close()
    assert other.events == [] and list(tmp_path.glob("trials/*")) == []
    assert read_json(tmp_path / "search.json")["seed"] == 5


@pytest.mark.parametrize("score, gave_up", [(0.5, True), (None, False)])
def test_a_search_with_a_score_or_under_way_does_not(tmp_path, score, gave_up):
    journal = Journal(tmp_path, MINE)
    journal.append("created", "0000", values={"units": 5})
    journal.append("ended", "0000", score=score, curves={})
    if gave_up:
        journal.give_up("all others have failed")
    journal.close()
    with pytest.raises(ValueError, match="another search"):
        Journal(tmp_path, {**MINE, "seed": 5})
    assert reopened(tmp_path) == journal.events
