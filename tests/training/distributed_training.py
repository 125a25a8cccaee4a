"""Comparison of training on one virtual device with training on two.

    KERAS_BACKEND=jax python tests/training/distributed_training.py gru
    KERAS_BACKEND=jax python tests/training/distributed_training.py transformer model

The script prints the largest differences. Both trainings run in one process, because
two processes would not be the same program. It makes its devices first of all.
"""

import contextlib
import json
import os
import sys

import keras
import numpy as np

import kseq
from kseq.training import (
    EditDistanceRate,
    EvenBatches,
    ExactMatch,
    Resume,
    SaveBest,
    SequenceCrossentropy,
    TokenAccuracy,
    layout_map,
    teacher_forcing,
)

BACKEND = keras.backend.backend()
ROWS, BATCH = 21, 8  # the last batch has five rows
KILL_STEP = 4  # of 9 steps, in the second epoch


def make_two_cpus():
    """Make two devices of the CPU, before a backend looks for devices."""
    if BACKEND == "jax":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=2"
        return
    import tensorflow as tf

    [cpu] = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, devices)


def two_devices(parallelism):
    """Return the scope that divides batches, or a model, between two devices."""
    if parallelism == "model":
        mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"])
        layouts = layout_map(mesh)
        return keras.distribution.ModelParallel(layout_map=layouts).scope()
    if BACKEND == "jax":
        return keras.distribution.DataParallel().scope()
    import tensorflow as tf

    # Several strategies of one process share the counters of collective operations.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"], reduction).scope()


def one_device():
    if BACKEND == "jax":
        first = keras.distribution.list_devices()[:1]
        return keras.distribution.DataParallel(devices=first).scope()
    return contextlib.nullcontext()


def random_rows(seed):
    random = np.random.default_rng(seed)
    return [random.integers(4, 11, random.integers(2, 9)).tolist() for _ in range(ROWS)]


def writer(kind):
    """Return a compiled encoder-decoder and its training data."""
    model = kseq.encoder_decoder(11, 13, encoder=kind, decoder=kind, width=8)
    model.compile(
        keras.optimizers.SGD(0.5),
        loss=SequenceCrossentropy(label_smoothing=0.1),
        metrics=[TokenAccuracy(), ExactMatch(), EditDistanceRate()],
    )
    return model, teacher_forcing(random_rows(0), random_rows(1), batch_size=BATCH)


def tagger():
    """Return a compiled model that ends with a CRF, and its training data."""
    model = kseq.many_to_many(11, 9, encoder="gru", width=8, head="crf")
    model.compile(keras.optimizers.SGD(0.5), metrics=[TokenAccuracy(-1)])
    labels = [[token_id % 9 for token_id in row] for row in random_rows(0)]
    weights = [1.0 + len(row) % 3 for row in labels]
    options = {"sample_weight": weights, "batch_size": BATCH}
    return model, kseq.training.batches(random_rows(0), labels, **options)


def kill_at(step):
    """Return a callback that interrupts training at the end of a step, like a kill."""
    steps_before = iter(range(step))

    def interrupt(batch, logs):
        if next(steps_before, None) is None:
            raise KeyboardInterrupt

    return keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)


def train(kind, scope, path, *callbacks):
    """Return the model, its history, its outputs, their scores, and its stream."""
    with scope:
        keras.utils.set_random_seed(3)
        model, data = tagger() if kind == "crf" else writer(kind)
        data = EvenBatches(data, 2)
        best = SaveBest(path, monitor="loss")
        # Keras shuffles batches with other random numbers under a strategy.
        options = {
            "epochs": 3,
            "verbose": 0,
            "shuffle": False,
            "callbacks": [best, *callbacks],
        }
        history = model.fit(data, **options).history
        if kind == "crf":
            scores = model.predict(np.array([random_rows(2)[0]] * 4), verbose=0)
            return model, history, scores.argmax(axis=-1), scores, []
        searched = model.generate(random_rows(2)[:3], kseq.decoding.BeamSearch(2), 5)
        scores = model.score(random_rows(2)[:3], searched)
        streamed = list(model.generate_stream(random_rows(2)[:3], max_length=5))
    return model, history, searched.token_ids, scores, streamed


def train_with_a_kill(kind, parallelism):
    """Return the result of `train` in the second of two attempts."""
    for step in (KILL_STEP, 1000):
        callbacks = kill_at(step), Resume("attempts", seconds=0)
        with contextlib.suppress(KeyboardInterrupt):
            return train(kind, two_devices(parallelism), "three.keras", *callbacks)


def main(kind, parallelism="data"):
    make_two_cpus()
    assert len(keras.distribution.list_devices()) == 2
    single = train(kind, one_device(), "one.keras")
    double = train(kind, two_devices(parallelism), "two.keras")
    resumed = train_with_a_kill(kind, parallelism)
    if parallelism == "model":
        for model in (double[0], resumed[0]):
            assert is_sharded(model.encoder), "each device has a part of the weights"
    saved = keras.saving.load_model("two.keras")

    def gap(found, expected):
        pairs = zip(found, expected, strict=True)
        gaps = (float(np.abs(np.array(x) - np.array(y)).max()) for x, y in pairs)
        return max(gaps, default=0.0)

    weights = [model.get_weights() for model in (single[0], double[0])]
    print(
        json.dumps(
            {
                "weights": gap(*weights),
                "saved": gap(saved.get_weights(), weights[1]),
                "resumed": gap(resumed[0].get_weights(), weights[1]),
                "resumed_loss": gap([resumed[1]["loss"]], [double[1]["loss"]]),
                "moved": float(single[1]["loss"][0] - single[1]["loss"][-1]),
                **{k: gap([double[1][k]], [single[1][k]]) for k in single[1]},
                "token_ids": gap([double[2]], [single[2]]),
                "scores": gap([double[3]], [single[3]]),
                "streamed": gap(double[4], single[4]),
            }
        )
    )


def is_sharded(layer):
    [kernel] = [w for w in layer.weights if w.path.endswith("0/attention/query/kernel")]
    return kernel.value.addressable_shards[0].data.shape != kernel.shape


if __name__ == "__main__":
    main(*sys.argv[1:])
