"""Inputs that are not token ids, passed to models of tokens."""

import keras
import numpy as np
import pytest
from keras import tree

import kseq
from kseq.layers import FeatureEmbedding
from tests.builders.small_models import MODELS, SERIES, SOURCE

TOKEN_MODELS = {
    name: (make, inputs)
    for name, (make, inputs) in MODELS.items()
    if tree.flatten(inputs)[0].dtype.kind == "i"
}


def invalid_inputs(inputs):
    """Yield floats, a series and ids with a wrong number of axes."""
    yield tree.map_structure(lambda x: x + 0.5, inputs)
    yield tree.map_structure(lambda x: np.float32(x), inputs)
    yield tree.map_structure(lambda x: np.ones((*x.shape, 1), "float32"), inputs)
    yield tree.map_structure(lambda x: x[..., None], inputs)
    yield tree.map_structure(lambda x: x[0], inputs)


@pytest.mark.parametrize("make, inputs", TOKEN_MODELS.values(), ids=TOKEN_MODELS)
def test_rejects_inputs_that_are_not_token_ids(make, inputs):
    model = make()
    for wrong in invalid_inputs(inputs):
        with pytest.raises(ValueError, match="must be token ids, integers of shape"):
            model(wrong)
    symbols = tree.map_structure(lambda x: keras.Input(x.shape[1:]), inputs)
    with pytest.raises(ValueError, match="Received: float32 of shape"):
        model(symbols)
    for kind in ("int64", "uint8"):
        model(tree.map_structure(lambda x, kind=kind: x.astype(kind), inputs))


@pytest.mark.parametrize("method", ["fit", "predict", "evaluate"])
def test_every_keras_method_rejects_a_series(method):
    model = kseq.many_to_one(11, num_outputs=3, width=4)
    model.compile("sgd", "sparse_categorical_crossentropy")
    labels = () if method == "predict" else (np.zeros(3, "int32"),)
    with pytest.raises(ValueError, match="`source=kseq.layers.FeatureEmbedding"):
        getattr(model, method)(SERIES[..., :1], *labels, verbose=0)


def test_both_suggested_fixes_work():
    kseq.many_to_one(11, 3, width=4)(np.float32(SOURCE).astype("int32"))
    kseq.many_to_one(source=FeatureEmbedding(2, 4), num_outputs=3)(SERIES)


@pytest.mark.parametrize("method", ["fit", "predict", "evaluate", "predict_on_batch"])
def test_every_keras_method_rejects_floats(method):
    model = kseq.many_to_one(11, num_outputs=3, width=4)
    model.compile("sgd", "sparse_categorical_crossentropy")
    labels = () if "predict" in method else (np.zeros(len(SOURCE), "int32"),)
    with pytest.raises(ValueError, match="Received: float"):
        getattr(model, method)(SOURCE + 0.5, *labels)


def test_a_single_input_is_checked_without_its_name():
    model = kseq.one_to_many(11, width=4)
    with pytest.raises(ValueError, match="`target` of .* Received: float"):
        model(SOURCE + 0.5)
