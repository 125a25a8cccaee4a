"""The journal of a search: all events, stored so that a kill loses none.

A search is a list of numbered events; see `events.py` for their kinds. An oracle that
replays the same events has the same state, so the events are the state. They are stored
twice: all of them in the journal, and those of a trial in its directory. Each copy
repairs the other.
"""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from kseq.tuning.trials.events import FAILED, GAVE_UP, LOST, Event, has_result, of_kind
from kseq.tuning.trials.files import read_json, write_json
from kseq.tuning.trials.identity import differences
from kseq.tuning.trials.layout import SearchDirectory, TrialDirectory
from kseq.typing import PathLike


class Journal:
    """The events of one search, in a directory of its own.

    Args:
        directory: Directory of the search; created if it does not exist.
        identity: The identity of the search, as a dictionary for JSON.
        overwrite: Whether to delete an existing search.

    Raises:
        ValueError: The directory contains something else or another search, or is in
            use.
    """

    def __init__(
        self, directory: PathLike, identity: dict[str, Any], overwrite: bool = False
    ) -> None:
        self.directory = Path(directory)
        self.files = SearchDirectory(directory)
        self.identity = identity
        check_directory(directory)
        self.files.trials.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.files)
        if overwrite:
            self._delete()
        try:
            self._refuse_another_search()
        except ValueError:
            self.close()
            raise
        self.events = self._read_events()
        self._write()

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def trial_directory(self, trial_id: str) -> TrialDirectory:
        """Return the paths of a trial, after creating its folder if needed."""
        files = self.files.trial(trial_id)
        files.path.mkdir(exist_ok=True)
        return files

    def append(self, event: str, trial_id: str | None = None, **facts: Any) -> None:
        """Record an event, which is on disk when this returns."""
        number = len(self.events)
        entry = {"number": number, "event": event, "trial": trial_id, **facts}
        self.events.append(entry)
        if trial_id is not None:
            self._write_trial(trial_id)
        self._write()

    def give_up(self, reason: str) -> None:
        """Record that the search cannot continue."""
        if not of_kind(self.events[-1:], GAVE_UP):
            self.append(GAVE_UP, reason=reason)

    def failures_of(self, trial_id: str) -> list[str]:
        """Return the kinds of failure of a trial's attempts that were rerun."""
        return [event["kind"] for event in of_kind(self._of_trial(trial_id), FAILED)]

    def _of_trial(self, trial_id: str) -> list[Event]:
        return [event for event in self.events if event["trial"] == trial_id]

    def _write_trial(self, trial_id: str) -> None:
        path = self.trial_directory(trial_id).events
        write_json(path, self._of_trial(trial_id))

    def _write(self) -> None:
        # The curves of all metrics are only in the file of each trial, so that this
        # file stays small.
        bare = {"curves": None}
        events = [e | bare if "curves" in e else e for e in self.events]
        content = {"identity": self.identity, "events": events}
        write_json(self.files.journal, content)
        write_json(self.files.identity, self.identity)

    def _delete(self) -> None:
        files = self.files
        for folder in (files.trials, files.tensorboard, files.attempts):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.files.identity, self.files.journal):
            path.unlink(missing_ok=True)
        self.files.trials.mkdir(exist_ok=True)

    def _refuse_another_search(self) -> None:
        found, mine = read_identity(self.files), self.identity
        if found is None or found == mine:
            return
        events, _ = collect_events(self.files)
        if not has_result(events):
            self._delete()
            return
        what = "; ".join(differences(found, mine))
        raise ValueError(
            f"`directory` must be empty, new, or from this search. Received: "
            f"{self.directory}, which contains another search ({what}). Nothing was "
            "changed; use another directory, make the same call again, or pass "
            "`overwrite=True` to delete the search."
        )

    def _read_events(self) -> list[Event]:
        """Return the events, after repairing each copy from the other."""
        events, damaged = collect_events(self.files)
        trials = sorted(self.files.trials.iterdir())
        if trials and damaged:
            warnings.warn(
                f"{', '.join(damaged)} in {self.directory} was damaged or lost, and is "
                "restored from the other files of the search.",
                stacklevel=2,
            )
        known = {event["trial"] for event in events}
        for path in trials:
            if path.name not in known:  # its first event was never recorded
                shutil.rmtree(path)
        for trial_id in known - {None}:
            path = self.trial_directory(trial_id).events
            if read_json(path) is None:
                write_json(path, [e for e in events if e["trial"] == trial_id])
        return events


def check_directory(directory: PathLike) -> None:
    """Raise a `ValueError` unless a search can write to a directory.

    It is new, empty or contains a search, and no other process is searching there.
    """
    path, files = Path(directory), SearchDirectory(directory)
    if os.path.isfile(path):
        raise ValueError(
            f"`directory` must be a directory. Received: {path}, which is a file."
        )
    places = (path, *path.absolute().parents)
    existing = next(place for place in places if os.path.exists(place))
    try:
        tempfile.TemporaryDirectory(prefix=".kseq-", dir=existing).cleanup()
    except OSError as error:
        raise ValueError(
            "`directory` must be a folder that you can write to. Received: directory="
            f"{str(path)!r} ({error.strerror}). Use a path such as 'search'."
        ) from error
    if files.lock.exists() and (locked := lock(files)):
        locked.close()
    if path.exists() and not files.holds_search():
        others = [name for name in os.listdir(path) if name != files.lock.name]
        if others:
            raise ValueError(
                f"`directory` must be empty, new, or from this search. Received: "
                f"{path}, which contains {others[0]}. Nothing was changed; use another."
            )


class Record:
    """A search on disk, opened for reading only.

    Raises:
        ValueError: The directory contains no search.
    """

    def __init__(self, directory: PathLike) -> None:
        is_path = isinstance(directory, str | os.PathLike)
        self.directory = Path(directory if is_path else "")
        files = SearchDirectory(self.directory)
        is_there = is_path and self.directory.is_dir()
        self.identity: Any = read_identity(files) if is_there else None
        if not isinstance((self.identity or {}).get("objective"), list):
            raise ValueError(
                "`directory` must contain a search of this version of kseq. "
                f"Received: directory={str(directory)!r}, without a valid "
                f"{files.identity.name}. "
                "Use the directory that was passed to `kseq.tuning.search`."
            )
        self.events, _ = collect_events(files)


def read_identity(files: SearchDirectory) -> dict[str, Any] | None:
    """Return the identity of the search in a `SearchDirectory`, or None."""
    journal = read_json(files.journal) or {}
    return journal.get("identity") or read_json(files.identity)


def collect_events(files: SearchDirectory) -> tuple[list[Event], list[str]]:
    """Return the events of both copies, in order, and the names of damaged files."""
    whole = read_json(files.journal)
    found = {e["number"]: e for e in (whole or {}).get("events", [])}
    damaged = [files.journal.name] if whole is None else []
    for folder in sorted(files.trials.glob("*")):
        path = files.trial(folder.name).events
        events = read_json(path)
        if events is None and path.exists():
            damaged.append(path.relative_to(files.path).as_posix())
        found.update({event["number"]: event for event in events or []})
    return in_order(found), damaged


def in_order(found: Mapping[int, Event]) -> list[Event]:
    """Return the events by number.

    Idle events may be lost with the journal, which leaves gaps; trials are not.
    """
    events: list[Event] = []
    for number in sorted(found):
        while len(events) < number:
            events.append({"number": len(events), "event": LOST, "trial": None})
        events.append(found[number])
    return events


def lock(files: SearchDirectory) -> IO[str] | None:
    """Lock the directory for this process, until the file is closed or it ends."""
    with contextlib.suppress(ImportError):
        import fcntl

        file = open(files.lock, "a")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(
                f"`directory` must not be in use. Received: {files.path}, in which "
                "another process is searching. Wait for it, or use another."
            ) from None
        return file
    return None
