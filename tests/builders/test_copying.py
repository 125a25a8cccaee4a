"""Models that copy from their source: generation, scores, saving and export.

Axes in shape comments: B batch, T target steps, S source steps, V vocabulary.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, GreedySearch, NoRepeatNGrams, Sampling
from kseq.layers import (
    PatchEmbedding,
    PointerGenerator,
    RecurrentDecoder,
    RecurrentEncoder,
    TransformerDecoder,
)
from kseq.layers.masking import mask_of
from tests.builders.test_exporting import exported
from tests.builders.test_exporting import run as run_file
from tests.helpers import array, assert_close, dtype_policy, randomize

SIZE, LENGTH = 11, 6
ALIGNMENT = [0, 1, 2, 3, 6, 5, 4, 1, 1, 6, -1]  # of 11 source ids, to 7
SOURCES = [[4, 5, 6, 7, 10], [8], [9, 10, 4], [], [5, 5, 1, 5, 9, 5, 8, 2, 5, 6]]
INPUTS = {
    "source": np.array([[4, 5, 6, 7], [8, 9, 0, 0], [9, 1, 0, 0]], "int32"),
    "target": np.array([[2, 5, 6], [2, 4, 0], [2, 0, 0]], "int32"),
}


def bahdanau(**options):
    encoder = RecurrentEncoder("gru", 5, bidirectional=True)
    return kseq.encoder_decoder(
        SIZE, SIZE, encoder, "lstm", width=6, **{"copy": True, **options}
    )


def luong(**options):
    decoder = RecurrentDecoder("gru", 6, attention="luong")
    options = {"copy": ALIGNMENT, **options}
    return kseq.encoder_decoder(SIZE, 7, "transformer", decoder, width=6, **options)


def transformer(**options):
    decoder = TransformerDecoder(2, 2)
    options = {"copy": True, "tie_embeddings": "all", **options}
    return kseq.encoder_decoder(SIZE, SIZE, "conv", decoder, width=6, **options)


def ensemble():
    return kseq.ensemble([bahdanau(), transformer()])


MODELS = {
    "bahdanau": bahdanau,
    "luong, aligned": luong,
    "transformer": transformer,
    "ensemble": ensemble,
}
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3, 0.6, coverage_penalty=0.2),
    "constrained": BeamSearch(3, constraints=[NoRepeatNGrams(2)]),
    "samples": Sampling(1.5, top_p=0.95, seed=5, num_draws=2),
}


def random_model(kind, **options):
    """Return a model with random weights that copies about as often as it generates."""
    model = MODELS[kind](**options)
    randomize(model)
    for weight in model.weights:
        weight.assign(1.5 * weight)
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return random_model(request.param)


@pytest.fixture(scope="module")
def bahdanau_model():
    return random_model("bahdanau")


@pytest.mark.parametrize("kind", ["bahdanau", "luong, aligned", "transformer"])
def test_a_model_returns_the_probabilities_of_its_pointer_generator(kind):
    model = random_model(kind)
    _, memory, mask, states = model._encode(INPUTS["source"])
    embedded = model.target(INPUTS["target"])
    options = {"memory_mask": mask, "initial_state": states}
    outputs, weights = model.decoder(
        embedded, memory, return_attention_scores=True, **options
    )
    copying = PointerGenerator(model.pointer_generator.alignment)
    given = (outputs, embedded, memory, INPUTS["source"], weights)
    copying(model.head(outputs), *given)
    copying.set_weights(model.pointer_generator.get_weights())
    expected = copying(model.head(outputs), *given, memory_mask=mask)
    real = INPUTS["target"] != 0
    log_probs = array(model(INPUTS))
    assert_close(log_probs[real], array(expected)[real])
    if model.pointer_generator.alignment is None:  # otherwise one token is never copied
        assert_close(np.exp(log_probs[real]).sum(axis=-1), np.ones(real.sum()))
    assert (array(mask_of(model(INPUTS))) == real).all()


@pytest.mark.parametrize("search", SEARCHES)
def test_scores_equal_the_log_probabilities_of_a_search(model, search):
    result = model.generate(SOURCES, SEARCHES[search], max_length=LENGTH)
    assert np.isfinite(result.log_probs[:, 0]).all()
    assert_close(model.score(SOURCES, result), result.log_probs, atol=1e-4)


def test_a_batch_equals_its_rows(model):
    together = model.generate(SOURCES, SEARCHES["beams"], max_length=LENGTH)
    for row, source in enumerate(SOURCES):
        alone = model.generate([source], SEARCHES["beams"], max_length=LENGTH)
        assert_close(alone.log_probs[0], together.log_probs[row], atol=1e-4)


def test_left_padding_equals_right_padding(bahdanau_model):
    sources = np.zeros((3, 8), "int32")
    for row, source in enumerate(SOURCES[:3]):
        sources[row, -len(source) :] = source
    left = bahdanau_model.generate(sources, SEARCHES["beams"], max_length=LENGTH)
    right = bahdanau_model.generate(SOURCES[:3], SEARCHES["beams"], max_length=LENGTH)
    np.testing.assert_array_equal(left.token_ids, right.token_ids)
    assert_close(left.log_probs, right.log_probs)


def test_masked_gaps_in_a_source_are_not_steps(bahdanau_model):
    whole = bahdanau_model.score([[4, 5, 6]], [[5, 6, 3]])
    assert_close(bahdanau_model.score([[4, 0, 5, 0, 6, 0]], [[5, 6, 3]]), whole)


def test_an_empty_source_leaves_the_probabilities_of_the_head(bahdanau_model):
    _, memory, mask, states = bahdanau_model._encode(np.array([[0]]))
    start = np.array([[2]])
    outputs = bahdanau_model.decoder(bahdanau_model.target(start), memory, mask, states)
    probabilities = np.exp(array(bahdanau_model.head(outputs))[0, 0])
    expected = np.log(probabilities / probabilities.sum())
    for token_id in range(4, SIZE):
        assert_close(bahdanau_model.score([[]], [[token_id]]), expected[[token_id]])


def test_streams_equal_generate(model):
    for search in ("greedy", "samples"):
        search = SEARCHES[search]
        if search.is_random:
            search = Sampling(1.5, seed=5)
        tokens = list(model.generate_stream(SOURCES, search, max_length=LENGTH))
        generated = model.generate(SOURCES, search, max_length=LENGTH).token_ids[:, 0]
        tokens = np.stack(tokens, axis=-1)
        np.testing.assert_array_equal(tokens, generated[:, : tokens.shape[1]])


def test_score_returns_the_attention_of_generate(bahdanau_model):
    result = bahdanau_model.generate(
        SOURCES, max_length=LENGTH, return_attention_scores=True
    )
    log_probs, attention = bahdanau_model.score(
        SOURCES, result, return_attention_scores=True
    )
    assert_close(log_probs, result.log_probs, atol=1e-4)
    assert_close(attention, result.attention)


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["bahdanau", "transformer"])
def test_half_precision_agrees_with_single_precision(kind, policy):
    model = random_model(kind)
    with dtype_policy(policy):
        half = random_model(kind)
    assert half.pointer_generator.compute_dtype == "float32"
    tolerance = 0.05 if policy == "mixed_float16" else 0.3
    expected = array(model(INPUTS))
    real = INPUTS["target"] != 0
    assert_close(array(half(INPUTS))[real], expected[real], atol=tolerance, rtol=0.1)
    result = half.generate(SOURCES, BeamSearch(2), max_length=LENGTH)
    assert_close(half.score(SOURCES, result), result.log_probs, atol=0.2, rtol=0.05)


LOAD = """
import sys
import keras, kseq
import numpy as np
model = keras.saving.load_model(sys.argv[1])
result = model.generate([[4, 5, 6, 7, 10], [8]], max_length=5)
np.save(sys.argv[2], result.log_probs)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["luong, aligned", "ensemble"])
def test_a_saved_model_copies_in_a_new_process(kind, tmp_path):
    model = random_model(kind)
    model.save(tmp_path / "model.keras")
    paths = str(tmp_path / "model.keras"), str(tmp_path / "log_probs.npy")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = model.generate([[4, 5, 6, 7, 10], [8]], max_length=5).log_probs
    assert_close(np.load(paths[1]), expected)


@pytest.mark.thorough(all_but=1)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it exports")
@pytest.mark.parametrize("format", ["tf_saved_model", "onnx", "litert"])
@pytest.mark.parametrize("kind", ["luong, aligned", "transformer"])
def test_an_exported_file_copies_without_kseq(kind, format, tmp_path):
    model, search = random_model(kind), SEARCHES["beams"]
    shapes = {"source_shape": (3, 5)} if format == "litert" else {}
    path = exported(model, tmp_path, search, format, **shapes)
    source = np.array([[4, 5, 6, 7, 10], [8, 0, 0, 0, 0], [9, 10, 4, 0, 0]], "int32")
    [outputs] = run_file(path, {"source": source})
    result = model.generate(source, search, LENGTH)
    np.testing.assert_array_equal(outputs["token_ids"], result.token_ids)
    assert_close(outputs["log_probs"], result.log_probs)


def test_coverage_loss_is_added_in_training_only():
    labels = np.array([[5, 6, 3], [4, 3, 0], [3, 0, 0]])
    totals = []
    for coverage in (0.0, 2.0):
        copy = PointerGenerator(coverage=coverage, name="pointer_generator")
        model = random_model("bahdanau", copy=copy)
        model.compile("sgd", kseq.training.SequenceCrossentropy())
        before = model.evaluate(INPUTS, labels, verbose=0)
        totals.append(model.train_on_batch(INPUTS, labels))
        assert_close(totals[0], before, atol=1e-4)
    weights = array(
        random_model("bahdanau").read(INPUTS["source"], INPUTS["target"], True)[1]
    )
    real = INPUTS["target"] != 0
    weights = weights * real[..., None]
    covered = weights.cumsum(axis=1) - weights
    expected = 2.0 * np.minimum(weights, covered).sum() / real.sum()
    assert_close(totals[1] - totals[0], expected, atol=1e-4)


# Models that can copy -----------------------------------------------------------------


def test_models_have_no_pointer_generator_by_default():
    for copy in (None, False):
        assert bahdanau(copy=copy).pointer_generator is None


@pytest.mark.thorough
def test_an_ensemble_copies_only_if_its_models_copy_alike():
    assert ensemble().pointer_generator.alignment is None
    assert kseq.ensemble([bahdanau(), bahdanau(copy=None)]).pointer_generator is None
    other = bahdanau(copy=list(range(SIZE)))
    assert kseq.ensemble([bahdanau(), other]).pointer_generator is None


REJECTED = {
    "no attention": (
        lambda: kseq.encoder_decoder(
            SIZE, SIZE, decoder=RecurrentDecoder("gru", 6), width=6, copy=True
        ),
        "decoder with attention to the source. Received: .*RecurrentDecoder",
    ),
    "a prefix decoder": (
        lambda: kseq.encoder_decoder(
            SIZE,
            SIZE,
            decoder=TransformerDecoder(1, 2, cross_attention=False),
            width=6,
            copy=True,
        ),
        "decoder with attention to the source. Received: .*TransformerDecoder",
    ),
    "images": (
        lambda: kseq.encoder_decoder(
            PatchEmbedding((4, 6, 1), 2, 6), SIZE, "transformer", width=6, copy=True
        ),
        "source of token ids, one for each step. Received: .*PatchEmbedding",
    ),
    "several sources": (
        lambda: kseq.encoder_decoder(
            {"lemma": SIZE, "tags": 7}, SIZE, width=6, copy=True
        ),
        r"name those to copy from. Received: copy=True .*\['lemma', 'tags'\]",
    ),
    "two vocabularies": (
        lambda: kseq.encoder_decoder(SIZE, 7, width=6, copy=True),
        "one vocabulary .*Received: 11 token ids in the source, 7",
    ),
    "an alignment of another vocabulary": (
        lambda: luong(copy=ALIGNMENT[:-1]),
        "Received: 10 ids up to 6, with 11 token ids in the source and 7",
    ),
    "an alignment to another vocabulary": (
        lambda: luong(copy=[7] * SIZE),
        "Received: 11 ids up to 7, with 11 token ids in the source and 7",
    ),
    "words in place of ids": (
        lambda: luong(copy="words"),
        "`alignment` must be integers",
    ),
    "source dropout": (
        lambda: bahdanau(source_dropout=0.1),
        "cannot be trained without its source.* Received: .*source_dropout=0.1",
    ),
    "numbers": (
        lambda: kseq.encoder_decoder(
            SIZE, kseq.layers.FeatureEmbedding(1, 6), width=6, copy=True
        ),
        "`copy` needs a target of tokens.* Received",
    ),
    "CTranslate2": (
        lambda: kseq.encoder_decoder(
            SIZE, SIZE, "transformer", "transformer", width=6, copy=True
        ).export_generation("nowhere", format="ctranslate2"),
        "needs a model without `copy`. Received: PointerGenerator",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rejects_models_that_cannot_copy(case):
    call, message = REJECTED[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
