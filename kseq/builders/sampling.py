"""Scheduled sampling in the builders: its shorthand and its checks."""

import numbers

from kseq.layers import FeatureEmbedding, PointerGenerator, ScheduledSampling
from kseq.typing import LayerLike


def as_scheduled_sampling(
    value: ScheduledSampling | float | None, target: LayerLike
) -> ScheduledSampling | None:
    """Return the layer; a number is shorthand for a constant rate."""
    if value is None or isinstance(value, numbers.Real) and value == 0:
        return None
    if isinstance(target, FeatureEmbedding):
        raise ValueError(
            "`scheduled_sampling` is for a target of tokens. Received: "
            f"scheduled_sampling={value} with a `FeatureEmbedding`. Leave it out."
        )
    if isinstance(value, ScheduledSampling):
        return value
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and 0 < value <= 1:
        return ScheduledSampling(
            "constant", max_rate=value, dtype="float32", name="scheduled_sampling"
        )
    raise ValueError(
        "`scheduled_sampling` must be a `kseq.layers.ScheduledSampling`, a rate in "
        f"[0, 1] or None. Received: scheduled_sampling={value!r}. For a schedule pass "
        '`kseq.layers.ScheduledSampling("linear", steps=5000)`.'
    )


def check_sampling(
    sampling: ScheduledSampling | None, copy: PointerGenerator | None
) -> None:
    """Raise if the passes of scheduled sampling would add to the model's loss."""
    if sampling is not None and copy is not None and copy.coverage:
        raise ValueError(
            "A coverage loss would be added in each pass of scheduled sampling. "
            f"Received: `scheduled_sampling` with copy={copy}, which has coverage="
            f"{copy.coverage}. Leave one of them out."
        )
