"""Batches for training a language model on one long text.

Axes in shape comments: B batch, T steps of a window.
"""

import math

import numpy as np

from kseq.layers.validation import integer, positive_integer
from kseq.training.batch_dataset import BatchDataset


def windows(
    token_ids,
    length,
    batch_size=64,
    shuffle=True,
    steps=None,
    seed=0,
    start_token_id=2,
    pad_token_id=0,
    **kwargs,
):
    """Batches of windows cut from one long text, for a model that writes from nothing.

    Each batch is `({"target": inputs}, labels)`, both `(B, T)` with T the length: the
    labels are windows of the text, the inputs the same one step earlier, with the start
    token in front. So the start token says that nothing is known of what came before,
    as where a model begins to write.

    In training the windows begin anywhere, drawn anew in each epoch. With
    `shuffle=False` they are cut one behind the other, so that each token is predicted
    once, from `(T - 1) / 2` tokens before it on average.

    Args:
        token_ids: The ids of the text, integers `(N,)`, without padding.
        length: Number of tokens T of a window.
        batch_size: Number of windows in a batch.
        shuffle: False for all of the text, in order; the last window is padded.
        steps: Number of batches in an epoch, if windows are drawn. None for as many
            as cover the length of the text.
        seed: Non-negative integer that the windows of all epochs follow from.
        start_token_id: The id that stands in front of each window.
        pad_token_id: The id that fills up the last window.
        **kwargs: `workers` (2 threads), `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`.

    Returns:
        A `keras.utils.PyDataset` for `fit` and `evaluate`.

    Raises:
        ValueError: The ids are not integers `(N,)`, fewer than a window, or hold the
            padding; a number is not a positive integer; `steps` is given for windows
            that are not drawn.

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
    token_ids, pad_token_id = (
        np.asarray(token_ids),
        integer("pad_token_id", pad_token_id),
    )
    is_row = token_ids.ndim == 1 and token_ids.dtype.kind in "iu"
    if not is_row or len(token_ids) < positive_integer("length", length):
        raise ValueError(
            "`token_ids` must be the integer ids of one text, shape (N,), at least one "
            f"window. Received: shape {token_ids.shape} and dtype={token_ids.dtype}, "
            f"with length={length}."
        )
    if (token_ids == pad_token_id).any():
        raise ValueError(
            "`token_ids` must not hold padding, which no model predicts. Received: "
            f"{pad_token_id} at {np.argmax(token_ids == pad_token_id)}."
        )
    batch_size = positive_integer("batch_size", batch_size)
    token_ids, start = (
        token_ids.astype("int32"),
        integer("start_token_id", start_token_id),
    )
    if shuffle:
        count = math.ceil(len(token_ids) / (length * batch_size))
        steps = count if steps is None else positive_integer("steps", steps)
        return _Drawn(token_ids, length, batch_size, steps, seed, start, **kwargs)
    if steps is not None:
        raise ValueError(
            "With `shuffle=False` all of the text makes an epoch. Received: "
            f"steps={steps}. Leave it out, or draw windows."
        )
    padding = -len(token_ids) % length
    rows = np.pad(token_ids, (0, padding), constant_values=pad_token_id)
    return _InOrder(rows.reshape(-1, length), batch_size, start, pad_token_id, **kwargs)


class _Drawn(BatchDataset):
    def __init__(self, token_ids, length, batch_size, steps, seed, start, **kwargs):
        super().__init__(**kwargs)
        self.token_ids, self.start = token_ids, start
        self.length, self.batch_size, self.steps = length, batch_size, steps
        self.seed = seed

    def count(self):
        return self.steps

    def batch(self, index):
        random = np.random.default_rng([self.seed, self._epoch, index])
        places = len(self.token_ids) - self.length + 1
        first = random.integers(places, size=(self.batch_size, 1))
        labels = self.token_ids[first + np.arange(self.length)]  # B T
        return {"target": shifted(labels, self.start)}, labels


class _InOrder(BatchDataset):
    def __init__(self, rows, batch_size, start, padding, **kwargs):
        super().__init__(**kwargs)
        self.rows, self.batch_size = rows, batch_size
        self.start, self.padding = start, padding

    def count(self):
        return math.ceil(len(self.rows) / self.batch_size)

    def batch(self, index):
        labels = self.rows[index * self.batch_size :][: self.batch_size]  # B T
        inputs = shifted(labels, self.start)
        inputs = np.where(labels == self.padding, self.padding, inputs)
        return {"target": inputs}, labels


def shifted(labels, start_token_id):
    """What a model has read when it predicts the labels: the token before each."""
    return np.insert(labels[:, :-1], 0, start_token_id, axis=1)  # B T
