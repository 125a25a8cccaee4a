"""Combinations of all embeddings, encoders, poolings and decoders in every builder."""

import itertools

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch
from kseq.layers import (
    ClassEmbedding,
    ConvEncoder,
    FeatureEmbedding,
    PatchEmbedding,
    RecurrentDecoder,
    RecurrentEncoder,
    TokenEmbedding,
    TransformerDecoder,
    TransformerEncoder,
    VectorEmbedding,
)
from tests.helpers import array, assert_close, random_array, randomize

B, S, T, VOCABULARY, TARGET_SIZE, FEATURES, WIDTH, OUTPUTS = 3, 5, 4, 11, 7, 2, 6, 3

TOKENS = np.array([[4, 5, 6, 7, 2], [8, 2, 0, 0, 0], [9, 1, 3, 0, 0]], "int32")
TARGET = np.array([[2, 5, 6, 4], [2, 4, 0, 0], [2, 0, 0, 0]], "int32")
LABELS = np.array([[5, 6, 4, 3], [4, 3, 0, 0], [3, 0, 0, 0]], "int32")
SEARCH = BeamSearch(2)

SOURCES = {
    "tokens": (
        lambda: TokenEmbedding(VOCABULARY, WIDTH, positions="sinusoidal", scale=True),
        TOKENS,
    ),
    "features": (
        lambda: FeatureEmbedding(FEATURES, WIDTH, mask_value=0.0),
        random_array(B, S, FEATURES) * (TOKENS != 0)[..., None],
    ),
    "patches": (
        lambda: PatchEmbedding((4, 6, 1), 2, WIDTH),
        random_array(B, 4, 6, 1),
    ),
}
CONDITIONS = {
    "a class": (lambda: ClassEmbedding(5, WIDTH), np.array([4, 0, 2], "int32")),
    "a vector": (lambda: VectorEmbedding(FEATURES, WIDTH), random_array(B, FEATURES)),
    "a picture": SOURCES["patches"],
}
ENCODERS = {
    "gru": lambda: RecurrentEncoder("gru", 5),
    "mingru": lambda: RecurrentEncoder("mingru", 5),
    "2 bi-lstm": lambda: RecurrentEncoder("lstm", 5, 2, bidirectional=True),
    "transformer": lambda: TransformerEncoder(2, 2),
    "rotary transformer": lambda: TransformerEncoder(1, 2, width=8, rotary=True),
    "conv": lambda: ConvEncoder(5, 2),
    "causal conv": lambda: ConvEncoder(6, 2, causal=True, gated=True),
}
WITHOUT_CLASS_TOKEN = ("gru", "mingru", "conv", "causal conv")
DECODERS = {
    "gru, bahdanau": lambda: RecurrentDecoder("gru", 5, attention="bahdanau"),
    "lstm, luong": lambda: RecurrentDecoder("lstm", 5, 2, attention="luong"),
    "gru, no attention": lambda: RecurrentDecoder("gru", 5),
    "mingru, bahdanau": lambda: RecurrentDecoder("mingru", 5, attention="bahdanau"),
    "transformer": lambda: TransformerDecoder(2, 2),
    "prefix": lambda: TransformerDecoder(1, 3, cross_attention=False, rotary=True),
}
WITHOUT_MEMORY = ["gru, no attention", "prefix"]
pytestmark = pytest.mark.usefixtures("untraced")
POOLINGS = ["mean", "max", "last", "class_token", "attention"]


def cases_of_backend(cases):
    """Return all cases on TensorFlow, and every eighth on other backends."""
    return cases if keras.backend.backend() == "tensorflow" else cases[::8]


def check_training_and_saving(model, inputs, labels, path):
    """Check that a training step is finite and that saving keeps the outputs."""
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=keras.backend.backend() == "tensorflow",  # tracing takes longer
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    before = [array(weight) for weight in model.trainable_weights]
    assert np.isfinite(model.train_on_batch(inputs, labels)).all()
    weights = zip(model.trainable_weights, before, strict=True)
    assert any((array(weight) != old).any() for weight, old in weights)
    model.save(path / "model.keras")
    loaded = keras.saving.load_model(path / "model.keras")
    assert type(loaded) is type(model)
    assert_close(loaded(inputs), model(inputs))
    return loaded


def check_generation(model, loaded, source):
    """Check that the loaded model returns the log-probabilities of `generate`."""
    result = model.generate(source, SEARCH, max_length=T)
    assert_close(loaded.score(source, result), result.log_probs, atol=1e-4)


MANY_TO_ONE = [
    (source, encoder, POOLINGS[i % len(POOLINGS)])
    for i, (source, encoder) in enumerate(itertools.product(SOURCES, ENCODERS))
]


@pytest.mark.parametrize("source, encoder, pooling", cases_of_backend(MANY_TO_ONE))
def test_many_to_one_trains_and_survives_saving(source, encoder, pooling, tmp_path):
    if encoder in WITHOUT_CLASS_TOKEN and pooling == "class_token":
        pooling = "last"
    embedding, inputs = SOURCES[source]
    model = kseq.many_to_one(embedding(), OUTPUTS, ENCODERS[encoder](), pooling)
    assert model.output_shape == (None, OUTPUTS)
    check_training_and_saving(model, inputs, np.array([0, 2, 1]), tmp_path)


@pytest.mark.parametrize(
    "source, encoder", cases_of_backend(list(itertools.product(SOURCES, ENCODERS)))
)
def test_many_to_many_trains_and_survives_saving(source, encoder, tmp_path):
    embedding, inputs = SOURCES[source]
    model = kseq.many_to_many(embedding(), OUTPUTS, ENCODERS[encoder]())
    length = model(inputs).shape[1]
    labels = np.ones((B, length), "int32")
    check_training_and_saving(model, inputs, labels, tmp_path)


ENCODER_DECODER = [
    (list(SOURCES)[i % len(SOURCES)], encoder, decoder)
    for i, (encoder, decoder) in enumerate(itertools.product(ENCODERS, DECODERS))
]


@pytest.mark.thorough(all_but=3)
@pytest.mark.parametrize("source, encoder, decoder", cases_of_backend(ENCODER_DECODER))
def test_encoder_decoder_trains_and_generates_after_loading(
    source, encoder, decoder, tmp_path
):
    embedding, inputs = SOURCES[source]
    model = kseq.encoder_decoder(
        source=embedding(),
        target=TokenEmbedding(TARGET_SIZE, WIDTH, positions="learned", max_length=T),
        encoder=ENCODERS[encoder](),
        decoder=DECODERS[decoder](),
    )
    randomize(model)
    pair = {"source": inputs, "target": TARGET}
    loaded = check_training_and_saving(model, pair, LABELS, tmp_path)
    check_generation(model, loaded, inputs)


ONE_TO_MANY = list(itertools.product(CONDITIONS, DECODERS))


@pytest.mark.parametrize("condition, decoder", cases_of_backend(ONE_TO_MANY))
def test_one_to_many_trains_and_generates_after_loading(condition, decoder, tmp_path):
    embedding, inputs = CONDITIONS[condition]
    model = kseq.one_to_many(
        TokenEmbedding(TARGET_SIZE, WIDTH, positions="sinusoidal"),
        embedding(),
        encoder=TransformerEncoder(1, 2) if condition == "a picture" else None,
        decoder=DECODERS[decoder](),
    )
    randomize(model)
    pair = {"source": inputs, "target": TARGET}
    loaded = check_training_and_saving(model, pair, LABELS, tmp_path)
    check_generation(model, loaded, inputs)


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("decoder", WITHOUT_MEMORY)
def test_one_to_many_generates_without_a_condition(decoder, tmp_path):
    model = kseq.one_to_many(
        TokenEmbedding(TARGET_SIZE, WIDTH),
        decoder=DECODERS[decoder](),
        tie_embeddings=None if decoder.startswith(("gru", "mingru")) else "target",
    )
    randomize(model)
    inputs = {"target": TARGET}
    loaded = check_training_and_saving(model, inputs, LABELS, tmp_path)
    result = model.generate(B, SEARCH, max_length=T)
    assert result.token_ids.shape == (B, 2, T)
    assert_close(loaded.score(None, result), result.log_probs, atol=1e-4)


@pytest.mark.parametrize("pooling", cases_of_backend(POOLINGS))
def test_vision_transformer_trains_and_survives_saving(pooling, tmp_path):
    model = kseq.vision_transformer(
        (4, 6, 1), 2, OUTPUTS, width=8, num_layers=1, num_heads=2, pooling=pooling
    )
    inputs = SOURCES["patches"][1]
    check_training_and_saving(model, inputs, np.array([0, 2, 1]), tmp_path)


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("tied", cases_of_backend(["all", "target"]))
def test_tied_embeddings_stay_tied_after_loading(tied, tmp_path):
    model = kseq.encoder_decoder(
        TARGET_SIZE,
        TARGET_SIZE,
        encoder="transformer",
        decoder="transformer",
        width=8,
        tie_embeddings=tied,
    )
    tables = [w for w in model.weights if tuple(w.shape) == (TARGET_SIZE, 8)]
    assert len(tables) == (1 if tied == "all" else 2)
    randomize(model)
    pair = {"source": TARGET, "target": TARGET}
    loaded = check_training_and_saving(model, pair, LABELS, tmp_path)
    assert len(loaded.weights) == len(model.weights)
    check_generation(model, loaded, TARGET)


def test_attention_has_a_weight_for_each_source_position():
    source, decoder = SOURCES["tokens"], DECODERS["transformer"]
    model = kseq.encoder_decoder(
        source[0](), TARGET_SIZE, TransformerEncoder(1, 2), decoder(), width=WIDTH
    )
    result = model.generate(TOKENS, SEARCH, T, return_attention_scores=True)
    assert result.attention.shape == (B, 2, 2, 2, T, S)  # beams, layers, heads
    is_token = result.token_ids[0, 0] != 0
    assert_close(result.attention[0, 0, :, :, is_token].sum(axis=-1), 1.0)
    assert (result.attention[1, ..., 2:] == 0).all()


def test_generation_equals_training_with_an_encoder_that_shortens_the_source():
    model = kseq.encoder_decoder(
        FeatureEmbedding(FEATURES, WIDTH),
        TARGET_SIZE,
        encoder=keras.layers.Conv1D(WIDTH, 2, strides=2),
        decoder=DECODERS["gru, bahdanau"](),
        width=WIDTH,
    )
    series = SOURCES["features"][1]
    result = model.generate(series, SEARCH, T)
    shifted = np.pad(result.token_ids[:, 0, :-1], ((0, 0), (1, 0)), constant_values=2)
    logits = array(model({"source": series, "target": shifted}))
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    ids = result.token_ids[:, 0]
    chosen = np.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0] * (ids != 0)
    assert_close(chosen.sum(axis=-1), result.log_probs[:, 0], atol=1e-4)


def test_series_of_different_lengths_are_padded():
    embedding = FeatureEmbedding(FEATURES, WIDTH, mask_value=-1.0)
    model = kseq.encoder_decoder(embedding, TARGET_SIZE, width=WIDTH)
    rows = [random_array(length, FEATURES) for length in (3, 7, 2)]
    result = model.generate(rows, SEARCH, T)
    for row, log_probs in zip(rows, result.log_probs, strict=True):
        assert_close(model.generate([row], SEARCH, T).log_probs[0], log_probs)


@pytest.mark.parametrize(
    "condition, source, steps",
    [
        (*CONDITIONS["a class"], 1),
        (*CONDITIONS["a picture"], 6),
        (*SOURCES["tokens"], S),
        (lambda: None, B, 0),
    ],
    ids=["a class", "a picture", "tokens", "nothing"],
)
def test_attention_of_a_prefix_decoder_covers_only_the_source(condition, source, steps):
    model = kseq.one_to_many(
        TARGET_SIZE, condition(), decoder=DECODERS["prefix"](), width=WIDTH
    )
    result = model.generate(source, SEARCH, T, return_attention_scores=True)
    weights = result.attention
    assert weights.shape == (B, 2, 1, 3, T, steps)  # beams, layers, heads
    assert (weights[0].sum(axis=-1) < 1).all()


# Errors -----------------------------------------------------------------------------


def test_rejects_embeddings_that_cannot_be_tied():
    embeddings = [TokenEmbedding(TARGET_SIZE, WIDTH) for _ in range(2)]
    with pytest.raises(ValueError, match="pass the same layer twice"):
        kseq.encoder_decoder(*embeddings, tie_embeddings="all")
    with pytest.raises(ValueError, match="`tie_embeddings` must be one of"):
        kseq.encoder_decoder(7, 7, tie_embeddings="source")


def test_rejects_an_encoder_without_a_condition():
    with pytest.raises(ValueError, match="An encoder needs a condition"):
        kseq.one_to_many(TARGET_SIZE, encoder="gru")


def test_rejects_attention_without_a_memory():
    with pytest.raises(ValueError, match="with attention needs a memory"):
        kseq.one_to_many(TARGET_SIZE, decoder=DECODERS["gru, bahdanau"]())
    with pytest.raises(ValueError, match="with cross-attention needs a memory"):
        kseq.one_to_many(TARGET_SIZE, decoder=DECODERS["transformer"]())


@pytest.mark.parametrize("source", [0, -1, 2.5, "a"])
def test_generation_without_a_condition_needs_a_number_of_rows(source):
    model = kseq.one_to_many(TARGET_SIZE, width=4)
    with pytest.raises(ValueError, match="`source` must be .*a positive integer"):
        model.generate(source)


def test_series_of_different_lengths_need_a_mask_value():
    embedding = FeatureEmbedding(FEATURES, WIDTH)
    model = kseq.encoder_decoder(embedding, TARGET_SIZE, width=WIDTH)
    with pytest.raises(ValueError, match="with a `mask_value` takes rows of different"):
        model.generate([np.ones((3, FEATURES)), np.ones((4, FEATURES))])


@pytest.mark.parametrize("labels", [[], 3, [[1, 2]]])
def test_rejects_conditions_of_another_shape(labels):
    model = kseq.one_to_many(TARGET_SIZE, 5, width=4)
    with pytest.raises(ValueError, match="`source` must have at least one row, shape"):
        model.generate(labels)


@pytest.mark.parametrize("label", [-1, 5, 3.5])
def test_rejects_an_unknown_class(label):
    model = kseq.one_to_many(TARGET_SIZE, 5, width=4)
    with pytest.raises(ValueError, match="`source` must hold integers from 0 to 4"):
        model.generate([label])


@pytest.mark.parametrize(
    "components, message",
    [
        ({"decoder": keras.layers.GRU(4)}, "must have methods `start` and `step`"),
        ({"head": "dense"}, "A head must be a layer"),
        (
            {"head": keras.layers.Dense(4, name="narrow")},
            r"`head` must .*head=narrow, which returns \(None, None, 4\), with vocabu",
        ),
        (
            {"start_token_id": 3},
            "must be different[\\s\\S]*start_token_id=3, end_token_",
        ),
        (
            {"encoder": "foo"},
            '`encoder` must be .*"transformer", "conv", or.*encoder=.foo',
        ),
        ({"encoder": "CNN"}, "Received: encoder='CNN'. Use `encoder=\"conv\"`."),
        ({"decoder": "conv"}, '`decoder` must be .*"transformer", or.*=.conv.\\.$'),
        (
            {"decoder": "foo"},
            '`decoder` must be .*"mingru", "transformer".*decoder=.foo',
        ),
        ({"tie_embeddings": True}, '`tie_embed.*"target", "all".*tie_embeddings=True'),
        ({"start_token_id": "<s>"}, "`start_token_id` must be a token[\\s\\S]*'<s>'"),
        ({"end_token_id": None}, "`end_token_id` must be a token[\\s\\S]*=None"),
    ],
)
def test_rejects_components_that_do_not_fit(components, message):
    with pytest.raises(ValueError, match=message):
        kseq.encoder_decoder(VOCABULARY, TARGET_SIZE, width=4, **components)


def test_rejects_more_tokens_than_learned_positions():
    target = TokenEmbedding(TARGET_SIZE, 4, positions="learned", max_length=T)
    model = kseq.one_to_many(target, 5, width=4)
    with pytest.raises(ValueError, match="max_length=9 with a target of max_length=4"):
        model.generate([3], max_length=9)


def test_a_target_must_be_tokens_or_numbers():
    with pytest.raises(ValueError, match="`target` must be an embedding of tokens"):
        kseq.encoder_decoder(VOCABULARY, PatchEmbedding((4, 4, 1), 2, 4), width=4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"search": "beam"}, "`search` must be a search object"),
        ({"search": BeamSearch}, "`search` must be a search object"),
        ({"max_length": True}, "`max_length` must be a positive integer"),
        ({"batch_size": 2.5}, "`batch_size` must be a positive integer"),
        ({"batch_size": None}, "`batch_size` must be a positive integer"),
        ({"source": None}, "`source` must be a positive integer"),
    ],
)
def test_generate_rejects_invalid_options(options, message):
    model = kseq.one_to_many(TARGET_SIZE, width=4)
    with pytest.raises(ValueError, match=message):
        model.generate(**{"source": 2, **options})


@pytest.mark.parametrize(
    "layer",
    [
        TransformerEncoder(2, 2),
        TransformerDecoder(2, 2, cross_attention=False),
        kseq.layers.TransformerEncoderBlock(2),
        kseq.layers.MultiHeadAttention(2),
        kseq.layers.MeanPooling(),
        kseq.layers.AttentionPooling(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_reject_inputs_that_are_not_sequences(layer):
    with pytest.raises(ValueError, match=r"must be a sequence of vectors, shape \(B"):
        layer(random_array(B, 6))
