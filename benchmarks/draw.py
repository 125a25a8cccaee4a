"""Time to draw images from captions: kseq, and a plain Keras loop without a cache.

    python benchmarks/draw.py --json draw.json

The model is that of `recipes/draw_pictures.py` with random weights: images of 32 x 32
pixels, each of 64 tokens, from 4,375 codes. The cases `draw_1` and `draw_16` draw 1 and
16 captions greedily. For each token the plain loop calls `predict` on the whole
sequence and takes the most probable token. Needs the extra `benchmarks`.
"""

import functools

import numpy as np
import side_by_side

WORDS, CAPTION, LEVELS, WIDTH = 2_000, 6, (7, 5, 5, 5, 5), 128
START, FIRST_CODE = 2, 4


def make_model():
    import kseq

    layers = kseq.layers
    tokenizer = kseq.image_tokenizer(
        image_shape=(32, 32, 3),
        quantizer=layers.FiniteScalarQuantizer(LEVELS),
        patch_size=4,
        width=WIDTH,
        encoder=layers.ImageEncoder(4, WIDTH, kernel_size=1, name="encoder"),
        num_blocks=3,
    )
    return kseq.text_to_image(
        WORDS,
        tokenizer,
        encoder=layers.TransformerEncoder(2, num_heads=4, activation="gelu"),
        decoder=layers.TransformerDecoder(3, num_heads=4, activation="gelu"),
        width=WIDTH,
    )


def captions(count):
    """Return token ids `(B, S)` without padding."""
    return np.random.default_rng(0).integers(4, WORDS, (count, CAPTION), "int32")


def kseq_runs(count):
    model = make_model()
    return {"draw_ms": lambda: model.draw(captions(count))}


def plain_runs(count):
    model = make_model()

    def draw():
        source, length = captions(count), model.num_tokens
        target = np.zeros((count, length + 1), "int32")
        target[:, 0] = START
        for step in range(length):
            inputs = {"source": source, "target": target[:, :length]}
            logits = model.predict(inputs, verbose=0)[:, step]
            target[:, step + 1] = FIRST_CODE + logits[:, FIRST_CODE:].argmax(-1)
        return model.tokenizer.decode(target[:, 1:] - FIRST_CODE)

    return {"draw_ms": draw}


SYSTEMS = {"kseq": kseq_runs, "plain_keras": plain_runs}
CASES = {
    f"draw_{count}": {
        system: functools.partial(runs, count) for system, runs in SYSTEMS.items()
    }
    for count in (1, 16)
}

if __name__ == "__main__":
    side_by_side.main(CASES, description=__doc__)
