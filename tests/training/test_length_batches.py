"""Batches by tokens, in short epochs, for several processes, from any position."""

import numpy as np
import pytest

from kseq.token_rows import TokenRows
from kseq.training import TokenDropout, batches, teacher_forcing, windows


def pairs(rows=211, seed=3):
    """Return ragged source and target ids. The first of a source identifies the row."""
    random = np.random.default_rng(seed)
    source = random.integers(2, 29, size=rows)
    target = np.maximum(source + random.integers(-3, 4, size=rows), 1)
    return (
        [[7 + row] + [5] * int(length) for row, length in enumerate(source)],
        [[1] + [5] * int(length) for length in target],
    )


def first_ids(data):
    return [inputs["source"][:, 0].tolist() for inputs, _ in data]


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_have_at_most_batch_tokens_tokens(shuffle):
    data = teacher_forcing(*pairs(), batch_tokens=127, shuffle=shuffle)
    sizes, seen = [], []
    for index, (inputs, labels) in enumerate(data):
        longest = max(inputs["source"].shape[1], labels.shape[1])
        slack = 4 * len(labels) if index == 1 else 0  # another shape, for Keras
        assert len(labels) * longest <= 127 + slack
        sizes.append(len(labels))
        seen += inputs["source"][:, 0].tolist()
    assert sorted(seen) == list(range(7, 218))
    assert max(sizes) > min(sizes)
    assert (seen == sorted(seen)) is not shuffle


def test_batches_by_tokens_have_little_padding_and_change_each_epoch():
    data = teacher_forcing(*pairs(5003), batch_tokens=997, length_multiple=2)
    real = padded = 0
    for inputs, labels in data:
        for ids in (inputs["source"], labels):
            real, padded = real + (ids != 0).sum(), padded + ids.size
    assert 1 - real / padded < 0.06
    before = first_ids(data)
    data.on_epoch_end()
    after = first_ids(data)
    assert sorted(map(len, before)) == sorted(map(len, after))
    assert set(map(frozenset, before)).isdisjoint(map(frozenset, after))
    again = teacher_forcing(*pairs(5003), batch_tokens=997, length_multiple=2)
    assert first_ids(again) == before


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [{"batch_size": 12}, {"batch_tokens": 200}])
def test_shards_divide_each_batch(size, shuffle):
    whole, *parts = (
        list(teacher_forcing(*pairs(), **size, shuffle=shuffle, shard=shard))
        for shard in (None, (0, 3), (1, 3), (2, 3))
    )
    assert len({len(part) for part in parts}) == 1
    seen = []
    for shards in zip(*parts, strict=True):
        shapes = {tuple(inputs["source"].shape) for inputs, _ in shards}
        assert len(shapes) == 1 and len({labels.shape for _, labels in shards}) == 1
        seen += [row for inputs, _ in shards for row in inputs["source"][:, 0].tolist()]
    assert len(seen) == len(set(seen)) == 211 // 3 * 3
    if "batch_size" in size:
        assert len(whole) == len(parts[0])


def test_short_epoch_continues_where_the_last_one_stopped():
    whole = teacher_forcing(*pairs(), batch_size=20)  # 11 batches
    short = teacher_forcing(*pairs(), batch_size=20, steps=4)
    expected, found = [], []
    for _ in range(4):
        expected += first_ids(whole)
        whole.on_epoch_end()
    for _ in range(11):
        assert len(short) == 4
        found += first_ids(short)
        short.on_epoch_end()
    assert found == expected
    long = teacher_forcing(*pairs(), batch_size=20, steps=25)
    assert first_ids(long) == expected[:25]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [{"batch_size": 7}, {"batch_tokens": 50}])
def test_rows_longer_than_max_length_are_dropped(size, shuffle):
    data = teacher_forcing(*pairs(), **size, shuffle=shuffle, max_length=9)
    kept = [
        source[0]
        for source, target in zip(*pairs(), strict=True)
        if len(source) <= 9 and len(target) <= 10
    ]
    found = [row for rows in first_ids(data) for row in rows]
    assert sorted(found) == kept and 0 < len(kept) < 211
    assert max(inputs["source"].shape[1] for inputs, _ in data) <= 9 + 4


IDS = [[5, 6, 7], [8], [9, 5, 6, 7, 8, 9], [5, 5]] * 3
DATA_SETS = {
    "batches": lambda: batches(IDS, list(range(12)), batch_size=3),
    "by tokens": lambda: batches(IDS, list(range(12)), batch_tokens=12),
    "in short epochs": lambda: batches(IDS, list(range(12)), 3, steps=3),
    "rows of each epoch": lambda: batches(
        lambda epoch: [[9 + epoch]] * 12, list(range(12)), 3
    ),
    "windows": lambda: windows(np.arange(5, 60), 3, batch_size=4),
    "windows in order": lambda: windows(np.arange(5, 60), 3, 4, shuffle=False),
    "token dropout": lambda: TokenDropout(DATA_SETS["batches"](), 0.5),
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_epoch_can_start_at_any_batch(name):
    data = DATA_SETS[name]()
    for _ in range(3):
        data.on_epoch_end()
    position, expected = data.position(), list(data)
    data.on_epoch_end()
    following = list(data)
    other = DATA_SETS[name]()
    other.start_at(position, 2)
    assert len(other) == len(expected) - 2
    assert_same(list(other), expected[2:])
    other.on_epoch_end()
    assert_same(list(other), following)


def assert_same(actual, expected):
    assert len(actual) == len(expected) > 0
    for batch, expected_batch in zip(actual, expected, strict=True):
        np.testing.assert_equal(batch, expected_batch)


def test_token_rows_give_the_same_batches_as_lists():
    source, target = pairs()
    source[3] = []
    flat = [TokenRows.of_lists(rows, "uint16") for rows in (source, target)]
    assert_same(
        list(teacher_forcing(*flat, 7)), list(teacher_forcing(source, target, 7))
    )
    tags = [[1 + i % 3 for i in row] for row in source]
    data = batches(flat[0], TokenRows.of_lists(tags), 7, class_weight={2: 0.5})
    assert_same(list(data), list(batches(source, tags, 7, class_weight={2: 0.5})))
    [(inputs, _)] = batches(TokenRows.of_lists([[5, 0, 6, 0, 0], [0]]), [1, 2])
    assert sorted(inputs.tolist()) == [[0, 0, 0], [5, 0, 6]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_tokens": 5}, "must be at least 6 .*Received: batch_tokens=5"),
        ({"batch_tokens": 0}, "`batch_tokens`.*Received: batch_tokens=0"),
        ({"steps": 0}, "`steps`.*Received: steps=0"),
        ({"shard": (2, 2)}, r"Received: shard=\(2, 2\)"),
        ({"shard": 2}, "Received: shard=2"),
        (
            {"batch_size": 3, "shard": (0, 2)},
            r"divisible .*batch_size=3, shard=\(0, 2\)",
        ),
        ({"batch_tokens": 11, "shard": (0, 2)}, "at least 12"),
        ({"batch_size": 3, "shard": (0, 3)}, "Each process needs a row"),
        ({"max_length": 1}, "Received: 0 such rows"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        batches([[5, 6], [5] * 6], [0, 1], **options)
