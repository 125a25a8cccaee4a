"""Training in one of two JAX processes, or alone; the script saves weights and losses.

    KERAS_BACKEND=jax python tests/training/one_of_two_processes.py out.npz 0 PORT PORT
    KERAS_BACKEND=jax python tests/training/one_of_two_processes.py out.npz 1 PORT PORT
    KERAS_BACKEND=jax python tests/training/one_of_two_processes.py alone.npz

The first two commands wait for each other.
"""

import sys

import keras
import numpy as np

ROWS, BATCH = 22, 8  # the last batch has six rows


def random_rows(seed):
    random = np.random.default_rng(seed)
    return [random.integers(4, 11, random.integers(2, 9)).tolist() for _ in range(ROWS)]


def train(shard):
    import kseq  # after the processes are connected

    keras.utils.set_random_seed(3)
    model = kseq.encoder_decoder(11, 13, encoder="gru", decoder="lstm", width=8)
    data = kseq.training.teacher_forcing(
        random_rows(0), random_rows(1), batch_size=BATCH, shard=shard, seed=5
    )
    loss = kseq.training.SequenceCrossentropy(label_smoothing=0.1)
    model.compile(keras.optimizers.SGD(0.5), loss=loss)
    history = model.fit(data, epochs=3, shuffle=False, verbose=0).history
    return [*model.get_weights(), np.array(history["loss"])]


def main(path, rank=None, *ports):
    shard = None
    if rank is not None:
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        keras.distribution.initialize(addresses, len(ports), int(rank))
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        shard = int(rank), len(ports)
    np.savez(path, *train(shard))


if __name__ == "__main__":
    main(*sys.argv[1:])
