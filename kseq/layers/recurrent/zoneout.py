"""Zoneout: a recurrent layer whose units keep their old state at random.

Axes in shape comments: B batch, T steps, D features, U units.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kseq.layers.recurrent.cells import LoopStep, state_sizes
from kseq.layers.recurrent.rnn import RNN
from kseq.layers.validation import rate
from kseq.typing import Config, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class Zoneout(RNN):
    """A recurrent layer whose units randomly keep their old state in training.

    `h' = d h + (1 - d) cell(x, h)`, where `d` is sampled for each unit and step: 1 with
    probability `zoneout`, otherwise 0. At inference `d` is its mean, `zoneout`. Each
    state of the cell has its own samples.

    Args:
        cell: A Keras cell whose output is its first state.
        zoneout: Probability that a unit keeps its old state, or a list with one
            probability for each state: `[0.05, 0.5]` for `h` and `c` of an LSTM.
        seed: Integer seed of the samples, or None.
        **kwargs: `return_sequences`, `return_state`, `go_backwards` and the other
            arguments of `kseq.layers.RNN`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A list of states `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and so the output,
            unchanged. Before the first real step the output is the initial state.
            Defaults to the Keras mask of `sequences`.
        training: Whether to sample `d`.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the final states `(B, U)`.

    Raises:
        ValueError: A probability is not in [0, 1), the list does not have one for each
            state, `cell` is not one cell, or the initial states or the mask do not fit.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import Zoneout
    >>> layer = Zoneout(keras.layers.LSTMCell(3), [0.05, 0.5], return_sequences=True)
    >>> tuple(layer(np.ones((2, 7, 5)), training=True).shape)
    (2, 7, 3)

    References:
        - [Krueger et al., 2017](https://arxiv.org/abs/1606.01305), 3.2
    """

    kernel_name = None  # PyTorch's kernels do not sample at a step

    def __init__(
        self,
        cell: keras.layers.Layer,
        zoneout: float | list[float] | tuple[float, ...] = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        many = (list, tuple, keras.layers.StackedRNNCells, keras.layers.RNN)
        if isinstance(cell, many):
            raise ValueError(
                f"`cell` must be one cell. Received: cell={cell}. Use one layer for "
                "each cell, `Zoneout(cell, return_sequences=True)`, or "
                '`RecurrentEncoder("lstm", 64, 2, zoneout=0.1)`.'
            )
        super().__init__(cell, **kwargs)
        self.zoneout, self.seed = zoneout, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._sizes = state_sizes(cell)
        if isinstance(zoneout, (list, tuple)):
            given = list(zoneout)
        else:
            given = [zoneout] * len(self._sizes)
        if len(given) != len(self._sizes):
            raise ValueError(
                "`zoneout` must be one number, or one for each state of the cell, "
                f"{len(self._sizes)} here. Received: zoneout={zoneout}."
            )
        self._rates = [rate("zoneout", each) for each in given]

    def _keras_loop(
        self,
        sequences: Tensor,
        initial_state: list[Tensor],
        mask: Tensor | None,
        training: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        def next_states(inputs, _, states):
            new = self.cell(inputs, states)[1]
            return new if isinstance(new, (list, tuple)) else [new]

        sequences, advance = self._with_samples(sequences, next_states, training)

        def step(inputs, states):
            new = advance(inputs, None, states)
            return new[0], new

        loop = keras.layers.RNN(
            LoopStep(step, self._sizes, sequences.dtype),
            return_sequences=self.return_sequences,
            go_backwards=self.go_backwards,
            zero_output_for_mask=self.zero_output_for_mask,
            unroll=self.unroll,
        )
        return loop.inner_loop(sequences, initial_state, mask)

    def _with_samples(
        self,
        projected: Tensor,
        advance: Callable[..., list[Tensor]],
        training: bool,
    ) -> tuple[Tensor, Callable[..., list[Tensor]]]:
        width = projected.shape[-1]
        places = [width + sum(self._sizes[:i]) for i in range(len(self._sizes))]
        if training:
            projected = ops.concatenate([projected, self._draw(projected)], axis=-1)

        def keep_or_advance(inputs, product, states):
            kept = self._rates
            if training:
                inputs, *kept = ops.split(inputs, places, axis=-1)
            new = advance(inputs, product, states)
            new, gates = new[: len(kept)], new[len(kept) :]
            new = [n + d * (s - n) for n, s, d in zip(new, states, kept, strict=True)]
            return new + gates

        return projected, keep_or_advance

    def _draw(self, sequences: Tensor) -> Tensor:
        """Return 1 where a unit keeps its old state, else 0, `(B, T, sum of sizes)`.

        All steps are sampled before the loop: a seed that counts up inside a loop is a
        problem for every backend.
        """
        batch, steps = ops.shape(sequences)[:2]
        drawn = keras.random.uniform(
            (batch, steps, sum(self._sizes)), seed=self.seed_generator
        )
        thresholds = [
            ops.full((size,), each)
            for size, each in zip(self._sizes, self._rates, strict=True)
        ]
        return ops.cast(drawn < ops.concatenate(thresholds), sequences.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "zoneout": self.zoneout, "seed": self.seed}
