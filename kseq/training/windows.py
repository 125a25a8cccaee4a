"""Batches for training a language model on one long text.

Axes in shape comments: B batch, T steps of a window.
"""

import math
from typing import Any

import numpy as np

from kseq.layers.validation import integer, positive_integer
from kseq.training.batch_dataset import BatchDataset
from kseq.typing import TensorLike


def windows(
    token_ids: TensorLike,
    length: int,
    batch_size: int = 64,
    shuffle: bool = True,
    steps: int | None = None,
    seed: int = 0,
    start_token_id: int = 2,
    pad_token_id: int = 0,
    **kwargs: Any,
) -> BatchDataset:
    """Make batches of windows of one long text, for a model without a source.

    Each batch is `({"target": inputs}, labels)`, both of shape `(B, T)`, where T is the
    length. The labels are windows of the text. The inputs are the same windows shifted
    by one step, with the start token in front. The start token thus means that the
    preceding text is unknown, as it is when generation begins.

    For training, windows begin at random positions, which are sampled anew in each
    epoch. With `shuffle=False`, consecutive windows are cut, so that each token is
    predicted once, on average from the `(T - 1) / 2` tokens before it.

    Args:
        token_ids: The ids of the text, integers `(N,)`, without padding.
        length: Number of tokens T of a window.
        batch_size: Number of windows in a batch.
        shuffle: Whether to sample windows. False covers the whole text in order and
            pads the last window.
        steps: Number of batches in an epoch of sampled windows. None for as many as
            cover the length of the text.
        seed: Non-negative integer. Determines the windows of every epoch.
        start_token_id: The first id of the inputs of each window.
        pad_token_id: The id that pads the last window.
        **kwargs: `workers` (2 threads), `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`.

    Returns:
        A `keras.utils.PyDataset` for `fit` and `evaluate`.

    Raises:
        ValueError: `token_ids` are not integers `(N,)`, are fewer than one window, or
            contain padding; a number is not a positive integer; `steps` is given with
            `shuffle=False`.

    Example:

    >>> from kseq.training import windows
    >>> [(inputs, labels)] = windows([5, 6, 7, 8, 9], length=3, shuffle=False)
    >>> inputs["target"].tolist()
    [[2, 5, 6], [2, 8, 0]]
    >>> labels.tolist()
    [[5, 6, 7], [8, 9, 0]]

    References:
        - [Graves, 2013](https://arxiv.org/abs/1308.0850), 2
    """
    token_ids = np.asarray(token_ids)
    pad_token_id = integer("pad_token_id", pad_token_id)
    is_row = token_ids.ndim == 1 and token_ids.dtype.kind in "iu"
    if not is_row or len(token_ids) < positive_integer("length", length):
        raise ValueError(
            "`token_ids` must be the integer ids of one text, shape (N,), and fill at "
            f"least one window. Received: shape {token_ids.shape} and "
            f"dtype={token_ids.dtype}, with length={length}."
        )
    if (token_ids == pad_token_id).any():
        raise ValueError(
            "`token_ids` must not contain padding, which no model predicts. Received: "
            f"{pad_token_id} at {np.argmax(token_ids == pad_token_id)}."
        )
    batch_size = positive_integer("batch_size", batch_size)
    token_ids = token_ids.astype("int32")
    start = integer("start_token_id", start_token_id)
    if shuffle:
        count = math.ceil(len(token_ids) / (length * batch_size))
        steps = count if steps is None else positive_integer("steps", steps)
        return _Drawn(token_ids, length, batch_size, steps, seed, start, **kwargs)
    if steps is not None:
        raise ValueError(
            "With `shuffle=False`, an epoch is the whole text. Received: "
            f"steps={steps}. Leave `steps` out, or use `shuffle=True`."
        )
    padding = -len(token_ids) % length
    rows = np.pad(token_ids, (0, padding), constant_values=pad_token_id)
    return _InOrder(rows.reshape(-1, length), batch_size, start, pad_token_id, **kwargs)


class _Drawn(BatchDataset):
    def __init__(
        self,
        token_ids: np.ndarray,
        length: int,
        batch_size: int,
        steps: int,
        seed: int,
        start: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.token_ids, self.start = token_ids, start
        self.length, self.batch_size, self.steps = length, batch_size, steps
        self.seed = seed

    def count(self) -> int:
        return self.steps

    def batch(self, index: int) -> tuple[Any, ...]:
        random = np.random.default_rng([self.seed, self._epoch, index])
        places = len(self.token_ids) - self.length + 1
        first = random.integers(places, size=(self.batch_size, 1))
        labels = self.token_ids[first + np.arange(self.length)]  # B T
        return {"target": shifted(labels, self.start)}, labels


class _InOrder(BatchDataset):
    def __init__(
        self,
        rows: np.ndarray,
        batch_size: int,
        start: int,
        padding: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows, self.batch_size = rows, batch_size
        self.start, self.padding = start, padding

    def count(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def batch(self, index: int) -> tuple[Any, ...]:
        labels = self.rows[index * self.batch_size :][: self.batch_size]  # B T
        inputs = shifted(labels, self.start)
        inputs = np.where(labels == self.padding, self.padding, inputs)
        return {"target": inputs}, labels


def shifted(labels: np.ndarray, start_token_id: int) -> np.ndarray:
    """Return the input of the decoder: the token before each label."""
    return np.insert(labels[:, :-1], 0, start_token_id, axis=1)  # B T
