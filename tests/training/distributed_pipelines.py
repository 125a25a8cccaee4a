"""Uses models on two virtual devices, and tells whether they do what one device does.

    KERAS_BACKEND=jax python tests/training/distributed_pipelines.py

Three rows, which two devices cannot divide, go through whatever reads rows beside
`fit`: pipelines of labels and of texts, tokenizers, matchers, forecasters.
"""

import contextlib
import json

from tests.training.distributed_training import two_cpus, two_devices

if __name__ == "__main__":  # doctest imports it too
    two_cpus()

import keras  # noqa: E402
import numpy as np  # noqa: E402

import kseq  # noqa: E402
from kseq.decoding import BannedTokens, Sampling  # noqa: E402
from kseq.layers import FeatureEmbedding  # noqa: E402
from kseq.text import TextToLabels, TextToText, TextWriter, Vocabulary  # noqa: E402

WORDS = Vocabulary("word").adapt(["what a joy", "what a bore"])
TEXTS = ["what a joy", "what", "a bore"]
PICTURES = np.random.default_rng(0).random((3, 8, 8, 3)).astype("float32")


def labels():
    model = kseq.many_to_one(WORDS.size, num_outputs=2, width=8)
    found = TextToLabels(model, WORDS, ["bad", "good"]).label(TEXTS)
    return [label.probabilities for label in found]


def tags():
    model = kseq.many_to_many(WORDS.size, num_outputs=2, width=8, head="crf")
    found = TextToLabels(model, WORDS, ["bad", "good"]).label(TEXTS)
    return [label.probabilities for row in found for label in row]


def texts():
    model = kseq.encoder_decoder(WORDS.size, WORDS.size, width=8)
    pipeline = TextToText(model, WORDS, WORDS)
    words = {"max_length": 4, "constraints": [BannedTokens([0, 1, 2, 3])]}
    pieces = list(pipeline.generate_stream(TEXTS, **words))
    written = [best.text for [best] in pipeline.generate(TEXTS, **words)]
    assert ["".join(each) for each in zip(*pieces, strict=True)] == written
    assert all(written)
    drawn = pipeline.generate(TEXTS, Sampling(num_draws=2, seed=1), 5)
    scores = [x.log_prob for row in drawn for x in row]
    return [*scores, *pipeline.score(TEXTS, TEXTS)]


def continued():
    writer = TextWriter(kseq.one_to_many(WORDS.size, width=8), WORDS)
    ids = WORDS.encode(writer.generate(TEXTS, max_length=6))
    return [*writer.score(TEXTS), *(len(row) for row in ids)]


def tokens():
    quantizer = kseq.layers.FiniteScalarQuantizer((5, 5))
    model = kseq.image_tokenizer((8, 8, 3), quantizer, patch_size=4, width=4)
    ids = model.encode(PICTURES, batch_size=1)
    return [ids, model.decode(ids)]


def cosines():
    image = kseq.vision_transformer((8, 8, 3), 4, num_outputs=6, width=8)
    matcher = kseq.text_image_matcher(WORDS.size, image, width=8)
    return [matcher.score(WORDS.encode(TEXTS), PICTURES)]


def forecasts():
    series = FeatureEmbedding(3, width=8), FeatureEmbedding(1, width=8)
    model = kseq.encoder_decoder(*series, "gru", "gru")
    return [model.generate(PICTURES[:, 0], 4).draws]


USES = [labels, tags, texts, continued, tokens, cosines, forecasts]


def main():
    gaps = {}
    for use in USES:
        found = []
        for scope in (contextlib.nullcontext(), two_devices("data")):
            keras.utils.set_random_seed(1)
            with scope:
                found.append([np.asarray(each, "float64") for each in use()])
        pairs = list(zip(*found, strict=True))
        assert all(x.shape == y.shape for x, y in pairs), use.__name__
        gaps[use.__name__] = max(float(np.abs(x - y).max()) for x, y in pairs)
    print(json.dumps(gaps))


if __name__ == "__main__":
    main()
