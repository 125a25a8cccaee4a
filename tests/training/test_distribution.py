"""Training on several devices or processes, compared with training on one."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kseq.training import (
    EvenBatches,
    TokenDropout,
    batches,
    layout_map,
    teacher_forcing,
)

ROOT = Path(__file__).parents[2]
TOLERANCES = {"weights": 1e-5, "loss": 1e-5, "scores": 1e-4}


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize(
    ("backend", "kind", "parallelism"),
    [
        ("jax", "gru", "data"),
        ("jax", "lstm", "data"),
        ("jax", "transformer", "data"),
        ("tensorflow", "transformer", "data"),
        ("tensorflow", "gru", "data"),
        ("tensorflow", "lstm", "data"),
        ("jax", "transformer", "model"),
        ("jax", "crf", "data"),
        ("tensorflow", "crf", "data"),
    ],
)
def test_training_on_two_devices_equals_training_on_one(
    backend, kind, parallelism, tmp_path
):
    gaps = run_script("distributed_training.py", backend, tmp_path, kind, parallelism)
    assert gaps.pop("moved") > 0.1, "something was learned"
    assert gaps.keys() >= {"weights", "saved", "loss", "token_accuracy", "token_ids"}
    assert gaps.keys() >= {"resumed", "resumed_loss", "streamed"}
    too_much = {k: v for k, v in gaps.items() if v > TOLERANCES.get(k, 1e-6)}
    assert not too_much


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_give_the_same_outputs_as_one(backend, tmp_path):
    gaps = run_script("distributed_pipelines.py", backend, tmp_path)
    assert gaps.keys() >= {"labels", "tags", "texts", "tokens", "cosines", "forecasts"}
    assert max(gaps.values()) < 1e-5


def run_script(script, backend, folder, *arguments):
    """Run a script of this folder and return the differences that it prints."""
    pytest.importorskip(backend)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/training" / script), *arguments],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.thorough
def test_training_in_two_processes_equals_training_in_one(tmp_path):
    pytest.importorskip("jax")
    script = ROOT / "tests/training/one_of_two_processes.py"
    ports = [str(port) for port in free_ports(2)]
    each = [["first.npz", "0", *ports], ["second.npz", "1", *ports], ["alone.npz"]]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=tmp_path,
            env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in each
    ]
    for process in processes:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
    first, second, alone = (
        list(np.load(tmp_path / name).values()) for name, *_ in each
    )
    for one, other, expected in zip(first, second, alone, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, expected, atol=1e-5)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def test_layout_map_rejects_an_unknown_axis():
    devices = keras.distribution.list_devices()[:1]
    mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"], devices)
    with pytest.raises(ValueError, match="`axis` must be an axis of the mesh"):
        layout_map(mesh, "models")


def test_batches_of_ids_are_filled_with_padding():
    data = teacher_forcing(
        [[4, 5], [6], [7]], [[1, 3], [1, 6, 3], [1, 3]], shuffle=False
    )
    [(inputs, labels)] = EvenBatches(data, 4)
    assert labels.shape[0] == inputs["source"].shape[0] == 4
    assert not labels[3].any() and not inputs["target"][3].any()
    [(whole, _)] = data
    np.testing.assert_array_equal(inputs["source"][:3], whole["source"])


def test_rows_that_fill_other_batches_have_no_weight():
    data = batches([[4, 5], [6], [7]], [1, 0, 1], sample_weight=[1, 2, 3], batch_size=2)
    filled = EvenBatches(data, 4)
    for index, (_, labels, weights) in enumerate(filled):
        expected = data[index][2]
        assert len(labels) == 4
        np.testing.assert_array_equal(weights, [*expected, *[0] * (4 - len(expected))])


def nine_rows():
    return batches([[4 + i] for i in range(9)], list(range(9)), batch_size=4)


DATA_SETS = [nine_rows, lambda: TokenDropout(nine_rows(), 0.5)]


@pytest.mark.parametrize("make", DATA_SETS)
def test_epoch_starts_at_the_position_of_the_data(make):
    data, filled = make(), EvenBatches(make(), 4)
    for _ in range(2):
        data.on_epoch_end()
    filled.start_at(data.position(), 1)
    for (inputs, *_), index in zip(filled, (1, 2), strict=True):
        expected = data[index][0]
        np.testing.assert_array_equal(inputs[: len(expected)], expected)


@pytest.mark.parametrize("make", DATA_SETS)
def test_epochs_equal_those_of_the_data(make):
    data, filled = make(), EvenBatches(make(), 2)
    for _ in range(3):
        assert filled.position() == data.position()
        for (inputs, *_), (expected, *_) in zip(filled, data, strict=True):
            np.testing.assert_array_equal(inputs[: len(expected)], expected)
        data.on_epoch_end()
        filled.on_epoch_end()


@pytest.mark.parametrize(
    "data, multiple, message",
    [
        (np.ones((3, 2)), 2, "`data` must be a data set of kseq"),
        (batches([[4]], [1]), 0, "`multiple` must be a positive integer"),
    ],
)
def test_rejects_invalid_data_and_multiples(data, multiple, message):
    with pytest.raises(ValueError, match=message):
        EvenBatches(data, multiple)
