"""Vision Transformer: one answer for each image.

Axes in shape comments: B batch, H height, W width of an image, C channels.
"""

from kseq.builders.many_to_one import ManyToOne, many_to_one
from kseq.builders.shorthands import heads_of
from kseq.layers import PatchEmbedding, TransformerEncoder
from kseq.typing import LayerLike


def vision_transformer(
    image_shape: tuple[int, int, int] | list[int],
    patch_size: int | tuple[int, int] | list[int],
    num_outputs: int,
    width: int = 192,
    num_layers: int = 4,
    num_heads: int | None = None,
    pooling: LayerLike = "class_token",
    dropout: float = 0.0,
    name: str = "vision_transformer",
) -> ManyToOne:
    """Build a Transformer that reads an image patch by patch and gives one answer.

        images ──patches──> (B,P,D) ──Transformer──> (B,P,D) ──pooling──> head

    This is `kseq.many_to_one` on a `PatchEmbedding`, with a pre-norm
    `TransformerEncoder`. Build from these to use other components.

    Args:
        image_shape: `(H, W, C)` of the images.
        patch_size: Height and width of a patch, or one number for both.
        num_outputs: Number of classes or of values.
        width: Size D of the vectors.
        num_layers: Number of Transformer blocks.
        num_heads: Number of attention heads. Defaults to one head per 64 features.
        pooling: `"class_token"` as in the paper, `"mean"`, or another pooling of
            `kseq.many_to_one`.
        dropout: Dropout rate of the Transformer.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` that maps images `(B, H, W, C)`,
        preferably scaled to about -1 to 1, to logits or values `(B, num_outputs)`.

    Raises:
        ValueError: The images do not divide into patches, or a size is not a positive
            integer.

    Example:

    >>> import kseq
    >>> model = kseq.vision_transformer((28, 28, 1), patch_size=7, num_outputs=10)
    >>> model.output_shape
    (None, 10)

    References:
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), 3.1
    """
    return many_to_one(
        PatchEmbedding(image_shape, patch_size, width, name="embedding"),
        num_outputs,
        encoder=TransformerEncoder(
            num_layers,
            heads_of(width) if num_heads is None else num_heads,
            activation="gelu",
            dropout=dropout,
            name="encoder",
        ),
        pooling=pooling,
        name=name,
    )
