"""Data sets in `fit`: autotuning, threads, prefetching and errors."""

import contextlib

import keras
import numpy as np
import pytest

import kseq
from kseq.training import LengthBatches, TokenDropout, batches, teacher_forcing, windows
from kseq.tuning.trials.shuffling import ShuffledBatches

IDS = [[5, 6, 7], [8], [9, 5, 6, 7, 8, 9], [5, 5]] * 3
DATA_SETS = {
    "batches": lambda **options: batches(IDS, [0, 1] * 6, batch_size=5, **options),
    "teacher_forcing": lambda **options: teacher_forcing(IDS[:2], IDS[:4:3], **options),
    "rows of each epoch": lambda: teacher_forcing(lambda epoch: IDS, IDS[:1] * 12),
    "windows": lambda **options: windows([5, 6, 7, 8, 9], 3, **options),
    "windows in order": lambda: windows([5, 6, 7, 8, 9], 3, shuffle=False),
    "token dropout": lambda: TokenDropout(DATA_SETS["batches"](), 0.5),
    "of a search": lambda: ShuffledBatches((np.ones((7, 2)), None, None), 3, seed=1),
}


class NoOpModel(keras.Model):
    """A model that accepts batches of any kind and does not learn."""

    def train_step(self, data):
        return {"loss": 0.0}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's")
@pytest.mark.parametrize("name", DATA_SETS)
def test_tensorflow_does_not_autotune_the_pipeline(name, monkeypatch):
    import tensorflow as tf

    autotuned, with_options = [], tf.data.Dataset.with_options

    def record_options(self, options):
        autotuned.append(options.autotune.enabled)
        return with_options(self, options)

    monkeypatch.setattr(tf.data.Dataset, "with_options", record_options)
    model = NoOpModel()
    model.built = True
    model.compile()
    model.fit(DATA_SETS[name](), verbose=0)
    assert autotuned == [False]


def test_workers_sets_the_number_of_threads():
    assert DATA_SETS["batches"]().workers == 2
    assert DATA_SETS["batches"](workers=1).workers == 1


class EpochRecorder(LengthBatches):
    """Batches that record the epoch in which each was made."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def make_batch(self, rows, lengths):
        self.seen.append(self._epoch)
        ids = np.full((len(rows), lengths[0]), 5, "int32")
        return ids, np.zeros(len(rows), "int32")


def test_prefetched_batches_belong_to_the_same_epoch():
    data = EpochRecorder([[3, 5, 2, 7, 4, 6]], batch_size=2)
    model = kseq.many_to_one(11, 2, width=4)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data, epochs=3, verbose=0)
    first = data.seen[-9]  # Keras inspects one or two batches first
    assert data.seen[-9:] == [first + epoch for epoch in (0, 0, 0, 1, 1, 1, 2, 2, 2)]


def test_fit_raises_the_error_of_a_batch():
    class Broken(EpochRecorder):
        def make_batch(self, rows, lengths):
            if len(self.seen) > 4:
                raise RuntimeError("no such row")
            return super().make_batch(rows, lengths)

    model = kseq.many_to_one(11, 2, width=4)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(Exception, match="no such row"):
        model.fit(Broken([[3, 5, 2, 7, 4, 6]], batch_size=2), epochs=3, verbose=0)


def test_fit_sees_every_row_once_per_epoch_on_every_backend():
    class MeanId(keras.layers.Layer):
        def call(self, ids):
            return keras.ops.cast(keras.ops.mean(ids, axis=1, keepdims=True), "float32")

    class LabelRecorder(keras.losses.Loss):
        rows = []

        def call(self, y_true, y_pred):
            with contextlib.suppress(Exception):  # fails while JAX builds the model
                self.rows += keras.ops.convert_to_numpy(y_true).ravel().tolist()
            return keras.ops.mean(y_pred, axis=-1)

    inputs = keras.Input((None,), dtype="int32")
    outputs = keras.layers.Dense(1)(MeanId()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", LabelRecorder(), metrics=["mae"], run_eagerly=True)
    data = batches([[5 + i % 3] * (1 + i % 4) for i in range(200)], range(200), 4)
    model.fit(data, epochs=2, verbose=0)
    rows = LabelRecorder.rows[-400:]
    assert sorted(rows[:200]) == sorted(rows[200:]) == list(range(200))
