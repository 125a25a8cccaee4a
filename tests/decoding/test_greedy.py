"""Greedy search on models in which the last token decides the next.

Axes in shape comments: B batch, K beams, T steps, V vocabulary.
"""

import numpy as np
import pytest
from keras import ops

from kseq.decoding import GreedySearch
from tests.helpers import array, assert_close

PAD, END, START = 0, 1, 2


def next_token_logits(**rows):
    """Return logits `(V, V)` of the next token, from rows of probabilities."""
    table = np.full((7, 7), 1 / 7)
    for token, probabilities in rows.items():
        table[int(token[1:])] = probabilities
    with np.errstate(divide="ignore"):  # a probability of 0 bans a token
        return np.log(table).astype("float32")


def run_search(table, start_token_ids, max_length=5, **options):
    """Run greedy search with a table of the logits after each token."""

    def step(token_ids, state, constants):
        return ops.take(table, token_ids, axis=0), state  # B K V

    result = GreedySearch()(step, (), (), start_token_ids, END, max_length, **options)
    return {
        name: array(value) for name, value in vars(result).items() if value is not None
    }


def test_the_most_probable_token_is_taken_at_every_step():
    table = next_token_logits(
        t2=[0.1, 0.1, 0, 0.5, 0.3, 0, 0],
        t3=[0, 0.2, 0, 0.1, 0.3, 0, 0.4],
        t6=[0, 0.7, 0, 0.1, 0.1, 0, 0.1],
    )
    result = run_search(table, [START])
    assert result["token_ids"].tolist() == [[[3, 6, END, PAD, PAD]]]
    assert result["lengths"].tolist() == [[3]]
    assert_close(result["token_log_probs"], np.log([[[0.5, 0.4, 0.7, 1, 1]]]))
    assert_close(result["log_probs"], np.log([[0.5 * 0.4 * 0.7]]))


def test_rows_end_at_different_steps():
    chain = np.full((7, 7), -3.0, "float32")
    for token, next_token in {6: 5, 5: 4, 4: 3, 3: END, END: 6}.items():
        chain[token, next_token] = 3.0
    result = run_search(chain, [3, 6, 4, 5, END])
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


def test_a_sequence_without_end_token_has_the_maximum_length():
    table = next_token_logits(t2=[0, 0.1, 0.9, 0, 0, 0, 0])
    result = run_search(table, [START], max_length=4)
    assert result["token_ids"].tolist() == [[[2, 2, 2, 2]]]
    assert result["lengths"].tolist() == [[4]]
    assert_close(result["log_probs"], np.log([[0.9**4]]))


def test_padding_is_never_generated_and_log_probs_are_not_rescaled():
    table = next_token_logits(
        t2=[0.6, 0, 0, 0.3, 0.1, 0, 0], t3=[0.8, 0.15, 0.05, 0, 0, 0, 0]
    )
    result = run_search(table, [START], max_length=3)
    assert result["token_ids"].tolist() == [[[3, END, PAD]]]
    assert_close(result["log_probs"], np.log([[0.3 * 0.15]]))


def test_the_padding_token_can_be_changed():
    table = next_token_logits(
        t2=[0.3, 0, 0, 0, 0, 0, 0.7], t0=[0.1, 0.2, 0, 0, 0, 0, 0.7]
    )
    result = run_search(table, [START], max_length=4, pad_token_id=6)
    assert result["token_ids"].tolist() == [[[0, END, 6, 6]]]
    assert_close(result["log_probs"], np.log([[0.3 * 0.2]]))


def test_a_row_without_possible_tokens_has_no_hypothesis():
    table = next_token_logits(t2=[1, 0, 0, 0, 0, 0, 0], t3=[0, 0.8, 0.2, 0, 0, 0, 0])
    result = run_search(table, [START, 3], max_length=3)
    assert result["token_ids"][:, 0].tolist() == [[PAD] * 3, [END, PAD, PAD]]
    assert result["lengths"].tolist() == [[0], [1]]
    assert_close(result["log_probs"], np.array([[-np.inf], [np.log(0.8)]]))
    assert_close(result["token_log_probs"][0], np.zeros((1, 3)))


def test_ties_give_valid_hypotheses():
    result = run_search(next_token_logits(), [START, 3], max_length=3)
    assert_close(result["log_probs"], result["lengths"] * np.log(1 / 7))
    assert (result["token_ids"][:, 0, 0] != PAD).all()


@pytest.mark.parametrize("max_length", [1, 2])
def test_nothing_is_generated_beyond_the_maximum_length(max_length):
    result = run_search(
        next_token_logits(t2=[0, 0, 1, 0, 0, 0, 0]), [START] * 3, max_length
    )
    assert result["token_ids"].shape == (3, 1, max_length)
    assert (result["lengths"] == max_length).all()
