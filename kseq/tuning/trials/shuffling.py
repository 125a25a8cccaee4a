"""Batches of arrays, whose order the seed and the number of the epoch decide."""

import math

import keras
import numpy as np

from kseq.training.batch_dataset import BatchDataset


def shuffle_by_epoch(given, seed):
    """Puts the arrays among the arguments of `fit` into `ShuffledBatches`.

    Anything else, and arrays that are not to be shuffled, stay as they are.

    Args:
        given: All arguments of Keras' `fit` by name, which are changed.
        seed: Non-negative integer.
    """
    arrays = [given["x"], given["y"], given["sample_weight"]]
    leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
    whole = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    if not (whole and given["shuffle"]) or given["steps_per_epoch"]:
        return
    if given["validation_split"] and given["validation_data"] is None:
        share = given.pop("validation_split")
        kept = math.floor(len(leaves[0]) * (1 - share))  # the last rows, as Keras
        given["validation_data"] = pack(take(arrays, slice(kept, None)))
        arrays = take(arrays, slice(kept))
    given.pop("validation_split", None)
    batch_size = given.pop("batch_size") or 32
    if given["validation_batch_size"] is None:
        given["validation_batch_size"] = batch_size
    given.update(y=None, sample_weight=None, shuffle=False)
    given["x"] = ShuffledBatches(arrays, batch_size, seed)


class ShuffledBatches(BatchDataset):
    """Rows of arrays in batches, in an order that the seed and the epoch decide."""

    def __init__(self, arrays, batch_size, seed):
        super().__init__()
        self.arrays = arrays
        self.batch_size = batch_size
        self.seed = seed
        leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
        self.num_rows = len(leaves[0])
        self._start_epoch(0)

    def _start_epoch(self, epoch):
        super()._start_epoch(epoch)
        self.order = np.random.default_rng([self.seed, epoch]).permutation(
            self.num_rows
        )

    def count(self):
        return -(-self.num_rows // self.batch_size)

    def batch(self, index):
        start = index * self.batch_size
        rows = self.order[start : start + self.batch_size]
        return pack(take(self.arrays, rows))


def take(arrays, rows):
    return [
        None if part is None else keras.tree.map_structure(lambda a: a[rows], part)
        for part in arrays
    ]


def pack(arrays):
    """Rows as Keras takes them: x, (x, y) or (x, y, sample_weight)."""
    while arrays[-1] is None:
        arrays = arrays[:-1]
    return tuple(arrays)
