"""Images and their tokens: bad calls, their advice, and corrected calls."""

import functools
import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import kseq
from kseq import datasets
from kseq.layers import (
    FiniteScalarQuantizer,
    ImageDecoder,
    ImageEncoder,
    ResidualBlock,
    TransformerDecoder,
    VectorQuantizer,
)

SHAPE = 4, 8, 3
PICTURES = np.random.default_rng(3).random((2, *SHAPE), "float32")


def tokenizer(quantizer=(3, 4), image_shape=SHAPE, **options):
    return kseq.image_tokenizer(image_shape, quantizer, 4, width=4, **options)


def fit(pictures):
    model = tokenizer()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(pictures, pictures, verbose=0)


def read_pictures(captions):
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (2, 2), "red").save(f"{folder}/heart.png")
        if captions:
            Path(folder, "captions.tsv").write_text(captions)
        datasets.read_pictures(folder)


def read_one(picture):
    with tempfile.TemporaryDirectory() as folder:
        picture.save(f"{folder}/it.png")
        Path(folder, "captions.tsv").write_text("it.png\tit")
        datasets.read_pictures(folder)


def build_drawer(**options):
    return kseq.text_to_image(11, **{"tokenizer": tokenizer(), "width": 8, **options})


@functools.cache
def drawer():
    return build_drawer()


@functools.cache
def matcher():
    tower = kseq.vision_transformer(SHAPE, 4, 5, width=6, num_layers=1)
    return kseq.text_image_matcher(11, tower, width=8)


@functools.cache
def pipeline():
    words = kseq.text.Vocabulary("word").adapt(["a"])
    return kseq.text.TextToImage(drawer(), words)


def built_vector_quantizer():
    quantizer = VectorQuantizer(7, 2)
    quantizer.build((None, 2))
    return quantizer


def drawer_with_loaded_tokenizer():
    with tempfile.TemporaryDirectory() as folder:
        tokenizer().save(f"{folder}/tokenizer.keras")
        return build_drawer(
            tokenizer=keras.saving.load_model(f"{folder}/tokenizer.keras")
        )


WHITE_ON_TRANSPARENT = Image.fromarray(
    np.array([[[255, 255, 255, 0], [255, 255, 255, 255]]], "uint8")
)
VECTORS = np.array([[0.0, 0.5]], "float32")
BYTES = (255 * PICTURES).astype("uint8")
ADVICE = {
    "a patch of three pixels": (
        lambda: ImageEncoder(3, 8),
        "Use 2 or 4.",
        lambda: (ImageEncoder(2, 8)(PICTURES), ImageEncoder(4, 8)(PICTURES)),
    ),
    "pictures that patches do not divide": (
        lambda: ImageEncoder(8, 8)(PICTURES),
        "Pad or resize the images, or use a smaller `patch_size`.",
        lambda: (
            ImageEncoder(4, 8)(PICTURES),
            ImageEncoder(8, 8)(keras.ops.image.resize(PICTURES, (8, 8))),
            ImageEncoder(8, 8)(np.pad(PICTURES, [(0, 0), (0, 4), (0, 0), (0, 0)])),
        ),
    ),
    "a block of another width": (
        lambda: ResidualBlock(5)(PICTURES),
        "Put a 1x1 convolution with 5 filters before this layer.",
        lambda: ResidualBlock(5)(keras.layers.Conv2D(5, 1)(PICTURES)),
    ),
    "a shape without channels": (
        lambda: tokenizer(image_shape=(28, 28)),
        "Grayscale images have one channel: (28, 28, 1).",
        lambda: tokenizer(image_shape=(28, 28, 1)),
    ),
    "patches of two sizes": (
        lambda: tokenizer(decoder=ImageDecoder(2, width=4)),
        "Use the same `patch_size` for encoder and decoder.",
        lambda: tokenizer(decoder=ImageDecoder(4, width=4)),
    ),
    "a quantizer by name": (
        lambda: tokenizer("vq"),
        "Use `kseq.layers.FiniteScalarQuantizer` or `VectorQuantizer`.",
        lambda: (
            tokenizer(FiniteScalarQuantizer((3, 4))),
            tokenizer(VectorQuantizer(7, 2)),
        ),
    ),
    "ids of another grid": (
        lambda: tokenizer().decode([[1]]),
        "`encode(images)` returns such ids.",
        lambda: (model := tokenizer()).decode(model.encode(PICTURES)),
    ),
    "pictures with values above 1": (
        lambda: tokenizer().encode(255 * PICTURES),
        "Resize them, or divide them by 255.",
        lambda: tokenizer().encode(255 * PICTURES / 255),
    ),
    "bytes as training data": (
        lambda: fit(BYTES),
        'Divide them by 255: `pictures.astype("float32") / 255`.',
        lambda: fit(BYTES.astype("float32") / 255),
    ),
    "a folder without captions": (
        lambda: read_pictures(captions=None),
        "Write one line for each picture, such as `heart.png TAB a red heart`.",
        lambda: read_pictures("heart.png\ta red heart"),
    ),
    "a picture of one row": (
        lambda: read_one(Image.new("RGB", (99, 1))),
        "Crop it.",
        lambda: read_one(Image.new("RGB", (99, 1)).crop((0, 0, 9, 1))),
    ),
    "white on a transparent background": (
        lambda: read_one(WHITE_ON_TRANSPARENT),
        "Leave it out, or give it a background of another colour.",
        lambda: read_one(
            Image.alpha_composite(
                Image.new("RGBA", (2, 1), "red"), WHITE_ON_TRANSPARENT
            )
        ),
    ),
    "a tokenizer by its path": (
        lambda: build_drawer(tokenizer="tokenizer.keras"),
        "Load one with `keras.saving.load_model(path)`, or build "
        "`kseq.image_tokenizer((32, 32, 3))` and train it first.",
        lambda: (
            build_drawer(tokenizer=kseq.image_tokenizer((32, 32, 3))),
            drawer_with_loaded_tokenizer(),
        ),
    ),
    "one stream with another decoder": (
        lambda: build_drawer(encoder=None, decoder="gru"),
        "Use `encoder=None` with `TransformerDecoder(cross_attention=False, "
        "causal_prefix=True)`, or an encoder with another decoder.",
        lambda: (
            build_drawer(
                encoder=None,
                decoder=TransformerDecoder(
                    1, 2, cross_attention=False, causal_prefix=True
                ),
            ),
            build_drawer(encoder="gru", decoder="gru"),
        ),
    ),
    "too many codes": (
        lambda: tokenizer((100,) * 5),
        "Use fewer levels, such as (8, 5, 5, 5), 1,000 codes.",
        lambda: tokenizer((8, 5, 5, 5)),
    ),
    **{
        f"an invalid id of {name}": (
            lambda layer=layer: layer().ids_to_codes(np.array([12])),
            "`codes_to_ids(codes)` returns valid ids.",
            lambda layer=layer: (x := layer()).ids_to_codes(x.codes_to_ids(VECTORS)),
        )
        for name, layer in {
            "a finite scalar quantizer": lambda: FiniteScalarQuantizer((3, 4)),
            "a vector quantizer": built_vector_quantizer,
        }.items()
    },
    **{
        f"{name} to score": (
            lambda images=images: matcher().score([[4], [5]], images),
            "Resize them, or convert them to floats as for training, such as "
            '`images.astype("float32") / 255`.',
            lambda: matcher().score([[4], [5]], BYTES.astype("float32") / 255),
        )
        for name, images in {
            "bytes": BYTES,
            "pictures of another size": PICTURES[:, :2],
            "pictures with NaN": np.full_like(PICTURES, np.nan),
        }.items()
    },
    "pictures without scores for best_of": (
        lambda: kseq.decoding.best_of(PICTURES[:, None], [[0], [0]]),
        "Pass the result of `model.generate(...)` or `model.draw(...)`.",
        lambda: (
            kseq.decoding.best_of(drawer().draw([[4]]), [[0]]),
            kseq.decoding.best_of(drawer().generate([[4]]), [[0]]),
        ),
    ),
    **{
        f"a prefix with {name}": (
            lambda token=token: drawer().draw([[4]], prefix=[[token]]),
            "Leave out the start token: `image_tokens(images)[:, 1:]`.",
            lambda: (x := drawer()).draw(
                [[4], [5]], prefix=x.image_tokens(PICTURES)[:, 1:2]
            ),
        )
        for name, token in {
            "the start": 2,
            "the end": 3,
            "an invalid code": 9999,
        }.items()
    },
    "an empty caption": (
        lambda: pipeline().draw(["a", ""]),
        "Leave it out",
        lambda: pipeline().draw(["a"]),
    ),
    "a maximum length of a picture": (
        lambda: drawer().generate([[4]], max_length=1),
        "Leave it out.",
        lambda: drawer().generate([[4]]),
    ),
}
