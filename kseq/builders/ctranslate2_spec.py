"""CTranslate2 specification of a Transformer of kseq.

Axes in shape comments: S positions, D features of an embedding, U width, V vocabulary,
H heads, N key heads, C size of a head.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import keras
import numpy as np

from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.layers import (
    LearnedPositions,
    RotaryPositions,
    SinusoidalPositions,
    TiedHead,
    TokenEmbedding,
    TransformerDecoder,
    TransformerEncoder,
)
from kseq.layers.composition import is_quantized
from kseq.typing import Tensor

ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "silu": "SWISH",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
NEVER = -1e4  # a logit of probability 0, in half precision too


def transformer_spec(model: EncoderDecoder, num_positions: Mapping[str, int]) -> Any:
    """Return the specification of a model, with its weights.

    Args:
        model: An `EncoderDecoder` that passes `check_model`.
        num_positions: Numbers of positions of `"source"` and `"target"`, by name, for
            positions of unlimited number.

    Returns:
        A `ctranslate2.specs.TransformerSpec`, or for a model without a source a
        `ctranslate2.specs.TransformerDecoderModelSpec`.
    """
    from ctranslate2 import specs

    decoder = stack_spec(specs.TransformerDecoderSpec, model.decoder)
    table = fill_stack(decoder, model.decoder, model.target, num_positions["target"])
    decoder.embeddings.weight = table
    fill_head(decoder.projection, model)
    if model.encoder is None:
        spec = specs.TransformerDecoderModelSpec(decoder)
    else:
        encoder = stack_spec(specs.TransformerEncoderSpec, model.encoder)
        most = num_positions["source"]
        table = fill_stack(encoder, model.encoder, model.source, most)
        encoder.embeddings[0].weight = table
        spec = specs.TransformerSpec(encoder, decoder)
    spec.config.layer_norm_epsilon = model.decoder.epsilon
    return spec


def check_model(model: EncoderDecoder) -> None:
    """Raise unless CTranslate2 can run a model."""
    if type(model) is not EncoderDecoder:
        refuse("a model of `kseq.encoder_decoder` or `kseq.one_to_many`", model)
    source, encoder, decoder = model.source, model.encoder, model.decoder
    if type(decoder) is not TransformerDecoder:
        refuse("a `TransformerDecoder`", decoder)
    if source is not None and type(encoder) is not TransformerEncoder:
        refuse("a `TransformerEncoder` where there is a source", encoder)
    if source is not None and not decoder.cross_attention:
        refuse("cross-attention to a source", decoder, "reads it as a prefix")
    for embedding in (model.target, source):
        if embedding is not None and type(embedding) is not TokenEmbedding:
            refuse("a `TokenEmbedding`", embedding)
    for stack, embedding in ((encoder, source), (decoder, model.target)):
        if stack is not None:
            check_stack(stack)
            check_positions(stack, embedding)
    if encoder is not None and encoder.epsilon != decoder.epsilon:
        received = f"has {decoder.epsilon}, while the encoder has {encoder.epsilon}"
        refuse("one `epsilon` of all norms", decoder, received)
    if model.pointer_generator is not None:
        refuse("a model without `copy`", model.pointer_generator)
    is_dense = type(model.head) is keras.layers.Dense
    if not is_dense and type(model.head) is not TiedHead:
        refuse("a dense head or a tied one", model.head)
    if is_dense and model.head.activation is not keras.activations.linear:
        refuse("a head that returns logits", model.head, "has an activation")
    for layer in model._flatten_layers():
        if is_quantized(layer):
            raise ValueError(
                'format="ctranslate2" needs a model that is not quantized. Received: '
                f"{layer.path}, which is quantized to {layer.quantization_mode}. "
                'Export the original model, with `quantization="int8"`.'
            )


def check_stack(stack: TransformerEncoder | TransformerDecoder) -> None:
    """Raise unless CTranslate2 supports all options of a stack."""
    if stack.relative_bias is not None:
        refuse(
            "positions by rotation, or added to the embedding",
            stack,
            "has a bias by distance",
        )
    if activation_name(stack) not in ACTIVATIONS:
        listed = ", ".join(f'"{name}"' for name in ACTIVATIONS)
        received = f"has activation={activation_name(stack)!r}"
        refuse(f"one of the activations {listed}", stack, received)
    rotary = rotary_of(stack)
    if rotary is not None and rotary.columns is not None:
        refuse(
            "positions of a sequence", stack, "rotates by rows and columns of a grid"
        )


def check_positions(
    stack: TransformerEncoder | TransformerDecoder, embedding: keras.layers.Layer
) -> None:
    """Raise unless CTranslate2 can add the positions of an embedding."""
    positions = embedding.positions_layer
    if positions is None:
        return
    if type(positions) not in (LearnedPositions, SinusoidalPositions):
        refuse("learned or sinusoidal positions", positions)
    if rotary_of(stack) is not None:
        received = f"rotates, and '{embedding.name}' adds positions"
        refuse("either added or rotary positions", stack, received)


def refuse(needed: str, part: Any, received: str | None = None) -> NoReturn:
    """Raise the error of a model that CTranslate2 cannot run."""
    name = "None" if part is None else f"{type(part).__name__} '{part.name}'"
    told = name if received is None else f"{name}, which {received}"
    raise ValueError(
        f'format="ctranslate2" needs {needed}. Received: {told}. Export it as '
        '"tf_saved_model", which supports every model.'
    )


def stack_spec(kind: type, stack: TransformerEncoder | TransformerDecoder) -> Any:
    """Return an empty specification of an encoder or a decoder."""
    from ctranslate2.specs.common_spec import Activation

    options = {}
    if kind.__name__ == "TransformerDecoderSpec":
        options["with_encoder_attention"] = stack.cross_attention
    rotary = rotary_of(stack)
    if rotary is not None:
        options["rotary_dim"] = 0  # all dimensions
        options["rotary_interleave"] = rotary.layout == "interleaved"
        options["rotary_base"] = rotary.max_wavelength
    spec = kind(
        stack.num_layers,
        stack.num_heads,
        no_final_norm=stack.norm is None,
        activation=Activation[ACTIVATIONS[activation_name(stack)]],
        num_heads_kv=stack.num_key_value_heads,
        **options,
    )
    # CTranslate2 uses one flag for pre-norm blocks.
    spec.pre_norm = stack.norm_first
    return spec


def fill_stack(
    spec: Any,
    stack: TransformerEncoder | TransformerDecoder,
    embedding: keras.layers.Layer,
    num_positions: int,
) -> np.ndarray:
    """Set the weights and positions of a stack, and return its table `(V, U)`."""
    spec.scale_embeddings = embedding.scale and stack.projection is None
    if rotary_of(stack) is None:
        spec.position_encodings.encodings = positions_of(
            embedding, stack.projection, num_positions
        )
    if stack.norm is not None:
        fill_norm(spec.layer_norm, stack.norm)
    for layer, block in zip(spec.layer, stack.blocks, strict=True):
        fill_attention(layer.self_attention, block.attention, block.attention_norm)
        if getattr(block, "cross_attention", False):
            fill_attention(layer.attention, block.memory_attention, block.memory_norm)
        fill_norm(layer.ffn.layer_norm, block.feed_forward_norm)
        fill_linear(layer.ffn.linear_0, [block.feed_forward.widen])
        fill_linear(layer.ffn.linear_1, [block.feed_forward.narrow])
    return table_of(embedding, stack.projection)


def fill_attention(
    spec: Any, attention: keras.layers.Layer, norm: keras.layers.Layer
) -> None:
    """Set the projections; those of the same input are joined into one product."""
    fill_norm(spec.layer_norm, norm)
    query, output = attention.query_projection, attention.output_projection
    key, value = attention.key_projection, attention.value_projection
    groups: Sequence[list[keras.layers.Dense]] = [query], [key, value], [output]
    if len(spec.linear) == 2:  # self-attention
        groups = [query, key, value], [output]
    for linear, layers in zip(spec.linear, groups, strict=True):
        fill_linear(linear, layers)


def table_of(
    embedding: keras.layers.Layer, projection: keras.layers.Dense | None
) -> np.ndarray:
    """Return the vectors `(V, U)` of the tokens, of the width of the stack."""
    table = as_array(embedding.embedding.embeddings)  # V D
    if projection is None:
        return table
    weight, bias = as_linear(projection)
    scale = np.float32(embedding.width**0.5 if embedding.scale else 1)
    return (scale * table) @ weight.T + bias


def positions_of(
    embedding: keras.layers.Layer,
    projection: keras.layers.Dense | None,
    num_positions: int,
) -> np.ndarray:
    """Return the vectors `(S, U)` to add for the positions."""
    layer = embedding.positions_layer
    if isinstance(layer, LearnedPositions):
        encodings = as_array(layer.table)  # S D
    else:
        encodings = np.zeros((1, num_positions, embedding.width), "float32")
        if layer is not None:
            exact = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
            encodings = as_array(exact(encodings))
        [encodings] = encodings  # S D
    if projection is None:
        return encodings
    weight, _ = as_linear(projection)
    return encodings @ weight.T


def fill_head(spec: Any, model: EncoderDecoder) -> None:
    """Set the head; padding, which is never generated, has no probability."""
    if isinstance(model.head, TiedHead):
        spec.weight = as_array(model.target.embedding.embeddings)  # V U
        bias = as_array(model.head.bias)
    else:
        spec.weight, bias = as_linear(model.head)
    spec.bias = np.where(np.arange(len(bias)) == model.pad_token_id, NEVER, bias)
    spec.bias = spec.bias.astype("float32")


def fill_norm(spec: Any, norm: keras.layers.Layer) -> None:
    spec.gamma, spec.beta = as_array(norm.gamma), as_array(norm.beta)


def fill_linear(spec: Any, layers: Sequence[keras.layers.Dense]) -> None:
    """Set the concatenated product of dense layers."""
    parts = [as_linear(layer) for layer in layers]
    spec.weight = np.concatenate([weight for weight, _ in parts])
    spec.bias = np.concatenate([bias for _, bias in parts])


def as_linear(dense: keras.layers.Dense) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel of a dense layer, outputs first, and its bias."""
    kernel = as_array(dense.kernel).T.copy()
    bias = np.zeros(len(kernel), "float32")
    return kernel, (as_array(dense.bias) if dense.use_bias else bias)


def as_array(weight: Tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))


def rotary_of(stack: TransformerEncoder | TransformerDecoder) -> RotaryPositions | None:
    """Return the layer that rotates queries and keys of each block, or None."""
    return stack.blocks[0].attention.rotary_positions


def activation_name(stack: TransformerEncoder | TransformerDecoder) -> Any:
    """Return the name of an activation, or the config of a custom one."""
    return keras.activations.serialize(stack.activation)
