"""Models that end with CTC: loss, generated labels and saved files."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.builders import CTCModel
from kseq.decoding import (
    AllowedSequences,
    BannedTokens,
    BeamSearch,
    GreedySearch,
    MinimumLength,
    NoRepeatNGrams,
    Sampling,
)
from kseq.layers import CTC, FeatureEmbedding, RecurrentEncoder, TokenEmbedding
from tests.builders.test_every_model import (
    check_every_sublayer_is_called,
    recorded_calls,
)
from tests.helpers import (
    array,
    assert_close,
    dtype_policy,
    random_array,
    randomize,
)

ROOT = pathlib.Path(__file__).parents[2]
SIZE, LABELS, WIDTH = 11, 4, 5
SOURCE = np.array([[4, 5, 6, 7, 3], [8, 2, 1, 0, 0], [0, 9, 1, 10, 0]], "int32")
ROWS = np.array([[2, 3, 1], [1, 2, 0], [0, 0, 0]], "int32")
WEIGHTS = np.array([1.0, 0.5, 3.0], "float32")


def make_model(head="ctc", **options):
    options = {"encoder": "rnn", "width": WIDTH, **options}
    model = kseq.many_to_many(SIZE, LABELS, head=head, **options)
    randomize(model)
    for weight in model.weights:  # so that its predictions are confident
        weight.assign(3 * weight)
    model.ctc.bias.assign([0.0] * LABELS)
    return model


def metrics():
    return [kseq.training.EditDistanceRate(), kseq.training.ExactMatch()]


def compile_model(model, optimizer=None, **options):
    is_slow = keras.backend.backend() == "tensorflow"  # tracing is slow
    optimizer = optimizer or keras.optimizers.SGD(0.0)
    model.compile(optimizer, run_eagerly=is_slow, **options)


def row_losses(model, rows=ROWS):
    return array(model.ctc.negative_log_likelihood(rows, model(SOURCE)))


def labels_of(rows):
    return [tuple(int(x) for x in row if x != 0) for row in rows]


def test_the_name_ctc_builds_a_ctc_layer():
    short, long = make_model(), make_model(CTC(LABELS))
    assert isinstance(short, CTCModel) and short.ctc is short.get_layer("head")
    assert [w.shape for w in short.weights] == [w.shape for w in long.weights]
    assert short.output_shape == (None, None, LABELS)


@pytest.mark.parametrize("weights", [None, WEIGHTS, WEIGHTS[:, None]])
def test_the_loss_is_the_weighted_mean_of_row_losses(weights):
    model = make_model()
    compile_model(model)
    shares = np.ones(3) if weights is None else WEIGHTS
    expected = (row_losses(model) * shares).sum() / shares.sum()
    found = model.evaluate(SOURCE, ROWS, sample_weight=weights, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)


def test_regularization_is_added_to_the_loss():
    options = {"return_sequences": True, "kernel_regularizer": "l2"}
    encoder = keras.layers.GRU(WIDTH, **options)
    model = kseq.many_to_many(SIZE, LABELS, encoder, WIDTH, head="ctc")
    compile_model(model)
    expected = row_losses(model).mean() + 0.01 * (array(encoder.cell.kernel) ** 2).sum()
    assert model.evaluate(SOURCE, ROWS, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_metrics_use_the_best_paths():
    model = make_model()
    best = array(model.ctc.best_path(model(SOURCE)))
    rows = best.copy()
    rows[0, 0] = 1 + rows[0, 0] % 3  # one wrong label
    counts = (rows != 0).sum()
    assert counts > 3 and (best[1:] != 0).any(axis=1).all()
    compile_model(model, metrics=metrics())
    expected = [pytest.approx(1 / counts), pytest.approx(2 / 3)]
    assert model.evaluate(SOURCE, rows, verbose=0)[1:] == expected
    history = model.fit(SOURCE, rows, batch_size=3, verbose=0).history
    assert [*history["edit_distance_rate"], *history["exact_match"]] == expected


def test_one_training_step_changes_every_weight_and_survives_saving(tmp_path):
    model = make_model(dropout=0.2)
    before = [array(weight) for weight in model.trainable_weights]
    compile_model(model, keras.optimizers.SGD(0.5), metrics=metrics())
    with recorded_calls() as called:
        model(SOURCE)
        model.fit(SOURCE, ROWS, verbose=0)
    check_every_sublayer_is_called(model, called)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(array(weight)).all(), weight.path
        assert (array(weight) != old).any(), f"no gradient reaches {weight.path}"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is CTCModel and loaded.optimizer.iterations == 1
    for weights in (None, WEIGHTS):
        pair = [
            each.evaluate(SOURCE, ROWS, sample_weight=weights, verbose=0)
            for each in (loaded, model)
        ]
        assert_close(*map(np.array, pair))
    search = BeamSearch(3)
    assert_same_hypotheses(
        loaded.generate(SOURCE, search), model.generate(SOURCE, search)
    )


def assert_same_hypotheses(one, other):
    assert (one.token_ids == other.token_ids).all()
    assert_close(one.log_probs, other.log_probs)


@pytest.mark.thorough
def test_a_new_process_generates_with_the_saved_model(tmp_path):
    model = make_model()
    model.save(tmp_path / "model.keras")
    code = (
        "import keras, kseq, numpy as np; "
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r}); "
        f"result = model.generate({SOURCE.tolist()}, kseq.decoding.BeamSearch(3)); "
        "print(result.token_ids.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    expected = model.generate(SOURCE, BeamSearch(3)).token_ids.tolist()
    assert done.stdout.splitlines()[-1] == str(expected)


@pytest.mark.thorough
def test_clones_and_models_from_configs_generate_the_same():
    model = make_model()
    compile_model(model, "sgd", metrics=metrics())
    for copy in (
        keras.models.clone_model(model),
        CTCModel.from_config(model.get_config()),
    ):
        copy.set_weights(model.get_weights())
        assert type(copy) is CTCModel and copy.ctc is not model.ctc
        assert_same_hypotheses(copy.generate(SOURCE), model.generate(SOURCE))


@pytest.mark.thorough
def test_half_precision_trains_and_generates_in_float32():
    with dtype_policy("mixed_float16"):
        model = make_model()
        compile_model(model, "sgd", metrics=metrics())
        model.fit(SOURCE, ROWS, verbose=0)
        found = model.generate(SOURCE, BeamSearch(2))
    assert all(np.isfinite(array(w)).all() for w in model.weights)
    assert found.log_probs.dtype == "float32"
    assert_close(model.score(SOURCE, found), found.log_probs, atol=1e-4)


def test_the_mask_reaches_the_logits():
    report = kseq.mask_report(make_model())
    assert not report.lost_at and report.rows[-1].verdict == "keeps"


def test_exact_match_takes_ids_and_ignores_empty_rows():
    metric = kseq.training.ExactMatch()
    found = np.array([[2, 3, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    metric.update_state(ROWS, found)
    assert float(metric.result()) == 0.5  # an empty row does not count


# Generation ---------------------------------------------------------------------------


def test_generate_returns_the_best_path_with_its_exact_log_prob():
    model = make_model()
    found = model.generate(SOURCE)
    best = array(model.ctc.best_path(model(SOURCE)))
    assert labels_of(found.token_ids[:, 0]) == labels_of(best)
    assert found.token_ids.shape[2] == found.lengths.max() == (best != 0).sum(1).max()
    assert_close(found.log_probs[:, 0], -row_losses(model, best), atol=1e-4)
    assert_close(model.score(SOURCE, found), found.log_probs, atol=1e-4)
    assert found.ended.all() and found.token_log_probs is None


SEARCHES = {
    "greedy": GreedySearch(),
    "beam": BeamSearch(4),
    "length penalty": BeamSearch(3, length_penalty=0.7, num_results=2),
    "sampling": Sampling(num_draws=3, seed=3),
    "constrained": BeamSearch(4, constraints=[NoRepeatNGrams(1)]),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_score_returns_the_log_probs_of_every_search(name):
    model = make_model()
    found = model.generate(SOURCE, SEARCHES[name])
    assert_close(model.score(SOURCE, found), found.log_probs, atol=1e-4)
    exists = np.isfinite(found.log_probs)
    assert exists[:, 0].all()
    sums = found.token_log_probs.sum(-1)
    assert_close(sums[exists], found.log_probs[exists], atol=1e-4)
    lengths = (found.token_ids != 0).sum(-1)
    assert (lengths == found.lengths).all()
    assert found.token_ids.max() < LABELS
    losses = -row_losses(model, found.token_ids[:, 0])
    assert_close(found.log_probs[:, 0], losses, atol=1e-4)


@pytest.mark.thorough
def test_compiled_loops_return_consistent_log_probs():
    """With 8 labels or more, loops are compiled, for known and unknown batch sizes."""
    encoder = RecurrentEncoder("gru", 32, bidirectional=True)
    model = kseq.many_to_many(FeatureEmbedding(3, WIDTH), 9, encoder, head="ctc")
    randomize(model)
    series = random_array(3, 7, 3)
    for search in (None, GreedySearch(), BeamSearch(3)):
        found = model.generate(series, search, max_length=4, batch_size=2)
        assert_close(model.score(series, found), found.log_probs, atol=1e-4)


def test_beam_search_is_at_least_as_good_as_the_best_path():
    model = make_model()
    path, beam = model.generate(SOURCE), model.generate(SOURCE, BeamSearch(30))
    assert (beam.log_probs[:, 0] >= path.log_probs[:, 0] - 1e-5).all()
    assert np.exp(beam.log_probs).sum(axis=1).max() < 1.0001
    ranked = np.maximum(beam.log_probs, -1e9)  # infinities have no difference
    assert (np.diff(ranked, axis=1) < 1e-5).all()


def test_sources_may_be_lists_of_any_length_or_batches():
    model = make_model()
    lists = [[4, 5, 6, 7, 3], [8, 2, 1], [9, 1, 10], []]
    batches = [SOURCE[:2], SOURCE[2:]]
    for search in (None, BeamSearch(3)):
        whole = model.generate(SOURCE, search)
        found = model.generate(lists, search)
        assert_close(found.log_probs[:2], whole.log_probs[:2])
        assert labels_of(found.token_ids[3]) == [()] * found.token_ids.shape[1]
        assert found.log_probs[3, 0] == 0, "no step spells no label"
        assert_same_hypotheses(model.generate(iter(batches), search), whole)
        assert_same_hypotheses(model.generate(SOURCE, search, batch_size=2), whole)
    padded = np.array([*SOURCE, [0] * 5])
    assert_close(
        model.score(lists, [[2, 3], [1], [2], []]),
        model.score(padded, [[2, 3, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0]]),
    )


def test_calls_of_any_size_compile_few_shapes(monkeypatch):
    model, shapes = make_model(), set()
    predict = keras.Model.predict_on_batch

    def recording(loop, inputs):
        shapes.add(inputs["source"].shape)
        return predict(loop, inputs)

    monkeypatch.setattr(keras.Model, "predict_on_batch", recording)
    for length in range(1, 40, 3):
        model.generate([[2] * length])
        model.score([[2] * length], [[1]])
    assert shapes == {(1, 8), (1, 16), (1, 32), (1, 64)}


def test_masked_gaps_are_not_steps():
    model = make_model(encoder=keras.layers.Dense(WIDTH))
    gaps = np.array([[4, 0, 5, 0, 6], [8, 0, 0, 2, 1], [0, 9, 1, 0, 10]], "int32")
    dense = [[4, 5, 6], [8, 2, 1], [9, 1, 10]]
    for search in (None, BeamSearch(3)):
        assert_same_hypotheses(
            model.generate(gaps, search), model.generate(dense, search)
        )


def test_generated_labels_begin_with_the_prefix():
    model = make_model()
    found = model.generate(SOURCE, BeamSearch(3), prefix=[[3, 1], [2], []])
    assert found.token_ids[0, 0, :2].tolist() == [3, 1]
    assert found.token_ids[1, 0, 0] == 2
    assert_close(model.score(SOURCE, found), found.log_probs, atol=1e-4)


def test_constraints_apply_to_labels():
    model = make_model()
    names = AllowedSequences([[3, 1], [2]])
    found = model.generate(SOURCE, BeamSearch(3, constraints=[names]))
    assert set(labels_of(found.token_ids[:, 0])) <= {(3, 1), (2,)}
    found = model.generate(SOURCE, GreedySearch(), constraints=[BannedTokens([1, 2])])
    assert set(np.unique(found.token_ids)) <= {0, 3}
    found = model.generate(SOURCE, GreedySearch(), constraints=[MinimumLength(3)])
    assert found.lengths.min() >= 2


def test_max_length_limits_the_number_of_labels():
    model = make_model()
    found = model.generate(SOURCE, BeamSearch(9), max_length=1)
    assert found.lengths.max() == 1
    assert_close(model.score(SOURCE, found), found.log_probs, atol=1e-4)


def test_score_takes_several_and_impossible_hypotheses():
    model = make_model()
    several = [[[2, 3], [1, 1, 1, 1, 1, 1]], [[1], [2]], [[], [3]]]
    found = model.score(SOURCE, several)
    assert found.shape == (3, 2) and found[0, 1] == -np.inf
    assert_close(found[:, 0], -row_losses(model, np.array([[2, 3], [1, 0], [0, 0]])))


def test_a_batch_equals_its_rows():
    model = make_model()

    for search in (None, BeamSearch(3)):
        whole = model.generate(SOURCE, search)
        for row in range(3):
            alone = model.generate(SOURCE[row : row + 1], search)
            assert labels_of(alone.token_ids[0]) == labels_of(whole.token_ids[row])
            assert_close(alone.log_probs[0], whole.log_probs[row])


def test_ctc_models_take_series_and_images():
    series = random_array(2, 6, 3)
    columns = FeatureEmbedding(3, WIDTH, mask_value=9.0)
    model = kseq.many_to_many(columns, LABELS, "gru", WIDTH, head="ctc")
    found = model.generate(series, BeamSearch(2))
    padded = np.pad(series, ((0, 0), (0, 3), (0, 0)), constant_values=9.0)
    assert_same_hypotheses(model.generate(padded, BeamSearch(2)), found)
    picture = keras.Input((4, 6, 1))
    x = keras.layers.Conv2D(WIDTH, (4, 3))(picture)
    steps = keras.layers.Reshape((4, WIDTH))(x)
    model = CTCModel(picture, CTC(LABELS)(steps))
    pictures = random_array(2, 4, 6, 1)
    found = model.generate(pictures, BeamSearch(3))
    assert found.lengths.max() <= 4
    assert_close(model.score(pictures, found), found.log_probs, atol=1e-4)


def unsegmented_rows(num_rows, seed):
    """Return inputs that show each label for two steps at random places, and labels."""
    random = np.random.default_rng(seed)
    source = np.full((num_rows, 16), 1, "int32")
    rows = np.zeros((num_rows, 4), "int32")
    for i in range(num_rows):
        labels = random.integers(1, 4, random.integers(1, 5))
        rows[i, : len(labels)] = labels
        step = 0
        for label in labels:
            step += random.integers(1, 3)
            source[i, step : step + 2] = label + 1
            step += 2
    return source, rows


def test_ctc_learns_from_unsegmented_labels():
    keras.utils.set_random_seed(3)
    encoder = RecurrentEncoder("gru", 16, bidirectional=True)
    model = kseq.many_to_many(TokenEmbedding(5, 8), 4, encoder, head="ctc")
    model.compile(keras.optimizers.Adam(0.02), metrics=metrics())
    model.fit(*unsegmented_rows(256, 0), epochs=12, batch_size=32, verbose=0)
    source, rows = unsegmented_rows(64, 1)
    _, rate, exact = model.evaluate(source, rows, verbose=0)
    assert rate < 0.1 and exact > 0.8
    scores = kseq.training.GenerationScores(source, rows).measure(model)
    assert scores["exact_match"] == pytest.approx(exact)
    scores = kseq.training.GenerationScores(source, rows).measure(model, BeamSearch(3))
    assert scores["exact_match"] > 0.8


# Errors -------------------------------------------------------------------------------


def test_rejects_another_loss():
    with pytest.raises(ValueError, match="ends with a CTC.* Received: loss='mse'"):
        make_model().compile("adam", "mse")


def test_rejects_ctc_before_the_last_layer():
    steps = keras.Input((None, 2))
    logits = CTC(LABELS)(steps)
    for outputs in (ops.softmax(logits), [logits, steps * 2]):
        with pytest.raises(ValueError, match="must be the last layer of a `CTCModel`"):
            CTCModel(steps, outputs)
    with pytest.raises(ValueError, match="must be a `kseq.builders.CTCModel`"):
        kseq.builders.ManyToMany(steps, logits)


def test_rejects_sample_weights_of_labels():
    model = make_model()
    compile_model(model)
    with pytest.raises(ValueError, match=r"weight for each row.*shape \(3, 3\)"):
        model.train_on_batch(SOURCE, ROWS, sample_weight=np.ones((3, 3)))


def test_prefixes_and_constraints_need_a_search():
    model = make_model()
    for options in ({"prefix": [[1]] * 3}, {"constraints": [MinimumLength(2)]}):
        with pytest.raises(ValueError, match="path does not support .*search=None"):
            model.generate(SOURCE, **options)


def test_rejects_options_that_ctc_does_not_support():
    for search in (BeamSearch(2, coverage_penalty=0.2), GreedySearch(guidance=2.0)):
        with pytest.raises(ValueError, match="no attention for a coverage penalty"):
            make_model().generate(SOURCE, search)
    with pytest.raises(ValueError, match="`max_length` must be a positive integer"):
        make_model().generate(SOURCE, GreedySearch(), max_length=0)
    with pytest.raises(ValueError, match=r"`num_beams` is an option of a search"):
        make_model().generate(SOURCE, num_beams=3)


def test_rejects_ctc_in_ensembles_and_text_pipelines():
    with pytest.raises(ValueError, match="must return logits.*ends with a CTC"):
        kseq.ensemble([make_model(), make_model()])
    words = kseq.text.Vocabulary("word").adapt(["a b c d e f g"])
    with pytest.raises(ValueError, match="ends with a CTC, whose labels belong to no"):
        kseq.text.TextToLabels(make_model(), words, list("abcd"))
