"""Models of several sources that copy from some of them.

Axes in shape comments: B batch, N hypotheses, S source steps, T target steps.
"""

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, GreedySearch, Sampling
from kseq.layers import (
    ClassEmbedding,
    FeatureEmbedding,
    JoinedEncoders,
    PointerGenerator,
    RecurrentDecoder,
    RecurrentEncoder,
    SummedEmbedding,
    TokenEmbedding,
    TransformerDecoder,
)
from kseq.training import SequenceCrossentropy, teacher_forcing
from tests.builders.test_sources import SOURCE, padded
from tests.helpers import array, assert_close, dtype_policy, random_array, randomize

pytestmark = pytest.mark.usefixtures("untraced")
SIZE, LENGTH = 11, 5
LEMMA_IDS = [0, 1, 2, 3, 6, 5, 4, 1, 1, 6, -1]  # of 11 ids of a lemma, to 8
TAG_IDS = [0, 1, 2, 3, 1, 7, 1]
TARGET = [[5, 6, 3], [7, 3], [4, 4, 3], [3]]


def recurrent(**options):
    options = {"copy": {"lemma": True}, **options}
    sources = {"lemma": SIZE, "tags": 7}
    return kseq.encoder_decoder(sources, SIZE, "gru", "lstm", width=6, **options)


def aligned(**options):
    """A model that copies from both sources, each in a vocabulary of its own."""
    options = {"copy": {"tags": TAG_IDS, "lemma": LEMMA_IDS}, **options}
    encoder = {"lemma": RecurrentEncoder("gru", 5), "tags": "transformer"}
    decoder = RecurrentDecoder("gru", 6, attention="luong")
    sources = {"lemma": SIZE, "tags": 7}
    return kseq.encoder_decoder(sources, 8, encoder, decoder, width=6, **options)


def transformer(**options):
    options = {"copy": {"lemma": True}, **options}
    sources = {"tags": 7, "lemma": SIZE}
    encoder = {"lemma": "transformer", "tags": None}
    decoder = TransformerDecoder(2, 2)
    return kseq.encoder_decoder(sources, SIZE, encoder, decoder, width=6, **options)


def ensemble():
    return kseq.ensemble([recurrent(), transformer()])


MODELS = {
    "recurrent": recurrent,
    "aligned": aligned,
    "transformer": transformer,
    "ensemble": ensemble,
}
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3, 0.6, coverage_penalty=0.2),
    "samples": Sampling(1.5, top_p=0.95, seed=5, num_draws=2),
}


def random_model(kind, **options):
    """Return a model with random weights that both copies and generates."""
    model = MODELS[kind](**options)
    randomize(model)
    for weight in model.weights:
        weight.assign(1.5 * weight)
    return model


@pytest.fixture(
    scope="module",
    params=[
        "recurrent",
        *(pytest.param(x, marks=pytest.mark.thorough) for x in list(MODELS)[1:]),
    ],
)
def model(request):
    return random_model(request.param)


@pytest.fixture(scope="module")
def simple():
    return random_model("recurrent")


def inputs_of(source=SOURCE):
    target = padded([[2, *row[:-1]] for row in TARGET])
    source = {name: padded(rows) for name, rows in source.items()}
    return {"source": source, "target": target}


@pytest.mark.parametrize("kind", ["recurrent", "aligned", "transformer"])
def test_the_graph_equals_one_step_at_a_time(kind):
    """`start` and `step` read the target like the graph that is trained."""
    model, inputs = random_model(kind), inputs_of()
    source = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs["source"])
    expected = array(model(inputs))
    is_real = inputs["target"] != 0
    assert_close(np.exp(expected[is_real]).sum(axis=-1), np.ones(is_real.sum()))
    state, constants = model.start(source, max_length=3)
    for t in range(3):
        token_ids = keras.ops.convert_to_tensor(inputs["target"][:, t : t + 1])
        logits, state = model.step(token_ids, state, constants)
        assert_close(array(logits)[is_real[:, t], 0], expected[is_real[:, t], t])


def test_only_named_sources_are_copied(simple):
    """The log-probabilities are those of a pointer-generator over the lemma."""
    inputs = inputs_of()
    log_probs, weights = simple.read(inputs["source"], inputs["target"], True)
    log_probs = array(log_probs)
    embedded = simple.target(inputs["target"])
    _, memory, mask, states = simple._encode(inputs["source"])
    outputs = simple.decoder(embedded, memory, mask, states)
    logits = array(simple.head(outputs))
    generated = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for b, row in enumerate(SOURCE["lemma"]):
        others = [i for i in range(4, SIZE) if i not in row]
        ratio = np.exp(log_probs[b, 0, others]) / generated[b, 0, others]
        assert_close(ratio, np.full(len(others), ratio[0]), rtol=1e-4)
        share = ratio[0]  # of generating; the rest is copied
        copied = np.exp(log_probs[b, 0]) - share * generated[b, 0]
        attention = array(weights["lemma"])[b, 0]
        expected = np.zeros(SIZE)
        np.add.at(expected, row, attention[: len(row)])
        expected *= (1 - share) / max(expected.sum(), 1e-9)
        assert_close(copied, expected, atol=1e-5)
        assert (share < 0.999) == bool(row)


@pytest.mark.parametrize("search", SEARCHES)
def test_scores_equal_the_log_probabilities_of_a_search(model, search):
    result = model.generate(SOURCE, SEARCHES[search], max_length=LENGTH)
    assert np.isfinite(result.log_probs[:, 0]).all()
    assert_close(model.score(SOURCE, result), result.log_probs, atol=1e-4)


def test_a_batch_equals_its_rows(model):
    result = model.generate(SOURCE, SEARCHES["beams"], LENGTH)
    small = model.generate(SOURCE, SEARCHES["beams"], LENGTH, batch_size=1)
    np.testing.assert_array_equal(small.token_ids, result.token_ids)
    assert_close(small.log_probs, result.log_probs, atol=1e-4)


def test_padding_of_each_source_changes_nothing(model):
    target = [[min(i, 7) for i in row] for row in TARGET]
    expected = model.score(SOURCE, target)
    for name in SOURCE:
        for left, right in ((0, 3), (3, 0), (2, 9)):
            source = {key: padded(rows) for key, rows in SOURCE.items()}
            source[name] = padded(SOURCE[name], left, right)
            assert_close(model.score(source, target), expected, atol=1e-5)


def test_streams_equal_generate(model):
    for search in (GreedySearch(), Sampling(1.5, seed=5)):
        stream = np.stack(list(model.generate_stream(SOURCE, search, LENGTH)), axis=-1)
        whole = model.generate(SOURCE, search, LENGTH).token_ids[:, 0]
        np.testing.assert_array_equal(stream, whole[:, : stream.shape[1]])


def test_attention_is_returned_by_source(simple):
    options = {"max_length": LENGTH, "return_attention_scores": True}
    result = simple.generate(SOURCE, **options)
    _, attention = simple.score(SOURCE, result, return_attention_scores=True)
    for name in SOURCE:
        assert_close(attention[name], result.attention[name])


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["recurrent", "transformer"])
def test_half_precision_agrees_with_single_precision(kind, policy):
    model, inputs = random_model(kind), inputs_of()
    with dtype_policy(policy):
        half = random_model(kind)
    assert half.pointer_generator.compute_dtype == "float32"
    is_real = inputs["target"] != 0
    log_probs = array(half(inputs))[is_real]
    tolerance = 0.05 if policy == "mixed_float16" else 0.3
    assert_close(log_probs, array(model(inputs))[is_real], atol=tolerance, rtol=0.1)
    assert_close(np.exp(log_probs).sum(axis=-1), np.ones(is_real.sum()))
    result = half.generate(SOURCE, BeamSearch(2), max_length=LENGTH)
    assert_close(half.score(SOURCE, result), result.log_probs, atol=0.2, rtol=0.05)


@pytest.mark.parametrize("kind", ["aligned", "ensemble"])
def test_a_saved_model_copies(kind, tmp_path):
    model = random_model(kind)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.generate(SOURCE, max_length=LENGTH).log_probs
    assert_close(loaded.generate(SOURCE, max_length=LENGTH).log_probs, expected)
    assert loaded.pointer_generator.get_config() == model.pointer_generator.get_config()


def test_an_ensemble_copies_only_if_its_models_copy_alike():
    assert ensemble().pointer_generator.alignment["lemma"] is True
    for other in (recurrent(copy=None), recurrent(copy={"lemma": list(range(SIZE))})):
        assert kseq.ensemble([recurrent(), other]).pointer_generator is None


def test_coverage_loss_counts_only_the_copied_source():
    inputs, labels = inputs_of(), padded(TARGET)
    totals = []
    for coverage in (0.0, 2.0):
        copy = PointerGenerator({"lemma": True, "tags": False}, coverage=coverage)
        model = random_model("recurrent", copy=copy)
        model.compile("sgd", SequenceCrossentropy())
        before = model.test_on_batch(inputs, labels)
        totals.append(model.train_on_batch(inputs, labels))
        assert_close(totals[0], before, atol=1e-4)
    _, weights = random_model("recurrent").read(
        inputs["source"], inputs["target"], True
    )
    is_real = inputs["target"] != 0
    weights = array(weights["lemma"]) * is_real[..., None]
    covered = weights.cumsum(axis=1) - weights
    expected = 2.0 * np.minimum(weights, covered).sum() / is_real.sum()
    assert_close(totals[1] - totals[0], expected, atol=1e-4)


def test_other_sources_may_be_of_any_kind():
    """Features, classes and summed inputs are read beside a source that is copied."""
    cases = {"word": TokenEmbedding(9, 6), "case": TokenEmbedding(5, 6)}
    model = kseq.encoder_decoder(
        source={
            "past": FeatureEmbedding(2, 6),
            "lemma": SIZE,
            "kind": ClassEmbedding(3, 6),
            "cases": SummedEmbedding(cases),
        },
        target=SIZE,
        encoder={"past": "gru", "lemma": "gru", "kind": None, "cases": None},
        copy={"lemma": True},
        width=6,
    )
    randomize(model)
    source = {
        "past": random_array(2, 4, 2),
        "lemma": [[4, 5, 6], [8]],
        "kind": np.array([1, 2], "int32"),
        "cases": {"word": [[4, 5], [6]], "case": [[2, 3], [4]]},
    }
    result = model.generate(source, BeamSearch(2), LENGTH)
    assert_close(model.score(source, result), result.log_probs, atol=1e-4)
    data = teacher_forcing(source, [[2, 4, 3], [2, 8, 3]])
    model.compile("adam", SequenceCrossentropy())
    assert np.isfinite(model.train_on_batch(*data[0]))


def test_sources_follow_the_order_of_joined_encoders():
    encoders = {"tags": None, "lemma": RecurrentEncoder("gru", 6)}
    model = kseq.encoder_decoder(
        {"lemma": SIZE, "tags": 7},
        SIZE,
        encoder=JoinedEncoders(encoders),
        width=6,
        copy={"lemma": True},
    )
    assert list(model.pointer_generator.alignment) == ["tags", "lemma"]
    randomize(model)
    result = model.generate(SOURCE, BeamSearch(2), LENGTH)
    assert_close(model.score(SOURCE, result), result.log_probs, atol=1e-4)
