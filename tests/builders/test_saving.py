"""Atomic saving: a complete new file, or the old one unchanged."""

import os
from pathlib import Path

import keras
import pytest

import kseq
from kseq.layers.saving import replaced_folder
from tests.builders.small_models import MODELS


def tokenizer():
    return kseq.image_tokenizer((4, 6, 1), (3, 4), 2, width=4, num_blocks=1)


def classifier_ensemble():
    models = [kseq.many_to_one(7, num_outputs=2, width=3) for _ in range(2)]
    return kseq.ensemble(models)


MAKERS = {name: make for name, (make, _) in MODELS.items()}
MAKERS |= {"image_tokenizer": tokenizer, "ensemble of classifiers": classifier_ensemble}
SAVES = {
    "model.keras": lambda model, path: model.save(path),
    "model.weights.h5": lambda model, path: model.save_weights(path),
}


def fail(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", MAKERS)
def test_a_failed_save_leaves_the_old_file_unchanged(name, tmp_path, monkeypatch):
    model = MAKERS[name]()
    layer = next(part for part in model._flatten_layers(False) if part.variables)

    def save_and_fail(save, path):
        with monkeypatch.context() as patch:
            patch.setattr(type(layer), "save_own_variables", fail)
            with pytest.raises(OSError, match="No space left"):
                save(model, path)

    for count, (file, save) in enumerate(SAVES.items()):
        path = tmp_path / file
        save_and_fail(save, path)
        assert len(list(tmp_path.iterdir())) == count, "half a file is left"
        save(model, path)
        before = path.read_bytes()
        save_and_fail(save, path)
        assert path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SAVES)


def classifier():
    return kseq.many_to_one(7, num_outputs=2, width=3)


def test_a_model_that_cannot_be_serialized_leaves_the_old_file_unchanged(
    tmp_path, monkeypatch
):
    model, path = classifier(), tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(type(model.layers[-1]), "get_config", lambda self: {"a": self})
    with pytest.raises((TypeError, ValueError, RecursionError)):
        model.save(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_error_names_the_path_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        classifier().save("nowhere/model.keras")
    assert str(error.value) == "[Errno 2] No such file or directory: " + repr(
        "nowhere/model.keras"
    )


def test_saving_to_a_link_keeps_the_link(tmp_path):
    link = tmp_path / "newest.keras"
    link.symlink_to(tmp_path / "model.keras")
    for _ in range(2):
        classifier().save(link)
        assert os.path.islink(link)
        keras.saving.load_model(link)


def test_overwrite_false_asks_before_overwriting(tmp_path, monkeypatch):
    path, asked = tmp_path / "model.keras", []
    classifier().save(path, overwrite=False)
    before = path.read_bytes()
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "n")
    classifier().save(path, overwrite=False)
    assert asked and path.read_bytes() == before


def test_keras_handles_folders_and_other_suffixes(tmp_path):
    model = classifier()
    with pytest.raises(ValueError, match="Received: filepath=.*model.pdf"):
        model.save(tmp_path / "model.pdf")
    model.save(tmp_path / "folder", zipped=False)
    keras.saving.load_model(tmp_path / "folder")


# Folders ----------------------------------------------------------------------------


def write_folder(path, text):
    with replaced_folder(path, "mark") as folder:
        Path(folder, "mark").write_text(text)


def test_a_folder_replaces_one_with_its_mark(tmp_path):
    path = tmp_path / "new" / "export"
    for text in ("first", "second"):
        write_folder(path, text)
        assert (path / "mark").read_text() == text
    assert list(path.parent.iterdir()) == [path]
    assert list(path.iterdir()) == [path / "mark"]


@pytest.mark.parametrize("kind", ["a file", "a folder with other files"])
def test_rejects_a_path_that_holds_something_else(kind, tmp_path):
    path = tmp_path / "export"
    letter = path
    if kind != "a file":
        path.mkdir()
        letter = path / "letter.txt"
    letter.write_text("dear")
    with pytest.raises(ValueError, match="`path` must be a new folder"):
        write_folder(path, "first")
    assert letter.read_text() == "dear"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", [1, 2])
def test_an_interrupted_replacement_keeps_the_old_folder(
    failing, tmp_path, monkeypatch
):
    path = tmp_path / "export"
    write_folder(path, "first")
    calls = []

    def rename(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise KeyboardInterrupt
        os.rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            write_folder(path, "second")
    assert (path / "mark").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", MAKERS)
def test_a_model_that_was_compiled_on_jax_is_loaded_on_every_backend(name, tmp_path):
    model, path = MAKERS[name](), tmp_path / "model.keras"
    loss = None if getattr(model, "loss_head", None) is not None else "mse"
    model.compile("sgd", loss, jit_compile=True)  # as JAX stores it
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert loaded.compiled
    assert loaded.jit_compile is (keras.backend.backend() != "torch")
