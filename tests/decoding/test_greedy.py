"""Axes in shape comments: B batch, K beams, T steps, V vocabulary."""

import numpy as np
import pytest
from keras import ops

from kseq.decoding import GreedySearch
from tests.helpers import array, assert_close

PAD, END, START = 0, 1, 2


def followers(**rows):
    """Logits `(V, V)` of which token follows which, from rows of probabilities."""
    table = np.full((7, 7), 1 / 7)
    for token, probabilities in rows.items():
        table[int(token[1:])] = probabilities
    with np.errstate(divide="ignore"):  # a probability of 0 is a banned word
        return np.log(table).astype("float32")


def search(table, start_token_ids, max_length=5, **options):
    """Searches a script in which the last token alone decides the next."""

    def step(token_ids, state, constants):
        return ops.take(table, token_ids, axis=0), state  # B K V

    result = GreedySearch()(step, (), (), start_token_ids, END, max_length, **options)
    return {
        name: array(value) for name, value in vars(result).items() if value is not None
    }


def test_the_most_probable_token_is_taken_at_every_step():
    table = followers(
        t2=[0.1, 0.1, 0, 0.5, 0.3, 0, 0],
        t3=[0, 0.2, 0, 0.1, 0.3, 0, 0.4],
        t6=[0, 0.7, 0, 0.1, 0.1, 0, 0.1],
    )
    result = search(table, [START])
    assert result["token_ids"].tolist() == [[[3, 6, END, PAD, PAD]]]
    assert result["lengths"].tolist() == [[3]]
    assert_close(result["token_log_probs"], np.log([[[0.5, 0.4, 0.7, 1, 1]]]))
    assert_close(result["log_probs"], np.log([[0.5 * 0.4 * 0.7]]))


def test_every_row_ends_at_its_own_step():
    chain = np.full((7, 7), -3.0, "float32")
    for token, follower in {6: 5, 5: 4, 4: 3, 3: END, END: 6}.items():
        chain[token, follower] = 3.0
    result = search(chain, [3, 6, 4, 5, END])
    assert result["token_ids"][:, 0].tolist() == [
        [END, PAD, PAD, PAD, PAD],
        [5, 4, 3, END, PAD],
        [3, END, PAD, PAD, PAD],
        [4, 3, END, PAD, PAD],
        [6, 5, 4, 3, END],
    ]
    assert result["lengths"][:, 0].tolist() == [1, 4, 2, 3, 5]
    best = 3 - np.log(np.exp(3) + 6 * np.exp(-3))
    assert_close(result["log_probs"], result["lengths"] * best)
    written = np.arange(5) < result["lengths"][..., None]
    assert_close(result["token_log_probs"], written * best)


def test_a_sequence_that_does_not_end_fills_the_length():
    table = followers(t2=[0, 0.1, 0.9, 0, 0, 0, 0])
    result = search(table, [START], max_length=4)
    assert result["token_ids"].tolist() == [[[2, 2, 2, 2]]]
    assert result["lengths"].tolist() == [[4]]
    assert_close(result["log_probs"], np.log([[0.9**4]]))


def test_padding_is_never_written_and_its_probability_goes_to_nobody():
    table = followers(t2=[0.6, 0, 0, 0.3, 0.1, 0, 0], t3=[0.8, 0.15, 0.05, 0, 0, 0, 0])
    result = search(table, [START], max_length=3)
    assert result["token_ids"].tolist() == [[[3, END, PAD]]]
    assert_close(result["log_probs"], np.log([[0.3 * 0.15]]))


def test_another_padding_token_can_be_named():
    table = followers(t2=[0.3, 0, 0, 0, 0, 0, 0.7], t0=[0.1, 0.2, 0, 0, 0, 0, 0.7])
    result = search(table, [START], max_length=4, pad_token_id=6)
    assert result["token_ids"].tolist() == [[[0, END, 6, 6]]]
    assert_close(result["log_probs"], np.log([[0.3 * 0.2]]))


def test_a_row_without_a_word_to_write_has_no_hypothesis():
    table = followers(t2=[1, 0, 0, 0, 0, 0, 0], t3=[0, 0.8, 0.2, 0, 0, 0, 0])
    result = search(table, [START, 3], max_length=3)
    assert result["token_ids"][:, 0].tolist() == [[PAD] * 3, [END, PAD, PAD]]
    assert result["lengths"].tolist() == [[0], [1]]
    assert_close(result["log_probs"], np.array([[-np.inf], [np.log(0.8)]]))
    assert_close(result["token_log_probs"][0], np.zeros((1, 3)))


def test_ties_are_broken_without_harm():
    result = search(followers(), [START, 3], max_length=3)
    assert_close(result["log_probs"], result["lengths"] * np.log(1 / 7))
    assert (result["token_ids"][:, 0, 0] != PAD).all()


@pytest.mark.parametrize("max_length", [1, 2])
def test_nothing_is_written_beyond_the_length(max_length):
    result = search(followers(t2=[0, 0, 1, 0, 0, 0, 0]), [START] * 3, max_length)
    assert result["token_ids"].shape == (3, 1, max_length)
    assert (result["lengths"] == max_length).all()
