"""Token dropout: random tokens become unknown, others in each epoch."""

import keras
import numpy as np
import pytest

import kseq
from kseq.training import TokenDropout, batches, teacher_forcing

ROWS = [list(range(2, 2 + n)) for n in (13, 11, 7, 5, 3)] * 7
LABELS = list(range(35))


def data(**options):
    return batches(ROWS, LABELS, batch_size=5, **options)


def test_drops_the_given_share_of_tokens_and_keeps_the_rest():
    dropped = total = 0
    for inputs, (before, labels) in zip(
        TokenDropout(data(shuffle=False), 0.3), data(shuffle=False), strict=True
    ):
        after, kept_labels = inputs
        assert (kept_labels == labels).all()
        assert after.dtype == before.dtype and (after[before == 0] == 0).all()
        changed = after != before
        assert (after[changed] == 1).all()
        dropped, total = dropped + changed.sum(), total + (before > 0).sum()
    assert total == 7 * 39
    assert abs(dropped / total - 0.3) < 4 * (0.3 * 0.7 / total) ** 0.5


def test_dropped_tokens_depend_on_the_epoch_and_the_seed():
    first, again = (TokenDropout(data(), 0.5, seed=3) for _ in range(2))
    [again[index] for index in (2, 1)]  # requested in another order
    once = first[0][0]
    np.testing.assert_array_equal(once, again[0][0])
    inner = data(shuffle=False)
    same = TokenDropout(inner, 0.5)
    before = same[0][0]
    same.on_epoch_end()
    assert (before != same[0][0]).any()
    other = TokenDropout(data(), 0.5, seed=5)[0][0]
    assert (once != other).any()


def test_dropout_of_zero_changes_nothing():
    same = TokenDropout(data(), 0.0)
    assert len(same) == len(data())
    np.testing.assert_array_equal(same[3][0], data()[3][0])


def test_new_epoch_has_the_new_order_of_the_data():
    inner = data()
    outer = TokenDropout(inner, 0.0)
    before = [labels.tolist() for _, labels in outer]
    outer.on_epoch_end()
    after = [labels.tolist() for _, labels in outer]
    assert before != after and sorted(sum(before, [])) == sorted(sum(after, []))


def test_a_model_trains_with_token_dropout():
    model = kseq.many_to_one(17, num_outputs=35, width=3)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(TokenDropout(data(), 0.1), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


def test_unknown_and_pad_token_ids_can_be_given():
    inner = batches([[1, 1, 5], [5]], [0, 1], pad_token_id=5, shuffle=False)
    inputs, _ = TokenDropout(inner, 0.99, unknown_token_id=9, pad_token_id=5)[0]
    assert inputs.tolist() == [[9, 9], [5, 5]]


@pytest.mark.parametrize("dropout", [1.0, -0.1, "half"])
def test_rejects_an_invalid_dropout(dropout):
    with pytest.raises(ValueError, match="`dropout`"):
        TokenDropout(data(), dropout)


def test_rejects_batches_of_anything_but_ids():
    features = batches(np.ones((3, 2, 5)), [0, 1, 0])
    with pytest.raises(ValueError, match="must return batches"):
        TokenDropout(features, 0.1)[0]
    pairs = kseq.training.teacher_forcing([[4, 5]], [[2, 4, 3]])
    with pytest.raises(ValueError, match="begins with dict"):
        TokenDropout(pairs, 0.1)[0]


def test_each_token_can_have_its_own_replacement():
    # Ids with the last digit d become 20 + d.
    endings = 20 + np.arange(20) % 10
    before = data(shuffle=False)
    for (after, _), (ids, _) in zip(
        TokenDropout(data(shuffle=False), 0.5, unknown_token_id=endings),
        before,
        strict=True,
    ):
        changed = after != ids
        assert changed.any() and after.dtype == ids.dtype
        assert (after[changed] == 20 + ids[changed] % 10).all()
        assert (after[ids == 0] == 0).all()


def test_error_names_a_token_without_a_replacement():
    with pytest.raises(ValueError, match="Received: 5 ids, and the token 14"):
        TokenDropout(data(shuffle=False), 0.5, unknown_token_id=np.arange(5))[0]


def test_drops_all_decoder_inputs_but_the_first():
    targets = [[2, *range(4, 40), 3]] * 7
    data = teacher_forcing([[5, 6]] * 7, targets, shuffle=False)
    inputs, labels = TokenDropout(data, 0.5, name="target")[0]
    plain, true_labels = data[0]
    assert (inputs["source"] == plain["source"]).all()
    assert (labels == true_labels).all()
    assert (inputs["target"][:, 0] == 2).all()
    dropped = inputs["target"] != plain["target"]
    assert (inputs["target"][dropped] == 1).all() and 0.3 < dropped.mean() < 0.6


def test_rejects_an_unknown_or_missing_input_name():
    data = teacher_forcing([[5]], [[2, 3]])
    with pytest.raises(ValueError, match="name='text'.*'source', 'target'"):
        TokenDropout(data, 0.5, name="text")[0]
    with pytest.raises(
        ValueError, match='If there are several inputs, name one: `name="target"`'
    ):
        TokenDropout(data, 0.5)[0]
