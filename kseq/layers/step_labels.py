"""Models with a label for each step: what Keras would weigh wrongly is refused."""

import functools
import inspect

import keras


class StepLabels:
    """A base of models, and of pipelines around one, that may have labels of steps.

    Their `fit` takes no `class_weight` then, which Keras turns into one weight for each
    row: for the class of the step with the greatest label.
    """

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        check_class_weight(self, keras.Model.fit, args, kwargs)
        return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, *args, **kwargs):
        check_class_weight(self, keras.Model.train_on_batch, args, kwargs)
        return super().train_on_batch(*args, **kwargs)


def check_class_weight(whole, method, args, kwargs):
    """Raises if a method of Keras would weigh a model's labels of steps by class."""
    given = inspect.signature(method).bind_partial(whole, *args, **kwargs).arguments
    class_weight = given.get("class_weight")
    model = getattr(whole, "model", whole)  # of a pipeline the one within
    has_one_label = len(getattr(model, "output_shape", ())) == 2
    if class_weight is not None and not has_one_label:
        raise ValueError(
            "`class_weight` must be None where steps have labels, as Keras would weigh "
            f"whole rows. Received: class_weight={class_weight!r} with "
            f"{whole.name}. Give it to `kseq.training.batches`, or `teacher_forcing` "
            "for a model that writes, which weigh each label."
        )
