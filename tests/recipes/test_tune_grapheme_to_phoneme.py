import functools
import importlib.util
import pathlib

import pytest

import kseq
from kseq.tuning import Choice

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tune_grapheme_to_phoneme.py"
SMALL = "--trials 1 --epochs 1 --workers 1 --network recurrent".split()


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("tune_grapheme_to_phoneme", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return arguments with files of one phoneme for each letter."""
    folder = tmp_path_factory.mktemp("words")
    lines = [f"{a}{b}{c}\t{a} {b} {c}" for a in "abc" for b in "dé" for c in "가나다"]
    rows = {"train": lines[::2], "dev": lines[1::4], "test": lines[3::4]}
    for part, texts in rows.items():
        (folder / part).write_text("\n".join(texts), "utf-8")
    return [x for part in rows for x in (f"--{part}", str(folder / part))]


@pytest.mark.thorough
def test_a_search_saves_a_model_and_prints_its_best_decoding(
    recipe, files, tmp_path, forked_servers, capfd, monkeypatch
):
    # Two decoding settings instead of six, because TensorFlow traces each of them.
    monkeypatch.setattr(recipe, "Float", lambda *ends, step: ends[-1])
    parts = {"encoder": "gru", "decoder": "gru", "width": Choice(8, 16)}  # small ones
    few = functools.partial(recipe.spaces.encoder_decoder, **parts)
    monkeypatch.setattr(recipe.spaces, "encoder_decoder", few)
    recipe.main([*files, *SMALL, "--output", str(tmp_path)])
    printed = capfd.readouterr().out
    assert "9 words for training, 5 for validation, 4 for testing" in printed
    assert "Best decoding" in printed and "num_beams" in printed
    assert "val_written_exact_match" in printed
    assert (tmp_path / "report.html").exists()
    pipeline = kseq.text.TextToText.load(tmp_path / "model.keras")
    assert len(pipeline.generate(["ad가"])) == 1


def test_splits_share_no_word(recipe, data_set):
    folder = data_set("sigmorphon2021_g2p")
    options = recipe.parse_arguments(["--data", str(folder.parent)])
    train, validation, test = (set(x) for x, _ in recipe.load_splits(options))
    assert not train & validation and not train & test and not validation & test
    assert len(train) > 7000 and len(test) == 1000


def test_error_names_an_invalid_file_before_the_search(recipe, files, tmp_path):
    (tmp_path / "train").write_bytes(b"no tab here\n")
    wrong = [
        *files,
        "--train",
        str(tmp_path / "train"),
        "--output",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit, match="line 1"):
        recipe.main(wrong)
    assert not (tmp_path / "o").exists()
