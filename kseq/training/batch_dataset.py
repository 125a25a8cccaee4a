"""The base class of kseq's data sets: batches loaded by several threads."""

import sys
from typing import Any

import keras


class BatchDataset(keras.utils.PyDataset):
    """A `keras.utils.PyDataset` that uses two threads and can start at any batch.

    On TensorFlow, Keras passes the batches of a single thread to a pipeline that
    TensorFlow tunes as it runs. At the end of an epoch, the next one often waits until
    that tuning wakes up again: about as long as the epoch took, measured for epochs of
    one and of five seconds. With two threads, Keras loads the batches itself. See
    `docs/design/0019` for figures.

    Therefore a batch must follow from its index and the epoch alone, whichever thread
    asks first. This also lets an interrupted training continue at any batch
    (`kseq.training.Resume`).

    Subclasses define `count()`, the number of batches in an epoch; `batch(index)`, one
    batch; and `_start_epoch(epoch)`, what changes with the epoch.

    Args:
        workers: Number of threads.
        **kwargs: `use_multiprocessing` and `max_queue_size` of `PyDataset`.
    """

    _epoch = 0
    _first = 0  # number of batches of this epoch that are skipped

    def __init__(self, workers: int = 2, **kwargs: Any) -> None:
        super().__init__(workers=workers, **kwargs)

    def count(self) -> int:
        raise NotImplementedError

    def batch(self, index: int) -> tuple[Any, ...]:
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count() - self._first

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.batch(self._first + index)

    def on_epoch_begin(self) -> None:
        """Drop the batches that Keras loaded before this epoch.

        On JAX and PyTorch, `fit` loads some batches to build the model. Keras keeps the
        other batches that its threads have loaded, and returns them at the start of the
        epoch in place of as many batches of that epoch, which are then never used.
        """
        adapter = sys._getframe(1).f_locals.get("self")  # Keras' adapter, the caller
        enqueuer = getattr(adapter, "enqueuer", None)
        while enqueuer is not None and not enqueuer.ready_queue.empty():
            enqueuer.ready_queue.get()

    def position(self) -> Any:
        """Return the position of this epoch, for `start_at`. JSON can hold it."""
        return self._epoch

    def start_at(self, position: Any, first: int = 0) -> None:
        """Start in the epoch of a position and skip its first batches.

        Args:
            position: The value that `position` returned in that epoch.
            first: Number of batches to skip. The next epoch has all batches.
        """
        self._start_epoch(position)
        self._first = first

    def on_epoch_end(self) -> None:
        self._first = 0
        self._start_epoch(self._epoch + 1)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
