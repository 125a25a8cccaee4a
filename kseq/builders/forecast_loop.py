"""Keras model that runs the loop of `generate` for numbers, compiled by Keras.

Axes in shape comments: B batch, K draws, P steps of a prefix, L all steps, T generated
steps, F features, C covariates or random numbers.
"""

from typing import TYPE_CHECKING

import keras
from keras import ops

from kseq.builders.generate_loop import num_rows
from kseq.decoding.loop import with_shape_of
from kseq.decoding.randomness import uniforms
from kseq.layers.backends import overwriting, put, recorder
from kseq.typing import Tensor, Tree

if TYPE_CHECKING:
    from kseq.builders.forecaster import Forecaster


class ForecastLoop(keras.Model):
    """Keras model that generates all steps, each from the steps before it.

    There is no choice between tokens and no end, so all series have the same length.

    Args:
        writer: The `Forecaster`.
        num_steps: Number of steps T to generate.
        num_known: Number of steps P of a prefix.
        num_draws: Number of draws K; None for one path of means.
        jit_compile: As for `generate`.
    """

    def __init__(
        self,
        writer: "Forecaster",
        num_steps: int,
        num_known: int,
        num_draws: int | None,
        jit_compile: bool | None,
    ) -> None:
        super().__init__(name="forecast_loop", autocast=False)
        self.writer, self.num_draws = writer, num_draws
        self.num_steps, self.num_known = num_steps, num_known
        if jit_compile is not None:
            self.jit_compile = jit_compile
        self.recorder = recorder()
        self.built = True

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tensor]:
        writer, count = self.writer, self.num_draws or 1
        rows, features = num_rows(inputs["source"]), writer.target.num_features
        known = self.known(inputs, rows)  # B L F
        length = self.num_known + self.num_steps
        state, constants = writer.start(inputs["source"], count, length)
        step = self.recorder.steps_of(writer.step) if self.recorder else writer.step
        dtype = known.dtype

        def advance(t, last, written, state):
            begun = last, written, state
            read = {"target": last}
            if "covariates" in inputs:
                read["covariates"] = of_step(inputs["covariates"], t)  # B 1 C
            parameters, state = step(read, state, constants)  # B K F P
            numbers = ops.cast(self.numbers(parameters, inputs, t), dtype)
            given = of_step(known, t)  # B 1 F
            numbers = ops.where(ops.isnan(given), numbers, given)  # B K F
            written = put(written, ops.expand_dims(numbers, 2), t, axis=2)
            ended = numbers, written, state
            return t + 1, *keras.tree.map_structure(with_shape_of, begun, ended)

        unknown = ops.full((rows, count, features), float("nan"), dtype)
        empty = ops.zeros((rows, count, length, features), dtype)
        with overwriting():  # nothing else holds the buffers
            _, _, written, _ = ops.while_loop(
                lambda t, *_: t < length,
                advance,
                (ops.convert_to_tensor(0, "int32"), unknown, empty, state),
                maximum_iterations=length,
            )
        return {"draws": written[:, :, self.num_known :]}

    def known(self, inputs: dict[str, Tree], rows: int | Tensor) -> Tensor:
        """Return the given numbers of each step, `(B, L, F)`, NaN if unknown."""
        shape = (rows, self.num_steps, self.writer.target.num_features)
        unknown = ops.full(shape, float("nan"), keras.backend.floatx())
        if not self.num_known:
            return unknown
        prefix = ops.cast(inputs["prefix"], unknown.dtype)
        return ops.concatenate([prefix, unknown], axis=1)

    def numbers(self, parameters: Tensor, inputs: dict[str, Tree], t: Tensor) -> Tensor:
        """Return the numbers of a step, `(B, K, F)`: samples, or the means."""
        head = self.writer.head
        if self.num_draws is None:
            return head.mean(parameters)
        features = head.num_features
        even = uniforms(
            inputs["row_seeds"],
            self.num_draws,
            t,
            features * head.num_uniforms,
            inputs["first_draw"],
        )  # B K FC
        shape = (-1, self.num_draws, features, head.num_uniforms)
        return head.draw(parameters, ops.reshape(even, shape))


def of_step(sequences: Tensor, t: Tensor) -> Tensor:
    """Return one step of sequences `(B, L, F)`: `(B, 1, F)`."""
    return ops.expand_dims(ops.take(sequences, t, axis=1), 1)
