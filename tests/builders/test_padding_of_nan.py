"""Series padded with NaN: models train only on the real steps."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import FeatureEmbedding
from kseq.training import SequenceCrossentropy
from tests.helpers import array, assert_close, length_mask, random_array, randomize

SERIES, REAL = random_array(3, 5, 2), length_mask(5, 3, 1, size=5)
TARGET = np.array([[2, 5, 6, 4], [2, 4, 0, 0], [2, 3, 0, 0]], "int32")
STEPS = np.ones((3, 5), "int32")
CLASSES = keras.losses.SparseCategoricalCrossentropy


def many_to_one_with(pooling):
    return lambda series: kseq.many_to_one(series, 3, "transformer", pooling, width=6)


def encoder_decoder_with(encoder, decoder):
    return lambda series: kseq.encoder_decoder(series, 7, encoder, decoder, width=6)


CASES = {
    "mean": (many_to_one_with("mean"), STEPS[:, 0]),
    "max": (many_to_one_with("max"), STEPS[:, 0]),
    "class_token": (many_to_one_with("class_token"), STEPS[:, 0]),
    "steps": (lambda series: kseq.many_to_many(series, 3, "lstm", width=6), STEPS),
    "recurrent": (encoder_decoder_with("gru", "gru"), TARGET),
    "transformers": (encoder_decoder_with("transformer", "transformer"), TARGET),
    "transformer and lstm": (encoder_decoder_with("transformer", "lstm"), TARGET),
}


@pytest.mark.parametrize("kind", CASES)
def test_training_does_not_depend_on_the_padding_value(kind):
    make, labels = CASES[kind]
    trained = []
    for value in (-1.0, np.nan):
        model = make(FeatureEmbedding(2, 6, mask_value=value))
        randomize(model)
        series = np.where(REAL[..., None], SERIES, value).astype("float32")
        is_generative = labels is TARGET
        model.compile(
            keras.optimizers.SGD(0.1),
            SequenceCrossentropy() if is_generative else CLASSES(from_logits=True),
            run_eagerly=keras.backend.backend() == "tensorflow",
            jit_compile=keras.backend.backend() == "jax",
        )
        inputs = {"source": series, "target": TARGET} if is_generative else series
        trained.append([model.train_on_batch(inputs, labels)])
        trained[-1] += [array(weight) for weight in model.weights]
    assert np.isfinite(trained[1][0])
    assert_close(*trained)
