"""Recorded steps on PyTorch, which generate what the steps themselves do."""

import keras
import numpy as np
import pytest

import kseq
from kseq.builders.generation import GenerativeModel
from kseq.decoding import BeamSearch, GreedySearch, Guidance, Sampling
from kseq.layers import FeatureEmbedding, torch_replay
from tests.builders.small_models import MODELS, transformer_translator
from tests.helpers import assert_close, random_array, randomize

if keras.backend.backend() != "torch":
    pytest.skip("other backends compile their loops", allow_module_level=True)

T = 6
GENERATIVE_MODELS = [
    name for name in MODELS if isinstance(MODELS[name][0](), GenerativeModel)
]
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3, length_penalty=0.6, num_results=2),
    "sampling": Sampling(seed=3, num_draws=2),
}


def generate(model, source, search):
    length = getattr(model, "num_tokens", T)  # fixed for images
    return model.generate(source, search, length)


def recordings(model):
    """Return the recordings of the loops that a model ran last."""
    loops = model.__dict__["_compiled_loops"].models.values()
    entries = [entry for loop in loops for entry in loop.recorder.entries.values()]
    return [recording for _, recording in entries if recording is not None]


def assert_same_generation(result, expected):
    assert (result.token_ids == expected.token_ids).all()
    assert_close(result.log_probs, expected.log_probs)


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("name", GENERATIVE_MODELS)
def test_a_recorded_step_generates_the_same(name, kind, monkeypatch):
    make, inputs = MODELS[name]
    model = make()
    randomize(model)
    source = inputs.get("source", 3)
    expected = generate(model, source, SEARCHES[kind])
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 1)
    for _ in range(2):
        assert_same_generation(generate(model, source, SEARCHES[kind]), expected)
    [recording] = recordings(model)
    assert recording and recording.is_checked


@pytest.mark.parametrize("decoder", ["gru", "lstm", "transformer"])
@pytest.mark.parametrize("head", ["gaussian", "student_t", "quantiles"])
def test_recorded_steps_draw_the_same_numbers(head, decoder, monkeypatch):
    source, target = FeatureEmbedding(3, 8), FeatureEmbedding(1, 8)
    model = kseq.encoder_decoder(source, target, decoder=decoder, width=8, head=head)
    past = random_array(4, 5, 3)
    options = {"num_steps": 6, "num_draws": 3, "seed": 1}
    expected = model.generate(past, **options)
    model.__dict__.pop("_compiled_loops")
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 3)
    for _ in range(3):  # recorded within a loop, whose first state has other strides
        assert_close(model.generate(past, **options).draws, expected.draws)
    assert any(recordings(model))


def test_a_recording_uses_new_sources_and_weights(monkeypatch):
    model = transformer_translator()
    randomize(model)
    sources = [[4, 5, 6], [7, 8, 9]], [[9, 4, 2], [5, 5, 5]]
    expected = [generate(model, source, None) for source in sources]
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 0)
    for source, reference in zip(sources, expected, strict=True):
        assert_same_generation(generate(model, source, None), reference)
    kernel = next(w for w in model.weights if w.path.endswith("query/kernel"))
    kernel.assign(-2 * kernel)
    recorded = generate(model, sources[0], None)
    model.__dict__.pop("_compiled_loops")
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 99)
    assert_same_generation(recorded, generate(model, sources[0], None))
    assert not np.allclose(recorded.log_probs, expected[0].log_probs)


def test_guidance_is_recorded(monkeypatch):
    make, inputs = MODELS["text_to_image"]
    model, search = make(), GreedySearch(guidance=Guidance(2.0))
    randomize(model)
    expected = generate(model, inputs["source"], search)
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 0)
    assert_same_generation(generate(model, inputs["source"], search), expected)
    assert all(recordings(model))


def torch_tensors(*values):
    return [keras.ops.convert_to_tensor(value) for value in values]


def run_recorded_steps(function, count=3):
    """Return the outputs of recorded steps, whose state counts, and the recording."""
    recorder = torch_replay.Recorder()
    step, state, outputs = recorder.steps_of(function), torch_tensors([0.0])[0], []
    for _ in range(count):
        output, state = step(torch_tensors([1, 2])[0], state, torch_tensors([3.0])[0])
        outputs.append(keras.ops.convert_to_numpy(output).tolist())
    [[_, recording]] = recorder.entries.values()
    return outputs, recording


def test_constant_operations_are_computed_once(monkeypatch):
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 0)

    def step(ids, state, constants):
        zeros = keras.ops.zeros((1,))
        summed = zeros.add_(state)  # changed in place, so new at each step
        return summed + keras.ops.exp(constants), state + 1

    outputs, recording = run_recorded_steps(step)
    assert_close(np.array(outputs)[:, 0], np.exp(3) + np.arange(3), atol=1e-4)
    names = {
        part: [str(node.target) for node in getattr(recording, part).graph.nodes]
        for part in ("once", "each_step")
    }
    assert "aten.exp.default" in names["once"]
    assert "aten.exp.default" not in names["each_step"]
    assert "aten.zeros.default" in names["each_step"]


@pytest.mark.parametrize(
    "value", [lambda x: x.item(), lambda x: float(keras.ops.convert_to_numpy(x)[0])]
)
def test_a_step_that_reads_tensor_values_is_not_replayed(value, monkeypatch):
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 0)

    def step(ids, state, constants):
        return constants + value(state), state + 1

    outputs, recording = run_recorded_steps(step)
    assert outputs == [[3.0], [4.0], [5.0]]
    assert recording is False


def test_a_state_in_another_memory_layout_is_not_replayed(monkeypatch):
    monkeypatch.setattr(torch_replay, "STEPS_BEFORE", 0)
    recorder = torch_replay.Recorder()
    step = recorder.steps_of(lambda ids, state, constants: (state.reshape(-1), state))
    whole = keras.ops.reshape(keras.ops.arange(6), (2, 3))
    for _ in range(3):
        outputs, _ = step(*torch_tensors([0]), whole, *torch_tensors([0]))
    expanded = whole[:, :1].expand(2, 3)
    outputs, _ = step(*torch_tensors([0]), expanded, *torch_tensors([0]))
    assert outputs.tolist() == [0, 0, 0, 3, 3, 3]


def test_the_number_of_recordings_is_limited(monkeypatch):
    monkeypatch.setattr(torch_replay, "MOST_RECORDINGS", 2)
    recorder = torch_replay.Recorder()
    step = recorder.steps_of(lambda ids, state, constants: (ids, state))
    for size in (1, 2, 3, 3):
        step(*torch_tensors([0] * size, [0.0], [0.0]))
    assert len(recorder.entries) == 2


def test_rejects_jit_compile():
    with pytest.raises(ValueError, match="recorded and replayed.*Leave it out"):
        transformer_translator().generate([[4, 5]], max_length=2, jit_compile=True)
