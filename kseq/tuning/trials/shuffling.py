"""Batches of arrays in an order determined by the seed and the number of the epoch."""

import math
from typing import Any

import keras
import numpy as np

from kseq.training.batch_dataset import BatchDataset


def shuffle_by_epoch(given: dict[str, Any], seed: int) -> None:
    """Wrap the arrays among the arguments of `fit` in `ShuffledBatches`.

    Anything else, and arrays that are not to be shuffled, remain unchanged.

    Args:
        given: All arguments of Keras' `fit` by name. They are changed in place.
        seed: Non-negative integer.
    """
    arrays = [given["x"], given["y"], given["sample_weight"]]
    leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
    whole = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    if not (whole and given["shuffle"]) or given["steps_per_epoch"]:
        return
    if given["validation_split"] and given["validation_data"] is None:
        share = given.pop("validation_split")
        kept = math.floor(
            len(leaves[0]) * (1 - share)
        )  # the last rows validate, as in Keras
        given["validation_data"] = pack(take(arrays, slice(kept, None)))
        arrays = take(arrays, slice(kept))
    given.pop("validation_split", None)
    batch_size = given.pop("batch_size") or 32
    if given["validation_batch_size"] is None:
        given["validation_batch_size"] = batch_size
    given.update(y=None, sample_weight=None, shuffle=False)
    given["x"] = ShuffledBatches(arrays, batch_size, seed)


class ShuffledBatches(BatchDataset):
    """Rows of arrays in batches, in an order set by the seed and the epoch."""

    def __init__(self, arrays: list[Any], batch_size: int, seed: int) -> None:
        super().__init__()
        self.arrays = arrays
        self.batch_size = batch_size
        self.seed = seed
        leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
        self.num_rows = len(leaves[0])
        self._start_epoch(0)

    def _start_epoch(self, epoch: int) -> None:
        super()._start_epoch(epoch)
        self.order = np.random.default_rng([self.seed, epoch]).permutation(
            self.num_rows
        )

    def count(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def batch(self, index: int) -> tuple[Any, ...]:
        start = index * self.batch_size
        rows = self.order[start : start + self.batch_size]
        return pack(take(self.arrays, rows))


def take(arrays: list[Any], rows: Any) -> list[Any]:
    return [
        None if part is None else keras.tree.map_structure(lambda a: a[rows], part)
        for part in arrays
    ]


def pack(arrays: list[Any]) -> tuple[Any, ...]:
    """Return rows in Keras' form: x, (x, y) or (x, y, sample_weight)."""
    while arrays[-1] is None:
        arrays = arrays[:-1]
    return tuple(arrays)
