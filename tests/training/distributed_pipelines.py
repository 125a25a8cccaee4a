"""Comparison of two virtual devices with one, in all uses of models but `fit`.

    KERAS_BACKEND=jax python tests/training/distributed_pipelines.py

Three rows, a number that two devices do not divide, pass through pipelines of labels
and of texts, tokenizers, matchers and forecasters. The script prints the largest
differences.
"""

import contextlib
import functools
import json

import keras
import numpy as np

import kseq
from kseq.decoding import BannedTokens, Sampling
from kseq.layers import FeatureEmbedding
from kseq.text import TextToLabels, TextToText, TextWriter, Vocabulary
from tests.training.distributed_training import make_two_cpus, two_devices

TEXTS = ["what a joy", "what", "a bore"]
PICTURES = np.random.default_rng(0).random((3, 8, 8, 3)).astype("float32")


@functools.cache
def words():
    """Return the vocabulary. It uses TensorFlow, so `make_two_cpus` comes first."""
    return Vocabulary("word").adapt(["what a joy", "what a bore"])


def labels():
    model = kseq.many_to_one(words().size, num_outputs=2, width=8)
    found = TextToLabels(model, words(), ["bad", "good"]).label(TEXTS)
    return [label.probabilities for label in found]


def tags():
    model = kseq.many_to_many(words().size, num_outputs=2, width=8, head="crf")
    found = TextToLabels(model, words(), ["bad", "good"]).label(TEXTS)
    return [label.probabilities for row in found for label in row]


def texts():
    model = kseq.encoder_decoder(words().size, words().size, width=8)
    pipeline = TextToText(model, words(), words())
    rules = {"max_length": 4, "constraints": [BannedTokens([0, 1, 2, 3])]}
    pieces = list(pipeline.generate_stream(TEXTS, **rules))
    generated = [best.text for [best] in pipeline.generate(TEXTS, **rules)]
    assert ["".join(each) for each in zip(*pieces, strict=True)] == generated
    assert all(generated)
    sampled = pipeline.generate(TEXTS, Sampling(num_draws=2, seed=1), 5)
    scores = [x.log_prob for row in sampled for x in row]
    return [*scores, *pipeline.score(TEXTS, TEXTS)]


def continuations():
    writer = TextWriter(kseq.one_to_many(words().size, width=8), words())
    ids = words().encode(writer.generate(TEXTS, max_length=6))
    return [*writer.score(TEXTS), *(len(row) for row in ids)]


def tokens():
    quantizer = kseq.layers.FiniteScalarQuantizer((5, 5))
    model = kseq.image_tokenizer((8, 8, 3), quantizer, patch_size=4, width=4)
    ids = model.encode(PICTURES, batch_size=1)
    return [ids, model.decode(ids)]


def cosines():
    image = kseq.vision_transformer((8, 8, 3), 4, num_outputs=6, width=8)
    matcher = kseq.text_image_matcher(words().size, image, width=8)
    return [matcher.score(words().encode(TEXTS), PICTURES)]


def forecasts():
    series = FeatureEmbedding(3, width=8), FeatureEmbedding(1, width=8)
    model = kseq.encoder_decoder(*series, "gru", "gru")
    return [model.generate(PICTURES[:, 0], 4).draws]


USES = [labels, tags, texts, continuations, tokens, cosines, forecasts]


def main():
    make_two_cpus()
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
