import contextlib
import importlib.util
import io
import itertools
import os
import pathlib
import signal
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "translate.py"
SMALL = ["--width", "8", "--layers", "1", "--pieces", "97", "--epochs", "1"]
SMALL += ["--beams", "2", "--batch-size", "32"]
WORDS = {"ein": "a", "hund": "dog", "mann": "man", "schläft": "sleeps", "hier": "here"}


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("translate", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Return a file of sentences that are translated word by word."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    sentences = itertools.permutations(WORDS, 3)
    lines = [f"{' '.join(s)}.\t{' '.join(WORDS[w] for w in s)}." for s in sentences]
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(recipe, pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("translate")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        recipe.main(["--pairs", str(pairs), "--output", str(output), *SMALL])
    return output, printed.getvalue()


def test_prints_bleu_and_translations_and_saves_plots(trained):
    output, printed = trained
    for expected in (
        "48 pairs for training, 6 for validation, 6 for testing",
        "greedy",
    ):
        assert expected in printed
    assert "2 beams" in printed and "test BLEU" in printed and "reference" in printed
    drawn = {"attention.png"} if "No picture" not in printed else set()
    names = {path.name for path in output.iterdir()}
    assert names == {"model.keras", "training.png"} | drawn
    for picture in output.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_second_process_translates_with_the_saved_model(trained):
    model = trained[0] / "model.keras"
    done = subprocess.run(
        [sys.executable, RECIPE, "--load", model, "--translate", "Ein  Hund?"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "ein hund?" in done.stdout
    assert "Unknown to the model: ?" in done.stdout


def test_sentence_pieces_can_be_chosen(recipe):
    flags = ["--split", "sentence_piece", "--pieces", "400", *SMALL[:4]]
    options = recipe.parse_arguments([*flags, "--output", "nowhere"])
    translator = recipe.build(options, ["ein hund"] * 9, ["a dog"] * 9)
    vocabulary = translator.target_vocabulary
    assert vocabulary.split == "sentence_piece"
    assert vocabulary.decode(vocabulary.encode(["a  cat"])) == ["a  cat"]


def test_bleu_uses_all_translations_of_a_sentence(recipe):
    class Fixed:
        def generate(self, texts, search, max_length):
            return [[type("Best", (), {"text": f"{x} two three four"})] for x in texts]

    right = ["a two three four", "b two three four"]
    wrong = "nothing of the kind at all"
    first = (["a", "b", "b"], [right[0], right[1], wrong])
    second = (["a", "b", "b"], [right[0], wrong, right[1]])
    assert recipe.bleu(Fixed(), first, None) == pytest.approx(100)
    assert recipe.bleu(Fixed(), second, None) == pytest.approx(100)
    assert recipe.bleu(Fixed(), (["a", "b"], [right[0], wrong]), None) < 70


def test_splits_share_no_sentence(recipe, pairs):
    parts = recipe.load_splits(recipe.parse_arguments(["--pairs", str(pairs)]))
    for column in (0, 1):
        train, validation, test = (set(part[column]) for part in parts)
        assert not train & validation and not train & test and not validation & test


@pytest.mark.parametrize("task", ["multi30k", "tatoeba_fra_eng"])
def test_real_splits_share_no_sentence(recipe, data_set, task):
    folder = data_set(task)
    options = ["--task", task, "--data", str(folder.parent)]
    parts = recipe.load_splits(recipe.parse_arguments(options))
    for column in (0, 1):
        train, validation, test = (set(part[column]) for part in parts)
        assert not train & validation and not train & test and not validation & test
    if task == "multi30k":
        assert [len(part[0]) for part in parts] == [28_998, 1014, 1000]


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"no tab here\n", "line 1"),
        (b"", "empty|lines"),
        (b"caf\xe9\tcoffee\n", "UTF-8"),
        (b"a\tb\nc\td\n", "number"),
    ],
)
def test_error_names_invalid_pairs_before_training(
    recipe, tmp_path, content, complaint
):
    path, output = tmp_path / "pairs.tsv", tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(["--pairs", str(path), "--output", str(output)])
    assert not output.exists()


def test_error_names_a_wrong_path(recipe, tmp_path):
    output = ["--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="nowhere"):
        recipe.main(["--pairs", "nowhere.tsv", *output])
    with pytest.raises(SystemExit, match="nowhere"):
        recipe.main(["--data", str(tmp_path / "nowhere"), *output])


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    arguments = ["--load", str(path), "--translate", "ein hund"]
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
    [
        ["--model", "grue"],
        ["--task", "klingon"],
        ["--translate", "hallo"],
        ["--epochs", "0"],
        ["--translate", " ", "--load", "x.keras"],
    ],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.thorough
def test_control_c_ends_training_and_keeps_the_best_epoch(pairs, tmp_path):
    process = subprocess.Popen(
        [sys.executable, RECIPE, "--pairs", pairs, "--output", tmp_path, *SMALL]
        + ["--model", "gru", "--epochs", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A process started in the background would ignore Ctrl-C, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    printed = ""
    while "Epoch 3/" not in printed:
        printed += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "test BLEU" in rest and "The model and pictures are in" in rest
    assert (tmp_path / "model.keras").exists()


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_runs_on_real_data(recipe, data_set, tmp_path, capsys):
    data = str(data_set("multi30k").parent)
    recipe.main(
        ["--quick", "--model", "gru", "--data", data, "--output", str(tmp_path)]
    )
    printed = capsys.readouterr().out
    assert "2,000 pairs for training, 50 for validation, 50 for testing" in printed
    assert "results are meaningless" in printed and (tmp_path / "model.keras").exists()


@pytest.mark.parametrize("score, is_reported", [(0.3, True), (30.0, False)])
def test_reports_if_almost_nothing_is_right(recipe, score, is_reported, monkeypatch):
    monkeypatch.setattr(recipe, "bleu", lambda *_: score)
    with recipe.console.capture() as printed:
        recipe.evaluate(None, None, None, recipe.parse_arguments([]))
    assert ("Next to nothing is translated right" in printed.get()) == is_reported
