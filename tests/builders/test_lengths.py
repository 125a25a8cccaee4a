"""Lengths relative to the source, and sources in batches."""

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, GreedySearch, RelativeLength, Sampling
from kseq.layers import FeatureEmbedding, PatchEmbedding, TokenEmbedding
from tests.helpers import assert_close, random_array, randomize

SOURCE_SIZE, TARGET_SIZE = 11, 7
SOURCES = [[4, 5, 6, 7, 3], [8], [9, 10, 4], [], [5, 5, 1, 5, 9, 5, 5, 2, 5, 6], [8, 8]]
LENGTH = RelativeLength(0.5, 2.5)
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3, 0.6),
    "sampling": Sampling(2.0, num_draws=3, seed=1),
}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


@pytest.fixture(scope="module")
def model():
    """Return a random model whose hypotheses seldom end."""
    model = kseq.encoder_decoder(SOURCE_SIZE, TARGET_SIZE, "gru", "rnn", width=5)
    randomize(model)
    model.head.bias.assign(-1.5 * (np.arange(TARGET_SIZE) == 3))
    return model


def padded(rows, length, side="right"):
    fill = [[0] * (length - len(row)) for row in rows]
    pairs = zip(rows, fill, strict=True)
    return np.array([x + f if side == "right" else f + x for x, f in pairs], "int32")


def assert_same_generation(result, expected):
    """Check that two `Generation`s are equal, except for trailing padding."""
    for name in ("token_ids", "token_log_probs"):
        first, second = getattr(result, name), getattr(expected, name)
        steps = min(first.shape[-1], second.shape[-1])
        assert (first[..., steps:] == 0).all() and (second[..., steps:] == 0).all()
        assert_close(first[..., :steps], second[..., :steps])
    np.testing.assert_array_equal(result.lengths, expected.lengths)
    assert_close(result.log_probs, expected.log_probs)


@pytest.mark.thorough(all_but=2)
@each_search
def test_the_length_of_each_row_is_limited_by_its_source(model, search):
    result = model.generate(SOURCES, search, LENGTH)
    limits = [int(0.5 * len(source) + 2.5) for source in SOURCES]
    assert (result.lengths.max(axis=1) <= limits).all()
    assert result.token_ids.shape[-1] == result.lengths.max()
    cut_off = ~result.ended.all(axis=1)
    assert cut_off.sum() > 2 and len(set(np.array(limits)[cut_off])) > 2
    assert (result.lengths.max(axis=1) == limits)[cut_off].all()
    for row, limit in enumerate(limits):
        if not isinstance(search, Sampling):  # random numbers depend on the row
            alone = model.generate([SOURCES[row]], search, limit)
            rows = {k: v[row : row + 1] for k, v in present_values(result).items()}
            assert_same_generation(type(result)(**rows), alone)
    assert_close(model.score(SOURCES, result), result.log_probs)


def present_values(result):
    return {k: v for k, v in vars(result).items() if v is not None}


@pytest.mark.thorough(all_but=2)
@each_search
def test_lengths_do_not_depend_on_padding_or_batch_size(model, search):
    expected = model.generate(SOURCES, search, LENGTH)
    for side in ("left", "right"):
        rows = padded(SOURCES, 13, side)
        assert_same_generation(model.generate(rows, search, LENGTH), expected)
    for batch_size in (1, 2, 5):
        result = model.generate(SOURCES, search, LENGTH, batch_size)
        assert_same_generation(result, expected)


def test_max_length_may_be_any_function_of_the_source_length(model):
    result = model.generate(SOURCES, max_length=lambda n: 9 if n > 3 else 1)
    long = np.array([len(source) > 3 for source in SOURCES])
    assert (result.lengths[~long] == 1).all() and (result.lengths[long] > 1).all()


def test_batches_of_different_lengths_are_joined(model):
    search = BeamSearch(2)
    options = {"return_attention_scores": True}
    lengths = {0: 3, 1: 20, 2: 5, 3: 2, 5: 7, 10: 17}
    result = model.generate(SOURCES, search, lengths.get, 2, **options)
    whole = model.generate(SOURCES, search, lengths.get, **options)
    assert_same_generation(result, whole)
    assert_close(result.attention, whole.attention)
    assert len({row.tobytes() for row in result.attention}) == len(SOURCES)


def test_the_length_of_a_series_is_its_number_of_steps():
    rows = [random_array(length, 2) for length in (3, 7, 2)]
    for mask_value in (-1.0, float("nan")):
        embedding = FeatureEmbedding(2, 4, mask_value=mask_value)
        model = kseq.encoder_decoder(embedding, TARGET_SIZE, width=4)
        model.head.bias.assign(9.0 * (np.arange(TARGET_SIZE) == 5))
        tail = np.full((4, 2), mask_value, "float32")
        source = [rows[0], np.concatenate([rows[1], tail]), rows[2]]
        result = model.generate(source, max_length=lambda n: n)
        assert result.lengths[:, 0].tolist() == [3, 7, 2]
    model = kseq.encoder_decoder(FeatureEmbedding(2, 4), TARGET_SIZE, width=4)
    model.head.bias.assign(9.0 * (np.arange(TARGET_SIZE) == 5))
    result = model.generate(random_array(2, 6, 2), max_length=lambda n: n)
    assert result.lengths[:, 0].tolist() == [6, 6]


def test_learned_positions_must_cover_the_longest_target():
    target = TokenEmbedding(TARGET_SIZE, 4, positions="learned", max_length=5)
    model = kseq.encoder_decoder(SOURCE_SIZE, target, width=4)
    model.generate([[4, 5], [6]], max_length=RelativeLength(2, 1))
    with pytest.raises(ValueError, match="max_length=6 with a target of max_length=5"):
        model.generate([[4, 5], [6]], max_length=RelativeLength(2, 2))


@pytest.mark.parametrize("wrong", [0, 2.5, None, "3"])
def test_rejects_a_function_that_returns_an_invalid_length(model, wrong):
    message = f"`max_length` must be a positive integer.*{wrong!r}"
    with pytest.raises(ValueError, match=message):
        model.generate(SOURCES, max_length=lambda n: wrong)


def test_rejects_a_relative_length_for_images():
    model = kseq.one_to_many(TARGET_SIZE, PatchEmbedding((4, 6, 1), 2, 4), width=4)
    with pytest.raises(ValueError, match="a function if sources have a length"):
        model.generate(random_array(2, 4, 6, 1), max_length=RelativeLength())


# Batches ----------------------------------------------------------------------------


def batches(rows):
    """Yield two rows at a time, each batch padded to its own length."""
    for first in range(0, len(rows), 2):
        pair = rows[first : first + 2]
        yield padded(pair, max(map(len, pair)) + 1)


def as_generator(rows):
    return batches(rows)


def as_lists(rows):
    return iter([rows[:4], rows[4:]])


def as_training(rows):
    return ((({"source": x, "target": x}), x, x) for x in batches(rows))


def as_tf_data(rows):
    import tensorflow as tf

    spec = tf.TensorSpec((None, None), "int32")
    return tf.data.Dataset.from_generator(lambda: batches(rows), output_signature=spec)


def as_ragged_tf_data(rows):
    import tensorflow as tf

    ragged = tf.ragged.constant(rows, "int32")
    return tf.data.Dataset.from_tensor_slices(ragged).batch(4)


class Batches(keras.utils.PyDataset):
    def __init__(self, rows):
        super().__init__()
        self.rows = list(batches(rows))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"source": self.rows[index]}, self.rows[index]


FORMS = [as_generator, as_lists, as_training, as_tf_data, as_ragged_tf_data, Batches]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_batches_give_the_same_as_their_rows(model, form):
    search, options = BeamSearch(3, 0.6), {"return_attention_scores": True}
    expected = model.generate(SOURCES, search, 5, **options)
    result = model.generate(form(SOURCES), search, 5, **options)
    assert_same_generation(result, expected)
    width = expected.attention.shape[-1]
    assert_close(result.attention[..., :width], expected.attention)
    assert_close(model.score(form(SOURCES), result), result.log_probs)
    tokens = np.stack(list(model.generate_stream(form(SOURCES), max_length=5)), axis=-1)
    whole = model.generate(SOURCES, max_length=5).token_ids[:, 0]
    np.testing.assert_array_equal(tokens, whole[:, : tokens.shape[1]])


def test_generate_takes_the_batches_of_teacher_forcing(model):
    data = kseq.training.teacher_forcing(SOURCES[:3], [[4, 3]] * 3, batch_size=2)
    result = model.generate(data, max_length=5)
    rows = [row for i in range(len(data)) for row in data[i][0]["source"]]
    assert_same_generation(result, model.generate(rows, max_length=5))


def test_images_may_come_in_batches():
    model = kseq.one_to_many(TARGET_SIZE, PatchEmbedding((4, 6, 1), 2, 4), width=4)
    pictures = random_array(5, 4, 6, 1)
    result = model.generate(iter([pictures[:3], pictures[3:]]), max_length=4)
    assert_same_generation(result, model.generate(pictures, max_length=4))


@pytest.mark.parametrize("form", [iter, as_generator])
def test_rejects_an_empty_iterator(model, form):
    with pytest.raises(ValueError, match="`source` must hold at least one row"):
        model.generate(form([]))


def test_rejects_infinite_batches(model):
    with pytest.raises(ValueError, match="must be finite"):
        model.generate(as_tf_data(SOURCES).repeat())


def test_rejects_a_batch_without_a_source(model):
    with pytest.raises(ValueError, match=r"an input \"source\".*\['target', 'x'\]"):
        model.generate(iter([{"x": SOURCES, "target": SOURCES}]))
