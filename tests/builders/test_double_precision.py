"""Every model in double precision, where only TensorFlow changes the integer type."""

import keras
import numpy as np
import pytest

from kseq.builders.generation import GenerativeModel
from kseq.decoding import (
    AllowedSequences,
    BannedSequences,
    BeamSearch,
    ForcedTokens,
    GreedySearch,
    MaximumLength,
    MinimumLength,
    NoRepeatNGrams,
    RepetitionPenalty,
    Sampling,
)
from kseq.training import (
    EditDistanceRate,
    ExactMatch,
    SequenceCrossentropy,
    TokenAccuracy,
)
from tests.builders.small_models import MODELS, translator
from tests.helpers import assert_close

if keras.backend.backend() == "jax":
    pytest.skip("JAX has no float64 unless asked", allow_module_level=True)

T = 4
CONSTRAINTS = [
    MinimumLength(2),
    MaximumLength(4),
    NoRepeatNGrams(2),
    RepetitionPenalty(1.2),
    BannedSequences([[5, 6]]),
]
SEARCHES = {
    "greedy": GreedySearch(constraints=CONSTRAINTS),
    "beams": BeamSearch(3, length_penalty=0.6, num_results=2, early_stopping=True),
    "groups": BeamSearch(4, num_groups=2, constraints=[ForcedTokens([None, 5])]),
    "coverage": BeamSearch(2, coverage_penalty=0.2),
    "allowed": BeamSearch(2, constraints=[AllowedSequences([[5, 6], [5, 7, 8]])]),
    "sampling": Sampling(seed=3, num_draws=2),
    "top_p": Sampling(seed=3, top_k=7, top_p=0.9, min_p=0.01, typical_p=0.9),
}


@pytest.fixture(autouse=True)
def double_precision():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("kind", MODELS)
def test_every_model_trains_and_generates(kind):
    make, inputs = MODELS[kind]
    model = make()
    assert {w.dtype for w in model.trainable_weights} <= {"float64", "float32"}
    outputs = keras.ops.convert_to_numpy(model(inputs))
    if not isinstance(model, GenerativeModel):
        model.compile("sgd", "mse")
        assert np.isfinite(model.train_on_batch(inputs, np.zeros_like(outputs))).all()
        return
    metrics = [TokenAccuracy(), ExactMatch(), EditDistanceRate()]
    model.compile("sgd", SequenceCrossentropy(label_smoothing=0.1), metrics=metrics)
    assert np.isfinite(model.train_on_batch(inputs, inputs["target"])).all()
    source = inputs.get("source", 3)
    length = getattr(model, "num_tokens", T)  # fixed for images
    result = model.generate(source, BeamSearch(2), length)
    source = inputs.get("source")
    assert_close(model.score(source, result), result.log_probs, atol=1e-4)


@pytest.mark.parametrize("kind", SEARCHES)
def test_every_search_generates(kind):
    make, inputs = MODELS["encoder_decoder, bahdanau"]
    result = make().generate(inputs["source"], SEARCHES[kind], T, prefix=[[5]] * 3)
    assert np.isfinite(result.log_probs[:, 0]).all()


def test_streaming_gives_the_tokens_of_generate():
    model, source = translator(), MODELS["encoder_decoder, bahdanau"][1]["source"]
    stream = np.stack(list(model.generate_stream(source, max_length=T)), axis=-1)
    whole = model.generate(source, max_length=T).token_ids[:, 0]
    assert (stream == whole[:, : stream.shape[1]]).all()
