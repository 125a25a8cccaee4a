import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import types
import unicodedata

import keras
import numpy as np
import pytest

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "grapheme_to_phoneme.py"
SMALL = "--quick --units 8 --epochs 1 --beams 2 --batch-size 16".split()


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("grapheme_to_phoneme", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    """Return a lexicon of one phoneme per letter; one word has two pronunciations."""
    path = tmp_path_factory.mktemp("lexicon") / "words.tsv"
    lines = [
        f"{a}{b}{c}\t{a} [/{b}] {c}"
        for a in "abc"
        for b in "deéf"
        for c in "가나다라마"
    ]
    path.write_text("\n".join([*lines, "ad가\ta a a"]), "utf-8")
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
def trained(recipe, lexicon, tmp_path_factory):
    output = tmp_path_factory.mktemp("g2p")
    with recipe.console.capture() as printed:
        recipe.main(["--lexicon", str(lexicon), "--output", str(output), *SMALL])
    return output, printed.get()


def test_prints_error_rates_and_pronunciations(trained):
    _, printed = trained
    assert "6 for testing" in printed  # a tenth of 60 words
    for expected in ("greedy", "beam, 2 beams", "word error rate", "best first"):
        assert expected in printed
    assert "[/d]" in printed  # not markup


@pytest.mark.parametrize("spoken", ["a b", "a c"])
def test_reports_if_no_word_is_right(recipe, spoken):
    class Fixed:
        target_vocabulary = kseq.text.Vocabulary("word").adapt(["a b c"])

        def generate(self, words, search):
            return [[types.SimpleNamespace(text=spoken)] for _ in words]

    with recipe.console.capture() as printed:
        recipe.evaluate(Fixed(), {"x": ["a b"], "y": ["c"]}, 2)
    assert ("Not one word is right" in printed.get()) == (spoken == "a c")


def test_each_probability_is_printed_beside_its_pronunciation(recipe):
    class Fixed:
        def generate(self, words, search):
            best = [("a " * 50, 0.5), ("b " * 50, 0.25)]
            pairs = [{"text": text, "log_prob": np.log(p)} for text, p in best]
            return [[types.SimpleNamespace(**pair) for pair in pairs]]

    with recipe.console.capture() as printed:
        recipe.print_pronunciations(Fixed(), ["word"], 2)
    lines = printed.get().splitlines()
    for p, letter in (("0.500", "a a"), ("0.250", "b b")):
        assert [letter in line for line in lines if p in line] == [True]


def test_normalization_forms_of_a_word_are_merged(recipe, tmp_path):
    lines = [f"{unicodedata.normalize(form, '가é')}\t{form}" for form in ("NFC", "NFD")]
    (tmp_path / "words.tsv").write_text("\n".join(lines), "utf-8")
    assert recipe.read_lexicon(tmp_path / "words.tsv") == {"가é": ["NFC", "NFD"]}


@pytest.mark.parametrize(
    "words, jamo, form",
    [
        (["가나", "한글"], None, "NFD"),
        (["가나", "한글"], False, "NFC"),
        (["가ab"], None, "NFC"),
        (["café"], None, "NFC"),
        (["café"], True, "NFD"),
    ],
)
def test_hangul_is_split_into_jamo_by_default(recipe, words, jamo, form):
    with recipe.console.capture() as printed:
        letters = recipe.letter_vocabulary(words, jamo)
    expected = set(unicodedata.normalize(form, "".join(words)))
    assert sorted(letters.tokens) == sorted(expected)
    is_guessed = jamo is None and form == "NFD"
    assert ("--no-jamo reads syllables" in printed.get()) == is_guessed


@pytest.mark.parametrize("flags, jamo", [([], None), (["--jamo"], True)])
def test_jamo_can_be_chosen(recipe, flags, jamo):
    assert recipe.parse_arguments(flags).jamo is jamo
    assert recipe.parse_arguments([*flags, "--no-jamo"]).jamo is False


@pytest.mark.thorough
def test_trains_and_pronounces_words_of_jamo(recipe, tmp_path):
    path = tmp_path / "words.tsv"
    syllables = [chr(ord("가") + 29 * number) for number in range(8)]
    words = [a + b for a in syllables for b in syllables]
    path.write_text("\n".join(f"{word}\t{' '.join(word)}" for word in words), "utf-8")
    output = tmp_path / "out"
    with recipe.console.capture() as printed:
        recipe.main(["--lexicon", str(path), "--output", str(output), *SMALL])
    assert "Hangul is read by its jamo" in printed.get()
    with recipe.console.capture() as printed:
        recipe.main(["--output", str(output), "--say", words[0]])
    assert words[0] in printed.get()


def test_saves_a_model_and_plots(trained):
    output, _ = trained
    names = sorted(path.name for path in output.iterdir())
    has_spoken = "No picture" not in trained[1]
    assert names == ["attention.png"] * has_spoken + ["model.keras", "training.png"]
    for picture in output.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_second_process_pronounces_with_the_saved_model(trained):
    output, _ = trained
    process = start("--output", output, "--say", "ad가", "beé나")
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "ad가" in printed and "beé나" in printed


def test_error_names_unseen_letters(trained, recipe, capsys):
    output, _ = trained
    with pytest.raises(SystemExit, match="'xad', with .'x'"):
        recipe.main(["--output", str(output), "--say", "xad"])


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    for make in (
        lambda: None,
        lambda: path.write_bytes(b"not a model"),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save,
    ):
        make(path) if make.__name__ == "save" else make()
        with pytest.raises(SystemExit, match="a file that a TextToText was saved in"):
            recipe.main(["--load", str(path), "--say", "word"])
        with pytest.raises(SystemExit, match="a file that a TextToText was saved in"):
            recipe.main(["--output", str(tmp_path), "--say", "word"])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"word\tw\nno tab here\n", "line 2 of .*words.tsv: 'no tab here'"),
        (b"word\t\n", "line 1"),
        (b"", "must hold lines"),
        (b"caf\xe9\tk a f e\n", "UTF-8"),
        (b"a\tb\n", "at least 50 words"),
    ],
)
def test_error_names_an_invalid_lexicon_before_training(
    recipe, tmp_path, content, complaint
):
    path = tmp_path / "words.tsv"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(["--lexicon", str(path), "--output", str(tmp_path / "out")])


def test_error_names_a_missing_lexicon(recipe, tmp_path):
    with pytest.raises(SystemExit, match="nowhere.tsv"):
        recipe.main(["--lexicon", "nowhere.tsv", "--output", str(tmp_path)])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cell", "gruu"],
        ["--attention", "bahdanu"],
        ["--epochs", "0"],
        ["--train", "a"],
    ],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_splits_share_no_word(recipe):
    options = recipe.parse_arguments([])
    train, dev, test = map(set, recipe.load_splits(options))
    assert not train & dev and not train & test and not dev & test
    assert len(train | dev | test) == 126_052
    assert len(test) == 12_605


def test_error_names_words_in_two_given_splits(recipe, lexicon):
    parts = [
        arg for part in ("--train", "--dev", "--test") for arg in (part, str(lexicon))
    ]
    with pytest.raises(SystemExit, match="ad가"):
        recipe.load_splits(recipe.parse_arguments(parts))


def test_the_training_metric_agrees_with_greedy_search(recipe, trained, lexicon):
    pipeline = keras.saving.load_model(trained[0] / "model.keras", compile=False)
    words = recipe.read_lexicon(lexicon)
    del words["ad가"]  # its two pronunciations would count as two words
    data = kseq.training.teacher_forcing(*recipe.encode_pairs(words, pipeline))
    pipeline.model.compile(metrics=[kseq.training.ExactMatch(name="words_right")])
    right = pipeline.model.evaluate(data, verbose=0, return_dict=True)["words_right"]
    results = pipeline.generate(list(words), kseq.decoding.GreedySearch())
    spoken = [hypotheses[0].text for hypotheses in results]
    scores = kseq.training.text_scores(spoken, words.values(), "exact_match")
    assert right == pytest.approx(scores["exact_match"])


@pytest.mark.thorough
def test_control_c_without_attention_keeps_the_best_epoch(
    recipe, lexicon, tmp_path, monkeypatch
):
    class PressControlC(kseq.training.StopOnInterrupt):
        def on_train_batch_end(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(kseq.training, "StopOnInterrupt", PressControlC)
    (tmp_path / "attention.png").touch()  # of an earlier model
    arguments = ["--lexicon", str(lexicon), "--output", str(tmp_path), *SMALL]
    arguments += ["--epochs", "100000", "--attention", "none", "--units", "1"]
    with recipe.console.capture() as printed:
        recipe.main(arguments)
    assert "word error rate" in printed.get()
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"model.keras", "training.png"}  # and no attention to draw


@pytest.mark.thorough
def test_an_ensemble_is_trained_and_saved(recipe, lexicon, tmp_path):
    arguments = ["--lexicon", str(lexicon), "--output", str(tmp_path), *SMALL]
    with recipe.console.capture() as printed:
        recipe.main([*arguments, "--members", "2"])
    assert "word error rate" in printed.get()
    pipeline = kseq.text.TextToText.load(tmp_path / "model.keras")
    first, second = pipeline.model.models
    assert (first.get_weights()[0] != second.get_weights()[0]).any()
    recipe.main(["--output", str(tmp_path), "--say", "ad가"])


@pytest.mark.slow
@pytest.mark.thorough
def test_learns_french_from_real_words(recipe, data_set, tmp_path):
    folder, splits = data_set("sigmorphon2021_g2p"), []
    for name in ("train", "dev", "test"):
        lines = (folder / f"fre_{name}.tsv").read_text("utf-8").splitlines()
        # Words of similar length need few compiled shapes.
        lines = [
            line
            for line in lines
            if 5 <= line.index("\t") <= 8 and 5 <= len(line.split("\t")[1].split()) <= 7
        ]
        (tmp_path / name).write_text("\n".join(lines), "utf-8")
        splits += [f"--{name}", str(tmp_path / name)]
    small = ["--units", "64", "--epochs", "10", "--batch-size", "32"]
    with recipe.console.capture() as printed:
        recipe.main([*splits, *small, "--output", str(tmp_path / "out")])
    greedy = next(x for x in printed.get().splitlines() if "greedy" in x)
    word_error_rate = float(greedy.split("│")[3].strip(" %"))
    assert word_error_rate < 60


def test_quick_splits_are_small_and_share_no_word(recipe):
    parts = recipe.load_splits(recipe.parse_arguments(["--quick"]))
    assert [len(part) for part in parts] == [1000, 1000, 1000]
    assert len(set().union(*parts)) == 3000
