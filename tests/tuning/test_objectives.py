import copy
import types

import keras
import keras_tuner
import numpy as np
import pytest

from kseq.tuning import Decoding, GenerationScores, Int, Space, objective

SOURCE = [[5], [6, 7], [8, 9, 9], [5, 5]]
# With a start token and without, padded and not.
TARGET = [[2, 5, 6, 3], [7, 8, 9, 3], [2, 4, 3, 0], [3]]
WRITTEN = [[5, 6, 3, 0], [7, 9, 3, 0], [4, 4, 4, 4], [3, 0, 0, 0]]


class Scripted:
    """A model that writes what it is told."""

    start_token_id, end_token_id, pad_token_id = 2, 3, 0

    def generate(self, source, search, max_length, batch_size):
        assert source == SOURCE
        self.asked = search, max_length, batch_size
        length = getattr(search, "length", 4)
        token_ids = np.array(WRITTEN)[:, None, :length]
        return types.SimpleNamespace(token_ids=token_ids)


def to_text(rows):
    return [" ".join("abcdefghij"[token_id] for token_id in row) for row in rows]


def test_scores_are_those_of_what_is_written():
    names = ["exact_match", "edit_distance_rate", "bleu", "chrf"]
    scores = GenerationScores(SOURCE, TARGET, names, to_text)
    measured = scores.measure(Scripted())
    assert measured["exact_match"] == 2 / 4
    # Of 2 + 3 + 1 + 0 tokens, one is deleted in row 1, three are inserted in row 2.
    assert measured["edit_distance_rate"] == pytest.approx(4 / 6)
    import sacrebleu

    written = ["f g", "h j", "e e e e", ""]
    wanted = [["f g", "h i j", "e", ""]]
    assert measured["bleu"] == sacrebleu.corpus_bleu(written, wanted).score
    assert measured["chrf"] == sacrebleu.corpus_chrf(written, wanted).score > 0


def test_a_hypothesis_is_given_room_for_half_as_much_again():
    model = Scripted()
    GenerationScores(SOURCE, TARGET, batch_size=7).measure(model)
    assert model.asked == (None, 4 + 2 + 1, 7)


def test_the_epoch_reports_the_scores_and_keeps_them_between():
    scores = GenerationScores(SOURCE, TARGET, "exact_match", every=3)
    model, seen = Scripted(), []
    model.generate = lambda *args, **kwargs: (
        seen.append(1) or Scripted.generate(model, *args, **kwargs)
    )
    scores.set_model(model)
    scores.set_params({"epochs": 5})
    times = []
    for epoch in range(5):
        logs = {"loss": 1.0}
        scores.on_epoch_end(epoch, logs)
        assert logs == {"loss": 1.0, "val_written_exact_match": 0.5}
        times.append(len(seen))
    assert times == [1, 1, 2, 2, 3]  # the first, every third, the last


def test_a_tuner_may_copy_the_callback():
    scores = copy.deepcopy(GenerationScores(SOURCE, TARGET))
    assert scores.measure(Scripted())["exact_match"] == 0.5


@pytest.mark.parametrize(
    "name, direction",
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_written_bleu", "max"),
        ("val_written_edit_distance_rate", "min"),
        ("val_exact_match", "max"),
        ("mean_squared_error", "min"),
        ("val_auc", "max"),
        ("val_token_accuracy", "max"),
    ],
)
def test_directions_that_are_known(name, direction):
    found = objective(name)
    assert isinstance(found, keras_tuner.Objective)
    assert (found.name, found.direction) == (name, direction)


def test_a_direction_can_be_told():
    assert objective("charm", "max").direction == "max"
    with pytest.raises(ValueError, match="name='charm', direction=None"):
        objective("charm")
    with pytest.raises(ValueError, match="direction='up'"):
        objective("val_loss", "up")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": TARGET[:3]}, "4 rows of source and 3 of target"),
        ({"source": [], "target": []}, "at least|0 rows"),
        ({"scores": ["rouge"]}, "one or more of.*exact_match.*Received.*rouge"),
        ({"scores": []}, "one or more of"),
        ({"scores": ["bleu"]}, "`to_text` must be given for BLEU"),
        ({"every": 0}, "`every` must be a positive integer"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationScores(**{"source": SOURCE, "target": TARGET, **options})


def cut(length):
    return types.SimpleNamespace(length=length)


class Writer(keras.Model):
    """A Keras model that writes what it is told."""

    start_token_id, end_token_id, pad_token_id = 2, 3, 0

    def __init__(self):
        super().__init__()
        self.built = True

    generate = Scripted.generate


def test_decoding_is_searched_without_training(tmp_path):
    model = Writer()
    space = Decoding(model, Space(cut, Int(1, 4)), SOURCE, TARGET)
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
    # Cut to one token: [5], [7], [4], []; to two: [5 6], [7 9], [4 4], []
    assert scores == pytest.approx({1: 3 / 6, 2: 2 / 6, 3: 3 / 6, 4: 4 / 6})
    [best] = tuner.get_best_hyperparameters()
    assert space.best_search(best).length == 2
    assert space.best_search({"search/length": 3}).length == 3
    assert space.build(best) is model


def test_decoding_needs_a_model_that_writes():
    with pytest.raises(ValueError, match="a trained model that writes"):
        Decoding(keras.Sequential(), Space(cut, Int(1, 4)), SOURCE, TARGET)
