import contextlib
import importlib.util
import io
import itertools
import math
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "chat_korean.py"
SMALL = ["--quick", "--width", "8", "--beams", "2"]


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("chat_korean", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny():
    """Return questions of three words with one answer each, as a small data set."""
    words = ["오늘", "내일", "너무", "정말", "피곤해", "배고파", "좋아"]
    questions = [" ".join(words) + "?" for words in itertools.permutations(words, 3)]
    answers = [f"{question.split()[0]} 쉬세요." for question in questions]
    return {"train": (questions, answers)}


@pytest.fixture(scope="module")
def trained(recipe, tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kseq.datasets, "load", lambda *_: tiny)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            kind = ["--model", "gru", "--tokens", "word_piece", "--pieces", "97"]
            recipe.main([*SMALL, *kind, "--output", str(output)])
    return output, printed.getvalue()


def test_prints_perplexity_and_answers_side_by_side(trained):
    output, printed = trained
    for expected in ("perplexity", "greedy", "2 beams", "sampled", "are meaningless"):
        assert expected in printed
    assert {path.name for path in output.iterdir()} == {"model.keras", "training.png"}


@pytest.mark.thorough
def test_a_second_process_answers_with_the_saved_model(trained):
    model = trained[0] / "model.keras"
    done = subprocess.run(
        [
            sys.executable,
            RECIPE,
            "--load",
            model,
            "--say",
            "오늘  너무 좋아?",
            "정말 X?",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "오늘 너무 좋아?" in done.stdout and "greedy" in done.stdout
    assert "Unknown to the model: X" in done.stdout


def test_perplexity_is_per_syllable_for_all_tokens(recipe, capsys):
    class UniformModel:
        """A model that gives each token the probability 1/3."""

        def score(self, source_ids, target_ids):
            return np.array([-math.log(3) * len(row) for row in target_ids])

    answers = ["가나 다", "가"]  # 6 syllables and an end token each
    for kind, num_tokens in (("character", 6 + 1), ("word", 3 + 2)):
        words = kseq.text.Vocabulary(kind).adapt(answers)
        parts = {"source_vocabulary": words, "target_vocabulary": words}
        chatbot = type("Chatbot", (), {"model": UniformModel(), **parts})
        recipe.evaluate(chatbot, {"validation": (["가"] * 2, answers)})
        expected = 3 ** (num_tokens / 7)
        assert f"{expected:.2f}" in capsys.readouterr().out


def test_jamo_can_be_chosen(recipe):
    options = recipe.parse_arguments(["--tokens", "jamo", "--width", "8"])
    vocabulary = recipe.build(options, (["각"], ["나"])).source_vocabulary
    assert sorted(vocabulary.tokens) == sorted("\u1100\u1161\u11a8\u1102")
    assert vocabulary.decode(vocabulary.encode(["각"])) == ["각"]


def test_sentence_pieces_can_be_chosen(recipe):
    flags = ["--tokens", "sentence_piece", "--pieces", "400", "--width", "8"]
    options = recipe.parse_arguments(flags)
    vocabulary = recipe.build(options, (["각 나"], ["나"])).source_vocabulary
    assert vocabulary.decode(vocabulary.encode(["각  다"])) == ["각  다"]


def check_splits(parts):
    train, validation, test = (set(questions) for questions, _ in parts)
    assert not train & validation and not train & test and not validation & test
    letters = set("".join([*parts[0][0], *parts[0][1]]))
    for _, answers in parts[1:]:
        assert letters.issuperset("".join(answers))


def test_splits_share_no_question(recipe, tiny, monkeypatch):
    monkeypatch.setattr(kseq.datasets, "load", lambda *_: tiny)
    check_splits(recipe.load_splits(recipe.parse_arguments(["--quick"])))


def test_real_splits_share_no_question(recipe, data_set):
    data = ["--data", str(data_set("korean_chatbot").parent)]
    check_splits(recipe.load_splits(recipe.parse_arguments(data)))


def test_error_names_a_wrong_path(recipe, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(SystemExit, match="nowhere"):
        recipe.main(["--data", str(tmp_path / "nowhere"), "--output", str(output)])
    assert not output.exists()


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    arguments = ["--load", str(path), "--say", "안녕"]
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(arguments)
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(arguments)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save(path)
    with pytest.raises(SystemExit, match="Received: .*Sequential"):
        recipe.main(arguments)


@pytest.mark.parametrize(
    "arguments",
    [["--model", "grue"], ["--tokens", "words"], ["--say", "안녕"], ["--epochs", "0"]],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_runs_on_real_data(recipe, data_set, tmp_path, capsys):
    data = str(data_set("korean_chatbot").parent)
    recipe.main([*SMALL, "--data", data, "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "perplexity" in printed and (tmp_path / "model.keras").exists()
