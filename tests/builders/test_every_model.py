"""Laws of every builder's model."""

import keras
import pytest

from tests.builders.small_models import MODELS
from tests.helpers import check_weights_begin_apart


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    make, _ = MODELS[request.param]
    return make()


def test_no_two_random_weights_begin_alike(model):
    check_weights_begin_apart(model)


def trained(model):
    """Tell of each weight whether it is trained."""
    ids = {id(weight) for weight in model.trainable_weights}
    return [id(weight) in ids for weight in model.weights]


@pytest.mark.sampled(3)
def test_frozen_layers_are_frozen_in_a_loaded_model(model, tmp_path):
    parts = [layer for layer in model.layers if layer.trainable_weights]
    for part in (parts[0], parts[-1], model):
        part.trainable = False
        expected = trained(model)
        assert not all(expected)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert trained(loaded) == expected
        part.trainable = True
