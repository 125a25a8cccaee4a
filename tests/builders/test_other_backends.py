"""Law of saved models: every backend computes the same with them."""

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from kseq.builders.generation import GenerativeModel
from kseq.decoding import BeamSearch
from tests.builders.small_models import MODELS
from tests.helpers import array, assert_close, randomize

ROOT = Path(__file__).parents[2]
BACKENDS = ("tensorflow", "jax", "torch")
OTHERS = [name for name in BACKENDS if name != keras.backend.backend()]
RELOAD = """
import pickle, sys
import keras
from tests.builders.test_other_backends import MODELS, results
folder = sys.argv[1]
found = {}
for number, (name, (_, inputs)) in enumerate(MODELS.items()):
    model = keras.saving.load_model(f"{folder}/{number}.keras")
    found[name] = results(model, inputs)
with open(f"{folder}/found.pickle", "wb") as file:
    pickle.dump((keras.backend.backend(), found), file)
"""


def results(model, inputs):
    """Return what a model computes, NumPy arrays by name."""
    outputs = keras.tree.flatten(model(inputs))
    found = {f"output {number}": array(x) for number, x in enumerate(outputs)}
    if isinstance(model, GenerativeModel):
        length = getattr(model, "num_tokens", 7)  # fixed for images
        written = model.generate(inputs.get("source", 3), BeamSearch(3), length)
        found |= {"ids": written.token_ids, "log_probs": written.log_probs}
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("backend", OTHERS)
def test_another_backend_computes_the_same_with_every_saved_model(backend, tmp_path):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    expected = {}
    for number, (name, (make, inputs)) in enumerate(MODELS.items()):
        model = make()
        randomize(model)
        model.compile("sgd", "mse")
        model.save(tmp_path / f"{number}.keras")
        expected[name] = results(model, inputs)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RELOAD, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran_on, found = pickle.loads((tmp_path / "found.pickle").read_bytes())
    assert ran_on == backend
    for name, values in expected.items():
        assert values.keys() == found[name].keys()
        for key, value in values.items():
            if key == "ids":
                np.testing.assert_array_equal(found[name][key], value, err_msg=name)
            else:
                assert_close(found[name][key], value, atol=1e-4)
