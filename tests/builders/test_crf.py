"""Models that end with a CRF: loss, predictions and saved files."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.builders import ManyToMany
from kseq.layers import CRF, RecurrentEncoder, TokenEmbedding
from tests.helpers import (
    array,
    assert_close,
    dtype_policy,
    random_array,
    randomize,
)

SIZE, LABELS, WIDTH = 11, 3, 5
SOURCE = np.array([[4, 5, 6, 7], [8, 2, 0, 0], [0, 9, 1, 10]], "int32")
REAL = SOURCE != 0
TAGS = np.array([[2, 0, 1, 1], [1, 2, 9, 9], [9, 0, 2, 2]], "int32")  # 9 is not a label
WEIGHTS = np.array([1.0, 0.5, 3.0], "float32")
NAMES = ["O", "B-a", "I-a"]


def tagger(head="crf", **options):
    model = kseq.many_to_many(SIZE, LABELS, "rnn", WIDTH, head=head, **options)
    randomize(model)
    return model


def accuracy():
    return kseq.training.TokenAccuracy(-1, "accuracy")


def compile_model(model, optimizer=None, **options):
    is_slow = keras.backend.backend() == "tensorflow"  # tracing is slow
    optimizer = optimizer or keras.optimizers.SGD(0.0)
    model.compile(optimizer, run_eagerly=is_slow, **options)


def row_losses(model):
    return array(model.crf.negative_log_likelihood(TAGS, model(SOURCE)))


def best_labels(model):
    potentials = array(model(SOURCE))
    return array(model.crf.best_scores(potentials, REAL)).argmax(axis=-1)


def test_the_name_crf_builds_a_crf_layer():
    short, long = tagger(), tagger(CRF(LABELS))
    assert isinstance(short.crf, CRF) and short.crf is short.get_layer("head")
    assert [w.shape for w in short.weights] == [w.shape for w in long.weights]
    assert kseq.many_to_many(SIZE, LABELS, width=WIDTH).crf is None


STEP_WEIGHTS = np.array([[1, 2, 0, 1], [0.25, 0.75, 7, 7], [7, 3, 3, 3]], "float32")


@pytest.mark.parametrize("weights", [None, WEIGHTS, WEIGHTS[:, None], STEP_WEIGHTS])
def test_the_loss_is_the_mean_negative_log_likelihood_of_real_steps(weights):
    model = tagger()
    compile_model(model)
    shares = np.ones(3) if weights is None else WEIGHTS
    expected = (row_losses(model) * shares).sum() / (REAL.sum(1) * shares).sum()
    found = model.evaluate(SOURCE, TAGS, sample_weight=weights, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)


def test_regularization_is_added_to_the_loss():
    options = {"return_sequences": True, "kernel_regularizer": "l2"}
    encoder = keras.layers.GRU(WIDTH, **options)
    model = kseq.many_to_many(SIZE, LABELS, encoder, WIDTH, head="crf")
    compile_model(model)
    penalty = 0.01 * (array(encoder.cell.kernel) ** 2).sum()
    expected = row_losses(model).sum() / REAL.sum() + penalty
    assert model.evaluate(SOURCE, TAGS, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_predictions_and_metrics_use_the_best_paths():
    model = tagger(CRF(labels=NAMES))
    model.crf.transitions.assign(3 * random_array(LABELS, LABELS))
    best = best_labels(model)
    assert (best != array(model(SOURCE)).argmax(-1))[REAL].any(), "equals the argmax"
    right = (best == TAGS)[REAL].mean()
    compile_model(model, metrics=[accuracy()])
    assert model.evaluate(SOURCE, TAGS, verbose=0)[1] == pytest.approx(right)
    history = model.fit(SOURCE, TAGS, batch_size=3, verbose=0).history
    assert history["accuracy"] == [pytest.approx(right)]
    for found in (
        model.predict(SOURCE, batch_size=2, verbose=0),
        model.predict_on_batch(SOURCE),
    ):
        assert (array(found).argmax(-1) == best)[REAL].all()


def test_metrics_use_the_current_weights():
    """On JAX, a metric sees only the weights that are passed to it."""
    model = tagger()
    compile_model(model, metrics=[accuracy()])
    model.fit(SOURCE, TAGS, batch_size=3, verbose=0)
    model.crf.transitions.assign(5 * random_array(LABELS, LABELS, seed=4))
    right = (best_labels(model) == TAGS)[REAL].mean()
    history = model.fit(SOURCE, TAGS, batch_size=3, verbose=0).history
    assert history["accuracy"] == [pytest.approx(right)]


@pytest.mark.parametrize("size", [LABELS, 9])
def test_one_training_step_changes_every_weight_and_survives_saving(size, tmp_path):
    model = kseq.many_to_many(SIZE, size, "rnn", WIDTH, head="crf", dropout=0.2)
    before = [array(weight) for weight in model.trainable_weights]
    compile_model(model, keras.optimizers.SGD(0.5), metrics=[accuracy()])
    model.fit(SOURCE, TAGS, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(array(weight)).all(), weight.path
        assert (array(weight) != old).any(), f"no gradient reaches {weight.path}"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and loaded.optimizer.iterations == 1
    assert_close(loaded(SOURCE), model(SOURCE))
    for weights in (None, WEIGHTS):
        pair = [
            each.evaluate(SOURCE, TAGS, sample_weight=weights, verbose=0)
            for each in (loaded, model)
        ]
        assert_close(*map(np.array, pair))


def test_clones_and_models_from_configs_predict_the_same():
    model = tagger(CRF(labels=NAMES, allowed_last=[1, 1, 0]))
    compile_model(model, "sgd", metrics=[accuracy()])
    for copy in (
        keras.models.clone_model(model),
        ManyToMany.from_config(model.get_config()),
    ):
        copy.set_weights(model.get_weights())
        assert type(copy) is ManyToMany and copy.crf is not model.crf
        assert copy.crf.get_config() == model.crf.get_config()
        best = copy.predict_on_batch(SOURCE)
        assert_close(array(best), array(model.predict_on_batch(SOURCE)))


def test_a_frozen_head_stays_frozen_after_loading(tmp_path):
    model = tagger()
    model.crf.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    names = {w.path.split("/")[0] for w in loaded.trainable_weights}
    assert names == {"embedding", "encoder"}


def test_a_quantized_model_decodes_and_warns_about_the_crf():
    model = tagger()
    before = array(model.predict_on_batch(SOURCE))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.quantize("int8")
    assert any("Layer CRF does" in str(x.message) for x in caught)
    assert_close(array(model.predict_on_batch(SOURCE)), before, atol=0.2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_decodes_in_float32(policy):
    with dtype_policy(policy):
        model = tagger(CRF(labels=NAMES))
        compile_model(model, "sgd", metrics=[accuracy()])
        model.fit(SOURCE, TAGS, verbose=0)
        found = model.predict_on_batch(SOURCE)
    assert all(np.isfinite(array(w)).all() for w in model.weights)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"


def test_a_custom_functional_model_can_end_with_a_crf():
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(SIZE, WIDTH, mask_zero=True)(words)
    x = keras.layers.GRU(WIDTH, return_sequences=True)(x)
    model = ManyToMany(words, CRF(LABELS)(x))
    compile_model(model, "sgd", metrics=[accuracy()])
    model.fit(SOURCE, TAGS, verbose=0)
    found = array(model.predict_on_batch(SOURCE))
    assert (found.argmax(-1) == best_labels(model))[REAL].all()


def test_without_a_mask_every_step_counts():
    features = keras.Input((4, 2))
    model = ManyToMany(features, CRF(LABELS)(features))
    randomize(model)
    series, tags = random_array(3, 4, 2), np.clip(TAGS, 0, 2)
    compile_model(model, metrics=[accuracy()])
    expected = array(model.crf.negative_log_likelihood(tags, model(series))).sum() / 12
    assert model.evaluate(series, tags, verbose=0)[0] == pytest.approx(expected)
    best = array(model.crf.best_scores(model(series))).argmax(-1)
    history = model.fit(series, tags, batch_size=3, verbose=0).history
    assert history["accuracy"] == [pytest.approx((best == tags).mean())]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)
@pytest.mark.parametrize("size", [LABELS, 9])
def test_an_exported_model_returns_the_scores_of_best_paths(size, tmp_path):
    import tensorflow as tf

    encoder = RecurrentEncoder("gru", 32, bidirectional=True)
    model = kseq.many_to_many(SIZE, size, encoder, WIDTH, head="crf")
    randomize(model)
    model.export(tmp_path / "graph", verbose=False)
    served = tf.saved_model.load(tmp_path / "graph")
    for source in (SOURCE, np.pad(SOURCE, ((0, 1), (2, 5)))):
        expected = array(model.predict_on_batch(source))
        assert_close(served.serve(source).numpy(), expected, atol=1e-4)


def noisy_runs(rows, seed):
    """Return noisy inputs, and labels that stay the same for four steps."""
    random = np.random.default_rng(seed)
    labels = np.repeat(random.integers(0, 3, (rows, 4)), 4, axis=1)
    noise = random.integers(0, 3, labels.shape)
    return np.where(random.random(labels.shape) < 0.4, noise, labels) + 1, labels


def test_a_crf_learns_transitions_that_a_dense_head_cannot():
    """The encoder reads each step alone, so a dense head can only repeat its input."""
    embedding = TokenEmbedding(4, 8)
    encoder = keras.layers.Dense(8)
    found = {}
    for head in (None, "crf"):
        model = kseq.many_to_many(embedding, 3, encoder, head=head)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            keras.optimizers.Adam(0.05),
            None if head else loss,
            metrics=[accuracy()],
        )
        model.fit(*noisy_runs(256, 0), epochs=6, batch_size=32, verbose=0)
        _, found[head] = model.evaluate(*noisy_runs(256, 1), verbose=0)
    assert found["crf"] > found[None] + 0.02


# Errors -------------------------------------------------------------------------------


def test_rejects_another_loss():
    with pytest.raises(ValueError, match="`loss` must be None .*Received: loss='mse'"):
        tagger().compile("adam", "mse")
    model = kseq.many_to_many(SIZE, LABELS, "rnn", WIDTH)
    model.compile("adam", "mse")
    assert model.loss == "mse"


def test_rejects_a_crf_before_the_last_layer():
    steps = keras.Input((None, 2))
    potentials = CRF(LABELS)(steps)
    for outputs in (ops.softmax(potentials), [potentials, steps * 2]):
        with pytest.raises(ValueError, match="must be the last layer of a model"):
            ManyToMany(steps, outputs)


def test_rejects_sample_weights_of_another_shape():
    model = tagger()
    model.compile("sgd", run_eagerly=True, jit_compile=False)
    with pytest.raises(ValueError, match=r"weight for each row.*shape \(3, 3\)"):
        model.train_on_batch(SOURCE, TAGS, sample_weight=np.ones((3, 3)))


def test_rejects_an_unknown_head():
    with pytest.raises(ValueError, match="`head` must be one of \"crf\".*head='crff'"):
        tagger("crff")


def test_rejects_an_ensemble_of_crf_models():
    with pytest.raises(ValueError, match="must return logits.*ends with a CRF"):
        kseq.ensemble([tagger(), tagger()])
