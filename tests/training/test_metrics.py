import keras
import numpy as np
import pytest
from keras import ops

from kseq.training import (
    EditDistanceRate,
    ExactMatch,
    SequenceCrossentropy,
    TokenAccuracy,
    edit_distance,
)

B, T, H, V = 11, 7, 5, 13
END = 3


def loop_distance(reference, hypothesis):
    """Return the edit distance from the table of Wagner and Fischer, cell by cell."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), int)
    table[:, 0] = range(len(reference) + 1)
    table[0, :] = range(len(hypothesis) + 1)
    for i, r in enumerate(reference, 1):
        for j, h in enumerate(hypothesis, 1):
            table[i, j] = min(
                table[i - 1, j] + 1,
                table[i, j - 1] + 1,
                table[i - 1, j - 1] + (r != h),
            )
    return table[-1, -1]


def tokens(row, end_token_id=None, pad_token_id=0):
    kept = []
    for token in row:
        if token == end_token_id:
            break
        if token != pad_token_id:
            kept.append(int(token))
    return kept


def sequences(seed, rows, steps, words=5):
    """Return rows of every length up to `steps`, of few words so that many agree."""
    random = np.random.default_rng(seed)
    token_ids = random.integers(1, words, size=(rows, steps))
    lengths = np.arange(rows) % (steps + 1)
    return np.where(
        np.arange(steps) < random.permutation(lengths)[:, None], token_ids, 0
    )


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    pytest.skip("torch runs eagerly")


def numbers(tensor):
    return ops.convert_to_numpy(tensor).tolist()


def one_hot(token_ids):
    return np.eye(V, dtype="float32")[token_ids]


def with_mask(logits, mask):
    masked = ops.convert_to_tensor(logits)
    masked._keras_mask = ops.convert_to_tensor(mask)
    return masked


@pytest.mark.parametrize("end_token_id", [None, END])
@pytest.mark.parametrize("steps", [(T, H), (H, T), (T, 1), (1, T)])
def test_distance_equals_the_table_of_wagner_and_fischer(steps, end_token_id):
    reference = sequences(2, 97, steps[0])
    hypothesis = sequences(5, 97, steps[1])
    expected = [
        loop_distance(tokens(r, end_token_id), tokens(h, end_token_id))
        for r, h in zip(reference, hypothesis, strict=True)
    ]
    distance = edit_distance(reference, hypothesis, end_token_id=end_token_id)
    assert keras.backend.standardize_dtype(distance.dtype) == "int32"
    assert numbers(distance) == expected


def test_known_words_have_known_distances():
    words = [("kitten", "sitting", 3), ("sunday", "saturday", 3), ("", "ab", 2)]
    reference, hypothesis = (
        np.array([[ord(c) for c in pair[side].ljust(8, "\0")] for pair in words])
        for side in (0, 1)
    )
    assert numbers(edit_distance(reference, hypothesis)) == [3, 3, 2]


@pytest.mark.parametrize("pad_token_id", [0, -1])
def test_padding_anywhere_in_a_sequence_is_ignored(pad_token_id):
    reference = np.array([[0, 5, 0, 6, 7], [5, 6, 0, 0, 7]])
    hypothesis = np.array([[5, 0, 7, 0], [0, 0, 6, 7]])
    moved = [np.where(x == 0, pad_token_id, x) for x in (reference, hypothesis)]
    assert numbers(edit_distance(*moved, pad_token_id=pad_token_id)) == [1, 1]


def test_tokens_after_the_end_are_ignored():
    reference = np.array([[5, END, 6, 7]])
    hypothesis = np.array([[5, END, 9, END, 9]])
    assert numbers(edit_distance(reference, hypothesis, end_token_id=END)) == [0]


def test_zero_steps_are_an_empty_sequence():
    some, none = sequences(2, B, T), np.zeros((B, 0), int)
    lengths = (some != 0).sum(1).tolist()
    assert numbers(edit_distance(some, none)) == lengths
    assert numbers(edit_distance(none, some)) == lengths


def test_compiled_distance_equals_the_table_of_wagner_and_fischer():
    reference, hypothesis = sequences(2, B, T), sequences(5, B, H)
    function = compiled(lambda r, h: edit_distance(r, h, end_token_id=END))
    expected = [
        loop_distance(tokens(r, END), tokens(h, END))
        for r, h in zip(reference, hypothesis, strict=True)
    ]
    assert numbers(function(reference, hypothesis)) == expected


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs"
)
def test_graph_accepts_sequences_of_any_length():
    import tensorflow as tf

    spec = tf.TensorSpec((None, None), "int32")
    function = tf.function(edit_distance, input_signature=[spec, spec])
    for rows, steps in [(B, T), (2, 3)]:
        reference, hypothesis = sequences(2, rows, steps), sequences(5, rows, H)
        expected = numbers(edit_distance(reference, hypothesis))
        assert numbers(function(reference, hypothesis)) == expected


def test_accuracy_counts_real_tokens_over_all_batches():
    right = wrong = 0
    metric = TokenAccuracy()
    for steps in (T, 2):
        y_true, best = sequences(2, B, steps), sequences(5, B, steps, words=4)
        metric.update_state(y_true, one_hot(best))
        right += ((y_true == best) & (y_true != 0)).sum()
        wrong += ((y_true != best) & (y_true != 0)).sum()
    assert right and wrong
    np.testing.assert_allclose(
        float(metric.result()), right / (right + wrong), rtol=1e-6
    )


def test_exact_match_counts_sequences_and_ignores_empty_rows():
    y_true = np.array([[5, 6, 0], [5, 6, 7], [8, 0, 0], [0, 0, 0]])
    best = np.array([[5, 6, 9], [5, 9, 7], [8, 1, 1], [1, 1, 1]])
    metric = ExactMatch()
    metric.update_state(y_true, one_hot(best))
    metric.update_state(y_true[:1], one_hot(y_true[:1]))
    assert float(metric.result()) == 0.75


@pytest.mark.parametrize("end_token_id", [None, END])
def test_rate_is_the_sum_of_distances_over_the_sum_of_lengths(end_token_id):
    metric = EditDistanceRate(end_token_id=end_token_id)
    distances = lengths = 0
    for steps in (T, 2):
        y_true, hypothesis = sequences(2, B, steps), sequences(5, B, H)
        metric.update_state(y_true, hypothesis)
        for r, h in zip(y_true, hypothesis, strict=True):
            r, h = tokens(r, end_token_id), tokens(h, end_token_id)
            distances += loop_distance(r, h)
            lengths += len(r)
    np.testing.assert_allclose(float(metric.result()), distances / lengths, rtol=1e-6)


def test_rate_of_logits_ignores_steps_of_padding():
    y_true = np.array([[5, 6, 7, END, 0], [5, 6, END, 0, 0]])
    best = np.array([[5, 7, END, 9, 9], [5, 6, END, 9, 9]])
    whole, ended = EditDistanceRate(), EditDistanceRate(end_token_id=END)
    # Without an end, (5 7 END 9) for (5 6 7 END): one deleted, one inserted.
    assert float(whole(y_true, one_hot(best))) == pytest.approx(2 / 7)
    assert float(ended(y_true, one_hot(best))) == pytest.approx(1 / 5)


def test_sequences_and_tokens_can_have_weights():
    y_true = np.array([[5, 6], [7, 8]])
    best = np.array([[5, 6], [7, 9]])
    rows, cells = np.array([1.0, 3.0]), np.array([[1.0, 1.0], [2.0, 4.0]])
    assert float(TokenAccuracy()(y_true, one_hot(best), rows)) == pytest.approx(5 / 8)
    assert float(TokenAccuracy()(y_true, one_hot(best), cells)) == pytest.approx(4 / 8)
    assert float(ExactMatch()(y_true, one_hot(best), rows)) == pytest.approx(1 / 4)
    rate = EditDistanceRate()
    assert float(rate(y_true, best, rows[:, None])) == pytest.approx(3 / 8)


@pytest.mark.parametrize("metric", [ExactMatch(), EditDistanceRate()])
def test_sequence_metrics_reject_weights_of_tokens(metric):
    y_true = sequences(2, B, T)
    with pytest.raises(ValueError, match=r"Received: shape \(11, 7\)"):
        metric.update_state(y_true, one_hot(y_true), np.ones((B, T)))


@pytest.mark.parametrize("metric_class", [TokenAccuracy, ExactMatch, EditDistanceRate])
@pytest.mark.parametrize("value", [False, 0.5, "<pad>"])
def test_rejects_a_pad_token_id_that_is_not_an_integer(metric_class, value):
    with pytest.raises(ValueError, match=f"`pad_token_id` must .*token_id={value!r}"):
        metric_class(pad_token_id=value)


def test_rejects_an_end_token_id_that_is_not_an_integer():
    with pytest.raises(ValueError, match="`end_token_id` must .*end_token_id='</s>'"):
        EditDistanceRate(end_token_id="</s>")


def test_rejects_token_ids_instead_of_logits():
    metric = TokenAccuracy()
    with pytest.raises(ValueError, match=r"y_pred of shape \(11, 7\)"):
        metric.update_state(sequences(2, B, T), sequences(2, B, T))


@pytest.mark.parametrize("metric_class", [TokenAccuracy, ExactMatch, EditDistanceRate])
def test_keras_mask_has_the_same_effect_as_padding(metric_class):
    y_true, best = sequences(2, B, T), sequences(5, B, T)
    best[::2] = y_true[::2]
    never_real = np.where(y_true == 0, 1, y_true)
    by_id = metric_class()(y_true, one_hot(best))
    by_both = metric_class()(y_true, with_mask(one_hot(best), y_true != 0))
    by_mask = metric_class()(never_real, with_mask(one_hot(best), y_true != 0))
    assert 0 < float(by_id) == float(by_both) == float(by_mask)


@pytest.mark.parametrize("metric_class", [TokenAccuracy, ExactMatch, EditDistanceRate])
def test_result_is_zero_without_tokens_and_reset_clears_it(metric_class):
    metric = metric_class()
    y_true = sequences(2, B, T)
    metric.update_state(y_true * 0, one_hot(y_true))
    assert float(metric.result()) == 0
    metric.update_state(y_true, one_hot((y_true + 1) % 3))
    metric.reset_state()
    metric.update_state(y_true, one_hot(y_true))
    assert float(metric.result()) == (metric_class is not EditDistanceRate)


@pytest.mark.parametrize("metric_class", [TokenAccuracy, ExactMatch, EditDistanceRate])
def test_half_precision_metric_counts_many_tokens_exactly(metric_class):
    metric = metric_class(dtype="float16")
    y_true = np.ones((700, 5), "int32")
    y_true[:, 2:] = 2
    for _ in range(2):
        metric.update_state(y_true, one_hot(y_true))
    expected = 0 if metric_class is EditDistanceRate else 1
    assert float(metric.result()) == expected
    assert float(metric.count) == (1400 if metric_class is ExactMatch else 7000)


@pytest.mark.parametrize("metric_class", [TokenAccuracy, ExactMatch, EditDistanceRate])
def test_nan_at_padding_is_ignored(metric_class):
    y_true = sequences(2, B, T)
    logits = np.where((y_true != 0)[..., None], one_hot(y_true), np.nan)
    expected = 0 if metric_class is EditDistanceRate else 1
    assert float(metric_class()(y_true, logits)) == expected


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_logits_are_counted_exactly(precision):
    y_true, best = sequences(2, B, T), sequences(5, B, T)
    real = y_true != 0
    right = (real & (y_true == best)).sum() / real.sum()
    accuracy = TokenAccuracy()(y_true, ops.cast(one_hot(best), precision))
    np.testing.assert_allclose(float(accuracy), right, rtol=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        TokenAccuracy(pad_token_id=2, name="right", dtype="float16"),
        ExactMatch(pad_token_id=2, name="right", dtype="float16"),
        EditDistanceRate(pad_token_id=2, end_token_id=3, name="off", dtype="float16"),
    ],
)
def test_the_config_survives_a_round_trip(metric):
    restored = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(restored) is type(metric)
    assert restored.get_config() == metric.get_config()
    assert restored.get_config()["pad_token_id"] == restored.pad_token_id == 2
    assert getattr(restored, "end_token_id", 3) == 3
    assert (restored.name, restored.dtype) == (metric.name, "float16")


def test_evaluate_reports_all_metrics_of_a_model_with_a_mask():
    y_true = sequences(2, B, T)
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(V, V, mask_zero=True),
        ]
    )
    model.layers[0].set_weights([np.eye(V)])
    model.compile(
        "sgd",
        loss=SequenceCrossentropy(),
        metrics=[TokenAccuracy(), ExactMatch(), EditDistanceRate(end_token_id=END)],
        weighted_metrics=[ExactMatch(name="weighted")],
    )
    logs = model.evaluate(
        y_true,
        y_true,
        sample_weight=np.ones(B),
        batch_size=5,
        verbose=0,
        return_dict=True,
    )
    del logs["loss"]
    assert logs == {
        "token_accuracy": 1,
        "exact_match": 1,
        "edit_distance_rate": 0,
        "weighted": 1,
    }
