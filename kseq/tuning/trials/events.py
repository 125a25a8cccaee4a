"""The events that a search is made of, and how they are put in words.

An event is a dictionary with its `number`, its kind as `event`, its `trial` or None,
and facts.
"""

import contextlib

CREATED = "created"  # the oracle gave a trial its values
IDLE = "idle"  # the oracle had nothing to give before a running trial ends
ENDED = "ended"  # a trial completed or failed for good, with its scores and reasons
FAILED = "failed"  # a trial failed, and will run again
LOST = "lost"  # a number of which neither copy was left
GAVE_UP = "gave up"  # the search could not go on, for the reason given


def of_kind(events, kind):
    return [event for event in events if event["event"] == kind]


def has_result(events):
    """Tell whether anything is lost with these events: a score, or a trial under way.

    A search that gave up before any trial had a score has none.
    """
    if any(event["score"] is not None for event in of_kind(events, ENDED)):
        return True
    return bool(events) and not of_kind(events[-1:], GAVE_UP)


def best_event(ended, objective):
    """The event of the best trial, the first among equals, or None."""
    best = None
    for event in ended:
        score = event["score"]
        if score is not None:
            if best is None or objective.better_than(score, best["score"]):
                best = event
    return best


def outcome(event, name):
    """How a trial ended, in a few words."""
    if event["score"] is None:
        return f"failed: {event['reason']}"
    text = f"{name} {event['score']:.5g}"
    if event["stopped"]:
        text += f", stopped after epoch {len(event['curve'])}"
    return f"{text} in {duration(event['seconds'])}"


def duration(seconds):
    with contextlib.suppress(OverflowError):
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes} min"
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return "for ever"
