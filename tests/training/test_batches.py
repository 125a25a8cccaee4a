import keras
import numpy as np
import pytest

import kseq
from kseq.training import batches
from tests.helpers import random_array


def sentences(rows=53, seed=3):
    """Return ragged ids, whose first id identifies the row, and labels of steps."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 19, size=rows)
    words = [[7 + row] + [5] * int(n - 1) for row, n in enumerate(lengths)]
    tags = [[row % 3, *[1] * int(n - 1)] for row, n in enumerate(lengths)]
    return words, tags


def test_every_row_comes_once_per_epoch_with_its_label():
    words, _ = sentences()
    classes = np.arange(53)
    data = batches(words, classes, batch_size=7, seed=5)
    orders = []
    for _ in range(2):
        seen = {}
        for inputs, labels in data:
            for row, label in zip(inputs, labels, strict=True):
                seen[int(label)] = row[row != 0].tolist()
        assert seen == dict(enumerate(words))
        orders.append(list(seen))
        data.on_epoch_end()
    assert orders[0] != orders[1]


def test_rows_of_similar_length_share_a_batch():
    words, _ = sentences()
    shuffled = batches(words, range(53), batch_size=7, length_multiple=1)
    for inputs, _ in shuffled:
        lengths = (inputs != 0).sum(axis=1)
        assert lengths.max() - lengths.min() < 7


def test_step_labels_are_padded_like_the_inputs_and_can_be_0():
    words, tags = sentences()
    data = batches(words, tags, batch_size=11, shuffle=False)
    rows = [row for inputs, labels in data for row in zip(inputs, labels, strict=True)]
    for (row, label), word, tag in zip(rows, words, tags, strict=True):
        assert row.shape == label.shape
        assert row[: len(word)].tolist() == word and not row[len(word) :].any()
        assert label[: len(tag)].tolist() == tag and not label[len(tag) :].any()


def test_padded_arrays_give_the_same_batches_as_lists():
    words, tags = sentences()
    padded = [
        np.array([row + [0] * (23 - len(row)) for row in rows])
        for rows in (words, tags)
    ]
    for batch, expected in zip(batches(words, tags), batches(*padded), strict=True):
        for array, expected_array in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(array, expected_array)


def test_feature_rows_are_padded_with_the_given_value():
    series = [random_array(steps, 3, seed=steps) for steps in (5, 2)]
    answers = [row[:, :2] for row in series]
    data = batches(
        series, answers, shuffle=False, padding=float("nan"), length_multiple=1
    )
    [(inputs, labels)] = data
    assert inputs.shape == (2, 5, 3) and labels.shape == (2, 5, 2)
    assert np.isnan(inputs[1, 2:]).all() and not labels[1, 2:].any()


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [([2, 0], "int32"), ([0.5, 1.5], "float32"), ([[0.5, 1], [2, 3]], "float32")],
)
def test_row_labels_are_unchanged(labels, dtype):
    [(_, found)] = batches([[5, 6], [7]], np.array(labels), shuffle=False)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == dtype


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        ([], [], "`inputs` must have at least one row"),
        ([[5]], [1, 2], "1 rows of inputs, 2 of labels"),
        ([[5, 6], [7]], [[1, 1], []], r"labels\[1\] with 0 labels"),
        ([[5, 6]], [[1]], r"labels\[0\] with 1 labels, inputs\[0\] of shape \(2,\)"),
        ([3, 4], [1, 2], r"Received: inputs\[0\] of shape \(\)"),
        (["a b", "c"], [1, 2], "dtype=<U3"),
        ([[5], [6]], ["spam", "ham"], "`labels` must be rows of one kind"),
        ([[5], [6]], [1, 0.5], r"labels\[1\]"),
    ],
)
def test_rejects_invalid_rows_and_labels(inputs, labels, message):
    with pytest.raises(ValueError, match=message):
        batches(inputs, labels)


@pytest.mark.parametrize("name", ["batch_size", "length_multiple"])
def test_rejects_sizes_below_one(name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}=0"):
        batches([[5]], [1], **{name: 0})


def test_fit_and_evaluate_accept_the_batches_without_a_warning():
    words, tags = sentences()
    model = kseq.many_to_many(61, num_outputs=3, encoder="gru", width=8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, weighted_metrics=["accuracy"])
    losses = model.fit(batches(words, tags, 8), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    [(inputs, labels)] = whole = batches(words, tags, 53, shuffle=False)
    np.testing.assert_allclose(
        model.evaluate(whole, verbose=0),
        model.evaluate(inputs, labels, batch_size=53, verbose=0),
        rtol=1e-6,
    )


def test_a_function_returns_the_rows_of_each_epoch():
    data = batches(lambda epoch: [[5 + epoch], [6, 7]], [0, 1], 1, shuffle=False)
    for epoch in range(3):
        assert len(data) == 2
        assert [inputs[0, 0] for inputs, _ in data] == [5 + epoch, 6]
        data.on_epoch_end()
    data = batches([[5], [6]], lambda epoch: [epoch, 1], 2, shuffle=False)
    data.on_epoch_end()
    assert [labels.tolist() for _, labels in data] == [[1, 1]]


def test_rows_from_a_function_have_the_order_of_fixed_rows():
    rows = [[i] * (1 + i % 5) for i in range(1, 53)]
    from_function, fixed = (
        batches(x, range(52), 7) for x in (lambda epoch: rows, rows)
    )
    for _ in range(3):
        for batch, expected in zip(from_function, fixed, strict=True):
            np.testing.assert_array_equal(batch[0], expected[0])
            np.testing.assert_array_equal(batch[1], expected[1])
        from_function.on_epoch_end(), fixed.on_epoch_end()


def test_rejects_an_epoch_with_another_number_of_batches():
    data = batches(
        lambda epoch: [[5]] * (1 + epoch), lambda epoch: [0] * (1 + epoch), 1
    )
    with pytest.raises(ValueError, match="Received: 2 batches for epoch 1, 1 before"):
        data.on_epoch_end()


def test_fit_gets_new_rows_in_each_epoch():
    seen = []

    def rows(epoch):
        seen.append(epoch)
        return [[5 + epoch] * 3, [6, 7]] * 4

    model = kseq.many_to_one(11, 2, width=4)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(batches(rows, [0, 1] * 4, 4), epochs=3, verbose=0)
    assert seen[:3] == [0, 1, 2]


def test_unaligned_labels_can_have_other_lengths_than_inputs():
    words, _ = sentences()
    rows = [[1 + row] * (row % 4) for row in range(53)]
    rows[3] = np.array([4, 4, 4, 0, 0])  # padded
    data = batches(words, rows, 7, length_multiple=1, aligned=False)
    seen = {}
    for inputs, labels in data:
        assert labels.dtype == "int32" and labels.shape[1] <= 4
        for source, label in zip(inputs, labels, strict=True):
            seen[int(source[0]) - 7] = [x for x in label.tolist() if x]
    assert seen == {row: [1 + row] * (row % 4) for row in range(53)}
    weights = np.arange(53)
    for inputs, _, found in batches(
        words, rows, 7, aligned=False, sample_weight=weights
    ):
        assert (found == inputs[:, 0] - 7).all()
    pictures = random_array(3, 4, 6, 1)
    data = batches(pictures, [[1, 2], [3], []], shuffle=False, aligned=False)
    [(_, labels)] = data
    assert labels.tolist() == [[1, 2], [3, 0], [0, 0]]
    assert len(batches(lambda epoch: words, lambda epoch: rows, 7, aligned=False)) == 8


def test_rejects_step_and_class_weights_of_unaligned_labels():
    with pytest.raises(ValueError, match="class_weight={1: 2.0} with aligned=False"):
        batches([[5, 6]], [[1]], aligned=False, class_weight={1: 2.0})
    with pytest.raises(ValueError, match=r"`sample_weight` must be .*\[0\] of shape"):
        batches([[5, 6]], [[1]], aligned=False, sample_weight=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="`labels` must be rows of token ids"):
        batches([[5, 6]], [1.5], aligned=False)
