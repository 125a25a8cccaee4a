"""Sublayers that are frozen individually."""

import keras
import numpy as np
import pytest

from kseq.layers import RecurrentEncoder
from tests.builders.small_models import MODELS
from tests.builders.test_every_model import trainable_flags


def first_sublayers(model):
    """Yield the first sublayer with weights of each layer of the model."""
    for layer in model.layers:
        yield from [x for x in layer._flatten_layers(False) if x.weights][:1]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "ensemble"])
def test_a_frozen_sublayer_stays_frozen_in_copies_and_files(name, tmp_path):
    model = MODELS[name][0]()
    for sublayer in first_sublayers(model):
        sublayer.trainable = False
    expected = trainable_flags(model)
    assert not all(expected)
    model.save(tmp_path / "model.keras")
    assert (
        trainable_flags(keras.saving.load_model(tmp_path / "model.keras")) == expected
    )
    assert trainable_flags(keras.models.clone_model(model)) == expected


def test_config_lists_frozen_sublayers_before_and_after_the_build():
    encoder = RecurrentEncoder("gru", 3, num_layers=2)
    assert "frozen_parts" not in encoder.get_config()
    encoder(np.ones((2, 5, 3), "float32"))
    encoder.recurrent_layers[0].trainable = False
    config = encoder.get_config()
    copy = RecurrentEncoder.from_config(config)
    assert copy.get_config()["frozen_parts"] == config["frozen_parts"]
    copy(np.ones((2, 5, 3), "float32"))
    assert copy.get_config()["frozen_parts"] == config["frozen_parts"]
    assert len(copy.trainable_weights) == len(encoder.trainable_weights) == 3
    copy.trainable = False
    copy.trainable = True
    assert len(copy.trainable_weights) == 6
