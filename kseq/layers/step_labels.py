"""Check of models with a label for each step: Keras would misuse `class_weight`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kseq.typing import wraps


class StepLabels:
    """Mixin for models, and pipelines around one, that may have a label for each step.

    With such labels, `fit` and `train_on_batch` reject `class_weight`. Keras would
    convert it to one weight per example: that of the greatest label of its steps.
    """

    @wraps(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        check_class_weight(self, keras.Model.fit, args, kwargs)
        return super().fit(*args, **kwargs)  # type: ignore[misc]

    @wraps(keras.Model.train_on_batch)
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        check_class_weight(self, keras.Model.train_on_batch, args, kwargs)
        return super().train_on_batch(*args, **kwargs)  # type: ignore[misc]


def check_class_weight(
    whole: Any,
    method: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Raise if `class_weight` is passed for a model with a label for each step.

    Args:
        whole: The model, or a pipeline around it.
        method: The method of Keras that is called.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
    """
    given = inspect.signature(method).bind_partial(whole, *args, **kwargs).arguments
    class_weight = given.get("class_weight")
    model = getattr(whole, "model", whole)  # the model inside a pipeline
    has_one_label = len(getattr(model, "output_shape", ())) == 2
    if class_weight is not None and not has_one_label:
        raise ValueError(
            "`class_weight` must be None if steps have labels: Keras would weight "
            f"whole examples. Received: class_weight={class_weight!r} with "
            f"{whole.name}. Pass it to `kseq.training.batches`, or to "
            "`teacher_forcing` for a model that generates, which weight each label."
        )
