"""What all data sets of kseq are: Keras' own, read ahead by more than one thread."""

import sys

import keras


class BatchDataset(keras.utils.PyDataset):
    """A `keras.utils.PyDataset` that is read by two threads, and begins anywhere.

    On TensorFlow, Keras hands what one thread reads to a pipeline that TensorFlow tunes
    as it runs. When an epoch ends, the next one often waits until that tuning wakes up
    again: for a second where the epoch took one, for five where it took five. With two
    threads Keras reads ahead by itself. `docs/design/0019` has the figures.

    So a batch must follow from its index and the epoch alone, whoever asks first. And
    so a training that was killed can go on at any batch (`kseq.training.Resume`).

    Subclasses say how many batches an epoch has, `count()`, what is in each,
    `batch(index)`, and what changes with the epoch, `_start_epoch(epoch)`.

    Args:
        workers: Number of threads.
        **kwargs: `use_multiprocessing` and `max_queue_size` of `PyDataset`.
    """

    _epoch = 0
    _first = 0  # the first batch of this epoch that is left

    def __init__(self, workers=2, **kwargs):
        super().__init__(workers=workers, **kwargs)

    def count(self):
        raise NotImplementedError

    def batch(self, index):
        raise NotImplementedError

    def __len__(self):
        return self.count() - self._first

    def __getitem__(self, index):
        return self.batch(self._first + index)

    def on_epoch_begin(self):
        """Drops what Keras has read ahead in an epoch before this one.

        On JAX and PyTorch `fit` reads some batches to build the model. Keras keeps what
        its threads have read besides, and gives it out first when the epoch begins, in
        place of as many batches of that epoch, which nobody sees.
        """
        adapter = sys._getframe(1).f_locals.get("self")  # of Keras, which calls this
        enqueuer = getattr(adapter, "enqueuer", None)
        while enqueuer is not None and not enqueuer.ready_queue.empty():
            enqueuer.ready_queue.get()

    def position(self):
        """Which epoch this is, for `start_at`; JSON can hold it."""
        return self._epoch

    def start_at(self, position, first=0):
        """Leaves out the first batches of an epoch, that of the position.

        Args:
            position: What `position` gave in that epoch.
            first: The number of batches to leave out. The epoch after has all.
        """
        self._start_epoch(position)
        self._first = first

    def on_epoch_end(self):
        self._first = 0
        self._start_epoch(self._epoch + 1)

    def _start_epoch(self, epoch):
        self._epoch = epoch
