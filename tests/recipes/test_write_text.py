import contextlib
import importlib.util
import io
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "write_text.py"
LETTERS = "가나다라마바사 "
SMALL = ["--width", "16", "--layers", "1", "--window", "12", "--batch-size", "8"]
SHORT = [*SMALL, "--steps", "3", "--epochs", "1", "--length", "5"]


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("write_text", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Return a file that repeats seven syllables and a space."""
    path = tmp_path_factory.mktemp("text") / "korean.txt"
    path.write_text(LETTERS * 100, "utf-8")
    return path


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, RECIPE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A process started in the background would ignore Ctrl-C, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def trained(recipe, text, tmp_path_factory):
    output = tmp_path_factory.mktemp("written")
    arguments = ["--text", text, "--output", output, "--decoder", "gru", *SMALL]
    arguments += ["--steps", 60, "--epochs", 2, "--learning-rate", 0.02]
    arguments += ["--prompt", "다라", "--length", 30, "--temperature", 0.1]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        recipe.main(list(map(str, arguments)))
    return output, printed.getvalue()


def test_learns_the_text_and_generates_beyond_its_window(trained):
    _, printed = trained
    assert (LETTERS * 5)[2:32] in printed


def test_prints_the_loss_of_the_validation_text(trained):
    _, printed = trained
    assert "720 characters for training, 80 for validation; 8 different ones" in printed
    [row] = [line for line in printed.splitlines() if "nats per character" in line]
    loss = float(row.split(" nats")[0].split()[-1])
    # The first of 12 characters cannot be predicted, because its context is unknown.
    assert np.log(8) / 12 * 0.9 < loss < 0.5


def test_saves_one_model_and_a_plot(trained):
    output, _ = trained
    assert sorted(p.name for p in output.iterdir()) == ["model.keras", "training.png"]
    assert (output / "training.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_second_process_generates_with_the_saved_model(trained):
    model = trained[0] / "model.keras"
    flags = ["--temperature", "0.1", "--length", "20", "--prompt", "사 가", "나다"]
    process = start("--load", model, *flags)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert (LETTERS * 5)[6:26] in printed and (LETTERS * 5)[1:21] in printed


def test_the_splits_are_the_text_and_share_nothing(recipe, text):
    train, held_out = recipe.load_texts(recipe.parse_arguments(["--text", str(text)]))
    assert train + held_out == text.read_text("utf-8")
    assert len(held_out) == 80


def test_hangul_is_split_into_jamo_on_demand(recipe, text, tmp_path, capsys):
    flags = ["--text", str(text), "--output", str(tmp_path), "--jamo", *SHORT]
    recipe.main([*flags, "--decoder", "lstm", "--prompt", "가"])
    # Seven initial consonants, one vowel and the space.
    assert "1,350 characters for training" in capsys.readouterr().out
    writer = recipe.load_writer(tmp_path / "model.keras")
    assert len(writer.vocabulary.tokens) == 9


def test_the_loss_is_the_mean_over_all_characters(recipe, capsys):
    options = recipe.parse_arguments(SMALL)
    model = recipe.build(options, vocabulary_size=11)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    recipe.evaluate(model, np.arange(31) % 7 + 4, options, 1.0)  # 31 = 12 + 12 + 7
    assert f"{np.log(11):.4f} nats" in capsys.readouterr().out


def test_warns_of_characters_only_in_the_validation_text(recipe, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("ab" * 300 + "q", "utf-8")
    recipe.load_texts(
        recipe.parse_arguments(["--text", str(tmp_path / "text.txt")] + SMALL)
    )
    assert "1 characters of the validation text are not in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "text.txt: .*No such file"),
        (b"ab" * 99 + b"\x1f\x8b", "must be in UTF-8"),
        ("caf\xe9".encode("latin-1") * 99, "must be in UTF-8"),
        (b"", "at least 120 characters.*Received: 0"),
        (b"too short", "Received: 9 characters"),
    ],
)
def test_error_names_an_invalid_text_before_training(
    recipe, tmp_path, content, complaint
):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(["--text", str(path), "--output", str(tmp_path / "out"), *SMALL])
    assert not (tmp_path / "out").exists()


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(["--load", str(path)])
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(["--load", str(path)])
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="with a Sequential"):
        recipe.main(["--load", str(path)])


def test_error_names_an_invalid_prompt(recipe, trained):
    load = ["--load", str(trained[0] / "model.keras")]
    with pytest.raises(SystemExit, match="'가x', with 'x'"):
        recipe.main([*load, "--prompt", "가x"])
    with pytest.raises(SystemExit, match="max_length=3 with a prompt of 4 tokens"):
        recipe.main([*load, "--prompt", "가나다라", "--length", "3"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--decoder", "grue"],
        ["--epochs", "0"],
        ["--window", "1"],
        ["--dropout", "1"],
        ["--temperature", "0"],
        ["--top-p", "0"],
    ],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.thorough
def test_control_c_ends_training_and_keeps_the_best_model(text, tmp_path):
    flags = ["--text", text, "--output", tmp_path, *SHORT, "--prompt", "가"]
    process = start(*flags, "--epochs", "100000", "--decoder", "gru")
    printed = ""
    while "Epoch 3/" not in printed:
        printed += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "nats per character" in rest
    assert f"The best model is in {tmp_path}" in rest.replace("\n", "")
    assert isinstance(
        keras.saving.load_model(tmp_path / "model.keras"), kseq.text.TextWriter
    )


def test_error_names_a_folder_without_the_data(recipe, tmp_path):
    with pytest.raises(SystemExit, match="must be in"):
        recipe.main(["--data", str(tmp_path)])


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_runs_on_shakespeare(recipe, data_set, tmp_path, capsys):
    folder = data_set("tiny_shakespeare").parent
    recipe.main(["--data", str(folder), "--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "20,000 characters for training" in printed and "are meaningless" in printed
    assert (tmp_path / "model.keras").exists()
