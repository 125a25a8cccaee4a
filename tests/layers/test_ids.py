"""Ids outside the vocabulary: an error where possible, otherwise NaN."""

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.layers import ClassEmbedding, TokenEmbedding
from tests.helpers import array

SIZE = 5
EMBEDDINGS = {
    "tokens": (lambda: TokenEmbedding(SIZE, 4), [[1, 2, 0]]),
    "positions": (lambda: TokenEmbedding(SIZE, 4, positions="sinusoidal"), [[3, 1, 4]]),
    "classes": (lambda: ClassEmbedding(SIZE, 4), [4, 0]),
}
each_embedding = pytest.mark.parametrize(
    "make, ids", EMBEDDINGS.values(), ids=EMBEDDINGS
)
WRONG = [-1, SIZE, 1000, -100]


def with_wrong(ids, wrong):
    ids = np.array(ids, "int32")
    ids.flat[0] = wrong
    return ids


def run_compiled_on_jax(function, ids):
    """Return the result of a compiled function, which cannot check ids on JAX."""
    import jax

    return array(jax.jit(function)(ops.convert_to_tensor(ids)))


@each_embedding
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_an_embedding_rejects_unknown_ids(make, ids, wrong, dtype):
    layer = make()
    layer(np.array(ids))
    with pytest.raises(ValueError, match=f"must be ids from 0 to 4.* with {wrong}"):
        layer(with_wrong(ids, wrong).astype(dtype))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_loss_rejects_unknown_ids(wrong):
    logits = np.zeros((1, 3, SIZE), "float32")
    for smoothing in (0.0, 0.1):
        loss = kseq.training.SequenceCrossentropy(smoothing)
        with pytest.raises(ValueError, match=f"ids from 0 to 4.*y_true with {wrong}"):
            loss(np.array([[2, wrong, 0]]), logits)
    padded = kseq.training.SequenceCrossentropy(pad_token_id=wrong)
    assert np.isfinite(array(padded(np.array([[2, wrong, 0]]), logits)))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="others raise an error")
@pytest.mark.parametrize("wrong", WRONG)
def test_unknown_ids_give_nan_in_a_compiled_function(wrong):
    for make, ids in EMBEDDINGS.values():
        layer = make()
        layer(np.array(ids))
        vectors = run_compiled_on_jax(layer, with_wrong(ids, wrong)).reshape(-1, 4)
        assert np.isnan(vectors[0]).all() and np.isfinite(vectors[1]).all()
    loss = kseq.training.SequenceCrossentropy()
    logits = np.zeros((1, 3, SIZE), "float32")
    assert np.isnan(
        run_compiled_on_jax(lambda y: loss(y, logits), np.array([[2, wrong, 0]]))
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a graph")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_graph_rejects_unknown_ids(wrong):
    import tensorflow as tf

    layer = TokenEmbedding(SIZE, 4)
    layer(np.array([[1]]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(layer)(tf.constant([[wrong, 2]]))
