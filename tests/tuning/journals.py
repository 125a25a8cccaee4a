"""A search journal for tests."""

from kseq.tuning.trials.journal import Journal

VALUES = [
    {"deep": True, "units": 3, "rate": 0.1 + 0.2},
    {"deep": False, "rate": 0.02},
    {"deep": True, "units": 5, "rate": 0.9, "name": "<b>&"},
    {"deep": False, "rate": 0.05},
]
CURVES = [[0.9, 0.25, 0.5], [0.75], [], [0.7, 0.65]]


def write_journal(directory):
    """Write a completed, a stopped, a failed and an unfinished trial, in this order."""
    journal = Journal(directory, {"tuner": "RandomSearch"})
    for number, values in enumerate(VALUES):
        journal.append("created", str(number), values=values)
    journal.append("failed", "2", kind="failed", reason="it was too <wide>")
    for number in (1, 0, 2):
        curve = CURVES[number]
        failed = not curve
        journal.append(
            "ended",
            str(number),
            score=None if failed else min(curve),
            epoch=0 if failed else curve.index(min(curve)),
            stopped=number == 1,
            parameters=None if failed else 1234,
            curve=curve,
            curves={} if failed else {"val_loss": curve},
            space=None,
            reason="it was too <wide>" if failed else None,
            details=None,
            seconds=61.5,
        )
    journal.close()
    return journal
