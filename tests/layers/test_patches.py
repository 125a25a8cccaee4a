import keras
import numpy as np
import pytest

from kseq.layers import PatchEmbedding
from tests.helpers import (
    assert_close,
    check_batch_equals_rows,
    check_layer,
    random_array,
    randomize,
)

B, HEIGHT, WIDTH, CHANNELS, SIZE = 2, 6, 15, 2, 7
ROWS, COLUMNS = 3, 5

IMAGES = random_array(B, HEIGHT, WIDTH, CHANNELS)
SHAPE = HEIGHT, WIDTH, CHANNELS


def make(**options):
    embedding = PatchEmbedding(SHAPE, (ROWS, COLUMNS), SIZE, **options)
    embedding(IMAGES)
    randomize(embedding)
    return embedding


def test_patch_embedding_keeps_the_contract_of_layers():
    check_layer(
        PatchEmbedding,
        {
            "image_shape": SHAPE,
            "patch_size": (ROWS, COLUMNS),
            "width": SIZE + 1,
            "dropout": 0.2,
            "kernel_initializer": lambda: keras.initializers.RandomNormal(stddev=0.3),
            "positions": "sinusoidal",
        },
        {"images": IMAGES},
    )


def test_patches_are_cut_row_by_row():
    embedding = make(positions=None)
    kernel, bias = embedding.get_weights()
    vectors = embedding(IMAGES)
    assert vectors.shape == (B, 2 * 3, SIZE)
    for down, across in np.ndindex(2, 3):
        patch = IMAGES[
            :,
            ROWS * down : ROWS * (down + 1),
            COLUMNS * across : COLUMNS * (across + 1),
        ]
        expected = patch.reshape(B, -1) @ kernel + bias
        assert_close(vectors[:, 3 * down + across], expected)


def test_learned_positions_are_added_to_the_patches():
    embedding = make()
    table = embedding.positions_layer.get_weights()[0]
    assert table.shape == (6, SIZE)
    without = make(positions=None)
    without.projection.set_weights(embedding.projection.get_weights())
    assert_close(embedding(IMAGES), keras.ops.add(without(IMAGES), table))


def test_a_custom_position_layer_gets_only_the_vectors_of_the_patches():
    class RowPositions(keras.layers.Layer):
        def build(self, vectors_shape):
            assert tuple(vectors_shape) == (None, None, SIZE)

        def call(self, vectors):
            return keras.ops.add(vectors, [[0.0]] * 3 + [[7.0]] * 3)

    embedding, without = make(positions=RowPositions()), make(positions=None)
    without.projection.set_weights(embedding.projection.get_weights())
    expected = keras.ops.add(without(IMAGES), [[0.0]] * 3 + [[7.0]] * 3)
    assert_close(embedding(IMAGES), expected)


def test_a_batch_equals_its_rows():
    check_batch_equals_rows(make(), IMAGES)


@pytest.mark.parametrize("patch_size", [4, (3, 4), (5, 5)])
def test_rejects_images_that_do_not_divide_into_patches(patch_size):
    with pytest.raises(ValueError, match="must divide into patches"):
        PatchEmbedding(SHAPE, patch_size, SIZE)


@pytest.mark.parametrize("patch_size", [(3,), [3], (3, 5, 2), ()])
def test_patch_size_must_be_a_number_or_a_height_and_width(patch_size):
    with pytest.raises(ValueError, match="`patch_size` must be one number, or a heig"):
        PatchEmbedding(SHAPE, patch_size, SIZE)


@pytest.mark.parametrize("shape", [(6, 15, 3), (12, 15, 2), (2, 6, 15)])
def test_rejects_images_of_another_shape(shape):
    with pytest.raises(ValueError, match="with image_shape=.6, 15, 2"):
        PatchEmbedding(SHAPE, 3, SIZE)(random_array(B, *shape))


def test_rejects_wrong_sizes():
    with pytest.raises(ValueError, match="must be a positive integer"):
        PatchEmbedding(SHAPE, 0, SIZE)
    with pytest.raises(ValueError, match="`width` must be a positive integer"):
        PatchEmbedding(SHAPE, 3, -1)
    with pytest.raises(ValueError, match="must divide into patches"):
        PatchEmbedding((6, 15), 3, SIZE)
    with pytest.raises(ValueError, match="must divide into patches"):
        PatchEmbedding(6, 3, SIZE)
