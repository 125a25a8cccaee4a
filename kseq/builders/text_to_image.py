"""Text to image: a caption in, the tokens of a picture out, pixels from the tokens.

Axes in shape comments: B batch, S words of the caption, T tokens of the picture,
R rows, G columns of its grid, N pictures of a caption, D features, V vocabulary.
"""

import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.exporting import Exported
from kseq.builders.image_tokenizer import ImageTokenizer
from kseq.builders.shorthands import (
    as_decoder,
    as_embedding,
    as_encoder,
    as_head,
    heads_of,
)
from kseq.builders.target_tokens import TargetTokens
from kseq.layers import (
    CaptionLoss,
    FactorizedHead,
    FiniteScalarQuantizer,
    GridPositions,
    TokenEmbedding,
    TransformerDecoder,
)
from kseq.layers.validation import not_negative, positive_integer, rate

START, END = 2, 3  # which no picture has; 0 is padding and 1 the unknown token
FIRST_CODE = 4  # the token of code 0


def text_to_image(
    vocabulary_size,
    tokenizer,
    encoder="transformer",
    decoder="transformer",
    head=None,
    width=256,
    text_weight=1 / 7,
    caption_dropout=0.0,
    name="text_to_image",
):
    """A model that draws what a caption says: DALL-E, small.

        caption ids ──source──> (B,S,D) ──encoder──> memory
                                                       │
        tokens ──target + grid──> (B,T,D) ──────────decoder──> head ──> logits (B,T,V)
          │                                                               │
        tokenizer.encode(pictures)                      tokenizer.decode(tokens)

    With `encoder=None` it is DALL-E's own form, one stream: the decoder reads the
    caption as the beginning of what it writes, each word from the words before it, and
    learns to predict it too. With an encoder, as in DALL-E mini, the caption is read as
    a whole.

    Token 4 + c is code c of the tokenizer; the ids below are padding, unknown, start
    and end, as everywhere, and none of them is ever drawn. It learns by plain `fit`:

        data = kseq.training.teacher_forcing(captions, model.image_tokens(pictures))
        model.compile("adam", kseq.training.SequenceCrossentropy())
        model.fit(data, epochs=20)

    These are the tokens of `model.image_tokens`; `tokenizer.encode` counts from 0.

    Args:
        vocabulary_size: Number of token ids of captions, or an embedding of them.
        tokenizer: A trained `kseq.image_tokenizer`, of which the model keeps a frozen
            copy.
        encoder: As for `kseq.encoder_decoder`, or None for one stream.
        decoder: As for `kseq.encoder_decoder`. In one stream a `TransformerDecoder`
            with `cross_attention=False` and `causal_prefix=True`, for which
            "transformer" is short.
        head: Layer that makes logits. None for a `FactorizedHead` where the tokenizer
            has a `FiniteScalarQuantizer`, whose codes are made of digits, and for a
            dense layer else.
        width: Size of the parts that are given by name or number.
        text_weight: How much the loss of a caption's words counts, beside 1 for that of
            the picture's tokens, in one stream. The paper has 1 to 7.
        caption_dropout: Share of the captions that are taken away in training, as
            `kseq.decoding.Guidance` needs it.
        name: Name of the model.

    Returns:
        An uncompiled `keras.Model` that maps `{"source": (B, S), "target": (B, T)}`,
        the tokens shifted right, to logits `(B, T, V)`. It has `draw`, and `generate`,
        `score` and the rest of `kseq.encoder_decoder`, whose length is always that of
        a picture.

    Raises:
        ValueError: The tokenizer is none, a number is out of its range, or a part is
            unknown or does not fit its neighbour.

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
            f"{tokenizer!r}. Load one with `keras.saving.load_model(path)`, or make it "
            "by `kseq.image_tokenizer((32, 32, 3))`, and train it first."
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
            "In one stream, without an encoder, the decoder reads the caption as a "
            f"causal prefix, and else not. Received: encoder={encoder}, decoder="
            f"{decoder} with causal_prefix={reads_prefix}. Take `encoder=None` with "
            "`TransformerDecoder(cross_attention=False, causal_prefix=True)`, or an "
            "encoder with another decoder."
        )
    positions = GridPositions(*tokenizer.grid, name="positions")
    source = as_embedding(vocabulary_size, width, reader=encoder or decoder)
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


def head_of_codes(head, tokenizer):
    """None is short for a `FactorizedHead` where codes are made of digits."""
    quantizer = tokenizer.quantizer
    if head is not None or not isinstance(quantizer, FiniteScalarQuantizer):
        return as_head(head, FIRST_CODE + tokenizer.num_codes)
    return FactorizedHead(
        quantizer.levels, num_special=FIRST_CODE, dtype="float32", name="head"
    )


@dataclasses.dataclass(frozen=True)
class Drawings:
    """Pictures that a model has drawn, N for each of B captions, best first.

    Attributes:
        images: Floats from 0 to 1, `(B, N, H, W, C)`.
        log_probs: Log-probabilities of the tokens, `(B, N)`.
        ids: The codes of the tokenizer, integers `(B, N, R * G)`, row by row.
        attention: What each token has read of its caption, `(B, N, ..., R * G, S)`, or
            None.
    """

    images: np.ndarray = dataclasses.field(repr=False)
    log_probs: np.ndarray
    ids: np.ndarray = dataclasses.field(repr=False)
    attention: np.ndarray | None = dataclasses.field(default=None, repr=False)


@keras.saving.register_keras_serializable(package="kseq")
class TextToImageModel(EncoderDecoder):
    """The model that `kseq.text_to_image` returns."""

    def __init__(self, *graph, tokenizer=None, caption_loss=None, **options):
        if not graph:
            options["tokens"] = ImageTokens(tokenizer, START, END)
            if caption_loss is not None:
                options["decode"] = functools.partial(decode_stream, caption_loss)
        super().__init__(*graph, **options)

    @property
    def tokenizer(self):
        """The image tokenizer, which is frozen."""
        return self._operation(ImageTokens).tokenizer

    @property
    def caption_loss(self):
        """The layer that adds the loss of a caption's words; None with an encoder."""
        return self._operation(CaptionLoss)

    @property
    def text_weight(self):
        """The weight of that loss; None with an encoder."""
        return self.caption_loss and self.caption_loss.weight

    def _operation(self, kind):
        return next((x for x in self.operations if isinstance(x, kind)), None)

    @property
    def drawable(self):
        """The tokens that pictures have, a range."""
        return range(FIRST_CODE, self.target_size)

    @property
    def num_tokens(self):
        """The number of tokens of a picture."""
        rows, columns = self.tokenizer.grid
        return rows * columns

    def image_tokens(self, images, batch_size=128):
        """The tokens of pictures, to learn from.

        Args:
            images: Pictures as `tokenizer.encode` takes them.
            batch_size: Most pictures to work on at a time.

        Returns:
            Integers `(B, 1 + R * G)`: the start token, and the tokens row by row.

        Raises:
            ValueError: The pictures have another shape, or other numbers.
        """
        ids = self.tokenizer.encode(images, batch_size) + FIRST_CODE
        return np.insert(ids, 0, START, axis=1).astype("int32")

    def draw(self, captions, search=None, batch_size=128, **options):
        """Draws what each caption says.

        Args:
            captions: Token ids `(B, S)`, padded, or a list of lists.
            search: As for `generate`: `Sampling(num_draws=4)` draws four pictures of
                each caption. With a seed, a caption in another place of the list gets
                other draws.
            batch_size: Most captions to work on at a time.
            **options: What else `generate` takes. A `prefix` of tokens is the beginning
                of the picture, as `image_tokens(images)[:, 1:33]` gives it: the model
                completes it.

        Returns:
            `Drawings`.

        Raises:
            ValueError: As for `generate`, or a prefix holds no tokens of a picture.
        """
        result = self.generate(captions, search, batch_size=batch_size, **options)
        exists = result.lengths > 0  # where constraints leave nothing there is none
        ids = np.where(exists[..., None], result.token_ids - FIRST_CODE, 0)
        images = self.tokenizer.decode(ids, batch_size)
        return Drawings(images, result.log_probs, ids, result.attention)

    def generate(self, source, search=None, max_length=None, *args, **options):
        length = self._length(max_length)
        return super().generate(source, search, length, *args, **options)

    def generate_stream(self, source, search=None, max_length=None, *args, **options):
        length = self._length(max_length)
        return super().generate_stream(source, search, length, *args, **options)

    def export_generation(self, path, search=None, max_length=None, *args, **options):
        length = self._length(max_length)
        return super().export_generation(path, search, length, *args, **options)

    def generation_model(self, search=None, max_length=None):
        generation = super().generation_model(search, self._length(max_length))
        return Drawing(generation.writing, self.tokenizer)

    def _length(self, max_length):
        """The length of a picture, or a `ValueError` for another."""
        if max_length not in (None, self.num_tokens):
            raise ValueError(
                f"A picture has {self.num_tokens} tokens, always. Received: max_length="
                f"{max_length!r}. Leave it out."
            )
        return self.num_tokens

    def step(self, token_ids, state, constants):
        logits, state = super().step(token_ids, state, constants)
        return only_codes(logits), state

    def read(self, source, target, return_attention_scores=False):
        outputs = super().read(source, target, return_attention_scores)
        if not return_attention_scores:
            return only_codes(outputs)
        return only_codes(outputs[0]), outputs[1]

    def get_config(self):
        config = super().get_config()
        for name in ("start_token_id", "end_token_id"):
            config.pop(name)
        return {
            **config,
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "caption_loss": keras.saving.serialize_keras_object(self.caption_loss),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        made = {
            name: keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
            for name in ("tokenizer", "caption_loss")
        }
        return super().from_config({**config, **made}, custom_objects)


class Drawing(Exported):
    """A search over a model that draws, and what it has drawn.

    Args:
        writing: The search, a Keras model.
        tokenizer: The image tokenizer.

    Call arguments:
        inputs: As for `Exported`.

    Returns:
        The fields of a `kseq.decoding.Generation` by name, and "images": floats from 0
        to 1, `(B, N, H, W, C)`.
    """

    def __init__(self, writing, tokenizer):
        super().__init__(writing)
        self.tokenizer = tokenizer

    def call(self, inputs):
        outputs = super().call(inputs)
        # A hypothesis that constraints forbid has no tokens.
        ids = ops.maximum(outputs["token_ids"] - FIRST_CODE, 0)
        return {**outputs, "images": self.tokenizer.pictures(ids)}


@keras.saving.register_keras_serializable(package="kseq")
class ImageTokens(TargetTokens):
    """The tokens of pictures, passed on as they are, and what made them.

    Args:
        tokenizer: The image tokenizer, which is frozen.
        *options: As for `TargetTokens`.
        **kwargs: As for `TargetTokens`.
    """

    def __init__(self, tokenizer, *options, **kwargs):
        super().__init__(*options, **kwargs)
        self.tokenizer = tokenizer
        self.tokenizer.trainable = False

    def get_config(self):
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
        }

    @classmethod
    def from_config(cls, config):
        tokenizer = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**{**config, "tokenizer": tokenizer})


def decode_stream(caption_loss, decoder, embedded, memory, inputs):
    """Calls a decoder that reads the caption as its prefix, and adds the loss of it."""
    outputs, read = decoder(embedded, memory, return_prefix=True)
    return caption_loss(outputs, read, inputs["source"])


def copied(tokenizer):
    """The same tokenizer without what it was trained by."""
    copy = type(tokenizer).from_config(tokenizer.get_config())
    copy.set_weights(tokenizer.get_weights())
    return copy


def only_codes(logits):
    """Logits `(..., V)` under which nothing but tokens of a picture can be written."""
    is_code = ops.arange(logits.shape[-1], dtype="int32") >= FIRST_CODE
    return ops.where(is_code, logits, -float("inf"))
