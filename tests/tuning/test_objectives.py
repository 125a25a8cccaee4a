import types

import keras
import keras_tuner
import pytest

from kseq.tuning import Decoding, Int, Space, objective
from tests.training.scripted import SOURCE, TARGET, ScriptedModel


@pytest.mark.parametrize(
    "name, direction",
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_written_bleu", "max"),
        ("val_written_ter", "min"),
        ("val_written_wer", "min"),
        ("val_written_cer", "min"),
        ("val_written_edit_distance_rate", "min"),
        ("val_exact_match", "max"),
        ("mean_squared_error", "min"),
        ("val_auc", "max"),
        ("val_token_accuracy", "max"),
    ],
)
def test_known_metrics_have_a_direction(name, direction):
    found = objective(name)
    assert isinstance(found, keras_tuner.Objective)
    assert (found.name, found.direction) == (name, direction)


def test_a_direction_can_be_given():
    assert objective("charm", "max").direction == "max"
    with pytest.raises(ValueError, match="name='charm', direction=None"):
        objective("charm")
    with pytest.raises(ValueError, match="direction='up'"):
        objective("val_loss", "up")


def search_of_length(length):
    return types.SimpleNamespace(length=length)


class ScriptedKerasModel(keras.Model):
    """A Keras model that generates scripted token ids."""

    start_token_id, end_token_id, pad_token_id = 2, 3, 0

    def __init__(self):
        super().__init__()
        self.built = True

    generate = ScriptedModel.generate


def test_decoding_is_searched_without_training(tmp_path):
    model = ScriptedKerasModel()
    space = Decoding(model, Space(search_of_length, Int(1, 4)), SOURCE, TARGET)
    assert list(space.hyperparameters()) == ["search/length"]
    tuner = keras_tuner.GridSearch(
        space, objective("edit_distance_rate"), directory=tmp_path
    )
    tuner.search(verbose=0)
    assert len(tuner.oracle.trials) == 4
    scores = {
        trial.hyperparameters.values["search/length"]: trial.score
        for trial in tuner.oracle.trials.values()
    }
    # With one token: [5], [7], [4], []; with two: [5 6], [7 9], [4 4], []
    assert scores == pytest.approx({1: 3 / 6, 2: 2 / 6, 3: 3 / 6, 4: 4 / 6})
    [best] = tuner.get_best_hyperparameters()
    assert space.best_search(best).length == 2
    assert space.best_search({"search/length": 3}).length == 3
    assert space.build(best) is model


def test_decoding_needs_a_model_with_generate():
    with pytest.raises(ValueError, match="a trained model with a `generate`"):
        Decoding(keras.Sequential(), Space(search_of_length, Int(1, 4)), SOURCE, TARGET)
