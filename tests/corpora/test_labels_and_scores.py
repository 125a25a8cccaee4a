"""Files of labels and scores, compared with the results of the pipelines."""

import keras
import pytest

import kseq
from kseq.corpora import generate_file, label_file, score_file
from kseq.text import TextToLabels, TextToText, TextWriter, Vocabulary
from tests.corpora.test_generation import LINES

TARGETS = ["he", "", "o", "hell", "a", "", "eel", "all", "hoe", "h", "leah"]
OPTIONS = {"block_size": 3, "batch_size": 2, "verbose": False}
LETTERS = Vocabulary("character").adapt(["".join(LINES)])
WORDS = Vocabulary("word").adapt(["a good day", "the bad end"])
TEXTS = ["a day", "", "the good end", "bad", "the the day"]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.txt"
    path.write_text("".join(f"{line}\n" for line in TEXTS), "utf-8", newline="\n")
    return path


@pytest.fixture
def parallel_files(tmp_path):
    """Return the files of sources and targets."""
    paths = tmp_path / "in.txt", tmp_path / "targets.txt"
    for path, lines in zip(paths, (LINES, TARGETS), strict=True):
        text = "".join(f"{line}\n" for line in lines)
        path.write_text(text, "utf-8", newline="\n")
    return paths


def saved(folder, kind):
    """Return an untrained pipeline of a kind, and its file."""
    keras.utils.set_random_seed(3)
    if kind is TextToLabels:
        model = kseq.many_to_one(WORDS.size, num_outputs=3, width=4)
        pipeline = TextToLabels(model, WORDS, ["so so", "bad", "good"])
    elif kind is TextToText:
        model = kseq.encoder_decoder(LETTERS.size, LETTERS.size, "rnn", "rnn", width=5)
        pipeline = TextToText(model, LETTERS, LETTERS)
    else:
        pipeline = TextWriter(kseq.one_to_many(LETTERS.size, width=4), LETTERS)
    path = folder / "pipeline.keras"
    pipeline.save(path)
    return pipeline, path


def test_a_classifier_gives_each_line_a_label(source, tmp_path):
    pipeline, path = saved(tmp_path, TextToLabels)
    found = pipeline.label(TEXTS, allow_blank=True)
    result = label_file(path, source, tmp_path / "labels.txt", **OPTIONS)
    lines = (tmp_path / "labels.txt").read_text("utf-8").split("\n")
    assert lines == [label.name if label else "" for label in found] + [""]
    assert (result.lines, result.tokens, result.bad) == (5, 4, {})
    assert len(set(lines)) > 2


def test_a_tagger_gives_each_token_a_label(source, tmp_path):
    keras.utils.set_random_seed(3)
    model = kseq.many_to_many(WORDS.size, num_outputs=2, width=4)
    pipeline = TextToLabels(model, WORDS, ["NAME", "VERB"])
    pipeline.save(tmp_path / "pipeline.keras")
    target = tmp_path / "labels.txt"
    result = label_file(tmp_path / "pipeline.keras", source, target, **OPTIONS)
    found = pipeline.label(TEXTS, allow_blank=True)
    expected = [" ".join(label.name for label in labels) for labels in found]
    assert target.read_text("utf-8").split("\n") == [*expected, ""]
    assert result.tokens == sum(map(len, found)) == 9


def test_lines_are_split_at_white_space_for_a_vocabulary_of_split_texts(tmp_path):
    keras.utils.set_random_seed(3)
    words = Vocabulary(None).adapt([["New", "York", "works"]])
    tagger = TextToLabels(
        kseq.many_to_many(words.size, num_outputs=2, width=4), words, ["NAME", "VERB"]
    )
    writer = kseq.encoder_decoder(words.size, LETTERS.size, "rnn", "rnn", width=3)
    writer = TextToText(writer, words, LETTERS)
    (tmp_path / "source.txt").write_text("New  York\tworks\nYork\n", "utf-8")
    (tmp_path / "texts.txt").write_text("he\no\n", "utf-8")
    tagger.save(tmp_path / "tagger.keras")
    writer.save(tmp_path / "writer.keras")
    paths = [tmp_path / name for name in ("source.txt", "texts.txt", "target.txt")]
    texts = [["New", "York", "works"], ["York"]]

    label_file(tmp_path / "tagger.keras", paths[0], paths[2], **OPTIONS)
    found = paths[2].read_text("utf-8").splitlines()
    expected = tagger.label(texts)
    assert found == [" ".join(label.name for label in row) for row in expected]

    options = OPTIONS | {"overwrite": True}
    score_file(tmp_path / "writer.keras", *paths, **options)
    scores = [float(line) for line in paths[2].read_text("utf-8").splitlines()]
    expected = writer.score(texts, ["he", "o"])
    assert scores == pytest.approx(list(expected), abs=2e-4)

    generate_file(
        tmp_path / "writer.keras", paths[0], paths[2], max_length=3, **options
    )
    found = paths[2].read_text("utf-8").splitlines()
    assert found == [best.text for [best] in writer.generate(texts, max_length=3)]


def test_an_error_about_every_line_ends_with_one_full_stop(tmp_path):
    _, path = saved(tmp_path, TextToText)
    (tmp_path / "blank.txt").write_text("\n\n")
    (tmp_path / "texts.txt").write_text("he\no\n")
    files = [tmp_path / name for name in ("blank.txt", "texts.txt", "target.txt")]
    with pytest.raises(ValueError, match=r"one because of ValueError: .*[^.]\.$"):
        score_file(path, *files, **OPTIONS)


def test_scores_equal_those_of_the_pipeline(parallel_files, tmp_path):
    pipeline, path = saved(tmp_path, TextToText)
    target = tmp_path / "scores.txt"
    result = score_file(path, *parallel_files, target, **OPTIONS)
    assert set(result.bad) == {2}  # its source is blank
    lines = target.read_text("utf-8").split("\n")
    assert lines[1] == lines[-1] == ""
    rows = [n for n, line in enumerate(LINES) if line]
    found = pipeline.score([LINES[n] for n in rows], [TARGETS[n] for n in rows])
    for n, expected in zip(rows, found, strict=True):
        assert float(lines[n]) == pytest.approx(expected, abs=2e-4)
    assert len({lines[n] for n in rows}) == len(rows)


def test_a_writer_scores_lines_without_a_source(parallel_files, tmp_path):
    pipeline, path = saved(tmp_path, TextWriter)
    score_file(path, None, parallel_files[1], tmp_path / "scores.txt", **OPTIONS)
    lines = (tmp_path / "scores.txt").read_text("utf-8").split()
    assert [float(line) for line in lines] == pytest.approx(
        list(pipeline.score(TARGETS)), abs=2e-4
    )


def test_scores_of_a_pipeline_equal_those_of_its_model(tmp_path):
    pipeline, _ = saved(tmp_path, TextToText)
    [[best]] = pipeline.generate(["hello"], max_length=5)
    ids = pipeline.target_vocabulary.encode([best.text], end=True)
    scored = pipeline.model.score(LETTERS.encode(["hello"]), ids)
    assert pipeline.score(["hello"], [best.text]) == pytest.approx(scored, rel=1e-6)
    with pytest.raises(ValueError, match="each text. Received: 1 texts, 2"):
        pipeline.score(["hello"], ["he", "o"])
    with pytest.raises(ValueError, match="at least one token each"):
        pipeline.score([""], ["he"])


def test_texts_beyond_the_window_cannot_be_scored():
    model = kseq.one_to_many(LETTERS.size, width=4)
    writer = TextWriter(model, LETTERS, window=5)
    assert writer.score(["hell"]).shape == (1,)
    with pytest.raises(ValueError, match="than the window, 5 tokens.* 5 tokens"):
        writer.score(["he", "hello"])


def test_rejects_pipelines_and_sources_of_the_wrong_kind(parallel_files, tmp_path):
    target = tmp_path / "target.txt"
    _, writer = saved(tmp_path, TextWriter)
    with pytest.raises(ValueError, match="file of a TextToLabels to label.*TextWriter"):
        label_file(writer, parallel_files[0], target, **OPTIONS)
    with pytest.raises(ValueError, match="None for a TextWriter.*with `source` a file"):
        score_file(writer, *parallel_files, target, overwrite=True, **OPTIONS)
    _, translator = saved(tmp_path, TextToText)
    with pytest.raises(ValueError, match="`source` must be a file .*`source` None"):
        score_file(
            translator, None, parallel_files[1], target, overwrite=True, **OPTIONS
        )
    assert not target.exists()


def test_rejects_files_with_different_numbers_of_lines(parallel_files, tmp_path):
    _, path = saved(tmp_path, TextToText)
    parallel_files[1].write_text("he\n")
    message = "as many lines. Received: source of 11 lines and texts of 1 lines"
    with pytest.raises(ValueError, match=message):
        score_file(path, *parallel_files, tmp_path / "scores.txt", **OPTIONS)
    assert {p.name for p in tmp_path.iterdir()} == {
        "in.txt",
        "targets.txt",
        "pipeline.keras",
    }
