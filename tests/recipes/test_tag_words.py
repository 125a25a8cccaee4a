"""The recipe that labels words: on sentences of its own, and on real ones."""

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
    """Requests for flights: 30 to learn from, 15 to watch, 15 to be tested on."""
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
    """The folder of what a training has made."""
    output = tmp_path_factory.mktemp("tags")
    keras.utils.set_random_seed(7)
    recipe.main([*files, *SMALL, "--epochs", "12", "--output", str(output)])
    return output


def test_it_learns_the_labels_of_words_that_stand_alike(trained, recipe, files):
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
def test_it_learns_by_characters_and_by_paths(recipe, files, tmp_path, encoder):
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


def test_it_writes_a_model_and_two_pictures(trained):
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


def test_scores_are_of_spans_and_of_words_never_seen(trained, recipe, capsys):
    pipeline = recipe.load_model(trained / "model.keras")
    train = [["from", "rome"]], [["O", "B-from"]]
    part = [["from", "rome", "to", "oslo"]], [["O", "B-from", "O", "B-day"]]
    recipe.console.width = 100
    [found] = recipe.evaluate(pipeline, train, part, "part")
    printed = capsys.readouterr().out
    assert found == ["O", "B-from", "O", "B-to"]  # what stands at its place
    for expected in ("words labelled right", "75.00%", "of 2 new words", "50.00%"):
        assert expected in printed
    assert printed.count("50.00%") == 4  # precision, recall and F1 of two spans


@pytest.mark.parametrize(
    "word, other",
    [("walking", "Ming"), ("1990", "90a"), ("Ford", "FORD"), ("up-to", "into")],
)
def test_forms_tell_capitals_digits_hyphens_and_endings_apart(recipe, word, other):
    assert recipe.word_forms(word) != recipe.word_forms(other)


def test_words_alike_in_form_are_read_alike(recipe):
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


def test_rare_and_new_words_are_read_by_the_longest_form_that_is_known(recipe):
    rows = [["a", "walking"], ["a", "talking"], ["sung"]]
    train = rows, [["O", "B"], ["O", "B"], ["B"]]
    pipeline = recipe.build(recipe.parse_arguments(["--width", "4"]), train, train)
    assert sorted(pipeline.vocabulary.tokens) == ["< a>", "< ing>", "< ng>", "<>", "a"]
    [read] = recipe.replace_unknown(pipeline, [["a", "walking", "sung", "b", "B"]])
    assert read == ["a", "< ing>", "< ng>", "<>", "B"]  # of the last nothing is known


def test_a_model_of_another_kind_or_none_is_refused(recipe, tmp_path):
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


def test_a_sentence_without_words_is_refused(trained, recipe):
    with pytest.raises(SystemExit, match="needs at least one word"):
        recipe.main(["--load", str(trained / "model.keras"), "--read", "to rome", " "])


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"a O\nb\n", "line 2 of .*bad.txt: 'b'"),
        (b"", "must hold words"),
        (b"caf\xe9 O\n", "must be in UTF-8"),
        (b"a O\nb O\n", "at least two labels.*Received: 1 labels"),
        (b"from O\nrome B-from\n", "Received: 2 labels, 0 sentences"),
    ],
)
def test_a_bad_file_is_named_before_anything_is_done(
    recipe, files, tmp_path, content, complaint
):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    arguments = [*files, "--train", str(path), "--output", str(tmp_path / "out")]
    if "0 sentences" in complaint:
        arguments += ["--dev", str(path), "--test", str(path)]
        content = path.read_text() + "\nto O\nlima B-to\n"
        train = tmp_path / "train.txt"
        train.write_text(content)
        arguments += ["--train", str(train)]
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(arguments)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_missing_data_set_are_named(recipe, files, tmp_path):
    with pytest.raises(SystemExit, match="nowhere.txt"):
        recipe.main([*files, "--test", "nowhere.txt"])
    with pytest.raises(SystemExit, match="'atis' must be in"):
        recipe.main(["--data", str(tmp_path)])


@pytest.mark.parametrize(
    "arguments",
    [["--encoder", "grru"], ["--epochs", "0"], ["--train", "a"], ["--read", "a b"]],
)
def test_wrong_arguments_are_refused(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_label_that_only_the_test_has_is_warned_of(recipe, files, tmp_path, capsys):
    write(tmp_path / "test.txt", [["to O", "mars B-planet"], ["to O", "rome B-to"]])
    recipe.console.width = 200
    options = recipe.parse_arguments([*files, "--test", str(tmp_path / "test.txt")])
    parts = recipe.load_splits(options)
    printed = capsys.readouterr().out
    assert "1 words of the test split count as errors." in printed
    assert "Only it has their labels: B-planet." in printed
    assert "B-planet" not in recipe.build(options, *parts[:2]).labels


@pytest.mark.thorough
def test_control_c_keeps_the_best_model_and_says_where(
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
    assert "Epoch 4/4" not in printed and "the figures mean nothing" in printed
    path = tmp_path / "model.keras"
    assert f"The best model so far lies in {path}" in printed
    assert "f1 of spans" in printed
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["confusions.png", "model.keras", "training.png"]
    assert recipe.load_model(path).labels


@pytest.mark.parametrize("task", ["atis", "ud_english_ewt"])
def test_real_parts_share_no_sentence(recipe, data_set, task):
    data = str(data_set(task).parent)
    parts = recipe.load_splits(recipe.parse_arguments(["--task", task, "--data", data]))
    for one, other in itertools.combinations(parts, 2):
        assert not {*map(tuple, one[0])} & {*map(tuple, other[0])}
    assert len(parts[2][0]) == {"atis": 893, "ud_english_ewt": 2_077}[task]


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_goes_the_whole_way_on_real_sentences(recipe, data_set, tmp_path, capsys):
    data = str(data_set("ud_english_ewt").parent)
    arguments = ["--task", "ud_english_ewt", "--data", data, "--output", str(tmp_path)]
    recipe.main(["--quick", *arguments])
    printed = capsys.readouterr().out
    assert "the figures mean nothing" in printed
    right = printed.split("words labelled right")[-1].split("%")[0].split()[-1]
    assert float(right) > 40


@pytest.mark.parametrize("answer, is_told", [("O", True), ("B", False)])
def test_it_says_so_when_one_answer_for_all_is_as_good(recipe, answer, is_told):
    class Fixed:
        vocabulary = types.SimpleNamespace(tokens=["a", "b", "c"])

        def label(self, sentences):
            names = ["O", "O", answer]
            return [[types.SimpleNamespace(name=name) for name in names]]

    part = [["a", "b", "c"]], [["O", "O", "B"]]
    with recipe.console.capture() as printed:
        recipe.evaluate(Fixed(), part, part, "test")
    assert ("Always answering O would be as good" in printed.get()) == is_told
