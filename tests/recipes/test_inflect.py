import importlib.util
import pathlib

import keras
import numpy as np
import pytest

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "inflect.py"
SMALL = "--quick --units 8 --epochs 1 --beams 2 --batch-size 16".split()


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("inflect", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def split_flags(tmp_path_factory):
    """Return flags with files of a language with the plural -s and the genitive -n."""
    folder = tmp_path_factory.mktemp("forms")
    lemmas = [a + b + c for c in "[mr" for a in "abk" for b in "eiéo"]
    paths = []
    for number, name in enumerate(("train", "dev", "test")):
        lines = [
            f"{lemma}\tN;{features}\t{lemma}{end}"
            for lemma in lemmas[number::3]
            for features, end in (("NOM(PL)", "s"), ("GEN(SG;PSS(1,PL))", "n"))
        ]
        path = folder / name
        path.write_text("\n".join(lines), "utf-8")
        paths += [f"--{name}", str(path)]
    return paths


@pytest.fixture(
    scope="module",
    params=["lstm", pytest.param("transformer", marks=pytest.mark.thorough)],
)
def trained(request, recipe, split_flags, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    flags = [*split_flags, *SMALL, "--output", str(output), "--model", request.param]
    with recipe.console.capture() as printed:
        recipe.main(flags)
    return output, printed.get()


def test_training_prints_the_accuracy_and_some_forms(trained):
    _, printed = trained
    for expected in ("24 for testing", "greedy", "beam, 2 beams", "forms right"):
        assert expected in printed
    assert "N;GEN(SG;PSS(1,PL))" in printed


def test_training_saves_a_model_and_pictures(trained):
    output, printed = trained
    names = {"model.keras", "training.png"}
    if "No picture" not in printed:
        names.add("attention.png")
    assert {path.name for path in output.iterdir()} == names


def test_invented_forms_have_the_endings_of_the_training_forms(recipe):
    lemmas = ["walk", "wander", "machen", "to", "sing"]
    split = lemmas, list("ABCDE"), ["walks", "wanders", "gemacht", "tos", "sang"]
    lemmas, features, forms = recipe.invent_forms(split, 60, np.random.default_rng(0))
    assert len(set(lemmas)) > 50
    for lemma, feature, form in zip(lemmas, features, forms, strict=True):
        if feature == "C":
            assert lemma.endswith("achen")
            assert form == f"ge{lemma.removesuffix('en')}t"
        else:
            assert (feature, lemma[-3:]) in (("A", "alk"), ("B", "der"))
            assert form == f"{lemma}s"


def test_no_forms_are_invented_without_a_stem(recipe):
    split = ["to", "go"], ["A", "B"], ["tos", "went"]
    assert recipe.invent_forms(split, 5, np.random.default_rng(0)) == ([], [], [])


def test_a_saved_model_inflects(trained, recipe):
    output, _ = trained
    with recipe.console.capture() as printed:
        recipe.main(["--output", str(output), "--inflect", "bem", "N;NOM(PL)"])
    assert "bem" in printed.get() and "N;NOM(PL)" in printed.get()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["xem", "N"], "lemma must consist of .*'xem', with .'x'"),
        (["bem", "V"], "tags must consist of .*'V', with .'V'"),
        (["bem", ";()"], "tags must consist of"),
        (["", "N"], "lemma must consist of"),
    ],
)
def test_error_names_unseen_letters_and_tags(trained, recipe, arguments, message):
    output, _ = trained
    with pytest.raises(SystemExit, match=message):
        recipe.main(["--output", str(output), "--inflect", *arguments])


def test_rejects_a_missing_model_and_one_of_another_kind(recipe, tmp_path):
    arguments = ["--inflect", "bem", "N"]
    with pytest.raises(SystemExit, match="a file that a TextToText was saved in"):
        recipe.main(["--output", str(tmp_path), *arguments])
    letters = kseq.text.Vocabulary("character").adapt(["ab"])
    model = kseq.encoder_decoder(letters.size, letters.size, width=4)
    path = tmp_path / "model.keras"
    kseq.text.TextToText(model, letters, letters).save(path)
    with pytest.raises(SystemExit, match="must be a model of this recipe"):
        recipe.main(["--load", str(path), *arguments])


@pytest.mark.parametrize(
    "features, tags",
    [
        ("V;PRS;NOM(3,SG)", "V PRS NOM 3 SG"),
        ("N;ABL(PL;PSS(1,PL))", "N ABL PL PSS 1 PL"),
        ("V; PST", "V PST"),
    ],
)
def test_features_are_split_into_single_tags(recipe, features, tags):
    assert recipe.split_features(features) == tags


def test_error_names_a_form_in_two_splits(recipe, split_flags):
    flags = [*split_flags[:4], "--test", split_flags[1]]
    with pytest.raises(SystemExit, match="only one of --train, --dev and --test"):
        recipe.load_splits(recipe.parse_arguments(flags))


@pytest.mark.parametrize(
    "arguments", [["--train", "a"], ["--load", "a"], ["--language", "fin"]]
)
def test_rejects_wrong_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_message_is_printed_if_no_form_is_right(recipe):
    class Fixed:
        def generate(self, texts, search, max_length):
            hypothesis = kseq.text.Hypothesis("x", ["x"], -1.0, {})
            return [[hypothesis] for _ in texts["lemma"]]

    for form in ("x", "y"):
        with recipe.console.capture() as printed:
            recipe.evaluate(Fixed(), (["a"], ["N"], [form]), 2)
        assert ("Not one form is right" in printed.get()) == (form == "y")


def test_training_metric_equals_the_accuracy_of_greedy_search(
    recipe, trained, split_flags
):
    pipeline = keras.saving.load_model(trained[0] / "model.keras", compile=False)
    lemmas, features, forms = kseq.datasets.read_inflections(split_flags[1])
    split = lemmas, features, forms
    data = kseq.training.teacher_forcing(*recipe.encode_split(split, pipeline))
    pipeline.model.compile(metrics=[kseq.training.ExactMatch(name="forms_right")])
    right = pipeline.model.evaluate(data, verbose=0, return_dict=True)["forms_right"]
    results = pipeline.generate(recipe.source_texts(lemmas, features))
    generated = [best.text for [best] in results]
    assert right == pytest.approx(np.mean(np.array(generated) == np.array(forms)))


@pytest.mark.slow
@pytest.mark.thorough
def test_english_forms_are_learned_from_real_data(recipe, data_set, tmp_path):
    folder = data_set("sigmorphon2023_inflection")
    flags = ["--data", str(folder.parent), "--units", "64", "--epochs", "12"]
    with recipe.console.capture() as printed:
        recipe.main([*flags, "--output", str(tmp_path)])
    greedy = next(x for x in printed.get().splitlines() if "greedy" in x)
    assert float(greedy.split("│")[2].strip(" %")) > 60
