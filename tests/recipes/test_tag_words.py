"""The recipe `tag_words.py`, with synthetic and real sentences."""

import importlib.util
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import types

import keras
import pytest

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tag_words.py"
CITIES = ["rome", "oslo", "lima", "new york", "san jose"]
DAYS = ["monday", "friday", "may 3rd"]
SMALL = ["--width", "16", "--batch-size", "8", "--learning-rate", "0.03"]
SMALL += ["--dropout", "0.1"]
THOROUGH = pytest.mark.thorough


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("tag_words", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tagged(text, kind):
    words = text.split()
    return [f"{word} {'I' if i else 'B'}-{kind}" for i, word in enumerate(words)]


def write(path, sentences):
    path.write_text("\n\n".join("\n".join(lines) for lines in sentences), "utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return arguments with files of 30, 15 and 15 requests for flights."""
    folder = tmp_path_factory.mktemp("sentences")
    pairs = itertools.product(itertools.permutations(CITIES, 2), DAYS)
    rows = [
        ["from O", *tagged(a, "from"), "to O", *tagged(b, "to"), *tagged(day, "day")]
        for (a, b), day in pairs
    ]
    arguments = []
    for part, chosen in (
        ("train", rows[::2]),
        ("dev", rows[1::4]),
        ("test", rows[3::4]),
    ):
        write(folder / f"{part}.txt", chosen)
        arguments += [f"--{part}", str(folder / f"{part}.txt")]
    return arguments


@pytest.fixture(scope="module")
def trained(recipe, files, tmp_path_factory):
    """Return the output folder of a training."""
    output = tmp_path_factory.mktemp("tags")
    keras.utils.set_random_seed(7)
    recipe.main([*files, *SMALL, "--epochs", "12", "--output", str(output)])
    return output


def test_learns_labels_that_depend_on_the_context(trained, recipe, files):
    options = recipe.parse_arguments(files)
    train, validation, test = recipe.load_splits(options)
    assert [len(part[0]) for part in (train, validation, test)] == [30, 15, 15]
    found = recipe.evaluate(
        recipe.load_model(trained / "model.keras"), train, test, "test"
    )
    pairs = [
        p for a, b in zip(found, test[1], strict=True) for p in zip(a, b, strict=True)
    ]
    assert sum(a == b for a, b in pairs) / len(pairs) > 0.9


@pytest.mark.parametrize("encoder", ["lstm", pytest.param("gru", marks=THOROUGH)])
def test_learns_with_characters_and_a_crf(recipe, files, tmp_path, encoder):
    keras.utils.set_random_seed(7)
    options = ["--head", "crf", "--characters", "--encoder", encoder]
    recipe.main([*files, *SMALL, *options, "--epochs", "9", "--output", str(tmp_path)])
    pipeline = recipe.load_model(tmp_path / "model.keras")
    assert pipeline.model.crf.labels == pipeline.labels
    parts = recipe.load_splits(recipe.parse_arguments(files))
    found = recipe.evaluate(pipeline, parts[0], parts[2], "test")
    pairs = zip(itertools.chain(*found), itertools.chain(*parts[2][1]), strict=True)
    assert sum(one == other for one, other in pairs) > 0.9 * sum(map(len, found))
    [labels] = pipeline.label([["from", "lima", "to", "oslo"]])
    assert [label.name for label in labels] == ["O", "B-from", "O", "B-to"]


def test_saves_a_model_and_two_plots(trained):
    names = sorted(path.name for path in trained.iterdir())
    assert names == ["confusions.png", "model.keras", "training.png"]
    for picture in trained.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_second_process_labels_with_the_saved_model(trained):
    command = [sys.executable, RECIPE, "--load", trained / "model.keras"]
    done = subprocess.run(
        [*command, "--read", "from oslo to [b]Xanadu[/b]", "to rome"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    for expected in ("oslo", "[b]Xanadu[/b]", "rome", "B-from", "B-to", "0."):
        assert expected in done.stdout


def test_prints_scores_of_spans_and_of_new_words(trained, recipe, capsys):
    pipeline = recipe.load_model(trained / "model.keras")
    train = [["from", "rome"]], [["O", "B-from"]]
    part = [["from", "rome", "to", "oslo"]], [["O", "B-from", "O", "B-day"]]
    recipe.console.width = 100
    [found] = recipe.evaluate(pipeline, train, part, "part")
    printed = capsys.readouterr().out
    assert found == ["O", "B-from", "O", "B-to"]  # from its position
    for expected in ("words labelled right", "75.00%", "of 2 new words", "50.00%"):
        assert expected in printed
    assert printed.count("50.00%") == 4  # precision, recall and F1 of two spans


@pytest.mark.parametrize(
    "word, other",
    [("walking", "Ming"), ("1990", "90a"), ("Ford", "FORD"), ("up-to", "into")],
)
def test_forms_distinguish_capitals_digits_hyphens_and_endings(recipe, word, other):
    assert recipe.word_forms(word) != recipe.word_forms(other)


def test_similar_words_have_the_same_forms(recipe):
    assert (
        recipe.word_forms("walking")
        == recipe.word_forms("talking")
        == ["< ing>", "< ng>", "<>"]
    )
    assert (
        recipe.word_forms("1984")
        == recipe.word_forms("2036")
        == ["<0 000>", "<0 00>", "<0>"]
    )
    assert (
        recipe.word_forms("Up-to")[0] == "<X- -to>"
        and recipe.word_forms("NATO")[2] == "<XX>"
    )


def test_rare_and_new_words_are_replaced_by_their_longest_known_form(recipe):
    rows = [["a", "walking"], ["a", "talking"], ["sung"]]
    train = rows, [["O", "B"], ["O", "B"], ["B"]]
    pipeline = recipe.build(recipe.parse_arguments(["--width", "4"]), train, train)
    assert sorted(pipeline.vocabulary.tokens) == ["< a>", "< ing>", "< ng>", "<>", "a"]
    [read] = recipe.replace_unknown(pipeline, [["a", "walking", "sung", "b", "B"]])
    assert read == ["a", "< ing>", "< ng>", "<>", "B"]  # no form of "B" is known


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    read = ["--read", "a"]
    with pytest.raises(SystemExit, match="nowhere.keras, which cannot be read"):
        recipe.main(["--load", "nowhere.keras", *read])
    path = tmp_path / "model.keras"
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(["--load", str(path), *read])
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="with a Sequential"):
        recipe.main(["--load", str(path), *read])


def test_rejects_a_sentence_without_words(trained, recipe):
    with pytest.raises(SystemExit, match="needs at least one word"):
        recipe.main(["--load", str(trained / "model.keras"), "--read", "to rome", " "])


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"a O\nb\n", "line 2 of .*bad.txt: 'b'"),
        (b"", "must hold words"),
        (b"caf\xe9 O\n", "must be in UTF-8"),
        (b"a O\nb O\n", "the label 'O' for every word, as for 'a'. .*the last"),
        (b"a\tN\tx\nb\tV\tx\n", "the label 'x' for every word.*leave out further"),
        (b'{"words": ["a", "b"]}\n', "not JSON. Received: line 1 of .*bad.txt"),
        (b"from O\nrome B-from\n", "1 sentences for training, 0 for validation"),
    ],
)
def test_error_names_an_invalid_file_before_training(
    recipe, files, tmp_path, content, complaint
):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    arguments = [*files, "--train", str(path), "--output", str(tmp_path / "out")]
    if "0 for validation" in complaint:
        arguments += ["--dev", str(path), "--test", str(path)]
        content = path.read_text() + "\nto O\nlima B-to\n"
        train = tmp_path / "train.txt"
        train.write_text(content)
        arguments += ["--train", str(train)]
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(arguments)
    assert not (tmp_path / "out").exists()


def test_error_names_a_missing_file_and_a_missing_data_set(recipe, files, tmp_path):
    with pytest.raises(SystemExit, match="nowhere.txt"):
        recipe.main([*files, "--test", "nowhere.txt"])
    with pytest.raises(SystemExit, match="'atis' must be in"):
        recipe.main(["--data", str(tmp_path)])


@pytest.mark.parametrize(
    "arguments",
    [["--encoder", "grru"], ["--epochs", "0"], ["--train", "a"], ["--read", "a b"]],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_warns_of_a_file_without_blank_lines(recipe, files, tmp_path, capsys):
    rows = [[f"word{number} {'AB'[number % 2]}"] for number in range(1728)]
    (tmp_path / "train.txt").write_text("\n".join(row for [row] in rows))
    write(tmp_path / "long.txt", [[row for [row] in rows[:250]]] * 6)
    recipe.console.width = 300
    arguments = [*files, "--train", str(tmp_path / "train.txt")]
    recipe.load_splits(
        recipe.parse_arguments([*arguments, "--dev", str(tmp_path / "long.txt")])
    )
    printed = capsys.readouterr().out
    end = "words on average. Are the blank lines between sentences missing?"
    assert f"train.txt has 1 sentences of 1,728 {end}" in printed
    assert f"long.txt has 6 sentences of 250 {end}" in printed
    assert printed.count("blank lines") == 2  # --test is as it should be


def test_tells_how_many_sentences_were_left_out_if_any(recipe, files, tmp_path, capsys):
    recipe.console.width = 300
    recipe.load_splits(recipe.parse_arguments(files))
    assert "left out" not in capsys.readouterr().out
    extra = pathlib.Path(files[5]).read_text() + "\n\nnew O\nlima B-to\n"
    (tmp_path / "train.txt").write_text(extra)
    arguments = [*files, "--train", str(tmp_path / "train.txt")]
    recipe.load_splits(recipe.parse_arguments(arguments))
    printed = capsys.readouterr().out
    assert "15 sentences were left out because a later split also contains" in printed


def test_without_spans_prints_the_accuracy_of_each_label(recipe):
    class Fixed:
        vocabulary = types.SimpleNamespace(tokens=["a", "b", "c"])

        def label(self, sentences):
            return [[types.SimpleNamespace(name=name) for name in ["N", "V", "V"]]]

    part = [["a", "b", "c"]], [["N", "N", "V"]]
    with recipe.console.capture() as printed:
        recipe.evaluate(Fixed(), part, part, "test")
    rows = [line.split() for line in printed.get().splitlines()]
    cells = [[cell for cell in row if cell not in "│┃|"] for row in rows]
    assert ["N", "2", "50.00%"] in cells and ["V", "1", "100.00%"] in cells


def test_a_loaded_model_needs_the_forms_of_the_recipe(recipe, trained):
    pipeline = kseq.text.load(trained / "model.keras")
    words = ["from", "xanadu", "to", "rome"]
    [read] = recipe.replace_unknown(pipeline, [words])
    assert read == ["from", "<>", "to", "rome"]
    assert "must first call `replace_unknown`" in recipe.__doc__


def test_warns_of_labels_only_in_the_test_split(recipe, files, tmp_path, capsys):
    write(tmp_path / "test.txt", [["to O", "mars B-planet"], ["to O", "rome B-to"]])
    recipe.console.width = 200
    options = recipe.parse_arguments([*files, "--test", str(tmp_path / "test.txt")])
    parts = recipe.load_splits(options)
    printed = capsys.readouterr().out
    assert "1 words of the test split count as errors." in printed
    assert "Only it has their labels: B-planet." in printed
    assert "B-planet" not in recipe.build(options, *parts[:2]).labels


@pytest.mark.thorough
def test_control_c_keeps_the_best_model_and_prints_its_path(
    recipe, files, tmp_path, monkeypatch, capsys
):
    read, reads = kseq.training.TokenDropout.__getitem__, itertools.count(1)

    def press_control_c(data, index):
        if next(reads) == len(data) + 2:  # in the second epoch, or shortly before
            os.kill(os.getpid(), signal.SIGINT)
        return read(data, index)

    monkeypatch.setattr(kseq.training.TokenDropout, "__getitem__", press_control_c)
    recipe.console.width = 200
    recipe.main([*files, *SMALL, "--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "Epoch 4/4" not in printed and "its results are meaningless" in printed
    path = tmp_path / "model.keras"
    assert f"The best model and pictures are in {tmp_path}/." in printed
    assert "first call replace_unknown of this recipe" in printed
    assert "f1 of spans" in printed
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["confusions.png", "model.keras", "training.png"]
    assert recipe.load_model(path).labels


@pytest.mark.parametrize("task", ["atis", "ud_english_ewt"])
def test_real_splits_share_no_sentence(recipe, data_set, task):
    data = str(data_set(task).parent)
    parts = recipe.load_splits(recipe.parse_arguments(["--task", task, "--data", data]))
    for one, other in itertools.combinations(parts, 2):
        assert not {*map(tuple, one[0])} & {*map(tuple, other[0])}
    assert len(parts[2][0]) == {"atis": 893, "ud_english_ewt": 2_077}[task]


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_runs_on_real_sentences(recipe, data_set, tmp_path, capsys):
    data = str(data_set("ud_english_ewt").parent)
    arguments = ["--task", "ud_english_ewt", "--data", data, "--output", str(tmp_path)]
    recipe.main(["--quick", *arguments])
    printed = capsys.readouterr().out
    assert "its results are meaningless" in printed
    right = printed.split("words labelled right")[-1].split("%")[0].split()[-1]
    assert float(right) > 40


@pytest.mark.parametrize("answer, is_reported", [("O", True), ("B", False)])
def test_reports_if_a_constant_answer_is_as_good(recipe, answer, is_reported):
    class Fixed:
        vocabulary = types.SimpleNamespace(tokens=["a", "b", "c"])

        def label(self, sentences):
            names = ["O", "O", answer]
            return [[types.SimpleNamespace(name=name) for name in names]]

    part = [["a", "b", "c"]], [["O", "O", "B"]]
    with recipe.console.capture() as printed:
        recipe.evaluate(Fixed(), part, part, "test")
    assert ("Always answering O would be as good" in printed.get()) == is_reported
