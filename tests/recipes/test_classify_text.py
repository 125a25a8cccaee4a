import contextlib
import importlib.util
import io
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
import rich.console

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "classify_text.py"
SMALL = ["--width", "8", "--batch-size", "16", "--learning-rate", "0.03"]


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("classify_text", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return files of texts in which the first or the last word sets the label."""
    folder = tmp_path_factory.mktemp("reviews")
    words = {"joy": "good", "기쁨": "good", "bore": "bad", "yawn": "bad"}
    lines = [
        f"{label} {' '.join(text)}"
        for word, label in words.items()
        for others in itertools.permutations(["a", "The", "of", "très"], 3)
        for text in ([word, *others], [*others, word])
    ]
    rows = {"train": lines[::2], "dev": lines[1::4], "test": lines[3::4]}
    for part, texts in rows.items():
        (folder / part).write_text("\n".join(texts), "utf-8")
    return {part: folder / part for part in rows}


def flags(files, **others):
    return [
        argument
        for part, path in {**files, **others}.items()
        for argument in (f"--{part}", str(path))
    ]


@pytest.fixture(scope="module")
def trained(recipe, files, tmp_path_factory):
    output = tmp_path_factory.mktemp("texts")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        recipe.main([*flags(files, output=output, epochs=6), *SMALL])
    return output, printed.getvalue()


def printed_accuracies(printed):
    [row] = [line for line in printed.splitlines() if "%" in line and "│" in line]
    return [float(cell.strip(" %")) for cell in row.split("│")[2:4]]


def test_learns_the_words_that_set_the_label(trained):
    _, printed = trained
    assert "96 texts for training, 48 for validation, 48 for testing" in printed
    assert min(printed_accuracies(printed)) > 90


def test_saves_a_model_and_plots(trained):
    names = sorted(path.name for path in trained[0].iterdir())
    assert names == ["model.keras", "training.png", "words.png"]
    for picture in trained[0].glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_accuracy_is_that_of_the_saved_model_on_the_test_split(
    recipe, files, trained
):
    pipeline = recipe.load_model(trained[0] / "model.keras")
    texts, labels = kseq.datasets.read_labelled(files["test"])
    rows = dict(zip(map(str.lower, texts), labels, strict=True))
    right = [
        label.name == name
        for label, name in zip(pipeline.label(list(rows)), rows.values(), strict=True)
    ]
    assert printed_accuracies(trained[1])[1] == round(100 * sum(right) / len(right), 2)


@pytest.mark.thorough
def test_a_second_process_classifies_texts_with_the_saved_model(trained):
    command = [sys.executable, RECIPE, "--load", trained[0] / "model.keras"]
    done = subprocess.run(
        [*command, "--read", "of THE  bore", "기쁨 zzz"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "90",
        },
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if "0." in line]
    assert [row[1].strip() for row in rows] == ["bad", "good"]
    assert [row[3].strip() for row in rows] == ["of THE bore", "기쁨 zzz"]


def test_a_model_of_another_network_can_be_loaded(recipe, tmp_path, capsys):
    words = kseq.text.Vocabulary("word").adapt(["good bad film"])
    model = kseq.many_to_one(words.size, 2, "transformer", pooling="mean", width=8)
    pipeline = kseq.text.TextToLabels(model, words, ["negative", "positive"])
    pipeline.save(tmp_path / "model.keras")
    recipe.main(["--load", str(tmp_path / "model.keras"), "--read", "good film"])
    assert "good film" in capsys.readouterr().out


def test_words_with_more_attention_are_redder(recipe, trained, monkeypatch):
    screen = io.StringIO()
    options = {"force_terminal": True, "color_system": "truecolor", "width": 90}
    console = rich.console.Console(file=screen, **options)
    monkeypatch.setattr(recipe, "console", console)
    pipeline = recipe.load_model(trained[0] / "model.keras")
    recipe.show(pipeline, ["joy", "a of yawn the"])
    greens = [
        [int(green) for green in re.findall(r"48;2;255;(\d+);", line)]
        for line in screen.getvalue().splitlines()
        if "48;2" in line
    ]
    # Each text has a word with the most attention; a single word has all of it.
    assert [len(row) for row in greens] == [1, 4]
    assert [min(row) for row in greens] == [65, 65]
    model = pipeline.model
    pooling = model.get_layer("pooling")
    encoder = keras.Model(model.input, pooling.input)
    steps, mask = encoder(np.array(pipeline.vocabulary.encode(["a of yawn the"])))
    _, weights = pooling(steps, mask, return_attention_scores=True)
    expected = 255 - 190 * np.array(weights[0]) / np.max(weights[0])
    np.testing.assert_allclose(greens[1], expected, atol=1.01)


def test_training_texts_of_other_splits_are_removed(recipe, files, tmp_path):
    overlap = tmp_path / "train"
    both = [files[part].read_text("utf-8") for part in ("dev", "test", "train")]
    overlap.write_text("\n".join(both).upper(), "utf-8")
    options = recipe.parse_arguments(flags({**files, "train": overlap}))
    parts = [set(texts) for texts, _ in recipe.load_splits(options)]
    assert [len(part) for part in parts] == [96, 48, 48]
    assert len(set.union(*parts)) == 192


@pytest.mark.parametrize("task", ["sst2", "trec"])
def test_splits_of_the_data_sets_share_no_text(recipe, data_set, task):
    folder = str(data_set(task).parent)
    parts = [
        recipe.load_splits(
            recipe.parse_arguments(["--task", task, "--data", folder, "--seed", seed])
        )
        for seed in "01"
    ]
    for (train, validation, test), classes in ((parts[0], 2 if task == "sst2" else 6),):
        texts = [set(texts) for texts, _ in (train, validation, test)]
        assert len(set.union(*texts)) == sum(map(len, texts))
        assert len(set(train[1])) == len(set(test[1])) == classes
        assert len(texts[2]) == (1821 if task == "sst2" else 500)
    assert parts[0][2] == parts[1][2]
    assert (parts[0][1] == parts[1][1]) == (task == "sst2")


@pytest.mark.thorough
def test_quick_run_counts_labels_only_in_the_test_split_as_errors(
    recipe, files, tmp_path, capsys
):
    odd = tmp_path / "test"
    odd.write_text("ugly a\nugly of\nugly the\n[/b] a of", "utf-8")
    recipe.main([*flags({**files, "test": odd}, output=tmp_path), *SMALL, "--quick"])
    printed = capsys.readouterr().out
    assert "that no training text has: [/b], ugly" in " ".join(printed.split())
    assert printed_accuracies(printed)[1] == 0
    assert "Epoch 2/2" in printed and "results are meaningless" in printed


def test_warns_of_labels_only_in_the_validation_split(recipe, files, tmp_path, capsys):
    odd = tmp_path / "dev"
    odd.write_text("ugly a\ngood joy", "utf-8")
    options = recipe.parse_arguments(flags({**files, "dev": odd}))
    train, validation, _ = recipe.load_splits(options)
    assert "labels of the validation texts that no training text has: ugly" in " ".join(
        capsys.readouterr().out.split()
    )
    assert recipe.build(train, validation, options).labels == ["bad", "good", "ugly"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"good joy\nbad", "`label TEXT`.* Received: line 2 of .*train"),
        ("good très".encode("latin-1"), "must be in UTF-8"),
        (b"", "must hold lines of `label TEXT`"),
        (b"good joy\ngood a joy", "Received: 1 labels"),
    ],
)
def test_error_names_an_invalid_file(recipe, files, tmp_path, content, complaint):
    (tmp_path / "train").write_bytes(content)
    wrong = {**files, "train": tmp_path / "train"}
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(flags(wrong, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_error_names_a_missing_file_or_folder(recipe, files, tmp_path):
    with pytest.raises(SystemExit, match="nowhere"):
        recipe.main(flags({**files, "dev": tmp_path / "nowhere"}))
    with pytest.raises(SystemExit, match="sst2"):
        recipe.main(["--data", str(tmp_path)])


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    load = ["--load", str(path), "--read", "a"]
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(load)
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(load)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="with a Sequential"):
        recipe.main(load)


@pytest.mark.parametrize(
    "arguments",
    [["--task", "imdb"], ["--epochs", "0"], ["--load", "a"], ["--train", "a"]],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_rejects_a_text_without_words(recipe, capsys):
    with pytest.raises(SystemExit):
        recipe.main(["--load", "a", "--read", "one", "  "])
    assert "at least one word" in capsys.readouterr().err


@pytest.mark.thorough
def test_control_c_keeps_the_best_model_and_prints_its_folder(files, tmp_path):
    output = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, RECIPE, *flags(files, output=output, epochs=9999), *SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A process started in the background would ignore Ctrl-C, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.time() + 240
    while not (output / "model.keras").exists() and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    assert "The best model and pictures are in" in " ".join(printed.split())
    pipeline = keras.saving.load_model(output / "model.keras")
    assert isinstance(pipeline, kseq.text.TextToLabels)


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_runs_on_trec(recipe, data_set, tmp_path, capsys):
    data = ["--task", "trec", "--data", str(data_set("trec").parent)]
    recipe.main([*data, "--output", str(tmp_path), "--width", "16", "--quick"])
    printed = capsys.readouterr().out
    assert "500 texts for training" in printed and "are meaningless" in printed
    assert (tmp_path / "model.keras").exists()


@pytest.mark.parametrize("answer, is_reported", [("up", True), ("down", False)])
def test_reports_if_a_constant_answer_is_as_good(recipe, answer, is_reported):
    class Fixed:
        model = types.SimpleNamespace(count_params=lambda: 7)

        def label(self, texts):
            names = ["up", "up", answer]
            return [types.SimpleNamespace(name=name) for name in names]

    test = ["a", "b", "c"], ["up", "up", "down"]
    with recipe.console.capture() as printed:
        recipe.evaluate(Fixed(), test, test, 0.1)
    assert ("Always answering up would be as good" in printed.get()) == is_reported


def test_starts_with_vectors_of_a_file(recipe, files, tmp_path, capsys):
    path = tmp_path / "vectors.txt"
    path.write_text("joy 1 2 3\n기쁨 4 5 6\nunseen 7 8 9\n", encoding="utf-8")
    arguments = flags(files, output=tmp_path, epochs=2, vectors=path, frozen=1)
    recipe.main([*arguments, *SMALL])
    assert "2 of 8 words have a vector in" in capsys.readouterr().out
    pipeline = recipe.load_model(tmp_path / "model.keras")
    assert pipeline.model.get_layer("words").width == 3


def test_error_names_unreadable_vectors(recipe, files, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("zebra 1 2 3\n")
    for vectors, message in ((path, "none of its 8 tokens"), ("nowhere", "nowhere")):
        arguments = flags(files, output=tmp_path, vectors=vectors)
        with pytest.raises(SystemExit, match=message):
            recipe.main([*arguments, *SMALL])
