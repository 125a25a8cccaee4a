"""Image encoder and decoder, compared with convolutions in NumPy loops.

Axes in shape comments: B batch, H height, W width, C channels, D width of a vector.
"""

import keras
import numpy as np
import pytest

from kseq.layers import ImageDecoder, ImageEncoder, ResidualBlock
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_layer,
    random_array,
    randomize,
    sigmoid,
)

B, H, W, C, D = 2, 4, 8, 3, 8
IMAGES = random_array(B, H, W, C)
GRIDS = random_array(B, 1, 2, 5)


def he_normal():
    return keras.initializers.HeNormal()


OPTIONS = {
    "patch_size": 2,
    "width": D,
    "num_blocks": 1,
    "kernel_size": 1,
    "activation": "relu",
    "kernel_initializer": he_normal,
}


def test_image_encoder_keeps_the_contract_of_layers():
    check_layer(ImageEncoder, OPTIONS, {"images": IMAGES})


def test_image_decoder_keeps_the_contract_of_layers():
    check_layer(ImageDecoder, {**OPTIONS, "channels": 2}, {"grids": GRIDS})


def test_residual_block_keeps_the_contract_of_layers():
    arguments = {"width": C, "kernel_size": 5, "activation": "relu"}
    arguments["kernel_initializer"] = he_normal
    check_layer(ResidualBlock, arguments, {"images": IMAGES})


def convolved(layer, x):
    """Apply a convolution with padding, so that only strides reduce the size."""
    kernel, bias = layer.get_weights()  # K K D E
    (size, stride) = kernel.shape[0], layer.strides[0]
    before = (size - stride) // 2
    padded = np.pad(x, [(0, 0), (before, size), (before, size), (0, 0)])
    height, width = x.shape[1] // stride, x.shape[2] // stride
    outputs = np.zeros((len(x), height, width, kernel.shape[-1]))
    for row, column in np.ndindex(height, width):
        top, left = stride * row, stride * column
        window = padded[:, top : top + size, left : left + size]
        outputs[:, row, column] = np.einsum("bhwd,hwde->be", window, kernel) + bias
    return outputs


def test_equal_patches_have_equal_vectors_with_kernels_of_size_one():
    images = random_array(1, 4, 12, C)
    images[:, :, 8:] = images[:, :, :4]  # equals the first patch, with other neighbours
    for kernel_size, are_equal in ((1, True), (3, False)):
        vectors = array(ImageEncoder(4, D, kernel_size=kernel_size)(images))
        assert np.allclose(vectors[:, :, 0], vectors[:, :, 2], atol=1e-5) == are_equal


def swish(x):
    return x * sigmoid(x)


def block(layer, x):
    return x + convolved(layer.join, swish(convolved(layer.mix, swish(x))))


def randomized(layer, inputs):
    layer(inputs)
    randomize(layer)
    return layer, inputs.astype("float64")


def test_a_residual_block_adds_two_convolutions():
    layer, x = randomized(ResidualBlock(C), IMAGES)
    assert_close(layer(IMAGES), block(layer, x), rtol=1e-4, atol=1e-4)


def test_the_encoder_halves_the_sides_to_one_vector_per_patch():
    layer, x = randomized(ImageEncoder(4, D, num_blocks=2), IMAGES)
    first, before, second, *blocks = layer.parts
    x = block(before, convolved(first, x))
    assert x.shape == (B, H // 2, W // 2, D // 2)
    x = convolved(second, x)
    assert len(blocks) == 2
    for part in blocks:
        x = block(part, x)
    assert_close(layer(IMAGES), swish(x), rtol=1e-3, atol=1e-3)


def test_the_decoder_expands_each_vector_to_a_patch():
    layer, x = randomized(ImageDecoder(4, C, D, num_blocks=1), GRIDS)
    x = block(layer.blocks[0], convolved(layer.read, x))
    for number, doubling in enumerate(layer.doublings):
        features = convolved(doubling, swish(x))
        size = features.shape[-1] // 4
        x = np.zeros((B, 2 * x.shape[1], 2 * x.shape[2], size))
        for down, across in np.ndindex(2, 2):
            place = 2 * down + across
            part = features[..., place * size : (place + 1) * size]
            x[:, down::2, across::2] = part
        x = x if number else block(layer.smoothings[0], x)
    expected = convolved(layer.write, swish(x))
    assert expected.shape == (B, H, W, C)
    assert_close(layer(GRIDS), expected, rtol=1e-3, atol=1e-3)


def test_patches_of_one_pixel_keep_the_size_of_images():
    assert ImageEncoder(1, D)(IMAGES).shape == (B, H, W, D)
    assert ImageDecoder(1, C, D)(IMAGES).shape == (B, H, W, C)


@pytest.mark.parametrize(
    "kind, inputs", [(ImageEncoder, IMAGES), (ImageDecoder, GRIDS)]
)
def test_a_batch_equals_its_rows(kind, inputs):
    layer = kind(4, width=D)
    layer(inputs)
    check_batch_equals_rows(layer, inputs)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ImageEncoder(6), "power of two.*patch_size=6.*4 or 8"),
        (lambda: ImageEncoder(0), "patch_size"),
        (lambda: ImageDecoder(4, width=6), "multiple of `patch_size`.*width=6"),
        (lambda: ImageEncoder(8, 8)(IMAGES), "multiples of `patch_size`.*patch_size=8"),
        (lambda: ImageEncoder(2, 8)(IMAGES[0]), r"\(B, H, W, C\).*\(4, 8, 3\)"),
        (lambda: ResidualBlock(4)(IMAGES), "`width` features.*width=4"),
    ],
)
def test_rejects_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
