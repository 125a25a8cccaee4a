"""The encoder-decoder: combinations of components, saved files and learning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch
from kseq.layers import RecurrentDecoder, RecurrentEncoder, TokenEmbedding
from tests.helpers import array, assert_close, dtype_policy, randomize

SOURCE_SIZE, TARGET_SIZE = 11, 7
SOURCES = [[4, 5, 6, 7, 10], [8, 2], [9], [], [5, 5, 3]]
SEARCH = BeamSearch(3, 0.6)
INPUTS = {
    "source": np.array([[4, 5, 6, 7], [0, 0, 8, 2], [9, 1, 0, 0]]),
    "target": np.array([[2, 5, 6], [2, 4, 0], [2, 0, 0]]),
}
LABELS = np.array([[5, 6, 3], [4, 3, 0], [3, 0, 0]])

# Every decoder cell with every attention, and both with every encoder cell.
COMBINATIONS = [
    ("lstm", 1, True, "rnn", 2, "bahdanau"),
    ("gru", 2, False, "rnn", 1, "luong"),
    ("rnn", 1, True, "rnn", 3, "luong, not fed"),
    ("lstm", 2, False, "rnn", 1, None),
    ("gru", 1, True, "lstm", 2, "bahdanau"),
    ("rnn", 2, True, "lstm", 1, "luong"),
    ("lstm", 3, False, "lstm", 2, "luong, not fed"),
    ("gru", 2, True, "lstm", 1, None),
    ("rnn", 2, False, "gru", 1, "bahdanau"),
    ("lstm", 1, True, "gru", 2, "luong"),
    ("gru", 1, False, "gru", 1, "luong, not fed"),
    ("rnn", 1, True, "gru", 2, None),
]
TRAINED = [COMBINATIONS[i] for i in (0, 5, 10, 3)]  # one for each attention


def combination_name(combination):
    encoder, depth, bidirectional, decoder, decoder_depth, attention = combination
    kind = "bi" if bidirectional else ""
    return f"{depth} {kind}{encoder}, {decoder_depth} {decoder}, {attention}"


def make_model(
    encoder, depth, bidirectional, decoder, decoder_depth, attention, dtype=None
):
    model = kseq.encoder_decoder(
        source=TokenEmbedding(SOURCE_SIZE, 5, dtype=dtype),
        encoder=RecurrentEncoder(encoder, 3, depth, bidirectional, dtype=dtype),
        target=TokenEmbedding(TARGET_SIZE, 7, dtype=dtype),
        decoder=RecurrentDecoder(
            decoder,
            5,
            decoder_depth,
            attention="luong" if attention == "luong, not fed" else attention,
            input_feeding=attention != "luong, not fed",
            dtype=dtype,
        ),
    )
    randomize(model)
    return model


@pytest.fixture(scope="module", params=COMBINATIONS, ids=combination_name)
def generated(request):
    """Return a model and its hypotheses."""
    model = make_model(*request.param)
    return model, model.generate(SOURCES, SEARCH, max_length=5)


def assert_same_hypotheses(result, expected):
    """Check that two `Generation`s are equal."""
    np.testing.assert_array_equal(result.token_ids, expected.token_ids)
    assert_close(result.log_probs, expected.log_probs)


@pytest.mark.thorough(all_but=3)
def test_score_returns_the_log_probs_of_generate_for_every_combination(generated):
    model, result = generated
    assert result.token_ids.shape == (len(SOURCES), 3, 5)
    assert np.isfinite(result.log_probs).all()
    assert_close(model.score(SOURCES, result), result.log_probs)


@pytest.mark.thorough(all_but=3)
def test_every_combination_generates_the_same_after_loading(generated, tmp_path):
    model, result = generated
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())
    assert_same_hypotheses(loaded.generate(SOURCES, SEARCH, max_length=5), result)


@pytest.mark.parametrize("combination", TRAINED, ids=combination_name)
def test_one_training_step_changes_every_weight_and_survives_saving(
    combination, tmp_path
):
    model = make_model(*combination)
    before = [array(weight) for weight in model.trainable_weights]
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=keras.backend.backend() == "tensorflow",  # tracing takes longer
        jit_compile=False if keras.backend.backend() == "torch" else "auto",
    )
    model.fit(INPUTS, LABELS, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(array(weight)).all(), weight.path
        assert (array(weight) != old).any(), f"no gradient reaches {weight.path}"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(INPUTS), model(INPUTS))


def test_special_token_ids_and_names_are_saved(tmp_path):
    model = kseq.encoder_decoder(
        source=TokenEmbedding(11, 5, pad_token_id=4),
        target=TokenEmbedding(7, 5, pad_token_id=4),
        width=5,
        head=keras.layers.Dense(7, name="own_head"),
        start_token_id=5,
        end_token_id=6,
        name="reader",
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.start_token_id, loaded.end_token_id) == (5, 6)
    assert (loaded.source.pad_token_id, loaded.pad_token_id) == (4, 4)
    assert (loaded.name, loaded.head.name) == ("reader", "own_head")


# Components -------------------------------------------------------------------------


def shapes(model):
    return [tuple(weight.shape) for weight in model.weights]


def test_names_and_sizes_build_layers():
    short = kseq.encoder_decoder(11, 7, encoder="lstm", decoder="rnn", width=5)
    long = kseq.encoder_decoder(
        source=TokenEmbedding(11, 5),
        target=TokenEmbedding(7, 5),
        encoder=RecurrentEncoder("lstm", 5),
        decoder=RecurrentDecoder("rnn", 5, attention="bahdanau"),
        head=keras.layers.Dense(7),
    )
    assert shapes(short) == shapes(long)
    assert short.decoder.attention_order == "bahdanau"
    assert short.output_shape == (None, None, 7)


def test_sizes_may_be_numpy_integers_and_layers_default_to_gru():
    model = kseq.encoder_decoder(np.int64(11), np.int32(7), width=5)
    assert (model.encoder.cell, model.decoder.cell) == ("gru", "gru")
    assert shapes(model) == shapes(kseq.encoder_decoder(11, 7, "gru", "gru", 5))


def test_any_keras_layer_that_keeps_the_steps_can_be_the_encoder():
    model = kseq.encoder_decoder(
        11, 7, encoder=keras.layers.LSTM(3, return_sequences=True), width=5
    )
    randomize(model)
    result = model.generate(SOURCES, max_length=5)
    assert_close(model.score(SOURCES, result), result.log_probs)


def test_rejects_an_encoder_that_returns_one_vector():
    encoder = keras.layers.LSTM(32, name="lstm_1")
    with pytest.raises(ValueError) as error:
        kseq.encoder_decoder(11, 7, encoder=encoder, width=5)
    assert "`encoder` must return one vector for each step" in str(error.value)
    assert "encoder=lstm_1, which returns (None, 32)" in str(error.value)
    assert "`return_sequences=True`" in str(error.value)


@pytest.mark.parametrize("component", ["encoder", "decoder"])
def test_rejects_unknown_encoder_and_decoder_names(component):
    with pytest.raises(
        ValueError, match=f"`{component}` must be one of .*{component}='elman'"
    ):
        kseq.encoder_decoder(11, 7, width=5, **{component: "elman"})


def test_rejects_an_unknown_attention():
    with pytest.raises(ValueError, match="`attention` must be .*attention='additive'"):
        RecurrentDecoder("gru", 5, attention="additive")


def test_rejects_an_invalid_vocabulary_size():
    with pytest.raises(ValueError, match="`vocabulary_size` must be .*size=0"):
        kseq.encoder_decoder(0, 7, width=5)


@pytest.mark.parametrize("component", ["source", "target", "encoder", "decoder"])
@pytest.mark.parametrize("value", [True, None, 2.5])
def test_rejects_a_component_that_is_not_a_layer(component, value):
    components = {"source": 11, "target": 7, component: value}
    with pytest.raises(ValueError, match=f"must be a layer, or the .*: {value}"):
        kseq.encoder_decoder(**components, width=5)


@pytest.mark.parametrize("option", ["start_token_id", "end_token_id"])
@pytest.mark.parametrize("token_id", [0, 7, -1])
def test_start_and_end_must_be_tokens_of_the_target(option, token_id):
    with pytest.raises(
        ValueError, match=f"`{option}` must be .*7.*{option}={token_id}"
    ):
        kseq.encoder_decoder(11, 7, "rnn", "rnn", 5, **{option: token_id})


def test_rejects_a_request_for_attention_without_attention():
    model = kseq.encoder_decoder(11, 7, decoder=RecurrentDecoder("rnn", 5), width=5)
    with pytest.raises(ValueError, match="Attention scores need attention"):
        model.generate(SOURCES, max_length=2, return_attention_scores=True)


# Half precision ---------------------------------------------------------------------


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize(
    "dtype, decoder, attention, tolerance",
    [
        ("mixed_float16", "lstm", "bahdanau", 0.02),
        ("mixed_bfloat16", "gru", "luong", 0.15),
        ("float16", "gru", "bahdanau", 0.02),
    ],
)
def test_half_precision_generates_with_float32_scores(
    dtype, decoder, attention, tolerance
):
    model = make_model("gru", 1, True, decoder, 2, attention, dtype)
    assert keras.backend.standardize_dtype(model(INPUTS).dtype) == "float32"
    result = model.generate(SOURCES, SEARCH, max_length=5)
    assert result.log_probs.dtype == np.float32
    assert np.isfinite(result.log_probs).all()
    scores = model.score(SOURCES, result)
    assert_close(scores, result.log_probs, atol=tolerance, rtol=tolerance)
    precise = make_model("gru", 1, True, decoder, 2, attention)
    scores = precise.score(SOURCES, result)
    assert_close(scores, result.log_probs, atol=tolerance, rtol=tolerance)


def test_a_global_half_precision_policy_reaches_layers_given_by_name():
    with dtype_policy("mixed_bfloat16"):
        model = kseq.encoder_decoder(11, 7, encoder="rnn", decoder="rnn", width=5)
        assert model.decoder.compute_dtype == "bfloat16"
        assert keras.backend.standardize_dtype(model(INPUTS).dtype) == "float32"
        result = model.generate(SOURCES, max_length=3, return_attention_scores=True)
        assert np.isfinite(result.log_probs).all()
        assert result.attention.dtype == np.float32


# Learning ---------------------------------------------------------------------------


def reversed_pairs(rows, seed):
    """Return random sequences and their reverses."""
    random = np.random.default_rng(seed)
    sources = [random.integers(4, 12, random.integers(2, 7)) for _ in range(rows)]
    return [x.tolist() for x in sources], [x[::-1].tolist() for x in sources]


def padded(rows, length):
    return np.array([row + [0] * (length - len(row)) for row in rows])


def exact_match_rate(result, targets):
    expected = padded([[*row, 3] for row in targets], 8)
    return np.mean((result.token_ids[:, 0] == expected).all(axis=-1))


@pytest.fixture(scope="module")
def reverser():
    """Return a model trained to reverse, and its exact match rate before training."""
    keras.utils.set_random_seed(7)
    model = kseq.encoder_decoder(
        source=12,
        target=12,
        encoder=RecurrentEncoder("gru", 32, bidirectional=True),
        decoder=RecurrentDecoder("gru", 32, attention="bahdanau"),
        width=32,
    )
    held_out, expected = reversed_pairs(100, seed=1)
    before = exact_match_rate(model.generate(held_out, max_length=8), expected)

    sources, targets = reversed_pairs(2048, seed=0)
    target = padded([[2, *row, 3] for row in targets], 9)
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    )
    inputs = {"source": padded(sources, 8), "target": target[:, :-1]}
    model.fit(inputs, target[:, 1:], batch_size=64, epochs=5, verbose=0)
    return model, before


def test_a_small_model_learns_to_reverse_and_generates_with_new_weights(reverser):
    model, before = reverser
    sources, targets = reversed_pairs(100, seed=1)
    result = model.generate(sources, max_length=8)  # compiled before the training
    assert before < 0.1
    assert exact_match_rate(result, targets) > 0.9
    assert_close(model.score(sources, result), result.log_probs)


def test_the_learned_attention_reads_the_source_backwards(reverser):
    sources, _ = reversed_pairs(20, seed=1)
    result = reverser[0].generate(sources, max_length=8, return_attention_scores=True)
    right = [
        weights[0, : len(row)].argmax(axis=-1) == np.arange(len(row))[::-1]
        for row, weights in zip(sources, result.attention, strict=True)
    ]
    assert np.mean(np.concatenate(right)) > 0.9


LOAD_AND_GENERATE = """
import json, sys
import kseq, keras

model = keras.saving.load_model(sys.argv[1])
search = kseq.decoding.BeamSearch(num_beams=3, length_penalty=0.6)
result = model.generate(json.loads(sys.argv[2]), search, max_length=8)
print(json.dumps([result.token_ids.tolist(), result.log_probs.tolist()]))
"""


def test_a_new_process_loads_the_file_and_generates_the_same(reverser, tmp_path):
    model, _ = reverser
    sources, _ = reversed_pairs(7, seed=2)
    model.save(tmp_path / "model.keras")
    arguments = [str(tmp_path / "model.keras"), json.dumps(sources)]
    output = subprocess.run(
        [sys.executable, "-c", LOAD_AND_GENERATE, *arguments],
        cwd=tmp_path,
        env={
            **os.environ,
            "KERAS_BACKEND": keras.backend.backend(),
            "PYTHONPATH": str(Path(kseq.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    token_ids, log_probs = json.loads(output.stdout.splitlines()[-1])
    expected = model.generate(sources, SEARCH, max_length=8)
    assert token_ids == expected.token_ids.tolist()
    assert_close(np.array(log_probs), expected.log_probs)


def test_a_custom_padding_id_works_in_generate_and_score():
    embeddings = [TokenEmbedding(size, 5, pad_token_id=1) for size in (11, 13)]
    model = kseq.encoder_decoder(*embeddings, width=5)
    source = [[4, 5, 0], [7]]
    together = model.generate(source, max_length=3)
    alone = model.generate(source[1:], max_length=3)
    np.testing.assert_array_equal(together.token_ids[1:], alone.token_ids)
    np.testing.assert_allclose(
        model.score(source, together), together.log_probs, atol=1e-5
    )


def test_rejects_different_padding_ids():
    source = TokenEmbedding(11, 5, pad_token_id=1)
    with pytest.raises(ValueError, match="source with pad_token_id=1"):
        kseq.encoder_decoder(source, 13, width=5)
