"""Rules for sequences of labels: which may follow which, begin and end.

Axes in shape comments: L labels.
"""

from keras import ops


def allowed_labels(size, labels, allowed, first, last):
    """What is allowed, as boolean arrays or None: transitions, first and last labels.

    Args:
        size: Number of labels L.
        labels: Their names, or None.
        allowed: Booleans `(L, L)`, or None for the rules of BIO.
        first: Booleans `(L,)`, or None for the same.
        last: Booleans `(L,)`, or None.

    Raises:
        ValueError: A shape is another, or there is no path of some length.
    """
    if labels is not None and any(is_inside(label, labels) for label in labels):
        allowed = followers(labels) if allowed is None else allowed
        outside = [not is_inside(label, labels) for label in labels]
        first = outside if first is None else first
    rules = (
        as_booleans("allowed", allowed, (size, size)),
        as_booleans("allowed_first", first, (size,)),
        as_booleans("allowed_last", last, (size,)),
    )
    check_paths(rules, size)
    return rules


def is_inside(label, labels):
    """Tell whether a label goes on with a span that another one begins."""
    return label.startswith("I-") and f"B-{label[2:]}" in labels


def followers(labels):
    """Booleans `(L, L)`: `I-kind` follows `B-kind` and `I-kind` alone."""
    before = {x: (x, f"B-{x[2:]}") if is_inside(x, labels) else labels for x in labels}
    return [[one in before[other] for other in labels] for one in labels]


def as_booleans(name, values, shape):
    """Returns values as a boolean array, if they are booleans or 0 and 1."""
    if values is None:
        return None
    try:
        array = ops.convert_to_numpy(ops.convert_to_tensor(values))
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != shape or not ((array == 0) | (array == 1)).all():
        received = values if array is None else f"shape {array.shape}"
        raise ValueError(
            f"`{name}` must be booleans of shape {shape}. Received: {name} of "
            f"{received}."
        )
    return array.astype("bool")


def check_paths(rules, size):
    """Raises if there is no path of some length."""
    everything = ops.convert_to_numpy(ops.ones((size,), "bool"))
    allowed, first, last = rules
    reached = everything if first is None else first
    last = everything if last is None else last
    seen = set()
    while reached.tobytes() not in seen:
        if not (reached & last).any():
            raise ValueError(
                "There must be an allowed path of every length. Received: none of "
                f"{len(seen) + 1} labels. Allow more, by `allowed`, `allowed_first` or "
                "`allowed_last`."
            )
        seen.add(reached.tobytes())
        if allowed is None:
            reached = everything if reached.any() else reached
        else:
            reached = (reached[:, None] & allowed).any(axis=0)
