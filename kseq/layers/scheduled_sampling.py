"""Scheduled sampling: a decoder that sometimes reads its own predictions in training.

Axes in shape comments: B batch, T target steps, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from kseq.layers.layer import Layer
from kseq.layers.validation import count, one_of, positive_integer, positive_number
from kseq.typing import Config, Shape, Tensor

SCHEDULES = ("constant", "linear", "exponential", "inverse_sigmoid")


@keras.saving.register_keras_serializable(package="kseq")
class ScheduledSampling(Layer):
    """Scheduled sampling of the tokens that a decoder reads in training.

    Teacher forcing shows a decoder only correct tokens, but in generation it reads its
    own. With scheduled sampling, each target token but the first is replaced by the
    model's prediction for that position with a probability p, which grows with the
    number i of training steps:

    - `"constant"`: `p = max_rate`.
    - `"linear"`: `p = i / steps`.
    - `"exponential"`: `p = 1 - exp(-i / steps)`.
    - `"inverse_sigmoid"`: `p = 1 - steps / (steps + exp(i / steps))`, which is 1/2 at
      `i = steps * log(steps)`.

    p is never above `max_rate`. The predictions come from a pass over the whole target,
    so training stays parallel (Mihaylova and Martins, 2019), and no gradient flows
    through them. Each further pass reads the mixture that the previous one produced:
    with as many passes as target steps the result is that of predicting token by token.

    Pass the layer to a builder, `kseq.encoder_decoder(..., scheduled_sampling=layer)`.
    Generation, scores and validation are not affected. Each pass costs a forward pass.

    Args:
        schedule: `"constant"`, `"linear"`, `"exponential"` or `"inverse_sigmoid"`.
        steps: Time scale of the schedule, in training steps (batches). Larger is
            slower.
        max_rate: Highest fraction of predicted tokens, in (0, 1].
        passes: Number of passes that predict.
        choice: `"sample"` draws a prediction from the model's probabilities, `"argmax"`
            takes the most probable token.
        seed: Integer seed, or None.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        token_ids: Integers `(B, T)`.

    Returns:
        The token ids, unchanged: the model calls `mix` in training.

    Raises:
        ValueError: An option is unknown, or a number is out of its range.

    Example:

    >>> import kseq
    >>> from kseq.layers import ScheduledSampling
    >>> model = kseq.encoder_decoder(
    ...     11, 13, width=8, scheduled_sampling=ScheduledSampling("linear", steps=5_000)
    ... )
    >>> model.compile("adam", loss=kseq.training.SequenceCrossentropy())
    >>> data = kseq.training.teacher_forcing([[5, 6], [7, 8]], [[2, 4, 3], [2, 6, 3]])
    >>> history = model.fit(data, verbose=0)
    >>> int(model.scheduled_sampling.step)
    1

    References:
        - [Bengio et al., 2015](https://arxiv.org/abs/1506.03099), 2.4
        - [Mihaylova and Martins, 2019](https://arxiv.org/abs/1906.07651), 3
        - [Duckworth et al., 2019](https://arxiv.org/abs/1906.04331), 3 (several passes)
    """

    def __init__(
        self,
        schedule: Literal[
            "constant", "linear", "exponential", "inverse_sigmoid"
        ] = "inverse_sigmoid",
        steps: int = 1000,
        max_rate: float = 1.0,
        passes: int = 1,
        choice: Literal["sample", "argmax"] = "sample",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.schedule = one_of("schedule", schedule, SCHEDULES)
        self.steps = positive_integer("steps", steps)
        self.max_rate = positive_number("max_rate", max_rate)
        if self.max_rate > 1:
            raise ValueError(
                f"`max_rate` must be in (0, 1]. Received: max_rate={max_rate}."
            )
        self.passes = positive_integer("passes", passes)
        self.choice = one_of("choice", choice, ("sample", "argmax"))
        self.seed = None if seed is None else count("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, token_ids_shape: Shape) -> None:
        self.step = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )

    def compute_output_shape(self, token_ids_shape: Shape) -> Shape:
        return token_ids_shape

    def call(self, token_ids: Tensor) -> Tensor:
        return token_ids

    def rate(self) -> Tensor:
        """Return the probability that a token is replaced at this step of training."""
        done = ops.cast(self.step, "float32") / self.steps
        if self.schedule == "constant":
            return ops.convert_to_tensor(self.max_rate, "float32")
        if self.schedule == "linear":
            replaced = done
        elif self.schedule == "exponential":
            replaced = 1 - ops.exp(-done)
        else:  # exp would overflow
            replaced = ops.sigmoid(done - math.log(self.steps))
        return ops.minimum(replaced, self.max_rate)

    def mix(
        self, token_ids: Tensor, predict: Callable[[Tensor], Tensor], pad_token_id: int
    ) -> Tensor:
        """Return the target with some tokens replaced, and count a training step.

        Args:
            token_ids: Integers `(B, T)` that the decoder reads; the first one and
                padding stay.
            predict: Function of such ids that returns logits `(B, T, V)`, at each step
                those of the next token.
            pad_token_id: The id of padding, which is never predicted.

        Returns:
            Integers `(B, T)`.
        """
        rows, length = ops.shape(token_ids)[0], ops.shape(token_ids)[1]
        is_replaced = self._uniform((rows, length)) < self.rate()  # B T
        is_replaced &= ops.not_equal(token_ids, pad_token_id)
        mixed, noise = token_ids, 0.0
        for number in range(self.passes):
            logits = ops.cast(ops.stop_gradient(predict(mixed)), "float32")  # B T V
            if number == 0 and self.choice == "sample":
                noise = self._gumbel((rows, length, logits.shape[-1]))
            token = ops.arange(logits.shape[-1], dtype="int32")  # V
            logits = ops.where(token == pad_token_id, -math.inf, logits + noise)
            predicted = ops.cast(ops.argmax(logits, axis=-1), token_ids.dtype)  # B T
            read = ops.concatenate([token_ids[:, :1], predicted[:, :-1]], axis=1)
            mixed = ops.where(is_replaced, read, token_ids)
        self.step.assign_add(1)
        return mixed

    def _gumbel(self, shape: Shape) -> Tensor:
        """Return noise: the argmax of logits with it is a draw from their softmax."""
        tiny = 1e-20
        return -ops.log(-ops.log(self._uniform(shape) + tiny) + tiny)

    def _uniform(self, shape: Shape) -> Tensor:
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "schedule": self.schedule,
            "steps": self.steps,
            "max_rate": self.max_rate,
            "passes": self.passes,
            "choice": self.choice,
            "seed": self.seed,
        }
