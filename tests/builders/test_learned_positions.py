"""Sequences with more steps than learned positions: one rule for every method."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import (
    FeatureEmbedding,
    GridPositions,
    LearnedPositions,
    PatchEmbedding,
    TokenEmbedding,
)
from kseq.training import SequenceCrossentropy
from tests.helpers import array, assert_close, random_array, randomize

NUM_POSITIONS = 4
FITTING, LONG = [[5, 6, 7, 4], [5, 6]], [[5, 6, 7, 8, 4], [5, 6]]
PICTURES = random_array(2, 4, 6, 1)
PADDED = np.pad([[5, 6, 7, 4], [5, 6, 0, 0]], ((0, 0), (0, 7)))


def translator(positions="learned"):
    length = NUM_POSITIONS if positions == "learned" else None

    def embedding(size):
        return TokenEmbedding(size, 8, positions=positions, max_length=length)

    model = kseq.encoder_decoder(
        embedding(11), embedding(13), "transformer", "transformer", width=8
    )
    jit_compile = keras.backend.backend() == "jax"
    model.compile("sgd", SequenceCrossentropy(), jit_compile=jit_compile)
    return model


def padded_batch(source, target):
    return {
        name: np.array([row + [0] * (5 - len(row)) for row in rows], "int32")
        for name, rows in {"source": source, "target": target}.items()
    }


@pytest.mark.parametrize("positions", ["learned", "a layer"])
@pytest.mark.parametrize(
    "source, target", [(LONG, FITTING), (FITTING, LONG)], ids=["source", "target"]
)
def test_every_method_rejects_a_long_sequence(source, target, positions):
    model = translator(
        "learned" if positions == "learned" else LearnedPositions(NUM_POSITIONS)
    )
    with pytest.raises(ValueError, match="its embedding has learned positions"):
        model.score(source, target)
    if source is LONG:
        with pytest.raises(ValueError, match="its embedding has learned positions"):
            model.generate(source, max_length=2)
    else:
        with pytest.raises(ValueError, match="max_length=5 with a target of"):
            model.generate(source, max_length=5)
    batch = padded_batch(source, target)
    with pytest.raises(ValueError, match="more steps than there are learned"):
        model(batch)
    if keras.backend.backend() == "jax":  # cannot raise from a compiled function
        assert np.isnan(model.predict(batch, verbose=0)).any()
        assert np.isnan(model.fit(batch, batch["target"], verbose=0).history["loss"][0])
        return
    for method in (model.predict, lambda x, **o: model.fit(x, x["target"], **o)):
        with pytest.raises(Exception, match="more steps than there are learned"):
            method(batch, verbose=0)


def test_every_method_rejects_a_long_series():
    series = FeatureEmbedding(2, 8, positions="learned", max_length=NUM_POSITIONS)
    model = kseq.encoder_decoder(series, 13, "transformer", "gru", width=8)
    with pytest.raises(ValueError, match="its embedding has learned positions"):
        model.generate(random_array(2, 5, 2), max_length=2)
    with pytest.raises(ValueError, match="more steps than there are learned"):
        kseq.many_to_one(series, 3, "transformer", width=8)(random_array(2, 5, 2))


def test_grid_positions_limit_the_length(tmp_path):
    target = TokenEmbedding(13, 8, positions=GridPositions(2, NUM_POSITIONS // 2))
    model = kseq.encoder_decoder(11, target, "gru", "transformer", width=8)
    with pytest.raises(ValueError, match="max_length=5 with a target of"):
        model.generate(FITTING, max_length=5)
    with pytest.raises(ValueError, match="its embedding has learned positions"):
        model.score(FITTING, LONG)
    result = model.generate(LONG, max_length=NUM_POSITIONS)
    assert_close(model.score(LONG, result), result.log_probs, atol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded.score(LONG, result), result.log_probs, atol=1e-4)


@pytest.mark.parametrize(
    "make, inputs",
    [
        (lambda p: TokenEmbedding(11, 8, positions=p), np.ones((2, 6), "int32")),
        (lambda p: FeatureEmbedding(5, 8, positions=p), random_array(2, 6, 5)),
        (lambda p: PatchEmbedding((4, 6, 1), 2, 8, positions=p), PICTURES),
    ],
    ids=["tokens", "features", "patches"],
)
def test_every_embedding_takes_grid_positions(make, inputs):
    embedding, positions = make(None), GridPositions(2, 3)
    on_a_grid = make(positions)
    for layer in (embedding, on_a_grid):
        layer(inputs)
        randomize(layer)
    added = array(positions.row_table)[:, None] + array(positions.column_table)
    weights = on_a_grid.get_weights()
    embedding.set_weights([w for w in weights if w.shape not in ((2, 8), (3, 8))])
    expected = array(embedding(inputs)) + added.reshape(6, 8)
    assert_close(on_a_grid(inputs), expected)


def test_padding_does_not_count_as_steps():
    model = translator()
    targets = [[5, 6, 7, 3], [5, 3]]
    padded = np.pad([[5, 6, 7, 3], [5, 3, 0, 0]], ((0, 0), (0, 9)))
    expected = model.score(FITTING, targets)
    assert np.isfinite(expected).all()
    assert_close(model.score(PADDED, padded), expected, atol=1e-4)
    logits = [
        array(model({"source": np.array(source), "target": padded[:, :4]}))
        for source in (PADDED[:, :4], PADDED)
    ]
    assert_close(*logits, atol=1e-4)
