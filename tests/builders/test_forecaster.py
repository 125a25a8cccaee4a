"""Models that generate numbers: `generate` agrees with the outputs of the model.

Axes in shape comments: B batch, N draws, T target steps, S source steps, F features.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.builders import forecaster
from kseq.decoding.randomness import row_seeds, uniforms
from kseq.layers import (
    FeatureEmbedding,
    ForecastHead,
    RecurrentDecoder,
    RecurrentEncoder,
    TokenEmbedding,
    TransformerDecoder,
    TransformerEncoder,
)
from kseq.training import ForecastLoss, teacher_forcing
from tests.advice.eagerly import eagerly
from tests.helpers import array, assert_close, random_array, randomize

B, S, T, FEATURES, TARGETS, COVARIATES, WIDTH = 3, 7, 5, 3, 2, 4, 6
PAST, FUTURE = random_array(B, S, FEATURES), random_array(B, T, TARGETS, seed=1)
CALENDAR = random_array(B, T, COVARIATES, seed=2)
HEADS = ["mean", "gaussian", "student_t", "negative_binomial", "quantiles"]
POSITIONS = {"positions": "sinusoidal"}


def recurrent(attention):
    return {
        "encoder": RecurrentEncoder("gru", 5, bidirectional=True),
        "decoder": RecurrentDecoder("lstm", 6, 2, attention=attention),
    }


DECODERS = {
    "bahdanau": lambda: recurrent("bahdanau"),
    "luong": lambda: recurrent("luong"),
    "no attention": lambda: recurrent(None),
    "transformer": lambda: {
        "encoder": TransformerEncoder(1, 2),
        "decoder": TransformerDecoder(2, 2),
    },
    "prefix": lambda: {
        "encoder": TransformerEncoder(1, 2),
        "decoder": TransformerDecoder(1, 3, cross_attention=False, rotary=True),
    },
}


@pytest.fixture
def eager():
    """Run functions eagerly, because compiling takes longer."""
    with eagerly():
        yield


def make_model(decoder="bahdanau", head="gaussian", covariates=True, **options):
    source, target, known = FEATURES, TARGETS, COVARIATES
    model = kseq.encoder_decoder(
        source=FeatureEmbedding(source, WIDTH, **POSITIONS),
        target=FeatureEmbedding(target, WIDTH, **POSITIONS),
        covariates=FeatureEmbedding(known, WIDTH) if covariates else None,
        head=head,
        **DECODERS[decoder](),
        **options,
    )
    randomize(model)
    return model


def inputs_of(before, rows=slice(None), covariates=True):
    inputs = {"source": PAST[rows], "target": before}
    return {**inputs, "covariates": CALENDAR[rows, : before.shape[1]]}


def shifted(target):
    """Return the numbers before each step, which are unknown before the first."""
    return np.concatenate([np.full_like(target[:, :1], np.nan), target[:, :-1]], axis=1)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_single_steps_equal_the_whole_sequence(decoder, head):
    model = make_model(decoder, head)
    target = FUTURE.copy()
    target[1, 2, 0] = np.nan  # a gap
    whole = array(model(inputs_of(shifted(target))))
    state, constants = model.start(PAST, num_draws=2, num_steps=T)
    for t, before in enumerate(np.moveaxis(shifted(target), 1, 0)):
        read = {
            "target": np.stack([before, before], axis=1),
            "covariates": CALENDAR[:, t : t + 1],
        }
        outputs, state = model.step(read, state, constants)
        for draw in (0, 1):
            assert_close(array(outputs)[:, draw], whole[:, t], atol=1e-5)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_without_sampling_the_means_are_fed_back(decoder, head):
    model = make_model(decoder, head)
    forecast = model.generate(PAST, T, covariates=CALENDAR)
    assert forecast.draws.shape == (B, 1, T, TARGETS)
    generated = np.zeros((B, 0, TARGETS), "float32")
    for _ in range(T):
        unknown = np.full((B, 1, TARGETS), np.nan, "float32")
        before = np.concatenate([unknown, generated], axis=1)
        outputs = model.head.mean(model(inputs_of(before)))
        generated = np.concatenate([generated, array(outputs)[:, -1:]], axis=1)
    assert_close(forecast.mean, generated, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("decoder", ["bahdanau", "transformer"])
def test_draws_of_a_row_depend_only_on_the_seed(decoder, monkeypatch):
    model = make_model(decoder)
    options = {"num_steps": T, "seed": 3}
    draws = model.generate(PAST, num_draws=5, covariates=CALENDAR, **options).draws
    assert draws.shape == (B, 5, T, TARGETS)
    assert np.unique(draws[..., 0, 0]).size == B * 5

    def again(rows=slice(None), num_draws=5, **more):
        return model.generate(
            PAST[rows],
            num_draws=num_draws,
            covariates=CALENDAR[rows],
            **{**options, **more},
        ).draws

    assert_close(again(batch_size=2), draws, atol=1e-5)
    assert_close(again(slice(2)), draws[:2], atol=1e-5)
    assert_close(again(num_draws=2), draws[:, :2], atol=1e-5)
    assert (again(seed=4) != draws).all()
    monkeypatch.setattr(forecaster, "DRAWS_AT_A_TIME", 2)
    assert_close(again(), draws, atol=1e-5)


@pytest.mark.parametrize("head", HEADS[1:])
def test_draws_have_the_mean_of_the_predicted_distribution(head):
    model = make_model(head=head, covariates=False)
    forecast = model.generate(PAST, num_steps=1, num_draws=2000, seed=0)
    outputs = model({"source": PAST, "target": np.full((B, 1, TARGETS), np.nan)})
    means, deviations = array(model.head.mean(outputs)), forecast.draws.std(axis=1)
    assert (abs(forecast.mean - means) < 4 * deviations / 2000**0.5).all()


@pytest.mark.usefixtures("eager")
def test_draws_are_fed_back():
    model = make_model(head="student_t", covariates=False)
    found = model.generate(PAST, num_steps=3, num_draws=2, seed=1).draws
    seeds, first = row_seeds(1, B), ops.zeros((B,), "int32")
    drawn = np.zeros((B, 2, 0, TARGETS), "float32")
    for t in range(3):
        unknown = np.full((B, 2, 1, TARGETS), np.nan, "float32")
        before = np.concatenate([unknown, drawn], axis=2)
        noise = array(uniforms(seeds, 2, t, TARGETS * 2, first))
        noise = noise.reshape(B, 2, TARGETS, 2)
        paths = [model({"source": PAST, "target": before[:, k]}) for k in (0, 1)]
        outputs = np.stack([array(path)[:, -1] for path in paths], axis=1)  # B N F P
        numbers = array(model.head.draw(*map(ops.convert_to_tensor, (outputs, noise))))
        drawn = np.concatenate([drawn, numbers[:, :, None]], axis=2)
    assert_close(found, drawn, atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("eager")
def test_a_batch_equals_its_rows():
    model = make_model(covariates=False)
    whole = model.generate(PAST, num_steps=T).draws
    for row in range(B):
        alone = model.generate(PAST[row : row + 1], num_steps=T).draws
        assert_close(alone, whole[row : row + 1], atol=1e-5)


@pytest.mark.usefixtures("eager")
def test_sources_of_different_lengths_are_padded():
    source = FeatureEmbedding(FEATURES, WIDTH, mask_value=np.nan)
    target = FeatureEmbedding(TARGETS, WIDTH)
    model = kseq.encoder_decoder(source, target, width=6, head="gaussian")
    randomize(model)
    rows = [PAST[0], PAST[1, :4], PAST[2, :5]]
    options = {"num_steps": T, "num_draws": 2, "seed": 1}
    whole = model.generate(rows, **options).draws
    for index in range(B):
        alone = model.generate(rows[: index + 1], **options).draws
        assert_close(alone[index], whole[index], atol=1e-5)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_a_model_without_a_source_continues_a_prefix(decoder):
    target = FeatureEmbedding(TARGETS, WIDTH, **POSITIONS)
    model = kseq.one_to_many(target, decoder=decoder, width=6, head="gaussian")
    randomize(model)
    path = model.generate(B, num_steps=T).draws
    assert_close(path, np.broadcast_to(path[:1], path.shape))
    prefix = FUTURE[:, :3].copy()
    forecast = model.generate(prefix=prefix, num_steps=2)
    outputs = model(
        {"target": shifted(np.concatenate([prefix, forecast.mean], axis=1))}
    )
    assert_close(forecast.mean, array(model.head.mean(outputs))[:, 3:], atol=1e-4)
    # Unknown numbers of a prefix are generated.
    prefix[:, 1, 0] = np.nan
    partly = model.generate(prefix=prefix, num_steps=2)
    outputs = model({"target": shifted(prefix)})
    prefix[:, 1, 0] = array(model.head.mean(outputs))[:, 1, 0]
    filled = model.generate(prefix=prefix, num_steps=2)
    assert_close(partly.mean, filled.mean, atol=1e-4)


@pytest.mark.usefixtures("eager")
def test_a_class_can_be_the_source():
    target = FeatureEmbedding(TARGETS, WIDTH)
    model = kseq.one_to_many(target, condition=5, width=6, head="gaussian")
    draws = model.generate([4, 0], num_steps=T, num_draws=3, seed=1).draws
    assert draws.shape == (2, 3, T, TARGETS)


@pytest.mark.usefixtures("eager")
def test_tokens_can_be_the_source():
    target = FeatureEmbedding(TARGETS, WIDTH)
    model = kseq.encoder_decoder(11, target, width=6)
    assert model.generate([[4, 5, 6], [7]], num_steps=T).mean.shape == (2, T, TARGETS)


@pytest.mark.parametrize("head", HEADS)
def test_one_training_step_changes_every_weight(head):
    model = make_model(head=head)
    eager = keras.backend.backend() == "tensorflow"  # tracing takes longer
    model.compile(keras.optimizers.SGD(0.1), ForecastLoss(head), run_eagerly=eager)
    before = [array(weight) for weight in model.trainable_weights]
    counts = np.random.default_rng(0).poisson(3, FUTURE.shape).astype("float32")
    target = counts if head == "negative_binomial" else FUTURE.copy()
    target[0, 1, 1] = np.nan
    batches = teacher_forcing(PAST, target, covariates=CALENDAR)
    history = model.fit(batches, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(array(weight)).all()
        if not weight.path.endswith("key/bias"):
            assert (array(weight) != old).any(), weight.path


def test_padding_of_targets_does_not_change_the_loss():
    model = make_model(covariates=False)
    model.compile("sgd", ForecastLoss("gaussian"))
    [(inputs, labels)] = teacher_forcing(PAST, FUTURE, shuffle=False)
    expected = model.evaluate(inputs, labels, verbose=0)
    more = [(0, 0), (0, 3), (0, 0)]
    inputs["target"] = np.pad(inputs["target"], more, constant_values=np.nan)
    labels = np.pad(labels, more, constant_values=np.nan)
    assert model.evaluate(inputs, labels, verbose=0) == pytest.approx(expected, 1e-5)


SCRIPT = """
import sys
import keras, kseq, numpy as np
model = keras.saving.load_model(sys.argv[1])
past, calendar = np.load(sys.argv[2]), np.load(sys.argv[3])
forecast = model.generate(past, 5, num_draws=3, seed=1, covariates=calendar)
np.save(sys.argv[4], forecast.draws)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "decoder", ["bahdanau", pytest.param("transformer", marks=pytest.mark.thorough)]
)
def test_a_new_process_generates_the_same_from_a_file(decoder, tmp_path):
    head = ForecastHead("quantiles", TARGETS, quantiles=(0.1, 0.5, 0.9), name="head")
    model = make_model(decoder, head)
    model.compile("adam", ForecastLoss("quantiles", quantiles=(0.1, 0.5, 0.9)))
    model.save(tmp_path / "model.keras")
    paths = [str(tmp_path / name) for name in ("past.npy", "calendar.npy", "draws.npy")]
    np.save(paths[0], PAST)
    np.save(paths[1], CALENDAR)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "model.keras"), *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    forecast = model.generate(PAST, T, num_draws=3, seed=1, covariates=CALENDAR)
    assert_close(np.load(paths[2]), forecast.draws, atol=1e-5)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("decoder", ["bahdanau", "transformer"])
def test_half_precision_generates_nearly_the_same(decoder, policy):
    model = make_model(decoder)
    expected = model.generate(PAST, T, covariates=CALENDAR).mean
    keras.config.set_dtype_policy(policy)
    try:
        half = make_model(decoder)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    found = half.generate(PAST, T, covariates=CALENDAR).mean
    assert found.dtype == "float32"
    assert abs(found - expected).max() < 0.1 * expected.std()
    draws = half.generate(PAST, T, num_draws=3, seed=1, covariates=CALENDAR).draws
    assert np.isfinite(draws).all()


def test_a_loop_is_compiled_once_for_each_shape():
    model = make_model(covariates=False)
    model.generate(PAST, T, num_draws=2, seed=1)
    [loop] = model._compiled_loops.models.values()
    model.generate(PAST, T, num_draws=2, seed=2)
    model.generate(PAST + 1, T, num_draws=2)
    assert list(model._compiled_loops.models.values()) == [loop]


def test_a_frozen_layer_stays_frozen_after_loading(tmp_path):
    model = make_model()
    model.numbers.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.numbers.trainable_weights
    assert len(loaded.trainable_weights) == len(model.trainable_weights)


def test_rejects_covariates_for_a_target_of_tokens():
    with pytest.raises(ValueError, match="`covariates` need a target of numbers"):
        kseq.encoder_decoder(11, 13, covariates=FeatureEmbedding(2, 3), width=3)
    assert kseq.encoder_decoder(11, TokenEmbedding(13, 3), width=3).end_token_id == 3
