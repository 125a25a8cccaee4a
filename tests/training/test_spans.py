"""Spans and their scores, by the convention of the CoNLL shared tasks."""

import random

import pytest

from kseq.training import span_scores, spans


@pytest.mark.parametrize(
    "labels, expected",
    [
        ("", []),
        ("O O", []),
        ("B-a I-a O", [("a", 0, 2)]),
        ("B-a B-a", [("a", 0, 1), ("a", 1, 2)]),
        ("B-a I-b I-b", [("a", 0, 1), ("b", 1, 3)]),
        ("O I-a I-a", [("a", 1, 3)]),  # conlleval starts a span without B here
        ("I-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("B-a O I-a", [("a", 0, 1), ("a", 2, 3)]),
        ("B-a.b-c I-a.b-c", [("a.b-c", 0, 2)]),  # kinds may contain hyphens
        ("B I O", [("", 0, 2)]),
        ("NOUN BIG IN", []),
    ],
)
def test_spans_match_those_of_conlleval(labels, expected):
    assert spans(labels.split()) == expected


def test_spans_are_recovered_from_their_labels():
    rng = random.Random(5)
    for _ in range(200):
        labels, expected = [], []
        while len(labels) < 13:
            kind, size = rng.choice("abc"), rng.randint(1, 3)
            if rng.random() < 0.4:
                labels += ["O"] * size
                continue
            expected.append((kind, len(labels), len(labels) + size))
            labels += [f"B-{kind}"] + [f"I-{kind}"] * (size - 1)
        assert spans(labels) == expected


def test_scores_count_spans_of_all_sentences_together():
    labels = [["B-a", "I-a", "O", "B-b"], ["B-a", "O"], ["O"]]
    predicted = [["B-a", "I-a", "O", "B-a"], ["B-a", "I-a"], ["B-b"]]
    # Of 3 true spans 1 is found; of 4 found spans 1 is true.
    scores = span_scores(labels, predicted)
    assert scores == pytest.approx((1 / 4, 1 / 3, 2 / 7))
    assert span_scores(labels, labels) == (1, 1, 1)
    assert span_scores(predicted, labels) == pytest.approx((1 / 3, 1 / 4, 2 / 7))


def test_same_span_in_another_sentence_is_not_a_match():
    assert span_scores([["B-a"], ["O"]], [["O"], ["B-a"]]) == (0, 0, 0)


def test_scores_without_spans_are_zero():
    assert span_scores([["O"]], [["O"]]) == (0, 0, 0)
    assert span_scores([], []) == (0, 0, 0)


@pytest.mark.parametrize("predicted", [[["O"]], [["O"], ["O", "O"]], [["O", "O"]]])
def test_rejects_predictions_of_other_lengths(predicted):
    with pytest.raises(ValueError, match="2 sentences of 3 labels, and"):
        span_scores([["O", "O"], ["O"]], predicted)
