"""Models of several sources: masks, generation, scores, attention and errors.

Axes in shape comments: B batch, N hypotheses, S source steps, T target steps.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BannedTokens, BeamSearch, Guidance, RelativeLength, Sampling
from kseq.layers import (
    NamedEmbeddings,
    RecurrentDecoder,
    RecurrentEncoder,
    SummedEmbedding,
    TokenEmbedding,
    TransformerDecoder,
)
from kseq.training import teacher_forcing
from tests.builders.small_models import inflector, reader_of_features
from tests.helpers import array, assert_close, dtype_policy, random_array, randomize

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)


pytestmark = pytest.mark.usefixtures("untraced")
LENGTH = 5
SOURCE = {
    "lemma": [[4, 5, 6, 7, 2, 9, 9, 4, 3], [8, 2], [9, 1, 3], []],
    "tags": [[2, 3, 4], [6], [], []],
}  # the last row is empty, and the one before has no tags
DECODERS = {
    "gru, bahdanau": lambda: RecurrentDecoder("gru", 6, attention="bahdanau"),
    "lstm, luong": lambda: RecurrentDecoder("lstm", 6, 2, attention="luong"),
    "gru, no attention": lambda: RecurrentDecoder("gru", 6),
    "transformer": lambda: TransformerDecoder(1, 2),
    "prefix": lambda: TransformerDecoder(1, 2, cross_attention=False),
}
ENCODERS = {
    "gru": "gru",
    "transformer": "transformer",
    "conv": "conv",
    "mixed": {"lemma": "transformer", "tags": None},
}


def model_of(encoder="gru", decoder="gru", **options):
    model = kseq.encoder_decoder(
        {"lemma": 11, "tags": 7}, 13, encoder, decoder, width=6, **options
    )
    return randomized(model)


def randomized(model):
    """Return a model with random weights that make choices depend on the source."""
    randomize(model)
    for weight in model.weights:
        weight.assign(2 * weight)
    return model


def padded(rows, left=0, right=0):
    size = max(map(len, rows))
    rows = [[0] * left + row + [0] * (size - len(row) + right) for row in rows]
    return np.array(rows, "int32")


@pytest.mark.thorough(all_but=3)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_works_with_every_decoder(encoder, decoder):
    model = model_of(ENCODERS[encoder], DECODERS[decoder]())
    result = model.generate(SOURCE, BeamSearch(2), LENGTH)
    assert np.isfinite(result.log_probs).all()
    assert_close(model.score(SOURCE, result), result.log_probs, atol=1e-4)


def test_names_and_sizes_are_shorthand_for_layers_of_each_source():
    short = kseq.encoder_decoder({"lemma": 11, "tags": 7}, 13, width=6)
    long = kseq.encoder_decoder(
        source=NamedEmbeddings(
            {"lemma": TokenEmbedding(11, 6), "tags": TokenEmbedding(7, 6)}
        ),
        target=TokenEmbedding(13, 6),
        encoder={
            "tags": RecurrentEncoder("gru", 6),
            "lemma": RecurrentEncoder("gru", 6),
        },
        decoder=RecurrentDecoder("gru", 6, attention="bahdanau"),
    )
    assert list(long.encoder.encoders) == [
        "lemma",
        "tags",
    ]  # in the order of the sources
    shapes = [tuple(weight.shape) for weight in short.weights]
    assert shapes == [tuple(weight.shape) for weight in long.weights]
    randomize(short)
    long.set_weights(short.get_weights())
    result = short.generate(SOURCE, max_length=LENGTH)
    assert_close(long.generate(SOURCE, max_length=LENGTH).log_probs, result.log_probs)


def test_only_sources_of_transformers_get_positions():
    encoder = {"lemma": "transformer", "tags": "gru"}
    embeddings = model_of(encoder).source.embeddings
    assert embeddings["lemma"].positions == "sinusoidal"
    assert embeddings["tags"].positions is None


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("decoder", ["gru", "transformer"])
def test_left_or_right_padding_of_a_source_changes_nothing(decoder):
    model = model_of({"lemma": "gru", "tags": "transformer"}, decoder)
    target = [[5, 6, 3], [7, 3], [4, 4, 3], [3]]
    expected = model.score(SOURCE, target)
    for name in SOURCE:
        for left, right in ((0, 3), (3, 0), (2, 9)):
            source = {key: padded(rows) for key, rows in SOURCE.items()}
            source[name] = padded(SOURCE[name], left, right)
            assert_close(model.score(source, target), expected, atol=1e-5)


def test_the_order_of_named_inputs_does_not_matter():
    model = randomized(kseq.encoder_decoder({"tags": 11, "lemma": 11}, 13, width=6))
    source = {"lemma": padded(SOURCE["lemma"]), "tags": padded(SOURCE["tags"])}
    inputs = {"target": np.array([[2, 5], [2, 7], [2, 4], [2, 3]]), "source": source}
    in_order = {"tags": source["tags"], "lemma": source["lemma"]}
    expected = model({"source": in_order, "target": inputs["target"]})
    assert_close(model(inputs), expected)
    swapped = {"lemma": source["tags"], "tags": source["lemma"]}
    assert abs(array(model({**inputs, "source": swapped}) - expected)).max() > 1e-3


def test_each_source_is_read():
    model, target = model_of(), [[5, 6, 3]]
    one = {"lemma": [[4, 5]], "tags": [[2, 3]]}
    scores = model.score(one, target)
    for name in one:
        other = {**one, name: [[6, 6]]}
        assert abs(model.score(other, target) - scores).max() > 1e-3


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("kind", [inflector, reader_of_features])
def test_a_batch_equals_its_rows(kind):
    model = randomized(kind())
    source = SOURCE
    if kind is reader_of_features:
        words = SOURCE["lemma"][:3]
        numbers = [random_array(len(row), 2) for row in words]
        source = {"word": padded(words), "numbers": padded_numbers(numbers)}
    result = model.generate(source, BeamSearch(2), LENGTH)
    small = model.generate(source, BeamSearch(2), LENGTH, batch_size=1)
    np.testing.assert_array_equal(small.token_ids, result.token_ids)
    assert_close(small.log_probs, result.log_probs, atol=1e-5)


def padded_numbers(rows):
    array = np.zeros((len(rows), max(map(len, rows)), 2), "float32")
    for place, row in zip(array, rows, strict=True):
        place[: len(row)] = row
    return array


def test_a_sampled_stream_equals_generate():
    model, search = model_of(), Sampling(seed=3)
    stream = np.stack(list(model.generate_stream(SOURCE, search, LENGTH)), axis=-1)
    whole = model.generate(SOURCE, search, LENGTH).token_ids[:, 0]
    np.testing.assert_array_equal(stream, whole[:, : stream.shape[1]])


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("decoder", ["gru", "transformer"])
def test_attention_is_returned_for_each_source(decoder):
    model = model_of(decoder=decoder)
    options = {"max_length": LENGTH, "return_attention_scores": True}
    result = model.generate(SOURCE, BeamSearch(2), **options)
    attention = result.attention
    assert sorted(attention) == ["lemma", "tags"]
    sums = 0
    for name, longest in (("lemma", 9), ("tags", 3)):
        weights = attention[name]  # B N ... T S
        while weights.ndim > 4:
            weights = weights.mean(axis=2)
        assert weights.shape == (4, 2, LENGTH, longest)
        for row, ids in enumerate(SOURCE[name]):
            assert (weights[row, ..., len(ids) :] == 0).all()
        sums = sums + weights.sum(axis=-1)
    is_generated = np.arange(LENGTH) < result.lengths[..., None]
    is_generated[3] = False  # there is nothing to attend to
    assert_close(sums, is_generated.astype("float32"), atol=1e-5)
    small = model.generate(SOURCE, BeamSearch(2), batch_size=1, **options)
    for name in SOURCE:
        assert_close(small.attention[name], attention[name], atol=1e-5)


def test_coverage_penalty_works_with_several_sources():
    model = model_of()
    search = BeamSearch(3, coverage_penalty=0.5)
    result = model.generate(SOURCE, search, LENGTH)
    assert_close(model.score(SOURCE, result), result.log_probs, atol=1e-4)


def test_guidance_drops_all_sources_together():
    model = model_of(source_dropout=0.2)
    search = BeamSearch(2, guidance=Guidance(1.0))
    plain = model.generate(SOURCE, BeamSearch(2), LENGTH)
    assert_close(
        model.generate(SOURCE, search, LENGTH).log_probs, plain.log_probs, atol=1e-4
    )
    undropped = model.source_dropout(
        model.source({name: padded(rows) for name, rows in SOURCE.items()})
    )
    dropped = model.source_dropout(undropped, without_source=True)
    assert all(not array(x).any() for x in dropped.values())
    many = {name: np.ones((500, 2, 3), "float32") for name in SOURCE}
    dropped = model.source_dropout(many, training=True)
    lemma, tags = (array(dropped[name]).mean(axis=(1, 2)) for name in SOURCE)
    np.testing.assert_array_equal(lemma, tags)  # a row loses both sources
    assert 0.1 < (lemma == 0).mean() < 0.3


def test_relative_length_refers_to_the_longest_source():
    model = model_of()
    never_ends = BannedTokens([model.end_token_id])
    lengths = RelativeLength(1.0, 2)
    result = model.generate(SOURCE, max_length=lengths, constraints=[never_ends])
    assert result.lengths[:, 0].tolist() == [11, 4, 5, 2]


@pytest.mark.thorough
def test_an_ensemble_of_several_sources_generates():
    both = kseq.ensemble([model_of(), model_of("transformer", "transformer")])
    options = {"max_length": LENGTH, "return_attention_scores": True}
    result = both.generate(SOURCE, BeamSearch(2), **options)
    assert_close(both.score(SOURCE, result), result.log_probs, atol=1e-4)
    assert result.attention["tags"].shape == (4, 2, LENGTH, 3)


LOAD = """
import sys, numpy as np, kseq, keras
model = keras.saving.load_model(sys.argv[1])
source = {"lemma": [[4, 5, 6], [8]], "tags": [[2], [3, 4]]}
np.save(sys.argv[2], model.generate(source, max_length=5).log_probs)
"""


@pytest.mark.thorough
def test_a_saved_model_generates_the_same_in_a_new_process(tmp_path):
    model = randomized(inflector())
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD, tmp_path / "model.keras", tmp_path / "a.npy"]
    root = str(Path(__file__).parents[2])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": root})
    source = {"lemma": [[4, 5, 6], [8]], "tags": [[2], [3, 4]]}
    expected = model.generate(source, max_length=5).log_probs
    assert_close(np.load(tmp_path / "a.npy"), expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_agrees_with_single_precision(policy):
    target = [[5, 6, 3], [7, 3], [4, 4, 3], [3]]
    model = model_of()
    with dtype_policy(policy):
        half = kseq.encoder_decoder({"lemma": 11, "tags": 7}, 13, width=6)
    half.set_weights(model.get_weights())
    scores = half.score(SOURCE, target)
    assert_close(scores, model.score(SOURCE, target), atol=0.15, rtol=0.05)


def test_generate_reads_sources_from_training_batches():
    model, target = model_of(), [[2, 5, 3], [2, 3], [2, 4, 3], [2, 3]]
    expected = model.generate(SOURCE, max_length=LENGTH).log_probs
    batches = teacher_forcing(SOURCE, target, batch_size=2, shuffle=False)
    assert_close(model.generate(batches, max_length=LENGTH).log_probs, expected)
    inputs = {"source": SOURCE, "target": target}
    assert_close(model.generate(inputs, max_length=LENGTH).log_probs, expected)


def test_sources_may_be_named_source_and_target():
    model = kseq.encoder_decoder({"source": 11, "target": 7}, 13, width=6)
    rows = {"source": SOURCE["lemma"], "target": SOURCE["tags"]}
    expected = model.generate(rows, max_length=LENGTH).log_probs
    batch = {"source": rows, "target": [[2, 3]] * 4}
    assert_close(model.generate(batch, max_length=LENGTH).log_probs, expected)


# Numbers and features -----------------------------------------------------------------


def test_one_of_several_sources_may_have_summed_features():
    words = SummedEmbedding(
        {"word": TokenEmbedding(11, 6), "case": TokenEmbedding(5, 6)}
    )
    model = kseq.encoder_decoder({"words": words, "tags": 7}, 13, width=6)
    randomized(model)
    source = {
        "words": {"word": SOURCE["lemma"], "case": [[2] * 9, [3, 4], [2, 2, 3], []]},
        "tags": SOURCE["tags"],
    }
    result = model.generate(source, BeamSearch(2), LENGTH, return_attention_scores=True)
    assert_close(model.score(source, result), result.log_probs, atol=1e-4)
    assert result.attention["words"].shape == (4, 2, LENGTH, 9)
    source["words"]["case"][1] = [3]
    with pytest.raises(ValueError, match="row 1 with {'word': 2, 'case': 1} steps"):
        model.generate(source, max_length=LENGTH)


def test_no_layer_loses_the_mask():
    report = kseq.mask_report(inflector())
    verdicts = {row.class_name: row.verdict for row in report.rows}
    assert verdicts["NamedEmbeddings"] == "makes"
    assert verdicts["JoinedEncoders"] == "keeps"
    assert not report.lost_at


# Errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, message",
    [
        ([[4, 5]], r'a dictionary, {"lemma": ..., "tags": ...}. Received: list'),
        ({"lemma": [[4]]}, r"without \['tags'\]"),
        ({"lemma": [[4]], "tags": [[2]], "form": [[2]]}, r"with \['form'\], unknown"),
        ({"lemma": [[4], [5]], "tags": [[2]]}, "'lemma': 2, 'tags': 1"),
        ({"lemma": [[4]], "tags": [[2.5]]}, r'`source\["tags"\]` must hold integers'),
        (
            {"lemma": [[4]], "tags": [[7]]},
            r'`source\["tags"\]` must hold integers from',
        ),
        ({"lemma": [[4]], "tags": ["V"]}, r'`source\["tags"\]` must be token ids'),
        ({"lemma": [], "tags": []}, r'`source\["lemma"\]` must hold at least one row'),
        ({"lemma": [[[4]]], "tags": [[2]]}, r'`source\["lemma"\]` must have the shape'),
    ],
)
def test_error_describes_a_wrong_source(source, message):
    with pytest.raises(ValueError, match=message):
        model_of().generate(source)


@pytest.mark.parametrize(
    "source, message",
    [
        ({}, "must have rows"),
        ({"lemma": [[4]], "tags": [[2], [3]]}, r'`source\["tags"\]` and `target`'),
        ({"lemma": [[4]], "tags": [["V"]]}, r'`source\["tags"\]` must be rows of one'),
    ],
)
def test_error_describes_wrong_training_rows(source, message):
    with pytest.raises(ValueError, match=message):
        teacher_forcing(source, [[2, 5, 3]])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"encoder": RecurrentEncoder("gru", 6)}, "a dictionary with an encoder for"),
        ({"encoder": {"lemma": "gru"}}, r"`encoder` must have .* without \['tags'\]"),
        ({"encoder": "bilstm"}, "must be passed as a layer"),
        ({"source": {"the lemma": 11}}, "letters, digits and underscores"),
        ({"source": {"lemma": "eleven"}}, "An embedding must be a layer"),
        ({"source": {}}, "a dictionary with a layer for each name"),
        ({"tie_embeddings": "all"}, "one embedding for source and target"),
        ({"source": {"lemma": TokenEmbedding(11, 6, pad_token_id=1)}}, "same padding"),
    ],
)
def test_error_describes_components_that_do_not_fit(options, message):
    options = {"source": {"lemma": 11, "tags": 7}, **options}
    with pytest.raises(ValueError, match=message):
        kseq.encoder_decoder(target=13, width=6, **options)


def test_other_builders_reject_several_sources():
    for build in (kseq.many_to_one, kseq.many_to_many):
        with pytest.raises(ValueError, match="An embedding must be a layer"):
            build({"lemma": 11}, 3)
