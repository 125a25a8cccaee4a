"""Crafted files, which must not run code or read other files when they are loaded.

An audit hook of Python records opened files and started programs.
"""

import contextlib
import copy
import json
import os
import stat
import sys
import zipfile

import keras
import pytest

import kseq
from kseq import layers
from kseq.builders.text_to_image import ImageTokens
from kseq.text import TextToImage, TextToLabels, TextToText, TextWriter, Vocabulary

WATCHED, SECRET = [], "secret-of-another-file"
EVENTS = ("open", "os.system", "subprocess.Popen", "os.exec", "socket.connect")


def watch(event, args):
    if WATCHED and event in EVENTS and any(SECRET in str(arg) for arg in args):
        WATCHED.append((event, args))


@pytest.fixture(scope="module", autouse=True)
def hook():
    sys.addaudithook(watch)


@pytest.fixture
def secret(tmp_path):
    """Yield the path of a file that loading must neither open nor mention."""
    path = tmp_path / SECRET
    path.write_text('["secret"]')
    WATCHED[:] = ["from here"]
    yield str(path)
    found, WATCHED[:] = WATCHED[1:], []
    assert not found, f"loading did {found}"
    assert os.listdir(tmp_path).count(SECRET) == 1
    assert path.read_text() == '["secret"]', "loading has written"


def words():
    return Vocabulary("character").adapt(["ab"])


def models_with_objects():
    """Return pipelines and models of every kind that read objects from their config."""
    size = words().size
    reader = kseq.many_to_one(size, 2, encoder="rnn", pooling="mean", width=4)
    writer = kseq.one_to_many(size, decoder="rnn", width=4)
    translator = kseq.encoder_decoder(size, size, "rnn", "rnn", width=4)
    tokenizer = kseq.image_tokenizer((4, 4, 1), (2, 3), 4, width=4, num_blocks=1)
    artist = kseq.text_to_image(size, tokenizer, "rnn", "rnn", width=4)
    forecaster = kseq.encoder_decoder(
        layers.FeatureEmbedding(2, 4),
        layers.FeatureEmbedding(1, 4),
        "rnn",
        "rnn",
        width=4,
        covariates=layers.FeatureEmbedding(2, 4),
    )
    features = {"word": layers.TokenEmbedding(size, 4)}
    features["tag"] = layers.TokenEmbedding(3, 4)
    several = {"text": layers.SummedEmbedding(features), "kind": size}
    several = kseq.encoder_decoder(several, size, "rnn", "rnn", width=4)
    both = kseq.ensemble([translator])
    readers = kseq.ensemble([reader])
    return [
        readers.members,
        forecaster,
        several,
        TextToLabels(readers, words(), ["bad", "good"]),
        TextWriter(writer, words()),
        TextToText(both, words(), words()),
        TextToImage(artist, words()),
    ]


def layers_with_objects():
    """Return a layer of each class that reads objects from its config."""
    bias = keras.layers.Embedding(9, 2)
    cell = layers.LayerNormLSTMCell(4)
    table = layers.TokenEmbedding(5, 4, positions=layers.SinusoidalPositions())
    tokenizer = kseq.image_tokenizer((4, 4, 1), (2, 3), 4, width=4, num_blocks=1)
    return [
        ImageTokens(tokenizer, 2, 3),
        table,
        layers.TiedHead(table),
        layers.FeatureEmbedding(3, 4, positions=layers.SinusoidalPositions()),
        layers.PatchEmbedding((4, 4, 1), 2, 4, positions=layers.SinusoidalPositions()),
        layers.RecurrentEncoder(cell),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.MinGRU(4),
        layers.RNN(cell),
        layers.RecurrentDecoder(cell, attention=layers.LuongAttention("concat", 3)),
        layers.MultiHeadAttention(2, relative_bias=bias),
        layers.TransformerEncoder(1, 2, relative_bias=bias),
        layers.TransformerDecoder(1, 2),
        layers.Zoneout(keras.layers.GRUCell(4), 0.1),
    ]


def paths_within(config, path=()):
    """Yield the paths of the objects and strings within a config."""
    if isinstance(config, dict):
        if path and "class_name" in config and "config" in config:
            yield path
        items = config.items()
    else:
        items = enumerate(config)
    for key, value in items:
        if isinstance(value, str):
            yield (*path, key)
        elif isinstance(value, (dict, list, tuple)):
            yield from paths_within(value, (*path, key))


def with_value(config, path, value):
    config = copy.deepcopy(config)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


def value_at(config, path):
    for key in path:
        config = config[key]
    return config


def hostile(secret):
    """Return configs of objects that would run or read something if created."""

    def function(module, name):
        names = {"module": module, "registered_name": name}
        return {"class_name": "function", "config": name, **names}

    def layer(module, class_name, **config):
        named = {"module": module, "class_name": class_name, "registered_name": None}
        return {**named, "config": config}

    text = keras.layers.TextVectorization().get_config()
    with pytest.warns(UserWarning, match="lambda"):
        code = keras.saving.serialize_keras_object(lambda x: open(SECRET, "w"))
    return [
        layer("keras.layers", "Lambda", function=code, name="run"),
        code,
        layer("subprocess", "Popen", args=["touch", secret]),
        layer("os", "system", command=f"touch {secret}"),
        function("os", "system"),
        function("builtins", "system"),
        function("keras.saving", "load_model"),
        function("keras.utils", "get_file"),
        layer("keras.layers", "StringLookup", vocabulary=secret, name="read"),
        layer("keras.layers", "TextVectorization", **{**text, "vocabulary": secret}),
        layer("keras.layers", "TFSMLayer", filepath=secret, name="read"),
    ]


@pytest.fixture(scope="module")
def configs():
    """Return the configs of all classes that read objects."""
    serialize = keras.saving.serialize_keras_object
    configs = [
        serialize(each) for each in [*layers_with_objects(), *models_with_objects()]
    ]
    return json.loads(json.dumps(configs))  # as a file holds them, without tuples


def test_only_classes_are_registered():
    registered = keras.saving.get_custom_objects()
    ours = {name: x for name, x in registered.items() if name.startswith("kseq>")}
    assert len(ours) > 40
    assert all(isinstance(x, type) for x in ours.values())


def test_the_configs_contain_every_class_that_reads_objects(configs):
    reading = {
        name
        for name, kind in keras.saving.get_custom_objects().items()
        if name.startswith("kseq>") and "from_config" in vars(kind)
    }
    assert not [
        name for name in sorted(reading) if f'"{name}"' not in json.dumps(configs)
    ]


def test_no_object_in_a_config_runs_or_reads_anything(configs, secret):
    seen = set()
    for config in configs:
        for path in paths_within(config):
            value = value_at(config, path)
            kind = value["class_name"] if isinstance(value, dict) else None
            if kind is None or (config["class_name"], path[-1], kind) in seen:
                continue
            seen.add((config["class_name"], path[-1], kind))
            for each in hostile(secret) if len(seen) % 4 == 0 else hostile(secret)[::3]:
                its_place = {
                    k: value[k] for k in ("name", "inbound_nodes") if k in value
                }
                crafted = with_value(config, path, {**its_place, **each})
                rejected = pytest.raises((TypeError, ValueError))
                if path[-1] == "dtype":  # Keras takes the name of a class as a dtype
                    rejected = contextlib.suppress(
                        TypeError, ValueError, AttributeError
                    )
                with rejected:
                    keras.saving.deserialize_keras_object(crafted, safe_mode=True)
    assert len(seen) > 30


@pytest.mark.thorough
def test_no_string_in_a_config_is_read_as_a_path(configs, secret):
    seen = set()
    for config in configs:
        for path in paths_within(config):
            value = value_at(config, path)
            if isinstance(value, str) and (config["class_name"], path[-1]) not in seen:
                seen.add((config["class_name"], path[-1]))
                crafted = with_value(config, path, secret)
                try:  # a name may be any string
                    keras.saving.deserialize_keras_object(crafted, safe_mode=True)
                except (TypeError, ValueError, AttributeError, KeyError):
                    pass
    assert len(seen) > 60


# Files --------------------------------------------------------------------------------


def rewrite_archive(path, entries=(), **contents):
    """Rewrite a `.keras` file with added entries and replaced members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in members:
        for ending, content in contents.items():
            if os.path.basename(name) == f"{ending}.json":
                members[name] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for entry, content in entries:
            archive.writestr(entry, content)


@pytest.fixture
def saved(tmp_path):
    """Return the path of a saved pipeline in a new folder."""
    path = tmp_path / "folder" / "writer.keras"
    path.parent.mkdir()
    writer = kseq.one_to_many(words().size, decoder="rnn", width=4)
    TextWriter(writer, words()).save(path)
    return path


@pytest.mark.parametrize("index", range(11))
def test_rejects_a_file_with_a_foreign_object(saved, secret, index):
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    path = ("config", ["model", "vocabulary"][index % 2])
    crafted = with_value(config, path, hostile(secret)[index])
    rewrite_archive(saved, config=json.dumps(crafted))
    with pytest.raises(ValueError, match="a file that a TextWriter was saved in"):
        TextWriter.load(saved)


@pytest.mark.parametrize(
    "vocabulary",
    [
        '"SECRET"',
        '{"path": "SECRET"}',
        '["a", ["SECRET"]]',
        '["a", 5]',
        '["a", "a"]',
        '["", "a"]',
        "null",
        "SECRET",
        "[" * 100_000,
    ],
    ids=range(9),
)
def test_rejects_a_vocabulary_that_is_not_a_list_of_words(saved, secret, vocabulary):
    rewrite_archive(saved, tokens=vocabulary.replace("SECRET", secret))
    with pytest.raises(ValueError, match="a file that a TextWriter was saved in"):
        TextWriter.load(saved)


def test_rejects_a_config_without_its_components(saved):
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    rewrite_archive(saved, config=json.dumps({**config, "config": {"name": "writer"}}))
    with pytest.raises(ValueError, match="a file that a TextWriter was saved in"):
        TextWriter.load(saved)


def test_a_symbolic_link_in_a_file_is_not_followed(saved, secret):
    name = "assets/layers/vocabulary/tokens.json"
    with zipfile.ZipFile(saved) as archive:
        assert name in archive.namelist()
    link = zipfile.ZipInfo(name)
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewrite_archive(saved, [(link, secret)])
    with pytest.raises(ValueError, match="a file that a TextWriter was saved in"):
        TextWriter.load(saved)  # the target of the link is not a vocabulary


@pytest.mark.parametrize("name", ["../", "../../", "assets/../../../", "/"])
def test_a_member_outside_the_folder_is_not_written(saved, secret, name):
    evil = f"evil-{SECRET}"
    folder = f"{saved.parent}/" if name == "/" else name
    rewrite_archive(saved, [(folder + evil, "evil")])
    with pytest.warns(UserWarning, match="Skipping invalid path"):
        TextWriter.load(saved)
    around = [*list(saved.parents)[:3], "/", "/tmp", os.getcwd()]
    assert not [folder for folder in around if evil in os.listdir(folder)]


def test_a_vocabulary_file_cannot_read_other_files(tmp_path, secret):
    path = tmp_path / "words.json"
    words().save(path)
    content = json.loads(path.read_text())
    for name in content:
        for value in (secret, [secret], {"class_name": "Lambda", "config": secret}):
            path.write_text(json.dumps({**content, name: value}))
            if name == "tokens" and isinstance(value, list):
                assert Vocabulary.load(path).tokens == [secret]  # a word, not a path
                continue
            with pytest.raises(ValueError, match="Received|damaged"):
                Vocabulary.load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="damaged"):
        Vocabulary.load(path)
