"""Custom embeddings, which describe their inputs, in the builders."""

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.layers import ClassEmbedding, SequenceEmbedding
from kseq.layers.positions import step_positions
from tests.helpers import assert_close, randomize

SOURCES = [[4, 5, 6], [7]]


@keras.saving.register_keras_serializable(package="own")
class OneHotEmbedding(SequenceEmbedding):
    """One-hot vectors of tokens, with the position as one more feature."""

    padding = 0
    takes_positions = True

    def __init__(self, vocabulary_size, num_positions=None, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.num_positions = num_positions
        self.width = vocabulary_size + 1
        self.supports_masking = True

    def symbolic_input(self, name):
        return keras.Input((None,), dtype="int32", name=name)

    def compute_mask(self, token_ids, previous_mask=None):
        return ops.not_equal(token_ids, self.padding)

    def call(self, token_ids, positions=None):
        if positions is None:
            mask = self.compute_mask(token_ids)
            positions = step_positions(mask, ops.shape(token_ids)[1])
        vectors = ops.one_hot(token_ids, self.vocabulary_size)  # B S V
        positions = ops.cast(positions, vectors.dtype)[..., None]
        return ops.concatenate([vectors, positions], axis=-1)

    def get_config(self):
        config = {
            "vocabulary_size": self.vocabulary_size,
            "num_positions": self.num_positions,
        }
        return {**super().get_config(), **config}


def make_model(**options):
    source, target = OneHotEmbedding(11, **options), OneHotEmbedding(13, **options)
    model = kseq.encoder_decoder(source, target, width=5)
    randomize(model)
    return model


def test_generation_uses_the_positions_of_training():
    model = make_model()
    result = model.generate(SOURCES, kseq.decoding.BeamSearch(3), max_length=5)
    assert_close(model.score(SOURCES, result), result.log_probs)


def test_a_custom_embedding_survives_saving(tmp_path):
    model = make_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    targets = [[4, 5, 3], [12, 3]]
    assert_close(loaded.score(SOURCES, targets), model.score(SOURCES, targets))


def test_the_limits_of_a_custom_embedding_are_checked():
    model = make_model(num_positions=4)
    with pytest.raises(ValueError, match="`source` must hold integers from 0 to 10"):
        model.generate([[4, 11]])
    with pytest.raises(ValueError, match="its embedding has learned positions"):
        model.generate([[4, 5, 6, 7, 8]], max_length=4)
    with pytest.raises(ValueError, match="max_length=5 with a target of max_length=4"):
        model.generate(SOURCES, max_length=5)


def test_other_builders_take_a_custom_embedding():
    classifier = kseq.many_to_one(OneHotEmbedding(11), 2, encoder="rnn", width=3)
    assert classifier(np.array([[4, 5, 0]])).shape == (1, 2)


def test_rejects_a_target_embedding_without_padding():
    with pytest.raises(ValueError, match="`target` must be an embedding of tokens"):
        kseq.encoder_decoder(11, ClassEmbedding(13, 5), width=5)


def test_rejects_an_embedding_without_symbolic_input():
    with pytest.raises(NotImplementedError, match="no method `symbolic_input`"):
        kseq.many_to_one(SequenceEmbedding(), 2, width=3)
