"""Scores of texts, compared with sacrebleu and with error rates counted by hand."""

import functools
import sys

import pytest
import sacrebleu

from kseq.training import text_scores

HYPOTHESES = ["a dog runs fast .", "two men", "", "한국어"]
REFERENCES = [
    ["a dog is running .", "a dog runs ."],
    ["two men walk here"],
    ["a", "b c"],
    ["한국말"],
]


def test_bleu_chrf_and_ter_match_sacrebleu_with_any_number_of_references():
    scores = text_scores(HYPOTHESES, REFERENCES, ["bleu", "chrf", "ter"])
    columns = [
        [known[0] for known in REFERENCES],
        [REFERENCES[0][1], None, "b c", None],
    ]
    assert list(scores) == ["bleu", "chrf", "ter"]
    for name, score in scores.items():
        measure = getattr(sacrebleu, f"corpus_{name}")
        assert score == measure(HYPOTHESES, columns).score > 0


def distance(a, b):
    """Return the Levenshtein distance from its recursion."""

    @functools.cache
    def rest(i, j):
        if i == len(a) or j == len(b):
            return len(a) - i + len(b) - j
        return min(
            rest(i + 1, j) + 1,
            rest(i, j + 1) + 1,
            rest(i + 1, j + 1) + (a[i] != b[j]),
        )

    return rest(0, 0)


@pytest.mark.parametrize("name, split", [("wer", str.split), ("cer", str)])
def test_error_rates_count_edits_against_the_nearest_reference(name, split):
    edits = lengths = 0
    for text, known in zip(HYPOTHESES, REFERENCES, strict=True):
        rows = [split(reference) for reference in known]
        nearest = min((distance(row, split(text)), len(row)) for row in rows)
        edits, lengths = edits + nearest[0], lengths + nearest[1]
    assert text_scores(HYPOTHESES, REFERENCES, name) == {name: edits / lengths}


def test_error_rates_treat_white_space_as_one_space():
    hypotheses, references = ["a  b\tc\n"], [" a b c"]
    assert text_scores(hypotheses, references, ["wer", "cer"]) == {"wer": 0, "cer": 0}
    assert text_scores(hypotheses, references, "exact_match") == {"exact_match": 0}


def test_exact_match_accepts_any_reference():
    hypotheses = ["a dog runs .", "two men", "b c", "한국"]
    assert text_scores(hypotheses, REFERENCES, "exact_match") == {"exact_match": 2 / 4}
    assert text_scores(["a", "b"], ["a", "c"], "exact_match") == {"exact_match": 1 / 2}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((["a"], ["a"], "rouge"), "one or more of.*'cer'.*Received: scores=.'rouge'"),
        ((["a"], ["a"], []), "one or more of"),
        (([], []), "There must be at least one text.*Received: 0 texts"),
        ((["a"], ["a", "b"]), "1 texts, 2 references"),
        ((["a", "b"], ["a", []]), "of which 1 are empty lists"),
        ((["a", None], ["a", "b"]), r"Received: written\[1\]=None"),
        ((["a"], [["a", 3]]), r"Received: references\[0\]\[1\]=3"),
        ((["a"], "a"), r"`references` must be a list of strings.*`\[references\]`"),
        ((["a"], [" "], "wer"), "must have a word for the score 'wer'"),
    ],
)
def test_rejects_texts_that_cannot_be_scored(arguments, message):
    with pytest.raises(ValueError, match=message):
        text_scores(*arguments)


@pytest.mark.parametrize("name, package", [("bleu", "sacrebleu"), ("wer", "jiwer")])
def test_error_names_a_missing_package(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}. Install it.*kseq\[metrics\]"):
        text_scores(["a"], ["a"], name)
    assert text_scores(["a"], ["a"], "exact_match") == {"exact_match": 1}
