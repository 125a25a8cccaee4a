"""The journal of a search: all that happened, kept so that no kill can lose it.

A search is a list of events, numbered in their order:

- `created`: the oracle gave a trial its values;
- `idle`: the oracle had nothing to give before a running trial ends;
- `ended`: a trial completed or failed for good, with its scores and reasons;
- `failed`: a trial failed, and will run again;
- `lost`: a number of which neither copy was left.

An oracle that lives through the same events again has the same state, so the events are
the state. They stand twice on the disk, in `journal.json` and in the file `trial.json`
of each trial; either mends the other.
"""

import contextlib
import os
import shutil
import warnings
from pathlib import Path

from kseq.tuning.trials.files import read_json, write_json

FILES = ("search.json", "journal.json")


class Journal:
    """The events of one search, in a directory that belongs to it alone.

    Args:
        directory: Where the search keeps its files; made if it does not exist.
        identity: What makes the search this one, as a dictionary that JSON can hold.
        overwrite: Whether to delete the search that is there.

    Raises:
        ValueError: The directory holds something else, or another search, or is in use.
    """

    def __init__(self, directory, identity, overwrite=False):
        self.directory = Path(directory)
        self.identity = identity
        self._refuse_what_is_no_search()
        (self.directory / "trials").mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.directory)
        if overwrite:
            self._delete()
        try:
            self._refuse_another_search()
        except ValueError:
            self.close()
            raise
        self.events = self._read_events()
        self._write()

    def close(self):
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def trial_directory(self, trial_id):
        path = self.directory / "trials" / trial_id
        path.mkdir(exist_ok=True)
        return path

    def append(self, event, trial_id=None, **facts):
        """Records an event; it is on the disk when this returns."""
        number = len(self.events)
        event = {"number": number, "event": event, "trial": trial_id, **facts}
        self.events.append(event)
        if trial_id is not None:
            self._write_trial(trial_id)
        self._write()

    def of_trial(self, trial_id):
        return [event for event in self.events if event["trial"] == trial_id]

    def _write_trial(self, trial_id):
        path = self.trial_directory(trial_id) / "trial.json"
        write_json(path, self.of_trial(trial_id))

    def _write(self):
        # The curves of all metrics stand with each trial alone: this file stays small.
        bare = {"curves": None}
        events = [e | bare if "curves" in e else e for e in self.events]
        content = {"identity": self.identity, "events": events}
        write_json(self.directory / "journal.json", content)
        write_json(self.directory / "search.json", self.identity)

    def _delete(self):
        for folder in ("trials", "tensorboard"):
            shutil.rmtree(self.directory / folder, ignore_errors=True)
        for name in FILES:
            (self.directory / name).unlink(missing_ok=True)
        (self.directory / "trials").mkdir(exist_ok=True)

    def _refuse_what_is_no_search(self):
        path = self.directory
        if path.exists() and not path.is_dir():
            raise ValueError(
                f"`directory` must be a directory. Received: {path}, which is a file."
            )
        known = (*FILES, "trials")
        if not path.exists() or any((path / name).exists() for name in known):
            return
        others = [name for name in os.listdir(path) if name != "lock"]
        if others:
            raise ValueError(
                f"`directory` must be empty, new, or hold this search. Received: "
                f"{path}, which holds {others[0]}. Nothing was changed; name another."
            )

    def _refuse_another_search(self):
        journal = read_json(self.directory / "journal.json") or {}
        mine = self.identity
        found = journal.get("identity") or read_json(self.directory / "search.json")
        if found is None or found == mine:
            return
        unlike = [k for k in sorted({*found, *mine}) if found.get(k) != mine.get(k)]
        what = "; ".join(
            f"{key}: there {brief(found.get(key))}, here {brief(mine.get(key))}"
            for key in unlike
        )
        raise ValueError(
            f"`directory` must be empty, new, or hold this search. Received: "
            f"{self.directory}, which holds another search ({what}). Nothing was "
            "changed; name another directory, make the same call again, or pass "
            "`overwrite=True` to delete what is there."
        )

    def _read_events(self):
        """The events of both copies, each mended by the other."""
        events, damaged = collect_events(self.directory)
        trials = sorted((self.directory / "trials").iterdir())
        if trials and damaged:
            warnings.warn(
                f"{', '.join(damaged)} in {self.directory} was damaged or lost, and is "
                "recovered from the other files of the search.",
                stacklevel=2,
            )
        known = {event["trial"] for event in events}
        for path in trials:
            if path.name not in known:  # an event that never was: begin it afresh
                shutil.rmtree(path)
        for trial_id in known - {None}:
            self.trial_directory(trial_id)
            if read_json(self.directory / "trials" / trial_id / "trial.json") is None:
                write_json(
                    self.trial_directory(trial_id) / "trial.json",
                    [event for event in events if event["trial"] == trial_id],
                )
        return events


class Record:
    """A search as it is on the disk, which is left as it is.

    Raises:
        ValueError: The directory holds no search.
    """

    def __init__(self, directory):
        is_path = isinstance(directory, str | os.PathLike)
        self.directory = Path(directory if is_path else "")
        is_there = is_path and self.directory.is_dir()
        journal = (read_json(self.directory / "journal.json") if is_there else 0) or {}
        saved = read_json(self.directory / "search.json") if is_there else None
        self.identity = journal.get("identity") or saved
        if not isinstance((self.identity or {}).get("objective"), list):
            raise ValueError(
                "`directory` must be that of a search of this version of kseq. "
                f"Received: directory={str(directory)!r}, without such a search.json. "
                "Name the one that `kseq.tuning.search` was given."
            )
        self.events, _ = collect_events(self.directory)


def collect_events(directory):
    """The events of both copies, up to the last number, and the damaged files."""
    whole = read_json(directory / "journal.json")
    found = {e["number"]: e for e in (whole or {}).get("events", [])}
    damaged = ["journal.json"] if whole is None else []
    for path in sorted((directory / "trials").glob("*")):
        events = read_json(path / "trial.json")
        if events is None and (path / "trial.json").exists():
            damaged.append(f"trials/{path.name}/trial.json")
        found.update({event["number"]: event for event in events or []})
    return in_order(found), damaged


def in_order(found):
    """The events by number. An idle turn may be lost with the journal; no trial is."""
    events = []
    for number in sorted(found):
        while len(events) < number:
            events.append({"number": len(events), "event": "lost", "trial": None})
        events.append(found[number])
    return events


def brief(value, length=60):
    text = str(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def lock(directory):
    """Holds the directory for this process, until the file closes or it ends."""
    with contextlib.suppress(ImportError):
        import fcntl

        file = open(directory / "lock", "a")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(
                f"`directory` must not be in use. Received: {directory}, in which "
                "another process is searching. Wait for it, or name another."
            ) from None
        return file
    return None
