"""The export of Transformers to CTranslate2, compared with `generate`."""

import importlib.util
import json

import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, GreedySearch
from kseq.layers import (
    RotaryPositions,
    SinusoidalPositions,
    TokenEmbedding,
    TransformerDecoder,
    TransformerEncoder,
)
from tests.helpers import randomize

SOURCE_SIZE, TARGET_SIZE, LENGTH, PAD, START, END = 17, 19, 9, 0, 2, 3
SOURCE = [[4, 5, 6, 7, 3], [8], [9, 10, 4, 2, 2, 2, 3, 5], [16, 4]]
PREFIX = [[4, 5], [6, 7], [7, 18]]
HALVES_POSITIONS = SinusoidalPositions(layout="halves", max_wavelength=50)
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None, reason="needs ctranslate2"
)


def model_of(
    positions="sinusoidal",
    tied=None,
    width=16,
    inner_width=None,
    has_source=True,
    scale=True,
    gain=2.5,
    **options,
):
    """Build a Transformer with random weights for which padding is improbable."""
    limit = {"max_length": 23} if positions == "learned" else {}
    sizes = {"num_layers": 2, "num_heads": 4, "intermediate_dim": 13}
    options = {**sizes, "width": inner_width, **options}

    def embedding(size):
        return TokenEmbedding(size, width, positions=positions, scale=scale, **limit)

    if has_source:
        model = kseq.encoder_decoder(
            embedding(SOURCE_SIZE),
            embedding(TARGET_SIZE),
            TransformerEncoder(**options),
            TransformerDecoder(**options),
            tie_embeddings=tied,
        )
    else:
        decoder = TransformerDecoder(**options, cross_attention=False)
        model = kseq.one_to_many(
            embedding(TARGET_SIZE), decoder=decoder, tie_embeddings=tied
        )
    randomize(model)
    for weight in model.weights:
        weight.assign(gain * weight)
    padding = np.arange(TARGET_SIZE) == PAD
    bias = np.linspace(-1, 1, TARGET_SIZE) + 5 * (np.arange(TARGET_SIZE) == END)
    model.head.bias.assign(np.where(padding, -60.0, bias))
    return model


def run_ctranslate2(path, source, prefix=None, **more):
    """Run CTranslate2 with the exported options; return token ids and scores."""
    import ctranslate2

    options = {**json.loads((path / "generation.json").read_text()), **more}
    rows = [[str(i) for i in row] for row in source]
    if prefix is None:
        results = ctranslate2.Translator(str(path)).translate_batch(rows, **options)
        generated = [result.hypotheses for result in results]
    else:
        results = ctranslate2.Generator(str(path)).generate_batch(rows, **options)
        generated = [result.sequences for result in results]
    ids = [[[int(t) for t in tokens] for tokens in row] for row in generated]
    return ids, np.array([result.scores for result in results])


def check_same_hypotheses(model, path, search):
    """Check that CTranslate2 gives the hypotheses and scores of `generate`."""
    model.export_generation(path, search, LENGTH, "ctranslate2")
    penalty = getattr(search, "length_penalty", 0.0)
    if model.source is None:
        skipped = len(PREFIX[0])
        result = model.generate(3, search, LENGTH + skipped, prefix=PREFIX)
        prompts = [[START, *row] for row in PREFIX]
        ids, scores = run_ctranslate2(path, prompts, PREFIX)
    else:
        skipped = 0
        result = model.generate(SOURCE, search, LENGTH)
        ids, scores = run_ctranslate2(path, SOURCE)
    counts = result.token_ids.shape[:2]
    expected = [
        [
            result.token_ids[b, n, skipped : result.lengths[b, n]].tolist()
            for n in range(counts[1])
        ]
        for b in range(counts[0])
    ]
    assert ids == expected
    assert len(set(scores[:, 0].round(3))) == len(ids), "rows differ"
    log_probs = result.token_log_probs[..., skipped:].sum(-1)
    lengths = result.lengths - skipped
    np.testing.assert_allclose(scores, log_probs / lengths**penalty, rtol=1e-4)
    return result


MODELS = {
    "sinusoidal": {},
    "post-norm": {"norm_first": False, "activation": "gelu"},
    "post-norm, normalized last": {"norm_first": False, "final_norm": True},
    "pre-norm, not normalized last": {
        "final_norm": False,
        "activation": "silu",
        "gain": 0.8,
    },
    "learned": {"positions": "learned", "tied": "target", "activation": "tanh"},
    "rotary": {"positions": None, "rotary": True, "activation": "sigmoid"},
    "rotary, interleaved": {
        "positions": None,
        "rotary": RotaryPositions("interleaved", 500),
        "num_key_value_heads": 2,
        "epsilon": 0.1,
    },
    "no positions": {"positions": None, "scale": False, "num_key_value_heads": 1},
    "projected": {"positions": HALVES_POSITIONS, "width": 6, "inner_width": 8},
    "language model": {"has_source": False},
    "rotary language model": {
        "has_source": False,
        "positions": None,
        "rotary": True,
        "num_key_value_heads": 2,
        "tied": "target",
    },
    "learned language model": {
        "has_source": False,
        "positions": "learned",
        "norm_first": False,
    },
}
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3),
    "best beam": BeamSearch(3, num_results=1),
    "long beams": BeamSearch(4, 0.7),
    "best long beam": BeamSearch(3, 1.3, num_results=1),
    "short beams": BeamSearch(2, -0.5),
    "early beams": BeamSearch(3, 0.7, early_stopping=True),
    "early": BeamSearch(3, early_stopping=True),
}


@needs_engine
@pytest.mark.parametrize("kind", MODELS)
def test_ctranslate2_generates_what_generate_returns(kind, tmp_path):
    model = model_of(**MODELS[kind])
    check_same_hypotheses(model, tmp_path / "written", SEARCHES["long beams"])


@needs_engine
@pytest.mark.parametrize("search", [name for name in SEARCHES if name != "long beams"])
def test_every_search_gives_the_hypotheses_of_generate(search, tmp_path):
    result = check_same_hypotheses(model_of(), tmp_path / "written", SEARCHES[search])
    assert result.ended.any(), "some end before the last step"


@needs_engine
@pytest.mark.parametrize(
    "quantization", ["int8", "float16", "int16", "bfloat16", "int8_float16"]
)
def test_a_quantized_export_is_smaller_and_nearly_as_good(quantization, tmp_path):
    if quantization == "bfloat16":
        pytest.importorskip("torch")
    model = model_of(width=64)
    sizes = []
    for name, kind in (("exact", None), ("small", quantization)):
        options = {"format": "ctranslate2", "quantization": kind}
        model.export_generation(tmp_path / name, None, LENGTH, **options)
        sizes.append((tmp_path / name / "model.bin").stat().st_size)
    assert sizes[1] < 0.75 * sizes[0]
    ids, _ = run_ctranslate2(tmp_path / "small", SOURCE)
    log_probs = model.score(SOURCE, [row[0] for row in ids])
    best = model.generate(SOURCE, None, LENGTH).log_probs[:, 0]
    assert (log_probs > best - 0.4 * LENGTH).all()


@needs_engine
def test_source_and_target_can_share_one_embedding(tmp_path):
    embedding = TokenEmbedding(TARGET_SIZE, 16, positions="sinusoidal", scale=True)
    options = {"num_layers": 1, "num_heads": 2}
    model = kseq.encoder_decoder(
        embedding,
        embedding,
        TransformerEncoder(**options),
        TransformerDecoder(**options),
        tie_embeddings="all",
    )
    randomize(model)
    model.head.bias.assign(
        np.linspace(-1, 1, TARGET_SIZE) - 60 * (np.arange(TARGET_SIZE) == PAD)
    )
    check_same_hypotheses(model, tmp_path / "written", GreedySearch())
    table = np.array(embedding.embedding.embeddings, "float32").tobytes()
    assert (tmp_path / "written" / "model.bin").read_bytes().count(table) == 1


@needs_engine
def test_source_shape_sets_the_maximum_source_length(tmp_path):
    model = model_of()
    long = [[4 + i % 13 for i in range(1030)]]
    model.export_generation(tmp_path / "short", None, LENGTH, "ctranslate2")
    with pytest.raises(RuntimeError, match="No position encodings"):
        run_ctranslate2(tmp_path / "short", long)
    options = {"format": "ctranslate2", "source_shape": (None, 1030)}
    model.export_generation(tmp_path / "long", None, LENGTH, **options)
    ids, _ = run_ctranslate2(tmp_path / "long", long)
    result = model.generate(long, None, LENGTH)
    assert ids[0][0] == result.token_ids[0, 0, : result.lengths[0, 0]].tolist()


@needs_engine
def test_a_pipeline_exports_its_vocabulary(tmp_path):
    import ctranslate2

    words = kseq.text.Vocabulary("word").adapt(["an owl sees <s> me", "an owl"])
    model = kseq.encoder_decoder(
        words.size, words.size + 2, "transformer", "transformer", width=8
    )
    randomize(model)
    pipeline = kseq.text.TextToText(model, words, words)
    options = {"format": "ctranslate2", "quantization": "int8"}
    pipeline.export_generation(tmp_path / "words", None, LENGTH, **options)
    names = json.loads((tmp_path / "words" / "source_vocabulary.json").read_text())
    assert names[:4] == ["<blank>", "<unk>", "<<s>>", "</s>"]
    assert names[4:] == words.tokens
    config = json.loads((tmp_path / "words" / "config.json").read_text())
    assert config["decoder_start_token"] == "<<s>>"
    translator = ctranslate2.Translator(str(tmp_path / "words"))
    known, unknown = translator.translate_batch([["owl", "<unk>"], ["owl", "ant"]])
    assert known.hypotheses == unknown.hypotheses


@needs_engine
def test_the_folder_is_replaced_completely_or_not_at_all(tmp_path, monkeypatch):
    import ctranslate2

    model, path = model_of(), tmp_path / "written"
    model.export_generation(path, None, LENGTH, "ctranslate2")
    before = (path / "model.bin").read_bytes()

    def fails(*arguments):
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(ctranslate2.specs.TransformerSpec, "save", fails)
        with pytest.raises(OSError, match="no room"):
            model_of(norm_first=False).export_generation(path, format="ctranslate2")
    assert (path / "model.bin").read_bytes() == before
    model_of(norm_first=False).export_generation(path, format="ctranslate2")
    assert (path / "model.bin").read_bytes() != before
    assert [folder.name for folder in tmp_path.iterdir()] == ["written"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="`path` must be a new folder.*something else"):
        model.export_generation(tmp_path / "own", format="ctranslate2")
    assert (tmp_path / "own" / "letter.txt").read_text() == "dear"
