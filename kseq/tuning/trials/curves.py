"""Curves: the metrics of a training by name, from the logs of its epochs and back."""


def columns(logs):
    """The metrics of all epochs by name, as in Keras' `History`."""
    names = dict.fromkeys(name for row in logs for name in row)
    return {name: [row[name] for row in logs if name in row] for name in names}


def aligned(logs):
    """As `columns`, with None in an epoch that has no such metric."""
    names = dict.fromkeys(name for row in logs for name in row)
    return {name: [row.get(name) for row in logs] for name in names}


def any_value(curve):
    return any(value is not None for value in curve)


def filled(curve):
    """A curve in which an epoch without a value has the last one, or the first."""
    values, last = [], next(value for value in curve if value is not None)
    for value in curve:
        last = last if value is None else value
        values.append(last)
    return values
