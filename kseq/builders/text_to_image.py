"""Text to image: generate the tokens of an image from a caption, and decode them.

Axes in shape comments: B batch, S words of the caption, T tokens of the image,
R rows, G columns of its grid, N images of a caption, D features, V vocabulary.
"""

import functools
from collections.abc import Iterator
from typing import Any, Self

import keras
import numpy as np

from kseq.builders.drawings import Drawing, Drawings
from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.image_tokenizer import ImageTokenizer
from kseq.builders.image_tokens import (
    END,
    FIRST_CODE,
    START,
    ImageTokens,
    only_codes,
)
from kseq.builders.shorthands import (
    as_decoder,
    as_embedding,
    as_encoder,
    as_head,
    heads_of,
)
from kseq.decoding import Generation, Search
from kseq.layers import (
    CaptionLoss,
    FactorizedHead,
    FiniteScalarQuantizer,
    GridPositions,
    TokenEmbedding,
    TransformerDecoder,
)
from kseq.layers.validation import not_negative, positive_integer, rate
from kseq.typing import Config, LayerLike, PathLike, Tensor, TensorLike, Tree


def text_to_image(
    vocabulary_size: LayerLike,
    tokenizer: ImageTokenizer,
    encoder: LayerLike | None = "transformer",
    decoder: LayerLike = "transformer",
    head: LayerLike | None = None,
    width: int = 256,
    text_weight: float = 1 / 7,
    caption_dropout: float = 0.0,
    name: str = "text_to_image",
) -> "TextToImageModel":
    """Build a model that generates images from captions: a small DALL-E.

        caption ids ──source──> (B,S,D) ──encoder──> memory
                                                       │
        tokens ──target + grid──> (B,T,D) ──────────decoder──> head ──> logits (B,T,V)
          │                                                               │
        tokenizer.encode(images)                        tokenizer.decode(tokens)

    With `encoder=None` the model has DALL-E's own form, a single stream: the decoder
    reads the caption as a causal prefix, and also learns to predict its words. With an
    encoder, as in DALL-E mini, the caption is read in both directions.

    Token 4 + c is code c of the tokenizer. The tokens below are padding, unknown, start
    and end, as in all models, and are never generated. Train it with plain `fit`:

        data = kseq.training.teacher_forcing(captions, model.image_tokens(images))
        model.compile("adam", kseq.training.SequenceCrossentropy())
        model.fit(data, epochs=20)

    Use the tokens of `model.image_tokens`. `tokenizer.encode` counts from 0.

    Args:
        vocabulary_size: Number of token ids of captions, or an embedding of them.
        tokenizer: A trained `kseq.image_tokenizer`. The model keeps a frozen copy.
        encoder: As for `kseq.encoder_decoder`, or None for a single stream.
        decoder: As for `kseq.encoder_decoder`. In a single stream, "transformer" is
            shorthand for a `TransformerDecoder` with `cross_attention=False` and
            `causal_prefix=True`, as required there.
        head: Layer that computes logits. None is shorthand for a `FactorizedHead` if
            the tokenizer has a `FiniteScalarQuantizer`, whose codes consist of digits,
            and for a dense layer otherwise.
        width: Size of components given by name or number.
        text_weight: Weight of the loss of caption words in a single stream, relative to
            the loss of image tokens. The paper uses 1 to 7.
        caption_dropout: Fraction of the captions dropped in training.
            `kseq.decoding.Guidance` requires this.
        name: Name of the model.

    Returns:
        An uncompiled `keras.Model` that maps `{"source": (B, S), "target": (B, T)}`,
        the tokens shifted right, to logits `(B, T, V)`. It has `draw`, and `generate`,
        `score` and the other methods of `kseq.encoder_decoder`, always for the length
        of an image.

    Raises:
        ValueError: `tokenizer` is not an image tokenizer, a number is out of range, or
            a component is unknown or does not fit the others.

    Example:

    >>> import numpy as np
    >>> import kseq
    >>> tokenizer = kseq.image_tokenizer((8, 12, 3), patch_size=4, width=8)
    >>> model = kseq.text_to_image(11, tokenizer, width=8)
    >>> model.image_tokens(np.zeros((2, 8, 12, 3))).shape  # the start token, and 2 x 3
    (2, 7)
    >>> drawn = model.draw([[4, 5, 6], [7]], kseq.decoding.Sampling(num_draws=3))
    >>> drawn.images.shape, drawn.log_probs.shape
    ((2, 3, 8, 12, 3), (2, 3))

    References:
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), 2.2
        - [Dayma et al., 2021](https://github.com/borisdayma/dalle-mini) (with encoder)
    """
    if not isinstance(tokenizer, ImageTokenizer):
        raise ValueError(
            "`tokenizer` must be a trained `kseq.image_tokenizer`. Received: tokenizer="
            f"{tokenizer!r}. Load one with `keras.saving.load_model(path)`, or build "
            "`kseq.image_tokenizer((32, 32, 3))` and train it first."
        )
    rate("caption_dropout", caption_dropout)
    not_negative("text_weight", text_weight)
    if encoder is None and decoder == "transformer":
        decoder = TransformerDecoder(
            num_heads=heads_of(positive_integer("width", width)),
            width=width,
            cross_attention=False,
            causal_prefix=True,
        )
    encoder = None if encoder is None else as_encoder(encoder, width)
    decoder = as_decoder(decoder, width)
    reads_prefix = getattr(decoder, "causal_prefix", False)
    if (encoder is None) != reads_prefix:
        raise ValueError(
            "Without an encoder the decoder must read the caption as a causal prefix, "
            f"and with one it must not. Received: encoder={encoder}, decoder="
            f"{decoder} with causal_prefix={reads_prefix}. Use `encoder=None` with "
            "`TransformerDecoder(cross_attention=False, causal_prefix=True)`, or an "
            "encoder with another decoder."
        )
    positions = GridPositions(*tokenizer.grid, name="positions")
    source: Any = as_embedding(vocabulary_size, width, reader=encoder or decoder)
    caption_loss = None
    if encoder is None:
        caption_loss = CaptionLoss(
            source.vocabulary_size, text_weight, name="caption_loss"
        )
    return TextToImageModel(
        tokenizer=copied(tokenizer),
        caption_loss=caption_loss,
        source=source,
        target=TokenEmbedding(
            FIRST_CODE + tokenizer.num_codes, width, positions=positions
        ),
        encoder=encoder,
        decoder=decoder,
        head=head_of_codes(head, tokenizer),
        source_dropout=caption_dropout,
        name=name,
    )


def head_of_codes(
    head: LayerLike | None, tokenizer: ImageTokenizer
) -> keras.layers.Layer:
    """Return a head; None is shorthand for a `FactorizedHead` if codes are digits."""
    quantizer = tokenizer.quantizer
    if head is not None or not isinstance(quantizer, FiniteScalarQuantizer):
        return as_head(head, FIRST_CODE + tokenizer.num_codes)
    return FactorizedHead(
        quantizer.levels, num_special=FIRST_CODE, dtype="float32", name="head"
    )


@keras.saving.register_keras_serializable(package="kseq")
class TextToImageModel(EncoderDecoder):
    """Model that `kseq.text_to_image` returns."""

    def __init__(
        self,
        *graph: Any,
        tokenizer: Any = None,
        caption_loss: CaptionLoss | None = None,
        **options: Any,
    ) -> None:
        if not graph:
            options["tokens"] = ImageTokens(tokenizer, START, END)
            if caption_loss is not None:
                options["decode"] = functools.partial(decode_stream, caption_loss)
        super().__init__(*graph, **options)

    @property
    def tokenizer(self) -> ImageTokenizer:
        """The image tokenizer, which is frozen."""
        return self._operation(ImageTokens).tokenizer

    @property
    def caption_loss(self) -> CaptionLoss | None:
        """The layer that adds the loss of caption words; None with an encoder."""
        return self._operation(CaptionLoss)

    @property
    def text_weight(self) -> float | None:
        """The weight of this loss; None with an encoder."""
        return self.caption_loss and self.caption_loss.weight

    def _operation(self, kind: type) -> Any:
        """Return the operation of a kind, or None."""
        return next((x for x in self.operations if isinstance(x, kind)), None)

    @property
    def drawable(self) -> range:
        """The range of tokens that occur in images."""
        return range(FIRST_CODE, self.target_size)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of an image."""
        rows, columns = self.tokenizer.grid
        return rows * columns

    def image_tokens(self, images: TensorLike, batch_size: int = 128) -> np.ndarray:
        """Return the tokens of images, as training targets.

        Args:
            images: Images as for `tokenizer.encode`.
            batch_size: Maximum number of images per batch.

        Returns:
            Integers `(B, 1 + R * G)`: the start token, and the tokens row by row.

        Raises:
            ValueError: The images have another shape or range.
        """
        ids = self.tokenizer.encode(images, batch_size) + FIRST_CODE
        return np.insert(ids, 0, START, axis=1).astype("int32")

    def draw(
        self,
        captions: TensorLike,
        search: Search | None = None,
        batch_size: int = 128,
        **options: Any,
    ) -> Drawings:
        """Generate images for each caption.

        Args:
            captions: Token ids `(B, S)`, padded, or a list of lists.
            search: As for `generate`. `Sampling(num_draws=4)` samples four images for
                each caption. With a seed, the samples of a caption depend on its place
                in the list.
            batch_size: Maximum number of captions per batch.
            **options: Other arguments of `generate`. A `prefix` of tokens, such as
                `image_tokens(images)[:, 1:33]`, is the beginning of an image that the
                model completes.

        Returns:
            `Drawings`.

        Raises:
            ValueError: As for `generate`, or a prefix has tokens that are not of an
                image.
        """
        result = self.generate(captions, search, batch_size=batch_size, **options)
        exists = result.lengths > 0  # False if constraints leave nothing
        ids = np.where(exists[..., None], result.token_ids - FIRST_CODE, 0)
        images = self.tokenizer.decode(ids, batch_size)
        attention: Any = result.attention  # of a single source
        return Drawings(images, result.log_probs, ids, attention)

    # The length of an image is fixed, so `max_length` may be None below.
    def generate(  # type: ignore[override]
        self,
        source: Any,
        search: Search | None = None,
        max_length: int | None = None,
        *args: Any,
        **options: Any,
    ) -> Generation:
        """Generate the tokens of images, as `EncoderDecoder.generate`."""
        length = self._length(max_length)
        return super().generate(source, search, length, *args, **options)

    def generate_stream(  # type: ignore[override]
        self,
        source: Any,
        search: Search | None = None,
        max_length: int | None = None,
        *args: Any,
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """Yield the tokens of images, as `EncoderDecoder.generate_stream`."""
        length = self._length(max_length)
        return super().generate_stream(source, search, length, *args, **options)

    def export_generation(
        self,
        path: PathLike,
        search: Search | None = None,
        max_length: int | None = None,
        *args: Any,
        **options: Any,
    ) -> None:
        """Export all of `draw`, as `EncoderDecoder.export_generation`."""
        length = self._length(max_length)
        return super().export_generation(path, search, length, *args, **options)

    def generation_model(
        self, search: Search | None = None, max_length: int | None = None
    ) -> Drawing:
        """Return a Keras model that runs all of `draw`."""
        generation = super().generation_model(search, self._length(max_length))
        return Drawing(generation.writing, self.tokenizer)

    def _length(self, max_length: int | None) -> int:
        """Return the number of tokens of an image; raise for another length."""
        if max_length not in (None, self.num_tokens):
            raise ValueError(
                f"An image always has {self.num_tokens} tokens. Received: max_length="
                f"{max_length!r}. Leave it out."
            )
        return self.num_tokens

    def step(
        self, token_ids: Tensor, state: Tree, constants: Tree
    ) -> tuple[Tensor, Tree]:
        """Decode one step, in which only image tokens are possible."""
        logits, state = super().step(token_ids, state, constants)
        return only_codes(logits), state

    def read(
        self, source: Tree, target: Tensor, return_attention_scores: bool = False
    ) -> Any:
        """Return the logits of a target, in which only image tokens are possible."""
        outputs = super().read(source, target, return_attention_scores)
        if not return_attention_scores:
            return only_codes(outputs)
        return only_codes(outputs[0]), outputs[1]

    def get_config(self) -> Config:
        config = super().get_config()
        for name in ("start_token_id", "end_token_id"):
            config.pop(name)
        return {
            **config,
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "caption_loss": keras.saving.serialize_keras_object(self.caption_loss),
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        made = {
            name: keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
            for name in ("tokenizer", "caption_loss")
        }
        return super().from_config({**config, **made}, custom_objects)


def decode_stream(
    caption_loss: CaptionLoss,
    decoder: TransformerDecoder,
    embedded: Tensor,
    memory: Tensor,
    inputs: dict[str, Tensor],
) -> Tensor:
    """Call a decoder that reads the caption as its prefix, and add the caption loss."""
    outputs, read = decoder(embedded, memory, return_prefix=True)
    return caption_loss(outputs, read, inputs["source"])


def copied(tokenizer: ImageTokenizer) -> ImageTokenizer:
    """Return the same tokenizer without its optimizer and loss."""
    copy = type(tokenizer).from_config(tokenizer.get_config())
    copy.set_weights(tokenizer.get_weights())
    return copy
