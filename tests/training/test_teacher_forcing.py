import keras
import numpy as np
import pytest

from kseq.layers import FeatureEmbedding
from kseq.training import (
    SequenceCrossentropy,
    TeacherForcing,
    TokenAccuracy,
    teacher_forcing,
)
from tests.helpers import array, random_array

START, END = 1, 2


def pairs(rows=101, seed=3):
    """Return ragged pairs, identified by the first source and second target token."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 23, size=rows)
    source = [[3 + row] + [3] * int(n - 1) for row, n in enumerate(lengths)]
    noise = random.integers(0, 3, size=rows)
    target = [
        [START, 3 + row, *[3] * int(n), END]
        for row, n in enumerate(lengths + noise, start=0)
    ]
    return source, target


def read_back(batches):
    """Return the rows of an epoch, unpadded, in their order."""
    source, target = [], []
    for inputs, labels in batches:
        for s, t, y in zip(inputs["source"], inputs["target"], labels, strict=True):
            source.append(s[s != 0].tolist())
            y = y[y != 0].tolist()
            assert t[: len(y)].tolist() == [START, *y[:-1]]
            target.append([START, *y])
    return source, target


def padding_share(batches):
    cells = sum(inputs["target"].size for inputs, _ in batches)
    return 1 - sum((labels != 0).sum() for _, labels in batches) / cells


def padded(rows):
    width = max(map(len, rows)) + 3
    return np.array([row + [0] * (width - len(row)) for row in rows])


def test_unshuffled_batches_keep_the_order_of_rows():
    source, target = pairs()
    batches = teacher_forcing(source, target, batch_size=7, shuffle=False)
    assert read_back(batches) == (source, target)
    batches.on_epoch_end()
    assert read_back(batches) == (source, target)


@pytest.mark.parametrize("batch_size", [1, 7, 101, 1000])
def test_every_pair_comes_once_per_epoch(batch_size):
    source, target = pairs()
    batches = teacher_forcing(source, target, batch_size=batch_size)
    assert len(batches) == len(list(batches)) == -(-101 // batch_size)
    for _ in range(3):
        seen = read_back(batches)
        together = sorted(zip(*seen, strict=True))
        assert together == sorted(zip(source, target, strict=True))
        batches.on_epoch_end()


def test_all_batches_but_one_are_full():
    batches = teacher_forcing(*pairs(), batch_size=7)
    sizes = sorted(len(labels) for _, labels in batches)
    assert sizes == [3] + [7] * 14


def test_every_row_of_several_pools_comes_once(monkeypatch):
    monkeypatch.setattr(TeacherForcing, "batches_in_pool", 3)
    source, target = pairs()
    batches = teacher_forcing(source, target, batch_size=7)
    assert sorted(read_back(batches)[1]) == sorted(target)
    assert sorted(len(labels) for _, labels in batches) == [3] + [7] * 14


def test_seed_determines_a_new_order_for_each_epoch():
    def epochs(seed):
        batches = teacher_forcing(*pairs(), batch_size=7, seed=seed)
        orders = []
        for _ in range(3):
            orders.append(read_back(batches)[1])
            batches.on_epoch_end()
        return orders

    first, again, other = epochs(5), epochs(5), epochs(6)
    assert first == again
    assert first[0] != first[1] != first[2] != first[0]
    assert first[0] != other[0]


def test_rows_of_similar_length_share_a_batch():
    source, target = pairs(rows=1009)
    options = {"batch_size": 16, "length_multiple": 1}
    sorted_share = padding_share(teacher_forcing(source, target, **options))
    unsorted_share = padding_share(
        teacher_forcing(source, target, shuffle=False, **options)
    )
    assert sorted_share < 0.1 < unsorted_share


def test_steps_are_rounded_up_but_not_beyond_the_longest_row():
    source, target = pairs()
    batches = teacher_forcing(source, target, batch_size=7, length_multiple=7)
    longest = [max(map(len, source)), max(map(len, target)) - 1]
    assert all(n % 7 for n in longest)
    shapes = [
        (inputs["source"].shape[1], labels.shape[1], inputs["target"].shape[1])
        for inputs, labels in batches
    ]
    assert {s % 7 == 0 or s == longest[0] for s, _, _ in shapes} == {True}
    assert {t % 7 == 0 or t == longest[1] for _, t, _ in shapes} == {True}
    assert len(set(shapes)) < 9
    assert all(t == read for _, t, read in shapes)


def test_padded_arrays_give_the_same_batches_as_lists():
    source, target = pairs()
    ragged = teacher_forcing(source, target, batch_size=7)
    arrays = teacher_forcing(padded(source), padded(target), batch_size=7)
    for (x, y), (x_array, y_array) in zip(ragged, arrays, strict=True):
        assert x["source"].dtype == x["target"].dtype == y.dtype == "int32"
        assert np.array_equal(x["source"], x_array["source"])
        assert np.array_equal(x["target"], x_array["target"])
        assert np.array_equal(y, y_array)


def test_another_id_can_mark_padding():
    batches = teacher_forcing(
        [[5, 0, -1], [7]], [[1, 0], [1, 3, 2]], pad_token_id=-1, shuffle=False
    )
    inputs, labels = batches[0]
    assert inputs["source"].tolist() == [[5, 0], [7, -1]]
    assert inputs["target"].tolist() == [[1, 0], [1, 3]]
    assert labels.tolist() == [[0, -1], [3, 2]]


def test_feature_arrays_are_unchanged():
    features = np.random.default_rng(2).normal(size=(5, 7, 3))
    target = [[START, n, END] for n in range(3, 8)]
    batches = teacher_forcing(features, target, batch_size=2, shuffle=False)
    seen = np.concatenate([inputs["source"] for inputs, _ in batches])
    assert seen.dtype == "float32"
    assert np.array_equal(seen, features.astype("float32"))


def test_features_of_different_lengths_are_padded_with_zeros():
    random = np.random.default_rng(2)
    source = [random.normal(size=(n, 3)) for n in (5, 2, 11)]
    target = [[START, n, END] for n in range(3, 6)]
    batches = teacher_forcing(
        source, target, batch_size=2, shuffle=False, pad_token_id=9
    )
    first = batches[0][0]["source"]
    assert first.shape == (2, 8, 3)
    assert np.array_equal(first[1, :2], source[1].astype("float32"))
    assert not first[0, 5:].any() and not first[1, 2:].any()


@pytest.mark.parametrize("mask_value", [0.0, -1.0, np.nan])
def test_features_are_padded_with_the_mask_value_of_their_embedding(mask_value):
    source = [random_array(n, 3) for n in (5, 2)]
    batches = teacher_forcing(
        source, [[1, 2]] * 2, shuffle=False, source_padding=mask_value
    )
    series = batches[0][0]["source"]
    mask = FeatureEmbedding(3, 4, mask_value=mask_value).compute_mask(series)
    assert array(mask).sum(axis=1).tolist() == [5, 2]
    assert series.shape[1] > 2


def test_source_of_only_padding_keeps_one_step():
    batches = teacher_forcing([[0, 0], []], [[1, 2], [1, 2]])
    assert batches[0][0]["source"].tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ([[3], [4]], [[1, 2]], "2 rows in source, 1 in target"),
        ([], [], "`source` must have at least one row"),
        ([[3]], None, "`target` must have at least one row.* target=None"),
        (5, [[1, 2]], "`source` must have at least one row.* source=5"),
        (np.array(5), [[1, 2]], "`source` must have at least one row"),
        ([[3], [4]], [[1, 3, 2], [1]], r"target\[1\]=\[1\]"),
        ([[3]], np.array([[1, 0, 0]]), r"target\[0\]=\[1\]"),
        ([[3]], [[1.0, 2.0]], "`target` must be rows of one kind: token ids, integers"),
        ([[3]], [np.ones((3, 5, 2))], r"target\[0\] of shape \(3, 5, 2\)"),
        ([[3], [3.5]], [[1, 2]] * 2, r"source\[1\] of shape \(1,\) and dtype=float64"),
        ([[3.5], [1.5, 2.5]], [[1, 2]] * 2, r"source\[1\] of shape \(2,\)"),
        ([3.5], [[1, 2]], r"source\[0\] of shape \(\) and dtype=float64"),
        ([[3], np.ones((2, 3))], [[1, 2]] * 2, r"source\[1\] of shape \(2, 3\)"),
        ([np.ones((2, 3)), np.ones((2, 5))], [[1, 2]] * 2, r"source\[1\] of shape"),
    ],
)
def test_rejects_rows_that_are_not_pairs(source, target, message):
    with pytest.raises(ValueError, match=message):
        teacher_forcing(source, target)


@pytest.mark.parametrize("name", ["batch_size", "length_multiple"])
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_rejects_sizes_below_one(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        teacher_forcing(*pairs(), **{name: value})


@pytest.mark.parametrize("value", [None, "a", True])
def test_rejects_a_source_padding_that_is_not_a_number(value):
    with pytest.raises(ValueError, match=f"`source_padding` must .*padding={value!r}"):
        teacher_forcing(*pairs(), source_padding=value)


@pytest.mark.parametrize("value", [None, 0.5, "<pad>"])
def test_rejects_a_pad_token_id_that_is_not_an_integer(value):
    with pytest.raises(ValueError, match=f"`pad_token_id` must .*token_id={value!r}"):
        teacher_forcing(*pairs(), pad_token_id=value)


def small_model(words):
    """Return a small encoder-decoder over the mean embedding of the source."""
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    embedding = keras.layers.Embedding(words, 8, mask_zero=True)
    memory = keras.layers.GlobalAveragePooling1D()(embedding(source))
    steps = keras.layers.GRU(8, return_sequences=True)(
        embedding(target), initial_state=memory
    )
    return keras.Model(
        {"source": source, "target": target}, keras.layers.Dense(words)(steps)
    )


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.filterwarnings("error")
def test_fit_and_evaluate_accept_the_batches_without_a_warning(workers):
    # Many rows of one length, so that the first batches could have no other length.
    source = [[3, 4]] * 20 + [[3] * 7] * 5
    target = [[START, 3, END]] * 20 + [[START, *[3] * 7, END]] * 5
    model = small_model(5)
    model.compile("adam", loss=SequenceCrossentropy(0.1), metrics=[TokenAccuracy()])
    train = teacher_forcing(source, target, batch_size=5, workers=workers)
    held_out = teacher_forcing(source, target, batch_size=5, shuffle=False)
    history = model.fit(train, epochs=3, validation_data=held_out, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    model.evaluate(held_out, verbose=0)


def test_first_two_batches_differ_in_length_if_rows_do():
    """Otherwise Keras on TensorFlow assumes that all batches have their length."""
    source = [[3, 4]] * 20 + [[3] * 7] * 5
    target = [[START, 3, END]] * 10 + [[START, *[3] * 7, END]] * 15
    for shuffle in (False, True):
        batches = teacher_forcing(source, target, batch_size=5, shuffle=shuffle)
        for _ in range(5):
            (first, _), (second, _) = batches[0], batches[1]
            assert first["source"].shape[1] != second["source"].shape[1]
            assert first["target"].shape[1] != second["target"].shape[1]
            batches.on_epoch_end()
    same = teacher_forcing([[3]] * 5, [[1, 2]] * 5, batch_size=2)
    assert {labels.shape[1] for _, labels in same} == {1}


@pytest.mark.parametrize(
    "source, dtype",
    [
        (np.array([7, 3, 5]), "int32"),
        (random_array(3, 2), "float32"),
        (random_array(3, 4, 5, 1), "float32"),
    ],
    ids=["classes", "vectors", "pictures"],
)
def test_sources_that_are_not_sequences_are_unchanged(source, dtype):
    batches = teacher_forcing(source, [[1, 2]] * 3, batch_size=2, shuffle=False)
    inputs, _ = batches[0]
    np.testing.assert_array_equal(inputs["source"], source[:2])
    assert inputs["source"].dtype == dtype


def test_batches_without_a_source_contain_only_the_target():
    batches = teacher_forcing(None, [[1, 4, 2], [1, 2]], shuffle=False, batch_size=2)
    inputs, labels = batches[0]
    assert inputs.keys() == {"target"}
    assert inputs["target"].tolist() == [[1, 4], [1, 2]]
    assert labels.tolist() == [[4, 2], [2, 0]]


def test_a_function_returns_the_targets_of_each_epoch():
    weights = {"sample_weight": [2, 3], "class_weight": {6: 0.5}}
    data = teacher_forcing(
        [[5], [6]], lambda epoch: [[2, 5 + epoch, 3]] * 2, shuffle=False, **weights
    )
    data.on_epoch_end()
    [(inputs, labels, found)] = data
    assert inputs["target"].tolist() == [[2, 6]] * 2
    assert labels.tolist() == [[6, 3]] * 2
    assert found.tolist() == [[1.0, 2.0], [1.5, 3.0]]


def test_source_of_several_inputs_has_named_rows():
    source = {
        "lemma": [[5, 6, 7], [8]],
        "tags": {"pos": [[4], [5, 6]], "numbers": [np.ones((1, 2)), np.ones((2, 2))]},
        "speaker": [1, 0],
    }
    target = [[1, 4, 2], [1, 3, 3, 2]]
    batches = teacher_forcing(source, target, shuffle=False, length_multiple=1)
    inputs, _ = batches[0]
    assert inputs["source"]["lemma"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert inputs["source"]["tags"]["pos"].tolist() == [[4, 0], [5, 6]]
    numbers = inputs["source"]["tags"]["numbers"]
    assert numbers.tolist() == [[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]
    assert inputs["source"]["speaker"].tolist() == [1, 0]
    few = teacher_forcing(source, target, shuffle=False, max_length=3)
    assert few[0][0]["target"].shape == (2, 3)
    with pytest.raises(ValueError, match="no longer than `max_length`"):
        teacher_forcing(source, target, max_length=1)


def test_a_function_returns_the_rows_of_several_inputs_in_each_epoch():
    def source(epoch):
        return {"lemma": [[5 + epoch]], "tags": [[4]]}

    batches = teacher_forcing(source, [[1, 4, 2]], shuffle=False)
    batches.on_epoch_end()
    inputs, _ = batches[0]
    assert inputs["source"]["lemma"].tolist() == [[6]]


def test_warns_of_targets_that_begin_with_different_tokens():
    target = [[1, 5, 2], [1, 2], [5, 6, 2]]
    message = r"target\[0\] begins with 1, target\[2\] with 5\. Add the start token"
    with pytest.warns(UserWarning, match=message) as caught:
        teacher_forcing(None, target)
    assert caught[0].filename == __file__
