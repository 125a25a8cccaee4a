"""Label rules: allowed transitions, first labels and last labels of a sequence.

Axes in shape comments: L labels.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from keras import ops

from kseq.typing import TensorLike

# NumPy arrays of booleans, or None where everything is allowed.
Rules: TypeAlias = tuple[Any, Any, Any]


def allowed_labels(
    size: int,
    labels: Sequence[str] | None,
    allowed: TensorLike | None,
    first: TensorLike | None,
    last: TensorLike | None,
) -> Rules:
    """Return the allowed transitions, first labels and last labels.

    Args:
        size: Number of labels L.
        labels: Names of the labels, or None.
        allowed: Booleans `(L, L)`, or None for the rules of BIO if `labels` has BIO
            labels.
        first: Booleans `(L,)`, or None for the same.
        last: Booleans `(L,)`, or None.

    Returns:
        Boolean arrays `(L, L)`, `(L,)` and `(L,)`, each None if all is allowed.

    Raises:
        ValueError: A shape is wrong, or some length has no allowed path.
    """
    if labels is not None and any(is_inside(label, labels) for label in labels):
        allowed = bio_transitions(labels) if allowed is None else allowed
        outside = [not is_inside(label, labels) for label in labels]
        first = outside if first is None else first
    rules = (
        as_booleans("allowed", allowed, (size, size)),
        as_booleans("allowed_first", first, (size,)),
        as_booleans("allowed_last", last, (size,)),
    )
    check_paths(rules, size)
    return rules


def is_inside(label: str, labels: Sequence[str]) -> bool:
    """Tell whether a label continues a span that another label of the set begins."""
    return label.startswith("I-") and f"B-{label[2:]}" in labels


def bio_transitions(labels: Sequence[str]) -> list[list[bool]]:
    """Return booleans `(L, L)`: `I-kind` may only follow `B-kind` and `I-kind`."""
    before = {x: (x, f"B-{x[2:]}") if is_inside(x, labels) else labels for x in labels}
    return [[one in before[other] for other in labels] for one in labels]


def as_booleans(name: str, values: TensorLike | None, shape: tuple[int, ...]) -> Any:
    """Return booleans, or 0 and 1, as a boolean NumPy array; None stays None."""
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


def check_paths(rules: Rules, size: int) -> None:
    """Raise if some length has no allowed path."""
    everything = ops.convert_to_numpy(ops.ones((size,), "bool"))
    allowed, first, last = rules
    reached = everything if first is None else first
    last = everything if last is None else last
    seen: set[bytes] = set()
    while reached.tobytes() not in seen:
        if not (reached & last).any():
            raise ValueError(
                "There must be an allowed path of every length. Received: no path of "
                f"{len(seen) + 1} labels. Allow more in `allowed`, `allowed_first` or "
                "`allowed_last`."
            )
        seen.add(reached.tobytes())
        if allowed is None:
            reached = everything if reached.any() else reached
        else:
            reached = (reached[:, None] & allowed).any(axis=0)
