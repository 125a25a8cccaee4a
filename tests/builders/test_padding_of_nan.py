"""Series that are filled up with NaN: models train on what is real."""

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


def answering(pooling):
    return lambda series: kseq.many_to_one(series, 3, "transformer", pooling, width=6)


def writing(encoder, decoder):
    return lambda series: kseq.encoder_decoder(series, 7, encoder, decoder, width=6)


CASES = {
    "mean": (answering("mean"), STEPS[:, 0]),
    "max": (answering("max"), STEPS[:, 0]),
    "class_token": (answering("class_token"), STEPS[:, 0]),
    "steps": (lambda series: kseq.many_to_many(series, 3, "lstm", width=6), STEPS),
    "recurrent": (writing("gru", "gru"), TARGET),
    "transformers": (writing("transformer", "transformer"), TARGET),
    "from a transformer": (writing("transformer", "lstm"), TARGET),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_model_learns_the_same_whatever_marks_padding(kind):
    make, labels = CASES[kind]
    trained = []
    for value in (-1.0, np.nan):
        model = make(FeatureEmbedding(2, 6, mask_value=value))
        randomize(model)
        series = np.where(REAL[..., None], SERIES, value).astype("float32")
        is_writer = labels is TARGET
        model.compile(
            keras.optimizers.SGD(0.1),
            SequenceCrossentropy() if is_writer else CLASSES(from_logits=True),
            run_eagerly=keras.backend.backend() == "tensorflow",
            jit_compile=keras.backend.backend() == "jax",
        )
        inputs = {"source": series, "target": TARGET} if is_writer else series
        trained.append([model.train_on_batch(inputs, labels)])
        trained[-1] += [array(weight) for weight in model.weights]
    assert np.isfinite(trained[1][0])
    assert_close(*trained)
