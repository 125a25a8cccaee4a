"""Scheduled sampling: models that read their own predictions in training."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import PointerGenerator, ScheduledSampling
from kseq.training import SequenceCrossentropy, teacher_forcing
from tests.helpers import array, assert_close

SOURCE = [[4, 5, 6, 7], [8, 5, 0, 0]]
TARGET = [[2, 5, 6, 7, 8, 3], [2, 5, 3]]
KINDS = {
    "gru": lambda **options: kseq.encoder_decoder(11, 13, width=8, **options),
    "transformer": lambda **options: kseq.encoder_decoder(
        11, 13, "transformer", "transformer", width=8, **options
    ),
    "language model": lambda **options: kseq.one_to_many(13, width=8, **options),
}


def make_model(make, **options):
    keras.utils.set_random_seed(4)
    model = make(**options)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.5 * keras.random.normal(weight.shape, seed=3))
    return model


def data_of(model, target=TARGET):
    source = SOURCE if model.source is not None else None
    return teacher_forcing(source, target, batch_size=2, shuffle=False)


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("kind", KINDS)
def test_with_a_pass_for_each_step_it_reads_the_greedy_tokens(kind):
    sampling = ScheduledSampling("constant", choice="argmax", passes=5)
    model = make_model(KINDS[kind], scheduled_sampling=sampling)
    never_ends = [kseq.decoding.BannedTokens([3])]
    source = SOURCE if model.source is not None else 2
    search = kseq.decoding.GreedySearch(never_ends)
    generated = model.generate(source, search, max_length=5).token_ids[:, 0]

    inputs = {"target": np.full((2, 6), 5, "int32")}
    inputs["target"][:, 0] = 2
    if model.source is not None:
        inputs["source"] = np.array(SOURCE)
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    banned = np.where(np.arange(13) == 3, -np.inf, 0.0).astype("float32")
    banned = keras.ops.convert_to_tensor(banned)
    mixed = sampling.mix(
        inputs["target"], lambda ids: model({**inputs, "target": ids}) + banned, 0
    )
    assert_close(array(mixed)[:, 1:], generated)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_reads_the_mixture_only_in_training(kind):
    model = make_model(KINDS[kind], scheduled_sampling=1.0)
    plain = KINDS[kind]()
    for weight, trained in zip(
        plain.trainable_weights, model.trainable_weights, strict=True
    ):
        weight.assign(trained)
    inputs, labels = data_of(model)[0]
    assert_close(model(inputs), plain(inputs), rtol=1e-5)
    difference = array(model(inputs, training=True)) - array(plain(inputs))
    assert abs(difference[:, 0]).max() < 1e-4, "the start token stays"
    assert abs(difference[:, 2]).max() > 1e-3


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("kind", KINDS)
def test_trains_counts_steps_and_survives_saving_and_cloning(kind, tmp_path):
    sampling = ScheduledSampling("linear", steps=4, max_rate=0.7, seed=1)
    model = KINDS[kind](scheduled_sampling=sampling)
    model.compile(keras.optimizers.Adam(0.02), SequenceCrossentropy())
    data = data_of(model)
    before = model.evaluate(data, verbose=0)
    model.fit(data, epochs=9, verbose=0)
    assert model.evaluate(data, verbose=0) < before
    assert int(model.scheduled_sampling.step) == 9
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.scheduled_sampling.step) == 9
    assert loaded.scheduled_sampling.get_config() == sampling.get_config()
    inputs, _ = data[0]
    assert_close(loaded(inputs), model(inputs))
    assert isinstance(
        keras.models.clone_model(model).scheduled_sampling, ScheduledSampling
    )
    loaded.fit(data, verbose=0)
    assert int(loaded.scheduled_sampling.step) == 10


def test_none_and_zero_disable_scheduled_sampling():
    for value in (None, 0, 0.0):
        assert KINDS["gru"](scheduled_sampling=value).scheduled_sampling is None


INVALID = {
    "a name without a rate": lambda: KINDS["gru"](scheduled_sampling="linear"),
    "too high a rate": lambda: KINDS["gru"](scheduled_sampling=1.5),
    "numbers": lambda: kseq.encoder_decoder(
        11, kseq.layers.FeatureEmbedding(1, 8), width=8, scheduled_sampling=0.5
    ),
    "a coverage loss": lambda: kseq.encoder_decoder(
        11, 11, width=8, copy=PointerGenerator(coverage=1.0), scheduled_sampling=0.5
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_rejects_invalid_arguments(case):
    with pytest.raises(ValueError, match="Received: "):
        INVALID[case]()
