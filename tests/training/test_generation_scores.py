import copy

import pytest

from kseq.training import GenerationScores
from tests.training.scripted import SOURCE, TARGET, Scripted


def to_text(rows):
    return [" ".join("abcdefghij"[token_id] for token_id in row) for row in rows]


def test_scores_are_those_of_what_is_written():
    names = ["exact_match", "edit_distance_rate", "bleu", "chrf", "wer"]
    scores = GenerationScores(SOURCE, TARGET, names, to_text)
    measured = scores.measure(Scripted())
    assert measured["exact_match"] == 2 / 4
    # Of 2 + 3 + 1 + 0 tokens, one is deleted in row 1, three are inserted in row 2.
    assert measured["edit_distance_rate"] == pytest.approx(4 / 6)
    import sacrebleu

    written = ["f g", "h j", "e e e e", ""]
    wanted = [["f g", "h i j", "e", ""]]
    assert measured["bleu"] == sacrebleu.corpus_bleu(written, wanted).score
    assert measured["wer"] == pytest.approx(4 / 6)
    assert measured["chrf"] == sacrebleu.corpus_chrf(written, wanted).score > 0


def test_a_hypothesis_is_given_room_for_half_as_much_again():
    model = Scripted()
    GenerationScores(SOURCE, TARGET, batch_size=7).measure(model)
    assert model.asked == (None, 4 + 2 + 1, 7)


def test_the_epoch_reports_the_scores_and_keeps_them_between():
    scores = GenerationScores(SOURCE, TARGET, "exact_match", every=3)
    model, seen = Scripted(), []
    model.generate = lambda *args, **kwargs: (
        seen.append(1) or Scripted.generate(model, *args, **kwargs)
    )
    scores.set_model(model)
    scores.set_params({"epochs": 5})
    times = []
    for epoch in range(5):
        logs = {"loss": 1.0}
        scores.on_epoch_end(epoch, logs)
        assert logs == {"loss": 1.0, "val_written_exact_match": 0.5}
        times.append(len(seen))
    assert times == [1, 1, 2, 2, 3]  # the first, every third, the last


def test_a_tuner_may_copy_the_callback():
    scores = copy.deepcopy(GenerationScores(SOURCE, TARGET))
    assert scores.measure(Scripted())["exact_match"] == 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": TARGET[:3]}, "4 rows of source and 3 of target"),
        ({"source": [], "target": []}, "at least|0 rows"),
        ({"scores": ["rouge"]}, "one or more of.*exact_match.*Received.*rouge"),
        ({"scores": []}, "one or more of"),
        ({"scores": ["bleu"]}, "`to_text` is needed for bleu"),
        ({"every": 0}, "`every` must be a positive integer"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationScores(**{"source": SOURCE, "target": TARGET, **options})
