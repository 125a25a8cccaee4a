"""Errors for models and options that CTranslate2 does not support."""

import importlib.util

import keras
import pytest

import kseq
from kseq.decoding import BannedTokens, BeamSearch, GreedySearch, Sampling
from kseq.layers import RotaryPositions, TransformerDecoder
from tests.builders.test_ctranslate2 import SOURCE_SIZE, TARGET_SIZE, model_of


class CustomHead(keras.layers.Dense):
    pass


class DistanceBias(keras.layers.Layer):
    def call(self, distance):
        distance = keras.ops.cast(distance, "float32")
        return keras.ops.repeat(keras.ops.expand_dims(distance, -1), 4, axis=-1)


def recurrent():
    return kseq.encoder_decoder(11, 13, width=8)


def recurrent_encoder():
    return kseq.encoder_decoder(11, 13, "gru", "transformer", width=8)


def conditional():
    return kseq.one_to_many(13, condition=5, decoder="transformer", width=8)


def prefix_decoder():
    decoder = TransformerDecoder(1, 2, cross_attention=False)
    return kseq.encoder_decoder(11, 13, "transformer", decoder, width=8)


def captioner():
    patches = kseq.layers.PatchEmbedding((4, 6, 1), 2, 8)
    return kseq.encoder_decoder(patches, 13, "transformer", "transformer", width=8)


def two_epsilons():
    decoder = TransformerDecoder(1, 2, epsilon=0.1)
    return kseq.encoder_decoder(11, 13, "transformer", decoder, width=8)


def custom_head():
    components = "transformer", "transformer"
    return kseq.encoder_decoder(11, 13, *components, width=8, head=CustomHead(13))


def head_with_activation():
    head = keras.layers.Dense(13, "tanh")
    components = "transformer", "transformer"
    return kseq.encoder_decoder(11, 13, *components, width=8, head=head)


def quantized():
    model = model_of()
    model.head.quantize("int8")
    return model


def ensemble():
    return kseq.ensemble([model_of(), model_of()])


@pytest.mark.parametrize(
    "make, message",
    [
        (recurrent, "`TransformerDecoder`. Received: RecurrentDecoder"),
        (recurrent_encoder, "`TransformerEncoder`.*Received: RecurrentEncoder"),
        (conditional, "where there is a source. Received: None"),
        (prefix_decoder, "reads it as a prefix"),
        (captioner, "`TokenEmbedding`. Received: PatchEmbedding"),
        (two_epsilons, "one `epsilon`.*has 0.1, while the encoder has 1e-05"),
        (custom_head, "a dense head or a tied one. Received: CustomHead"),
        (head_with_activation, "returns logits.*has an activation"),
        (quantized, 'model that is not quantized.*`quantization="int8"`'),
        (ensemble, "a model of `kseq.encoder_decoder` or `kseq.one_to_many`"),
        (
            lambda: model_of(relative_bias=DistanceBias()),
            "by rotation, or added to the embedding.*bias by distance",
        ),
        (lambda: model_of(activation="elu"), 'one of.*"relu".*has activation=.elu.'),
        (
            lambda: model_of(positions=None, rotary=RotaryPositions(columns=2)),
            "positions of a sequence.*a grid",
        ),
        (lambda: model_of(rotary=True), "rotates, and '.*' adds positions"),
    ],
)
def test_rejects_models_that_ctranslate2_cannot_run(make, message):
    with pytest.raises(ValueError, match=message):
        make().export_generation("written", format="ctranslate2")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"search": Sampling()}, "`GreedySearch` or `BeamSearch`.*search=Sampling"),
        (
            {"search": GreedySearch([BannedTokens([4])])},
            "a search without constraints",
        ),
        ({"search": BeamSearch(4, num_groups=2)}, "beams that are one group"),
        ({"search": BeamSearch(coverage_penalty=0.2)}, "without a coverage penalty"),
        (
            {"search": BeamSearch(length_penalty=1, length_penalty_form="gnmt")},
            'length_penalty_form="power"',
        ),
        ({"search": BeamSearch(10)}, "twice as many tokens as beams"),
        (
            {"search": BeamSearch(4, num_results=2, early_stopping=True)},
            "`num_results=None` with `early_stopping`",
        ),
        ({"quantization": "int4"}, "`quantization` must be one of"),
        ({"prefix_shape": (None, None)}, "`prefix_shape` is not an argument of"),
        ({"source_shape": (3,)}, "`source_shape` must be a shape like"),
        ({"vocabularies": {"target": []}}, "a dictionary of the tokens of"),
        (
            {"vocabularies": {"source": ["a"], "target": ["b"]}},
            'vocabularies\\["target"\\]` must be 19 different strings.*1 tokens',
        ),
        (
            {
                "vocabularies": {
                    "source": [f"s{i}" for i in range(SOURCE_SIZE)],
                    "target": [f"t{i}" for i in range(TARGET_SIZE)],
                }
            },
            "same text for the unknown token. Received: 't1'",
        ),
        ({"format": "onnx", "quantization": "int8"}, "`quantization` is not an"),
    ],
)
def test_rejects_unsupported_options(options, message):
    with pytest.raises(ValueError, match=message):
        model_of().export_generation(
            "written.onnx", **{"format": "ctranslate2", **options}
        )


def test_error_names_the_missing_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"ctranslate2.*pip install kseq\[export\]"):
        model_of().export_generation("written", format="ctranslate2")


@pytest.mark.parametrize("quantization", ["bfloat16", "int8_bfloat16"])
def test_rejects_bfloat16_without_pytorch(quantization, monkeypatch, tmp_path):
    found = {"ctranslate2": True, "torch": None}
    monkeypatch.setattr(importlib.util, "find_spec", found.get)
    options = {"format": "ctranslate2", "quantization": quantization}
    with pytest.raises(ImportError, match=r"PyTorch.*pip install kseq\[torch\]"):
        model_of().export_generation(tmp_path / "written", **options)
    assert not any(tmp_path.iterdir())
