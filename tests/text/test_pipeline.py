"""`TextToText`: a model with its source and target vocabulary."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

import kseq
from kseq.text import Hypothesis, TextToText, Vocabulary
from tests.advice.eagerly import eagerly

WORDS = ["한국어", "hello", "two\nlines", "a\u2028b"]
SOUNDS = ["AH0 B", "K OW1", "S \ufffd"]


@keras.saving.register_keras_serializable(package="kseq_tests")
class TokenMapper(keras.Model):
    """A model that generates a token for each source token, in `search` hypotheses."""

    def __init__(self, sizes, attends=True, **kwargs):
        super().__init__(**kwargs)
        self.sizes, self.attends = sizes, attends
        self.scores = keras.layers.Embedding(*sizes, embeddings_initializer="normal")
        self.scores.build()
        self.built = True

    def call(self, ids):
        return self.scores(ids)

    def generate(self, source_ids, search=None, max_length=40):
        beams, longest = search or 1, max(map(len, source_ids))
        shape = (len(source_ids), beams)
        token_ids = np.zeros((*shape, longest + 1), "int32")
        lengths, log_probs = np.zeros(shape, "int32"), np.zeros(shape, "float32")
        attention = np.full((*shape, longest + 1, longest), 0.5)
        for b, row in enumerate(source_ids):
            scores = keras.ops.convert_to_numpy(self(np.array(row)))
            order = np.argsort(-scores[:, 4:], axis=-1) + 4
            for n in range(beams):
                tokens = [*order[:, n], 3][:max_length]
                lengths[b, n] = len(tokens)
                token_ids[b, n, : len(tokens)] = tokens
                attention[b, n, : len(row), : len(row)] = np.eye(len(row)) / (n + 1)
                log_probs[b, n] = scores[0, order[0, n]]
        return types.SimpleNamespace(
            token_ids=keras.ops.array(token_ids),
            log_probs=keras.ops.array(log_probs),
            lengths=keras.ops.array(lengths),
            attention=keras.ops.array(attention) if self.attends else None,
        )

    def get_config(self):
        config = {"sizes": self.sizes, "attends": self.attends}
        return {**super().get_config(), **config}


def pipeline(attends=True):
    source = Vocabulary("character", normalization="NFD").adapt(WORDS)
    target = Vocabulary("word").adapt(SOUNDS)
    return TextToText(TokenMapper([source.size, target.size], attends), source, target)


def plain(results):
    """Return the results as JSON loads them."""
    rows = [[dataclasses.asdict(best) for best in row] for row in results]
    return json.loads(json.dumps(rows, default=np.ndarray.tolist))


def test_each_text_gets_its_hypotheses_best_first():
    results = pipeline().generate([*WORDS, "he"], search=3)
    assert [len(row) for row in results] == [3] * 5
    for row in results:
        log_probs = [best.log_prob for best in row]
        assert log_probs == sorted(log_probs, reverse=True)
        for best in row:
            assert isinstance(best, Hypothesis)
            assert best.text == " ".join(best.tokens)
            assert len(best.tokens) == len(best.source_tokens)


def test_attention_is_trimmed_to_source_and_target_tokens():
    for row, length in zip(
        pipeline().generate(["한", "hello"], 2), (3, 5), strict=True
    ):
        for n, best in enumerate(row):
            np.testing.assert_array_equal(best.attention, np.eye(length) / (n + 1))
            assert len(best.source_tokens) == length


def test_attention_of_layers_and_heads_is_trimmed():
    pipeline = TextToText(*transformer_and_vocabularies())
    [[best]] = pipeline.generate(["abc"], return_attention_scores=True)
    shape = 2, 3, len(best.tokens), len(best.source_tokens)
    assert best.tokens and best.attention.shape == shape


def transformer_and_vocabularies():
    """Return a model of 2 layers with 3 heads, and its two vocabularies."""
    letters = Vocabulary("character").adapt(["abcdefg"])
    model = kseq.encoder_decoder(
        letters.size,
        letters.size,
        encoder="transformer",
        decoder=kseq.layers.TransformerDecoder(2, 3, width=12),
        width=12,
    )
    is_letter = np.arange(letters.size) >= 4
    model.head.bias.assign(9.0 * is_letter)
    return model, letters, letters


def test_attention_rows_of_padding_and_start_are_dropped():
    writer = pipeline()
    ids = keras.ops.array([[[2, 5, 0, 4, 3]]])
    attention = np.arange(5.0)[None, None, :, None] * np.ones((1, 1, 5, 2))
    generated = types.SimpleNamespace(
        token_ids=ids,
        log_probs=np.zeros((1, 1)),
        lengths=np.array([[5]]),
        attention=attention,
    )
    writer.model.generate = lambda *args, **kwargs: generated
    [[best]] = writer.generate(["he"])
    assert best.tokens == writer.target_vocabulary.spell([5, 4])
    assert best.attention[:, 0].tolist() == [1, 3]


def test_attention_is_none_for_a_model_without_attention():
    [[best]] = pipeline(attends=False).generate(["hello"])
    assert best.attention is None


def test_search_and_max_length_are_passed_to_the_model():
    [[first, second]] = pipeline().generate(["hello"], search=2, max_length=3)
    assert len(first.tokens) == len(second.tokens) == 3
    assert first.attention.shape == (3, 5)


def test_unknown_source_tokens_are_replacement_characters():
    [[best]] = pipeline().generate(["h7"])
    assert best.source_tokens == ["h", "\ufffd"]


def test_a_call_runs_the_inner_model():
    writer, ids = pipeline(), np.array([[4, 5]])
    outer, inner = map(keras.ops.convert_to_numpy, (writer(ids), writer.model(ids)))
    np.testing.assert_array_equal(outer, inner)


def test_no_texts_give_no_results():
    assert pipeline().generate([]) == []


@pytest.mark.thorough
def test_a_loaded_pipeline_gives_the_same_results_in_a_new_process(tmp_path):
    writer = pipeline()
    writer.save(tmp_path / "writer.keras")
    here = pathlib.Path(__file__)
    program = (
        "import json, sys, keras, test_pipeline as t\n"
        "writer = keras.saving.load_model(sys.argv[1])\n"
        "print(json.dumps(t.plain(writer.generate(t.WORDS, search=2))))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "writer.keras"],
        env={**os.environ, "PYTHONPATH": f"{here.parent}:{here.parents[2]}"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == plain(writer.generate(WORDS, 2))


def test_a_pipeline_with_a_shared_vocabulary_can_be_saved(tmp_path):
    letters = Vocabulary().adapt(WORDS)
    writer = TextToText(TokenMapper([letters.size, letters.size]), letters, letters)
    writer.save(tmp_path / "writer.keras")
    loaded = keras.saving.load_model(tmp_path / "writer.keras")
    assert loaded.target_vocabulary.tokens == letters.tokens
    assert plain(loaded.generate(WORDS)) == plain(writer.generate(WORDS))


def test_a_pipeline_can_be_rebuilt_from_its_config():
    writer = pipeline()
    config = writer.get_config()
    again = TextToText.from_config(config)
    assert again.get_config() == config
    assert again.target_vocabulary.split == "word"


def test_rejects_wrong_components():
    letters = Vocabulary().adapt(["ab"])
    with pytest.raises(ValueError, match="`model` must have a method `generate`"):
        TextToText(keras.Sequential(), letters, letters)
    with pytest.raises(ValueError, match="`target_vocabulary` must be a `kseq.text"):
        TextToText(TokenMapper([6, 6]), letters, ["a", "b"])


def test_error_names_a_text_without_tokens():
    with pytest.raises(ValueError, match=r"Received: texts\[1\], which has none"):
        pipeline().generate(["he", ""])


def test_blank_texts_keep_their_places():
    writer = pipeline()
    results = writer.generate(["", *WORDS, ""], search=2, allow_blank=True)
    assert plain(results[1:-1]) == plain(writer.generate(WORDS, search=2))
    assert results[0] == results[-1] == [Hypothesis("", [], 0.0, [])]
    assert writer.generate([""], allow_blank=True) == [results[0]]


@pytest.fixture(scope="module")
def translator():
    letters = Vocabulary("character").adapt(["abc"])
    model = kseq.encoder_decoder(letters.size, letters.size, "rnn", "rnn", width=3)
    return TextToText(model, letters, letters)


def test_prefixes_stay_with_their_texts_beside_a_blank_text(translator):
    options = {"max_length": 3, "prefix": [[4], [5], [6]], "allow_blank": True}
    with eagerly():
        one, blank, other = translator.generate(["a", "", "b"], **options)
        pieces = list(translator.generate_stream(["a", "", "b"], **options))
    assert [one[0].tokens[0], other[0].tokens[0]] == ["a", "c"]
    assert blank[0].text == "" and {piece[1] for piece in pieces} == {""}


@pytest.mark.parametrize("constraints", [None, kseq.decoding.MinimumLength(2)])
@pytest.mark.parametrize("ban_unknown", [False, True])
def test_rejects_constraints_that_are_not_a_list(translator, constraints, ban_unknown):
    options = {"constraints": constraints, "ban_unknown": ban_unknown}
    for method in (translator.generate, translator.generate_stream):
        with pytest.raises(ValueError, match="`constraints` must be a list"):
            list(method(["a"], max_length=3, **options))
