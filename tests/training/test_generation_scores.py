import copy

import pytest

from kseq.training import GenerationScores
from tests.training.scripted import SOURCE, TARGET, ScriptedModel


def to_text(rows):
    return [" ".join("abcdefghij"[token_id] for token_id in row) for row in rows]


def test_scores_match_the_generated_texts():
    names = ["exact_match", "edit_distance_rate", "bleu", "chrf", "wer"]
    scores = GenerationScores(SOURCE, TARGET, names, to_text)
    measured = scores.measure(ScriptedModel())
    assert measured["exact_match"] == 2 / 4
    # Of 2 + 3 + 1 + 0 tokens, one is deleted in row 1, three are inserted in row 2.
    assert measured["edit_distance_rate"] == pytest.approx(4 / 6)
    import sacrebleu

    hypotheses = ["f g", "h j", "e e e e", ""]
    references = [["f g", "h i j", "e", ""]]
    assert measured["bleu"] == sacrebleu.corpus_bleu(hypotheses, references).score
    assert measured["wer"] == pytest.approx(4 / 6)
    assert measured["chrf"] == sacrebleu.corpus_chrf(hypotheses, references).score > 0


def test_max_length_is_one_and_a_half_times_the_longest_target():
    model = ScriptedModel()
    GenerationScores(SOURCE, TARGET, batch_size=7).measure(model)
    assert model.arguments == (None, 4 + 2 + 1, 7)


def test_each_epoch_reports_the_latest_scores():
    scores = GenerationScores(SOURCE, TARGET, "exact_match", every=3)
    model, seen = ScriptedModel(), []
    model.generate = lambda *args, **kwargs: (
        seen.append(1) or ScriptedModel.generate(model, *args, **kwargs)
    )
    scores.set_model(model)
    scores.set_params({"epochs": 5})
    counts = []
    for epoch in range(5):
        logs = {"loss": 1.0}
        scores.on_epoch_end(epoch, logs)
        assert logs == {"loss": 1.0, "val_written_exact_match": 0.5}
        counts.append(len(seen))
    assert counts == [1, 1, 2, 2, 3]  # the first, every third, the last


def test_a_tuner_can_copy_the_callback():
    scores = copy.deepcopy(GenerationScores(SOURCE, TARGET))
    assert scores.measure(ScriptedModel())["exact_match"] == 0.5


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
def test_rejects_invalid_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationScores(**{"source": SOURCE, "target": TARGET, **options})
