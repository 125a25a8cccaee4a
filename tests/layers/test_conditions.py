import keras
import numpy as np
import pytest

from kseq.layers import ClassEmbedding, VectorEmbedding
from tests.helpers import array, assert_close, check_layer, random_array, randomize

B, CLASSES, FEATURES, WIDTH = 3, 5, 7, 11

LABELS, VECTORS = np.array([4, 0, 2], "int32"), random_array(B, FEATURES)


def random_initializer():
    return keras.initializers.RandomNormal(stddev=0.3)


def test_class_embedding_keeps_the_contract_of_layers():
    check_layer(
        ClassEmbedding,
        {
            "num_classes": CLASSES,
            "width": WIDTH,
            "embeddings_initializer": random_initializer,
        },
        {"labels": LABELS},
    )


def test_vector_embedding_keeps_the_contract_of_layers():
    check_layer(
        VectorEmbedding,
        {
            "num_features": FEATURES,
            "width": WIDTH,
            "kernel_initializer": random_initializer,
        },
        {"features": VECTORS},
    )


def test_class_embedding_returns_a_memory_of_one_step():
    embedding = ClassEmbedding(CLASSES, WIDTH)
    memory = array(embedding(LABELS))
    assert memory.shape == (B, 1, WIDTH)
    assert_close(memory[:, 0], embedding.get_weights()[0][LABELS])


def test_vector_embedding_returns_a_memory_of_one_step():
    embedding = VectorEmbedding(FEATURES, WIDTH)
    embedding(VECTORS)
    randomize(embedding)
    kernel, bias = embedding.get_weights()
    memory = array(embedding(VECTORS))
    assert memory.shape == (B, 1, WIDTH)
    assert_close(memory[:, 0], VECTORS @ kernel + bias)


@pytest.mark.parametrize("layer", [ClassEmbedding, VectorEmbedding])
def test_sizes_must_be_positive(layer):
    with pytest.raises(ValueError, match="`num_.*` must be a positive integer"):
        layer(0, WIDTH)
    with pytest.raises(ValueError, match="`width` must be a positive integer"):
        layer(CLASSES, 0)


@pytest.mark.parametrize("shape", [(), (B, 1), (B, 7), (B, 1, 1)])
def test_labels_must_be_one_for_each_row(shape):
    embedding = ClassEmbedding(CLASSES, WIDTH)
    for _ in range(2):  # also after it is built
        with pytest.raises(ValueError, match=r"`labels` must be .*\(B,\).*of shape"):
            embedding(np.ones(shape, "int32"))


def test_labels_must_be_integers():
    with pytest.raises(ValueError, match="`labels` must be integers.* the value 1.5"):
        ClassEmbedding(CLASSES, WIDTH)(np.array([1.0, 1.5]))


@pytest.mark.parametrize("shape", [(B,), (B, FEATURES + 1), (B, 7, FEATURES)])
def test_features_must_be_one_vector_of_the_given_size_for_each_row(shape):
    embedding = VectorEmbedding(FEATURES, WIDTH)
    for _ in range(2):
        with pytest.raises(ValueError, match="`features` must .*with num_features=7"):
            embedding(random_array(*shape))
    assert embedding(VECTORS).shape == (B, 1, WIDTH)
