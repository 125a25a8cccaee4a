"""Resizing of models to images of another size.

Axes in shape comments: R rows of patches, C columns of patches, D width of a vector.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers import GridPositions, LearnedPositions, PatchEmbedding, RotaryPositions
from kseq.layers.composition import is_quantized
from kseq.typing import Tensor


def resize_positions(
    model: keras.Model, image_shape: tuple[int, int, int] | list[int]
) -> keras.Model:
    """Return the same model for images of another size.

    The learned positions of patches are interpolated (bilinear), as an image is
    resized. All other weights stay the same. So a Vision Transformer that was trained
    on small images can continue with large ones. The size of a patch stays the same, so
    there are more patches.

    Args:
        model: A functional model with one `PatchEmbedding` among its layers, with
            positions for each patch: `positions="learned"`, `LearnedPositions` or
            `GridPositions`. It may come from `kseq.vision_transformer`,
            `kseq.many_to_one`, `kseq.encoder_decoder` or elsewhere.
        image_shape: `(H, W, C)` of the new images.

    Returns:
        An uncompiled model of the same class, with its own weights.

    Raises:
        ValueError: The model has no such embedding or several, it does not read the
            images directly, something else in the model depends on their size, it is
            quantized, or the new images do not divide into patches or have other
            channels.

    Example:

    >>> import kseq
    >>> small = kseq.vision_transformer((28, 28, 1), patch_size=7, num_outputs=10)
    >>> large = kseq.resize_positions(small, (56, 42, 1))
    >>> large.input_shape, large.output_shape
    ((None, 56, 42, 1), (None, 10))

    References:
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), 3.2
    """
    embedding = patch_embedding(model)
    check_grids(model)
    other = for_pictures(embedding, image_shape)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(
            other.image_shape if is_picture(x, embedding) else x.shape[1:],
            dtype=x.dtype,
            name=x.name,
        ),
        model.input,
    )
    copy = keras.models.clone_model(
        model, inputs, lambda layer: other if layer is embedding else recreated(layer)
    )
    sizes = table_sizes(embedding, other)
    for old, new in zip(model.weights, copy.weights, strict=True):
        value = resized(old, *sizes[id(old)]) if id(old) in sizes else old
        if tuple(value.shape) != tuple(new.shape):
            raise ValueError(
                "Only the positions of the patches may depend on the size of the "
                f"images. Received: {old.path} of shape {tuple(old.shape)}, "
                f"which would have {tuple(new.shape)}. Pool the patches before it."
            )
        new.assign(value)
    return copy


def patch_embedding(model: keras.Model) -> PatchEmbedding:
    """Return the only layer of a model that splits images into patches."""
    layers = getattr(model, "layers", [])
    found = [layer for layer in layers if isinstance(layer, PatchEmbedding)]
    if len(found) != 1 or not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a functional model with one `PatchEmbedding` among "
            f"`model.layers`. Received: {model!r} with {len(found)}. For a model "
            "inside another, resize the inner one, and build the outer one on it."
        )
    [embedding] = found
    if not any(is_picture(x, embedding) for x in model.inputs):
        raise ValueError(
            "The images must be an input of the model, with the shape of its patch "
            f"embedding. Received: inputs of shape {[x.shape for x in model.inputs]} "
            f"with image_shape={embedding.image_shape}."
        )
    if any(is_quantized(layer) for layer in model._flatten_layers()):
        raise ValueError(
            "Weights must be numbers that can be interpolated. Received: a quantized "
            "model. Resize it first, and quantize the result."
        )
    return embedding


def is_picture(symbol: keras.KerasTensor, embedding: PatchEmbedding) -> bool:
    return tuple(symbol.shape[1:]) == embedding.image_shape


def check_grids(model: keras.Model) -> None:
    """Raise if the attention of a model depends on the number of columns of patches."""
    for layer in model._flatten_layers():
        if isinstance(layer, RotaryPositions) and layer.columns is not None:
            raise ValueError(
                "Attention must not use the columns of the images. Received: "
                f"{layer.name} with columns={layer.columns}."
            )


def for_pictures(
    embedding: PatchEmbedding, image_shape: tuple[int, int, int] | list[int]
) -> PatchEmbedding:
    """Return a new embedding for images of another size."""
    config = {**embedding.get_config(), "image_shape": image_shape}
    rows, columns = grid(embedding)
    positions = embedding.positions_layer
    layer_config = {} if positions is None else positions.get_config()
    other = PatchEmbedding.from_config({**config, "positions": None})
    if other.image_shape[-1] != embedding.image_shape[-1]:
        raise ValueError(
            "The images must have as many channels as before. Received: "
            f"image_shape={other.image_shape} after {embedding.image_shape}."
        )
    down, across = grid(other)
    if embedding.positions == "learned":
        return PatchEmbedding.from_config(config)
    if type(positions) is LearnedPositions and positions.max_length == rows * columns:
        layer_config["max_length"] = down * across
    elif type(positions) is GridPositions and (rows, columns) == (
        positions.rows,
        positions.columns,
    ):
        layer_config.update(rows=down, columns=across)
    else:
        raise ValueError(
            "The embedding must have learned positions with a place for each patch: "
            f"LearnedPositions({rows * columns}) or GridPositions({rows}, "
            f"{columns}). Received: positions={embedding.positions!r}."
        )
    layer = type(positions).from_config(layer_config)
    return PatchEmbedding.from_config(
        {**config, "positions": keras.saving.serialize_keras_object(layer)}
    )


def grid(embedding: PatchEmbedding) -> tuple[int, int]:
    """Return the number of rows and of columns of patches."""
    (height, width, _), (rows, columns) = embedding.image_shape, embedding.patch_size
    return height // rows, width // columns


def recreated(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return a new layer with the same config."""
    return type(layer).from_config(layer.get_config())


def table_sizes(
    embedding: PatchEmbedding, other: PatchEmbedding
) -> dict[int, tuple[tuple[int, int], tuple[int, int]]]:
    """Return rows and columns before and after, by the id of each position table."""
    before, after = grid(embedding), grid(other)
    positions: Any = embedding.positions_layer
    if isinstance(positions, LearnedPositions):
        return {id(positions.table): (before, after)}
    rows, columns = ((before[i], after[i]) for i in range(2))
    return {
        id(positions.row_table): ((rows[0], 1), (rows[1], 1)),
        id(positions.column_table): ((1, columns[0]), (1, columns[1])),
    }


def resized(
    table: keras.Variable, before: tuple[int, int], after: tuple[int, int]
) -> Tensor:
    """Return a table of a grid `(R C, D)` resized to another grid."""
    width = table.shape[-1]
    picture = ops.reshape(ops.convert_to_tensor(table), (1, *before, width))  # 1 R C D
    picture = ops.image.resize(
        ops.cast(picture, "float32"),
        after,
        interpolation="bilinear",
        data_format="channels_last",
    )
    return ops.reshape(picture, (-1, width))
