"""Image captioning with a Vision Transformer as encoder and a text decoder."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import PatchEmbedding, TransformerEncoder
from kseq.training import SequenceCrossentropy, teacher_forcing
from tests.helpers import assert_close

START, END, FIRST_COLOUR, FIRST_CORNER = 2, 3, 4, 7
COLOURS, CORNERS = 3, 4


def coloured_squares(random, copies):
    """Return images (N, 8, 8, 3) with a square in a corner, and their captions."""
    pictures, captions = [], []
    for colour, corner in np.ndindex(COLOURS, CORNERS):
        for _ in range(copies):
            picture = 0.1 * random.normal(size=(8, 8, 3))
            top, left = 4 * (corner // 2), 4 * (corner % 2)
            picture[top : top + 4, left : left + 4, colour] += 1
            pictures.append(picture)
            captions.append([START, FIRST_COLOUR + colour, FIRST_CORNER + corner, END])
    return np.array(pictures, "float32"), np.array(captions, "int32")


@pytest.mark.thorough
def test_a_vision_transformer_and_a_decoder_learn_to_caption(tmp_path):
    random = np.random.default_rng(1)
    pictures, captions = coloured_squares(random, copies=16)
    model = kseq.encoder_decoder(
        source=PatchEmbedding((8, 8, 3), patch_size=4, width=16),
        encoder=TransformerEncoder(num_layers=1, num_heads=2, activation="gelu"),
        target=FIRST_CORNER + CORNERS,
        decoder="transformer",
        width=16,
    )
    jit_compile = keras.backend.backend() == "jax"
    model.compile(
        keras.optimizers.Adam(0.01), SequenceCrossentropy(), jit_compile=jit_compile
    )
    batches = teacher_forcing(pictures, captions, batch_size=48, length_multiple=1)
    model.fit(batches, epochs=40, verbose=0)

    unseen, expected = coloured_squares(random, copies=2)
    result = model.generate(unseen, max_length=3)
    assert (result.token_ids[:, 0] == expected[:, 1:]).all(axis=1).mean() > 0.9
    assert_close(model.score(unseen, result), result.log_probs, atol=1e-4)

    model.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert_close(loaded.score(unseen, result), result.log_probs, atol=1e-4)


@pytest.mark.thorough
def test_emoji_are_captioned_in_korean(data_set):
    data_set("emoji")
    keras.utils.set_random_seed(0)
    pictures, captions, *_ = kseq.datasets.load("emoji", language="ko")["train"]
    chosen = range(0, len(captions), len(captions) // 20)
    pictures = pictures[list(chosen)].astype("float32") / 127.5 - 1
    captions = [captions[index] for index in chosen]
    vocabulary = kseq.text.Vocabulary("character").adapt(captions)
    model = kseq.encoder_decoder(
        source=PatchEmbedding((32, 32, 3), patch_size=8, width=64),
        encoder=TransformerEncoder(num_layers=1, num_heads=4, activation="gelu"),
        target=vocabulary.size,
        decoder="transformer",
        width=64,
    )
    jit_compile = keras.backend.backend() != "torch"
    model.compile(
        keras.optimizers.Adam(3e-3, global_clipnorm=1.0),
        SequenceCrossentropy(),
        jit_compile=jit_compile,
    )
    encoded = vocabulary.encode(captions, start=True, end=True)
    batches = teacher_forcing(pictures, encoded, batch_size=21, length_multiple=64)
    model.fit(batches, epochs=60, verbose=0)
    generated = model.generate(pictures, max_length=40).token_ids[:, 0]
    assert vocabulary.decode(generated) == captions
