"""Image models resized for images of another size."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import (
    GridPositions,
    LearnedPositions,
    PatchEmbedding,
    RotaryPositions,
    TransformerEncoder,
)
from tests.helpers import array, assert_close, random_array, randomize

SMALL, LARGE, PATCH, D = (4, 6, 1), (10, 8, 1), 2, 6
PICTURES = random_array(3, *SMALL)
TARGET = np.array([[2, 5, 6, 4], [2, 4, 0, 0], [2, 3, 0, 0]], "int32")


def patches(positions="learned", shape=SMALL):
    return PatchEmbedding(shape, PATCH, D, positions=positions)


def classifier(positions="learned", pooling="class_token", **options):
    encoder = TransformerEncoder(1, 3, **options)
    return kseq.many_to_one(patches(positions), 3, encoder, pooling)


def captioner(**options):
    return kseq.encoder_decoder(
        source=patches(),
        target=13,
        encoder=TransformerEncoder(1, 2, width=8),
        decoder="transformer",
        width=8,
        **options,
    )


def positions_of(model):
    [embedding] = [x for x in model.layers if isinstance(x, PatchEmbedding)]
    return embedding.positions_layer


def bilinear(table, rows, columns):
    """Interpolate a table of positions at the centres of the new patches."""
    resized = np.zeros((rows, columns, table.shape[-1]))
    for r, c in np.ndindex(rows, columns):
        for old_r, old_c in np.ndindex(*table.shape[:2]):
            weight = 1.0
            for new, size, old, old_size in (
                (r, rows, old_r, table.shape[0]),
                (c, columns, old_c, table.shape[1]),
            ):
                center = np.clip((new + 0.5) * old_size / size - 0.5, 0, old_size - 1)
                weight *= max(0.0, 1 - abs(center - old))
            resized[r, c] += weight * table[old_r, old_c]
    return resized


def check_other_weights_are_equal(model, other, tables=1):
    changed = 0
    for old, new in zip(model.weights, other.weights, strict=True):
        assert old is not new
        if tuple(old.shape) != tuple(new.shape):
            changed += 1
            continue
        np.testing.assert_array_equal(array(old), array(new))
    assert changed == tables


def test_learned_positions_are_interpolated():
    model = kseq.vision_transformer(SMALL, PATCH, 3, width=D, num_layers=1)
    randomize(model)
    large = kseq.resize_positions(model, LARGE)
    assert large.input_shape == (None, *LARGE) and type(large) is type(model)
    check_other_weights_are_equal(model, large)
    table = array(positions_of(model).table).reshape(2, 3, D)
    resized = array(positions_of(large).table).reshape(5, 4, D)
    assert_close(resized, bilinear(table, 5, 4))
    assert large(random_array(2, *LARGE)).shape == (2, 3)


@pytest.mark.parametrize("positions", ["learned", "a layer", "a grid"])
def test_the_same_size_gives_the_same_model(positions):
    layers = {"a layer": LearnedPositions(6), "a grid": GridPositions(2, 3)}
    model = classifier(layers.get(positions, positions))
    randomize(model)
    same = kseq.resize_positions(model, SMALL)
    check_other_weights_are_equal(model, same, tables=0)
    assert_close(same(PICTURES), model(PICTURES))


def test_a_constant_table_stays_constant():
    model = classifier()
    table = positions_of(model).table
    table.assign(np.full(table.shape, 0.7))
    for shape in (LARGE, (2, 2, 1)):
        resized = positions_of(kseq.resize_positions(model, shape)).table
        assert_close(resized, np.full(resized.shape, 0.7))


def test_grid_positions_are_interpolated_along_each_axis():
    model = classifier(GridPositions(2, 3), pooling="mean")
    randomize(model)
    large = kseq.resize_positions(model, LARGE)
    check_other_weights_are_equal(model, large, tables=2)
    old, new = positions_of(model), positions_of(large)
    sums = [
        array(x.row_table)[:, None] + array(x.column_table)[None] for x in (old, new)
    ]
    assert_close(sums[1], bilinear(sums[0], 5, 4))


def test_a_frozen_embedding_stays_frozen():
    model = classifier()
    model.get_layer("patch_embedding").trainable = False
    large = kseq.resize_positions(model, LARGE)
    assert not large.get_layer("patch_embedding").trainable_weights
    assert len(large.trainable_weights) == len(model.trainable_weights)


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("tie_embeddings", [None, "target"])
def test_a_resized_captioner_generates_and_survives_saving(tie_embeddings, tmp_path):
    model = captioner(tie_embeddings=tie_embeddings)
    randomize(model)
    same = kseq.resize_positions(model, SMALL)
    results = [x.generate(PICTURES, max_length=4) for x in (model, same)]
    assert_close(results[0].log_probs, results[1].log_probs)
    large = kseq.resize_positions(model, LARGE)
    check_other_weights_are_equal(model, large)
    pictures = random_array(3, *LARGE)
    result = large.generate(pictures, max_length=4)
    large.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded.score(pictures, result), result.log_probs, atol=1e-4)


def test_images_may_be_preprocessed_before_the_patches():
    inputs = keras.Input(SMALL)
    vectors = patches()(keras.layers.Rescaling(0.5)(inputs))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(vectors))
    assert kseq.resize_positions(model, LARGE).input_shape == (None, *LARGE)


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: kseq.many_to_one(11, 3, "gru", width=3),
        lambda: kseq.ensemble([classifier()]),
        lambda: patches(),
    ],
)
def test_rejects_a_model_without_patches(make):
    with pytest.raises(ValueError, match="one `PatchEmbedding` among"):
        kseq.resize_positions(make(), LARGE)


@pytest.mark.parametrize(
    "positions", ["sinusoidal", None, LearnedPositions(9), GridPositions(3, 2)]
)
def test_rejects_positions_without_an_entry_for_each_patch(positions):
    with pytest.raises(ValueError, match="learned positions with a place for each"):
        kseq.resize_positions(classifier(positions, pooling="mean"), LARGE)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((5, 6, 1), "must divide into patches"),
        ((4, 6), "must divide into patches"),
        ((4, 6, 3), "as many channels as before"),
    ],
)
def test_rejects_an_image_shape_that_does_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        kseq.resize_positions(classifier(), shape)


def test_rejects_attention_that_uses_columns():
    model = classifier(pooling="mean", rotary=RotaryPositions(columns=3), width=12)
    with pytest.raises(ValueError, match="must not use the columns"):
        kseq.resize_positions(model, LARGE)


def test_rejects_images_that_are_not_an_input_of_the_model():
    inputs = keras.Input((None, None, 1))
    vectors = patches()(keras.layers.Resizing(*SMALL[:2])(inputs))
    with pytest.raises(ValueError, match="must be an input of the model"):
        kseq.resize_positions(keras.Model(inputs, vectors), LARGE)


def test_rejects_other_weights_that_depend_on_the_image_size():
    inputs = keras.Input(SMALL)
    flat = keras.layers.Flatten()(patches()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(flat))
    with pytest.raises(ValueError, match="Only the positions of the patches"):
        kseq.resize_positions(model, LARGE)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # about layers that cannot be quantized
def test_rejects_a_quantized_model():
    model = classifier(pooling="mean")
    model.quantize("int8")
    with pytest.raises(ValueError, match="Received: a quantized"):
        kseq.resize_positions(model, LARGE)
