"""Transformer blocks, compared with other libraries for equal weights."""

import numpy as np
import pytest

from kseq.layers import TransformerDecoderBlock, TransformerEncoderBlock
from tests.helpers import array, assert_close, length_mask, random_array, randomize

B, T, S, D, HEADS, INTERMEDIATE = 2, 5, 7, 12, 3, 17

SEQUENCES, INPUTS = random_array(B, S, D), random_array(B, T, D)
MASK = length_mask(7, 4, size=S)
REAL = MASK[..., None]

each_order = pytest.mark.parametrize("norm_first", [True, False], ids=["pre", "post"])


def make_block(block_class, norm_first, *shapes):
    block = block_class(
        num_heads=HEADS, intermediate_dim=INTERMEDIATE, norm_first=norm_first
    )
    block.build(*shapes)
    return block


def assign(block, weights):
    """Set weights by the end of their path, `attention/query/kernel` and so on."""
    for weight in block.weights:
        name = weight.path.removeprefix(f"{block.name}/")
        weight.assign(np.reshape(weights.pop(name), weight.shape))
    assert not weights


# KerasHub: kernels (D, H, C), and other names -----------------------------------------

KERAS_HUB_NAMES = {
    "self_attention_layer_norm/": "attention_norm/",
    "self_attention_layer/": "attention/",
    "self_attention/": "attention/",
    "cross_attention_layer_norm/": "memory_norm/",
    "cross_attention/": "memory_attention/",
    "attention_output/": "output/",
    "feedforward_layer_norm/": "feed_forward_norm/",
    "feedforward_intermediate_dense/": "feed_forward/widen/",
    "feedforward_output_dense/": "feed_forward/narrow/",
}


def from_keras_hub(layer):
    weights = {}
    for weight in layer.weights:
        name = weight.path.removeprefix(f"{layer.name}/")
        for theirs, ours in KERAS_HUB_NAMES.items():
            name = name.replace(theirs, ours)
        weights[name] = array(weight)
    return weights


@each_order
def test_the_encoder_equals_keras_hub(norm_first):
    keras_hub = pytest.importorskip("keras_hub")
    theirs = keras_hub.layers.TransformerEncoder(
        INTERMEDIATE, HEADS, normalize_first=norm_first
    )
    theirs.build(SEQUENCES.shape)
    randomize(theirs)
    ours = make_block(TransformerEncoderBlock, norm_first, SEQUENCES.shape)
    assign(ours, from_keras_hub(theirs))
    expected = theirs(SEQUENCES, padding_mask=MASK)
    outputs = ours(SEQUENCES, mask=MASK)
    assert_close(array(outputs) * REAL, array(expected) * REAL)


@each_order
def test_the_decoder_equals_keras_hub(norm_first):
    keras_hub = pytest.importorskip("keras_hub")
    theirs = keras_hub.layers.TransformerDecoder(
        INTERMEDIATE, HEADS, normalize_first=norm_first
    )
    shapes = INPUTS.shape, SEQUENCES.shape
    theirs.build(*shapes)
    randomize(theirs)
    ours = make_block(TransformerDecoderBlock, norm_first, *shapes)
    assign(ours, from_keras_hub(theirs))
    expected = theirs(INPUTS, SEQUENCES, encoder_padding_mask=MASK)
    assert_close(ours(INPUTS, SEQUENCES, memory_mask=MASK), expected)


# torch: query, key and value in one matrix, all kernels transposed --------------------


def attention_from_torch(name, attention):
    weights = {}
    kernels = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    for part, kernel, bias in zip(("query", "key", "value"), *kernels, strict=True):
        weights[f"{name}/{part}/kernel"] = kernel.T
        weights[f"{name}/{part}/bias"] = bias
    weights[f"{name}/output/kernel"] = attention.out_proj.weight.T
    weights[f"{name}/output/bias"] = attention.out_proj.bias
    return weights


def from_torch(layer, norms):
    weights = attention_from_torch("attention", layer.self_attn)
    if hasattr(layer, "multihead_attn"):
        weights |= attention_from_torch("memory_attention", layer.multihead_attn)
    for name, part in {"widen": layer.linear1, "narrow": layer.linear2}.items():
        weights[f"feed_forward/{name}/kernel"] = part.weight.T
        weights[f"feed_forward/{name}/bias"] = part.bias
    for i, name in enumerate(norms, 1):
        norm = getattr(layer, f"norm{i}")
        weights |= {f"{name}/gamma": norm.weight, f"{name}/beta": norm.bias}
    return {name: weight.detach().cpu().numpy() for name, weight in weights.items()}


def torch_layer(torch, name, norm_first):
    torch.manual_seed(0)
    layer = getattr(torch.nn, name)(
        D, HEADS, INTERMEDIATE, batch_first=True, norm_first=norm_first, dropout=0.0
    )
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.mark.thorough(all_but=1)
@each_order
def test_the_encoder_equals_torch(norm_first):
    torch = pytest.importorskip("torch")
    theirs = torch_layer(torch, "TransformerEncoderLayer", norm_first)
    ours = make_block(TransformerEncoderBlock, norm_first, SEQUENCES.shape)
    assign(ours, from_torch(theirs, ["attention_norm", "feed_forward_norm"]))
    expected = theirs(torch.tensor(SEQUENCES), src_key_padding_mask=torch.tensor(~MASK))
    outputs = ours(SEQUENCES, mask=MASK)
    assert_close(array(outputs) * REAL, expected.detach().numpy() * REAL)


@each_order
def test_the_decoder_equals_torch(norm_first):
    torch = pytest.importorskip("torch")
    theirs = torch_layer(torch, "TransformerDecoderLayer", norm_first)
    ours = make_block(
        TransformerDecoderBlock, norm_first, INPUTS.shape, SEQUENCES.shape
    )
    norms = ["attention_norm", "memory_norm", "feed_forward_norm"]
    assign(ours, from_torch(theirs, norms))
    expected = theirs(
        torch.tensor(INPUTS),
        torch.tensor(SEQUENCES),
        tgt_mask=torch.nn.Transformer.generate_square_subsequent_mask(T),
        memory_key_padding_mask=torch.tensor(~MASK),
    )
    outputs = ours(INPUTS, SEQUENCES, memory_mask=MASK)
    assert_close(outputs, expected.detach().numpy())
