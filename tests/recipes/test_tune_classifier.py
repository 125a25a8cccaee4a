import importlib.util
import itertools
import os
import pathlib
import subprocess
import sys

import pytest

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tune_classifier.py"
SMALL = "--trials 1 --epochs 1 --workers 1 --network recurrent".split()


@pytest.fixture(scope="module")
def recipe():
    return import_recipe("tune_classifier")


def import_recipe(name):
    path = RECIPE.with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return arguments with files in which one word of each text sets the label."""
    folder = tmp_path_factory.mktemp("reviews")
    lines = [
        f"{label} {' '.join([*others, word])}"
        for word, label in {"joy": "good", "기쁨": "good", "bore": "bad"}.items()
        for others in itertools.permutations(["a", "The", "of", "très"], 3)
    ]
    rows = {"train": lines[::2], "dev": lines[1::4], "test": lines[3::4]}
    for part, texts in rows.items():
        (folder / part).write_text("\n".join(texts), "utf-8")
    return [x for part in rows for x in (f"--{part}", str(folder / part))]


def run(*arguments):
    return subprocess.run(
        [sys.executable, RECIPE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.thorough
def test_a_search_saves_a_model_and_a_report(files, tmp_path):
    done = run(*files, *SMALL, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.keras",
        "report.html",
        "search",
    ]
    model = kseq.text.TextToLabels.load(tmp_path / "model.keras")
    assert model.label(["a of joy"])[0].name in ("bad", "good")
    assert model.vocabulary.tokens


def test_classify_text_loads_an_ensemble_without_attention_weights(tmp_path):
    words = kseq.text.Vocabulary("word").adapt(["a joy of b"])
    models = [kseq.many_to_one(words.size, 2, width=8) for _ in range(2)]
    pipeline = kseq.text.TextToLabels(kseq.ensemble(models), words, ["bad", "good"])
    pipeline.save(tmp_path / "model.keras")
    reader = import_recipe("classify_text")
    loaded = reader.load_model(tmp_path / "model.keras")
    assert not reader.attention_weights(loaded, ["a joy"]).any()


def test_splits_share_no_text(recipe, data_set):
    folder = data_set("trec")
    options = recipe.parse_arguments(["--data", str(folder.parent)])
    train, validation, test = (set(x) for x, _ in recipe.load_splits(options))
    assert not train & validation and not train & test and not validation & test
    assert len(test) > 450 and len(validation) > 500


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"good\n", "line 1"),
        (b"caf\xe9 bad\n", "UTF-8"),
        (b"good a\n", "at least two labels"),
    ],
)
def test_error_names_an_invalid_file_before_the_search(
    recipe, files, tmp_path, content, complaint
):
    (tmp_path / "train").write_bytes(content)
    wrong = [
        *files,
        "--train",
        str(tmp_path / "train"),
        "--output",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(wrong)
    assert not (tmp_path / "o").exists()


def test_trials_run_on_a_dask_cluster_or_on_this_host(recipe):
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "protocol": "tcp", "host": "127.0.0.1"}
    with (
        distributed.LocalCluster(1, **options, dashboard_address=":0") as cluster,
        recipe.connect(cluster.scheduler_address) as client,
    ):
        assert client.submit(sum, (2, 3)).result() == 5
    assert recipe.connect(None) is None


@pytest.mark.parametrize("wrong", [["--trials", "0"], ["--train", "a"]])
def test_rejects_invalid_arguments(recipe, wrong, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(wrong)
    assert error.value.code == 2
    assert wrong[0] in capsys.readouterr().err
