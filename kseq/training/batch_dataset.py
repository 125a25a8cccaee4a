"""What all data sets of kseq are: Keras' own, read ahead by more than one thread."""

import keras


class BatchDataset(keras.utils.PyDataset):
    """A `keras.utils.PyDataset` that is read by two threads, not one.

    On TensorFlow, Keras hands what one thread reads to a pipeline that TensorFlow tunes
    as it runs. When an epoch ends, the next one often waits until that tuning wakes up
    again: for a second where the epoch took one, for five where it took five. With two
    threads Keras reads ahead by itself. `docs/design/0019` has the figures.

    So a batch must follow from its index and the epoch alone, whoever asks first.

    Args:
        workers: Number of threads.
        **kwargs: `use_multiprocessing` and `max_queue_size` of `PyDataset`.
    """

    def __init__(self, workers=2, **kwargs):
        super().__init__(workers=workers, **kwargs)
