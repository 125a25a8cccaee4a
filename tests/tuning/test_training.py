import pickle
import types

import keras
import keras_tuner
import numpy as np
import pytest

import kseq
from kseq.tuning import Choice, Float, Int, Space, Training, objective, training_steps
from kseq.tuning.budget import WatchObjective

RANDOM = np.random.default_rng(3)
INPUTS = [RANDOM.integers(1, 7, RANDOM.integers(2, 6)) for _ in range(11)]
LABELS = RANDOM.integers(0, 2, 11)


def tiny(width, pooling=None, extra=None):
    """Return a model that compiles quickly."""
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(7, width)(ids)
    x = keras.layers.GlobalAveragePooling1D()(x)
    for units in extra or ():
        x = keras.layers.Dense(units, activation="relu")(x)
    return keras.Model(ids, keras.layers.Dense(2)(x))


def layers(units, depth):
    return [units] * depth


def training(epochs=1, model=None, **options):
    batch_size = Choice(4, 8, name="batch_size")
    model = model or Space(
        tiny,
        width=Choice(2, 3),
        extra=Choice(None, Space(layers, Int(2, 4), depth=Int(1, 2))),
    )
    settings = {
        "optimizer": Choice(
            Space(keras.optimizers.SGD, Float(1e-3, 1e-1, scale="log")),
            Space(
                keras.optimizers.Adam,
                Space(
                    keras.optimizers.schedules.CosineDecay,
                    Float(1e-3, 1e-1, scale="log"),
                    Space(training_steps, 11, batch_size, epochs),
                ),
            ),
        ),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
        "run_eagerly": True,  # tracing takes longer
        "batches": Space(
            kseq.training.batches, batch_size=batch_size, length_multiple=Choice(2, 4)
        ),
        "epochs": epochs,
    }
    return Training(model, **{**settings, **options})


def search(tuner, space, folder, goal="val_loss", **options):
    fit = options.pop("fit", {})
    options.setdefault("seed", 1)
    tuner = tuner(space, objective(goal), directory=folder, **options)
    data = {"validation_data": (INPUTS, LABELS), "verbose": 0}
    tuner.search(INPUTS, LABELS, **{**data, **fit})
    return tuner


class CustomTuner(keras_tuner.Tuner):
    """A custom tuner."""

    def __init__(self, hypermodel, objective, max_trials, seed, **kwargs):
        oracle = keras_tuner.oracles.RandomSearchOracle(
            objective=objective, max_trials=max_trials, seed=seed
        )
        super().__init__(oracle, hypermodel, **kwargs)

    def run_trial(self, trial, *args, **kwargs):
        hp = trial.hyperparameters
        model = self.hypermodel.build(hp)
        return self.hypermodel.fit(hp, model, *args, **kwargs)


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize(
    "tuner, options",
    [
        (
            keras_tuner.BayesianOptimization,
            {"max_trials": 3, "num_initial_points": 2},
        ),
        (keras_tuner.RandomSearch, {"max_trials": 2}),
        (keras_tuner.Hyperband, {"max_epochs": 2}),
        (keras_tuner.GridSearch, {"max_trials": 2}),
        (CustomTuner, {"max_trials": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_tuner_searches_a_nested_space(tuner, options, tmp_path):
    space = training()
    found = search(tuner, space, tmp_path, **options)
    trials = list(found.oracle.trials.values())
    assert len(trials) >= 2
    assert {trial.status for trial in trials} == {"COMPLETED"}
    for trial in trials:
        values = trial.hyperparameters.values
        searched = {k: v for k, v in values.items() if not k.startswith("tuner/")}
        assert space.checked_values(searched) == searched  # all are active
        assert ("optimizer/SGD/learning_rate" in searched) == (
            searched["optimizer"] == "SGD"
        )
    if tuner is not CustomTuner:
        [model] = found.get_best_models()
        assert model.output_shape == (None, 2)


def test_tuner_builds_one_model_before_the_trials(tmp_path):
    built = []

    def counted(**kwargs):
        built.append(kwargs)
        return tiny(**kwargs)

    space = training(model=Space(counted, width=Choice(2, 3), extra=Choice(None, [3])))
    keras_tuner.RandomSearch(space, "val_loss", directory=tmp_path)
    assert len(built) == 1


def test_the_same_seed_gives_the_same_trials(tmp_path):
    sampled = []
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        tuner = keras_tuner.RandomSearch(
            training(), "val_loss", max_trials=4, seed=seed, directory=tmp_path / name
        )
        tuner.oracle.verbose = 0
        trials = [tuner.oracle.create_trial(f"tuner{i}") for i in range(4)]
        sampled.append([trial.hyperparameters.values for trial in trials])
    assert sampled[0] == sampled[1] != sampled[2]


def test_schedule_depends_on_batch_size_and_epochs():
    space = training(epochs=Int(2, 3))
    values = {"optimizer": "Adam", "batch_size": 4, "epochs": 3}
    schedule = space.build(values).optimizer._learning_rate
    assert schedule.decay_steps == 9
    values["batch_size"] = 8
    assert space.build(values).optimizer._learning_rate.decay_steps == 6


def test_fit_uses_the_chosen_batch_size():
    seen = []

    class RecordSteps(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(self.params["steps"])

    space = training(epochs=Int(1, 2))
    for values in ({"batch_size": 4, "epochs": 2}, {"batch_size": 8}):
        model = space.build(values)
        history = space.fit(
            values,
            model,
            INPUTS,
            LABELS,
            validation_data=(INPUTS, LABELS),
            verbose=0,
            callbacks=[RecordSteps()],
        )
        assert "val_accuracy" in history.history
    assert seen == [3, 3, 2]


def test_data_is_passed_to_fit_unchanged_without_batches():
    space = training(batches=None, optimizer="sgd", batch_size=Choice(5, 11))
    x = np.ones((11, 3), "int32")
    values = {"batch_size": 5}
    history = space.fit(values, space.build(values), x, LABELS, verbose=0)
    assert history.params["steps"] == 3
    data = kseq.training.batches(INPUTS, LABELS, batch_size=3)
    space = training(batches=None)
    assert space.fit({}, space.build({}), data, verbose=0).params["steps"] == 4


def test_callbacks_are_made_for_each_trial():
    stop = Space(keras.callbacks.EarlyStopping, "loss", patience=Int(1, 2))
    space = training(epochs=2, callbacks=[stop])
    assert "callbacks/0/patience" in space.hyperparameters()
    history = space.fit({}, space.build({}), INPUTS, LABELS, verbose=0)
    assert len(history.epoch) == 2


def test_rejects_epochs_that_are_both_searched_and_passed(tmp_path):
    with pytest.raises(ValueError, match="`epochs` must not be passed.*`Hyperband`"):
        search(keras_tuner.Hyperband, training(Int(1, 2)), tmp_path, max_epochs=2)


def test_objective_without_a_metric_ends_the_search_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"value that `fit` reports.*val_loss.*val_f1"):
        search(
            keras_tuner.RandomSearch,
            training(epochs=500),
            tmp_path,
            goal="val_f1",
            max_trials=3,
        )


def test_objective_is_required_only_in_validated_epochs():
    tuners = types.SimpleNamespace(objective=objective("val_loss"))
    watch = WatchObjective([tuners], validation_freq=2)
    watch.on_epoch_end(0, {"loss": 1.0})
    watch.on_epoch_end(1, {"loss": 1.0, "val_loss": 1.0})
    with pytest.raises(ValueError, match="value that `fit` reports"):
        watch.on_epoch_end(3, {"loss": 1.0})


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"max_parameters": 28}, "at most max_parameters=28 weights. Received: 29"),
        # 29 weights and gradients of 4 bytes; a step of 8 and a rate of 4
        ({"max_memory": 240}, "at most max_memory=240 bytes. Received: 24[14]"),
    ],
)
def test_a_model_over_the_budget_fails_before_it_trains(limits, message):
    model = Space(tiny, width=Choice(2, 3)).limited(**limits)
    space = training(model=model, optimizer="sgd")
    small, large = {"model/width": 2}, {"model/width": 3}
    space.fit(small, space.build(small), INPUTS, LABELS, verbose=0)
    model = space.build(large)
    with pytest.raises(keras_tuner.errors.FailedTrialError, match=message):
        space.fit(large, model, INPUTS, LABELS, verbose=0)
    assert int(model.optimizer.iterations) == 0


def test_search_continues_after_a_model_over_the_budget(tmp_path):
    space = Training(
        Space(tiny, width=Choice(3, 2)),
        optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batches=Space(kseq.training.batches),
    ).limited(max_parameters=28)
    tuner = search(keras_tuner.GridSearch, space, tmp_path)
    found = {
        trial.hyperparameters.values["model/width"]: trial.status
        for trial in tuner.oracle.trials.values()
    }
    assert found == {3: "FAILED", 2: "COMPLETED"}


def test_a_training_can_be_pickled():
    space = training()
    restored = pickle.loads(pickle.dumps(space))
    assert restored.defaults() == space.defaults()
    assert str(restored) == str(space)
    values = {"model/extra": "layers", "batch_size": 8}
    assert restored.build(values).count_params() == space.build(values).count_params()
    history = restored.fit(values, restored.build(values), INPUTS, LABELS, verbose=0)
    assert history.params["steps"] == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"learning_rate": 0.1},
            r"arguments of Keras' `compile`.*Received: \['learning_r",
        ),
        ({"batches": [1]}, r"`batches` must be a Space.*Use Space\(kseq.training"),
        ({"model": "lstm"}, "`model` must be a Space or a Choice of Spaces"),
        ({"optimizer": keras.optimizers.Adam()}, r"Use Space\(Adam"),
        ({"max_parameters": 5}, "max_parameters"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        training(**options)


@pytest.mark.parametrize("limit", [0, -1, True, "1 GB", float("inf")])
def test_rejects_a_limit_that_is_not_a_positive_number(limit):
    with pytest.raises(ValueError, match="`max_memory` must be a"):
        training().limited(max_memory=limit)


def test_searched_heads_with_a_loss_are_compiled_without_another():
    heads = Choice(None, "crf", "ctc")
    model = Space(kseq.many_to_many, 7, 2, "rnn", width=3, head=heads)
    space = training(model=model, optimizer="sgd")
    for head in heads.labels:
        compiled = space.build({"model/head": head})
        assert (compiled.loss is None) == (head in ("crf", "ctc"))
        loss, _ = compiled.train_on_batch(np.array([[4, 5]]), np.array([[0, 1]]))
        assert np.isfinite(loss)
