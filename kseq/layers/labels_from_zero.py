"""Check of models whose labels count from 0: a loss for padded tokens ignores id 0."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from kseq.layers.own_compile import OwnCompile
from kseq.typing import wraps

WAYS_OUT = (
    "Compile it with `pad_token_id=-1` to count every label, or as the loss "
    "`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. If label 0 really "
    "is padding, pass `pad_token_id=0`."
)


class LabelsFromZero(OwnCompile):
    """Mixin for models, and pipelines around one, whose labels count from 0.

    `compile` warns of losses and metrics of `kseq.training` that ignore id 0 by
    default, as they are meant for padded tokens. A model would never learn its label 0.
    """

    labels_count_from_zero = True  # False for a subclass that generates tokens

    @wraps(keras.Model.compile)
    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        if self.labels_count_from_zero:
            signature = inspect.signature(keras.Model.compile)
            given = signature.bind_partial(self, *args, **kwargs).arguments
            names = ("loss", "metrics", "weighted_metrics")
            check_measures(self, [given.get(name) for name in names], "label 0", 3)


def check_label_zero(model: keras.Model, name: str) -> None:
    """Warn if a compiled model does not count its label 0, which has this name.

    Keras tells the metrics only after the first batch.
    """
    if getattr(model, "compiled", False):
        parts = [getattr(metric, "metrics", ()) for metric in model.metrics]
        measures = [getattr(model, "loss", None), *parts]
        check_measures(model, measures, f"label 0, {name!r}", stacklevel=4)


def check_measures(
    model: keras.Model, measures: Sequence[Any], label: str, stacklevel: int
) -> None:
    """Warn of losses and metrics of a model that ignore id 0 because of a default."""
    flat = keras.tree.flatten(list(measures))
    found = [each for each in flat if getattr(each, "ignores_zero_by_default", False)]
    names = dict.fromkeys(f"{type(each).__name__}()" for each in found)
    if names:
        warnings.warn(
            "Losses and metrics of a model whose labels count from 0 must count label "
            f"0. Received: {', '.join(names)} for {model.name}, which by default "
            f"ignores {label}, as padding. {WAYS_OUT}",
            stacklevel=stacklevel,
        )
