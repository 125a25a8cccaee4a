import keras
import pytest

import kseq
from kseq.text import TextToLabels, TextToText, TextWriter, Vocabulary


def letters():
    return Vocabulary("character").adapt(["한글", "hangul"])


def translator():
    model = kseq.encoder_decoder(letters().size, letters().size, width=4)
    return TextToText(model, letters(), letters())


def classifier():
    model = kseq.many_to_one(letters().size, num_outputs=2, width=4)
    return TextToLabels(model, letters(), ["bad", "good"])


def writer():
    return TextWriter(kseq.one_to_many(letters().size, width=4), letters())


@pytest.mark.parametrize("make", [translator, classifier, writer])
def test_loading_restores_weights_and_vocabulary(make, tmp_path):
    saved = make()
    saved.save(tmp_path / "whole.keras")
    loaded = type(saved).load(tmp_path / "whole.keras")
    assert type(loaded) is type(saved)
    for one, other in zip(saved.get_weights(), loaded.get_weights(), strict=True):
        assert (one == other).all()
    vocabulary = getattr(loaded, "vocabulary", None) or loaded.target_vocabulary
    assert vocabulary.tokens == letters().tokens


@pytest.mark.parametrize("make", [translator, classifier, writer])
def test_load_recognizes_the_kind_of_a_pipeline(make, tmp_path):
    make().save(tmp_path / "whole.keras")
    assert type(kseq.text.load(tmp_path / "whole.keras")) is type(make())


@pytest.mark.parametrize(
    "make, method",
    [
        (translator, "export_generation"),
        (classifier, "export_labels"),
        (writer, "export_generation"),
    ],
)
def test_error_of_export_names_the_method_that_exports_texts(make, method, tmp_path):
    pipeline = make()
    assert hasattr(pipeline, method)
    with pytest.raises(ValueError, match=rf"Use `{method}\(path\)`"):
        pipeline.export(tmp_path / "graph")


def test_rejects_a_file_that_is_not_a_pipeline(tmp_path):
    path = tmp_path / "whole.keras"
    asked = "a pipeline of `kseq.text` was saved in. Received: .*whole.keras"
    with pytest.raises(ValueError, match=f"{asked}.* cannot be read"):
        kseq.text.load(path)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match=f"{asked}, with a Sequential"):
        kseq.text.load(path)


@pytest.mark.parametrize("kind", [TextToText, TextToLabels, TextWriter])
def test_rejects_missing_damaged_and_foreign_files(kind, tmp_path):
    path = tmp_path / "whole.keras"
    asked = f"a file that a {kind.__name__} was saved in. Received: .*whole.keras"
    with pytest.raises(ValueError, match=f"{asked}.* cannot be read"):
        kind.load(path)
    path.write_bytes(b"PK, but no model")
    with pytest.raises(ValueError, match=f"{asked}.* cannot be read"):
        kind.load(path)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match=f"{asked}, with a Sequential"):
        kind.load(path)


def test_rejects_a_pipeline_of_another_kind(tmp_path):
    writer().save(tmp_path / "whole.keras")
    with pytest.raises(ValueError, match="with a TextWriter"):
        TextToText.load(tmp_path / "whole.keras")
    kseq.image_tokenizer((4, 4, 3), (3, 4), width=4).save(tmp_path / "whole.keras")
    with pytest.raises(ValueError, match="with an ImageTokenizer"):
        TextToText.load(tmp_path / "whole.keras")


@pytest.mark.parametrize("make", [translator, classifier, writer])
def test_a_failed_save_keeps_the_old_file(make, tmp_path, monkeypatch):
    path, pipeline = tmp_path / "whole.keras", make()

    def fail(*args):
        raise RuntimeError("the disk is full")

    def save_and_fail():
        with monkeypatch.context() as patch:
            patch.setattr(Vocabulary, "save_assets", fail)
            with pytest.raises(RuntimeError, match="the disk is full"):
                pipeline.save(path)

    save_and_fail()
    assert not list(tmp_path.iterdir())
    pipeline.save(path)
    before = path.read_bytes()
    save_and_fail()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    pipeline.save(path)
    type(pipeline).load(path)


@pytest.mark.parametrize("path", [None, 3])
def test_rejects_values_that_are_not_paths(path):
    with pytest.raises(ValueError, match="cannot be read"):
        TextToText.load(path)


@pytest.mark.parametrize("make", [translator, classifier, writer])
def test_error_explains_the_missing_vocabulary_of_a_clone(make):
    pipeline = keras.models.clone_model(make())
    use = getattr(pipeline, "label", None) or pipeline.generate
    with pytest.raises(
        ValueError, match="A clone is made from a config, which holds no"
    ):
        use(["hangul"])
