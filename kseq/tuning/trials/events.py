"""Events of a search, and their descriptions.

An event is a dictionary with its `number`, its kind as `event`, its `trial` or None,
and further facts.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]

CREATED = "created"  # the oracle proposed a trial with values
IDLE = "idle"  # the oracle proposes nothing until a running trial ends
ENDED = "ended"  # a trial completed or finally failed, with its scores and reasons
FAILED = "failed"  # a trial failed, and will run again
LOST = "lost"  # an event of which neither copy was left
GAVE_UP = "gave up"  # the search could not continue, for the given reason


def of_kind(events: Iterable[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def has_result(events: Sequence[Event]) -> bool:
    """Return whether these events are worth keeping: a score, or an unfinished search.

    A search that gave up before any trial had a score is not.
    """
    if any(event["score"] is not None for event in of_kind(events, ENDED)):
        return True
    return bool(events) and not of_kind(events[-1:], GAVE_UP)


def best_event(ended: Iterable[Event], objective: Any) -> Event | None:
    """Return the event of the best trial, the first among equals, or None."""
    best = None
    for event in ended:
        score = event["score"]
        if score is not None:
            if best is None or objective.better_than(score, best["score"]):
                best = event
    return best


def outcome(event: Event, name: str) -> str:
    """Describe in a few words how a trial ended."""
    if event["score"] is None:
        return f"failed: {event['reason']}"
    text = f"{name} {event['score']:.5g}"
    if event["stopped"]:
        text += f", stopped after epoch {len(event['curve'])}"
    return f"{text} in {duration(event['seconds'])}"


def trials(number: int) -> str:
    """Return `1 trial`, `2 trials`, ..."""
    return f"{number} trial{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    with contextlib.suppress(OverflowError):
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes} min"
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return "forever"
