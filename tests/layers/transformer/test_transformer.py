import keras
import numpy as np
import pytest

from kseq.layers import (
    MultiHeadAttention,
    RotaryPositions,
    TransformerDecoder,
    TransformerDecoderBlock,
    TransformerEncoder,
    TransformerEncoderBlock,
    backends,
)
from kseq.layers.transformer import cache
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_layer_runs,
    check_padding_changes_nothing,
    check_reordered_steps_equal_sequence,
    check_steps_equal_sequence,
    length_mask,
    random_array,
    randomize,
)
from tests.layers.transformer.test_multi_head_attention import DistanceBias

B, K, T, S, D, MEMORY_SIZE, HEADS = 2, 3, 5, 7, 12, 11, 6

MASK = length_mask(6, 3, size=S)
MASK[0, :2] = False  # left padding as well
EMPTY_ROW_MASK = MASK & np.array([[True], [False]])
INPUTS_MASK = length_mask(5, 3, size=T)

SEQUENCES = random_array(B, S, D)
INPUTS, MEMORY = random_array(B, T, D), random_array(B, S, MEMORY_SIZE)

OPTIONS = {
    "num_heads": HEADS,
    "intermediate_dim": 17,
    "norm_first": False,
    "activation": "gelu",
    "dropout": 0.2,
    "attention_dropout": 0.3,
    "num_key_value_heads": 2,
    "rotary": True,
    "relative_bias": lambda: DistanceBias(HEADS),
    "epsilon": 1e-3,
}
STACK = {
    **OPTIONS,
    "num_layers": 1,
    "width": 24,
    "final_norm": True,
    "rotary": lambda: RotaryPositions(columns=3),
}

POSITIONS = [{}, {"rotary": True}, {"relative_bias": True}]
each_order = pytest.mark.parametrize("norm_first", [True, False], ids=["pre", "post"])
each_position = pytest.mark.parametrize(
    "positions", POSITIONS, ids=["none", "rotary", "relative"]
)


def make_encoder(**options):
    if options.get("relative_bias"):
        options["relative_bias"] = DistanceBias(HEADS)
    encoder = TransformerEncoder(num_heads=HEADS, **options)
    encoder(SEQUENCES)
    randomize(encoder)
    return encoder


def make_decoder(memory=MEMORY, **options):
    if options.get("relative_bias"):
        options["relative_bias"] = DistanceBias(HEADS)
    decoder = TransformerDecoder(num_heads=HEADS, **options)
    decoder(INPUTS, memory)
    randomize(decoder)
    return decoder


# The contract -----------------------------------------------------------------------


def test_the_encoder_keeps_the_contract_of_layers():
    check_layer(
        TransformerEncoder,
        STACK,
        {"sequences": SEQUENCES, "mask": EMPTY_ROW_MASK},
        {"return_attention_scores": True},
    )


@pytest.mark.thorough
def test_the_encoder_block_keeps_the_contract_of_layers():
    check_layer(
        TransformerEncoderBlock,
        OPTIONS,
        {"sequences": SEQUENCES, "mask": EMPTY_ROW_MASK},
        {"return_attention_scores": True},
    )


def test_the_decoder_with_a_prefix_keeps_the_contract_of_layers():
    check_layer(
        TransformerDecoder,
        {**STACK, "cross_attention": False, "causal_prefix": True},
        {
            "inputs": INPUTS,
            "memory": MEMORY,
            "memory_mask": EMPTY_ROW_MASK,
            "inputs_mask": INPUTS_MASK,
        },
        {"return_attention_scores": True},
    )


def test_the_decoder_with_cross_attention_keeps_the_contract_of_layers():
    check_layer_runs(
        TransformerDecoder,
        {"num_layers": 2, "num_heads": HEADS},
        {
            "inputs": INPUTS,
            "memory": MEMORY,
            "memory_mask": EMPTY_ROW_MASK,
            "inputs_mask": INPUTS_MASK,
        },
        {"return_attention_scores": True},
    )


@pytest.mark.thorough
def test_the_decoder_block_keeps_the_contract_of_layers():
    check_layer(
        TransformerDecoderBlock,
        {**OPTIONS, "cross_attention": False},
        {"inputs": INPUTS, "inputs_mask": INPUTS_MASK},
    )
    check_layer_runs(
        TransformerDecoderBlock,
        {"num_heads": HEADS},
        {"inputs": INPUTS, "memory": MEMORY, "memory_mask": EMPTY_ROW_MASK},
        {"return_attention_scores": True},
    )


# Equations ----------------------------------------------------------------------------


def norm(layer, x):
    deviation = x - x.mean(axis=-1, keepdims=True)
    x = deviation / np.sqrt((deviation**2).mean(axis=-1, keepdims=True) + layer.epsilon)
    return x * array(layer.gamma) + array(layer.beta)


def sublayer(layer, x, function, norm_first):
    if norm_first:
        return x + function(norm(layer, x))
    return norm(layer, x + function(x))


def attend(attention, query, value, mask):
    return array(attention(query[None], value[None], attention_mask=mask))[0]


@each_order
def test_the_encoder_equals_the_equations(norm_first):
    encoder = make_encoder(norm_first=norm_first, num_layers=2)
    outputs = encoder(SEQUENCES, mask=MASK)
    for b in range(B):
        x = SEQUENCES[b, MASK[b]]
        for block in encoder.blocks:
            x = sublayer(
                block.attention_norm,
                x,
                lambda y, block=block: attend(block.attention, y, y, None),
                norm_first,
            )
            x = sublayer(
                block.feed_forward_norm,
                x,
                lambda y, block=block: array(block.feed_forward(y)),
                norm_first,
            )
        x = norm(encoder.norm, x) if norm_first else x
        assert_close(array(outputs)[b, MASK[b]], x)


@each_order
def test_the_decoder_equals_the_equations(norm_first):
    decoder = make_decoder(norm_first=norm_first, num_layers=2)
    outputs = decoder(INPUTS, MEMORY, memory_mask=MASK)
    earlier = np.tril(np.ones((T, T), bool))
    for b in range(B):
        x, memory = INPUTS[b], MEMORY[b, MASK[b]]
        for block in decoder.blocks:
            x = sublayer(
                block.attention_norm,
                x,
                lambda y, block=block: attend(block.attention, y, y, earlier),
                norm_first,
            )
            x = sublayer(
                block.memory_norm,
                x,
                lambda y, block=block, memory=memory: attend(
                    block.memory_attention, y, memory, None
                ),
                norm_first,
            )
            x = sublayer(
                block.feed_forward_norm,
                x,
                lambda y, block=block: array(block.feed_forward(y)),
                norm_first,
            )
        assert_close(outputs[b], norm(decoder.norm, x) if norm_first else x)


@pytest.mark.parametrize("is_causal", [True, False])
@each_position
def test_a_prefix_equals_preceding_steps(positions, is_causal):
    # The reference is an encoder that sees the prefix and all earlier steps.
    options = {"cross_attention": False, "causal_prefix": is_causal}
    decoder = make_decoder(SEQUENCES, **options, **positions)
    outputs, prefix = decoder(INPUTS, SEQUENCES, return_prefix=True)
    whole = np.concatenate([SEQUENCES, INPUTS], axis=1)
    mask = np.tril(np.ones((S + T, S + T), bool))
    mask[:, :S] |= not is_causal
    for block in decoder.blocks:
        encoder_block = TransformerEncoderBlock(
            HEADS, **{**positions, "relative_bias": block.relative_bias}
        )
        encoder_block.build(whole.shape)
        encoder_block.set_weights(block.get_weights())
        whole = array(encoder_block(whole, attention_mask=mask))
    assert_close(outputs, norm(decoder.norm, whole[:, S:]))
    assert_close(prefix, norm(decoder.norm, whole[:, :S]))
    both = decoder(INPUTS, SEQUENCES, return_attention_scores=True, return_prefix=True)
    assert [tuple(x.shape) for x in both] == [
        (B, T, D),
        (B, 2, HEADS, T, S + T),
        (B, S, D),
    ]


def test_padding_of_a_causal_prefix_changes_nothing():
    decoder = make_decoder(cross_attention=False, causal_prefix=True)

    def read(memory, mask):
        outputs, prefix = decoder(INPUTS, memory, memory_mask=mask, return_prefix=True)
        return [prefix], [outputs]

    check_padding_changes_nothing(read, MEMORY, MASK)


def test_steps_after_a_causal_prefix_equal_the_whole_sequence():
    decoder = make_decoder(cross_attention=False, causal_prefix=True)
    inputs = random_array(B, K, T, D, seed=4)
    check_steps_equal_sequence(decoder, inputs, MEMORY, [None, MASK], None)


def test_attention_scores_cover_every_block_and_head():
    _, weights = make_encoder()(SEQUENCES, mask=MASK, return_attention_scores=True)
    assert weights.shape == (B, 2, HEADS, S, S)
    assert (
        array(weights)[~np.broadcast_to(MASK[:, None, None, None], weights.shape)] == 0
    ).all()
    _, weights = make_decoder()(INPUTS, MEMORY, return_attention_scores=True)
    assert weights.shape == (B, 2, HEADS, T, S)
    decoder = make_decoder(cross_attention=False)
    _, weights = decoder(INPUTS, MEMORY, return_attention_scores=True)
    assert weights.shape == (B, 2, HEADS, T, S + T)


# Laws -------------------------------------------------------------------------------


@each_position
def test_padding_changes_nothing_in_the_encoder(positions):
    encoder = make_encoder(**positions)
    check_padding_changes_nothing(
        lambda x, mask: ([encoder(x, mask=mask)], []), SEQUENCES, MASK
    )


@pytest.mark.parametrize("cross_attention", [True, False])
@each_position
def test_padding_of_the_memory_changes_nothing(cross_attention, positions):
    decoder = make_decoder(cross_attention=cross_attention, **positions)
    check_padding_changes_nothing(
        lambda memory, mask: ([], [decoder(INPUTS, memory, memory_mask=mask)]),
        MEMORY,
        MASK,
    )


@each_position
def test_padding_of_the_inputs_changes_nothing(positions):
    decoder = make_decoder(cross_attention=False, **positions)
    check_padding_changes_nothing(
        lambda x, mask: (
            [decoder(x, MEMORY, memory_mask=MASK, inputs_mask=mask)],
            [],
        ),
        INPUTS,
        INPUTS_MASK,
    )


@pytest.mark.parametrize("cross_attention", [True, False])
def test_future_steps_change_nothing(cross_attention):
    decoder = make_decoder(cross_attention=cross_attention)
    changed = INPUTS.copy()
    changed[:, 3:] += random_array(B, T - 3, D)
    before, after = (array(decoder(x, MEMORY)) for x in (INPUTS, changed))
    assert_close(after[:, :3], before[:, :3])
    assert (abs(after - before)[:, 3:] > 1e-3).any(axis=-1).all()


def test_a_batch_equals_its_rows():
    encoder, decoder = make_encoder(rotary=True), make_decoder(rotary=True)
    check_batch_equals_rows(lambda x, mask: encoder(x, mask=mask), SEQUENCES, MASK)
    check_batch_equals_rows(
        lambda x, memory, mask: decoder(x, memory, memory_mask=mask),
        INPUTS,
        MEMORY,
        MASK,
    )


@pytest.mark.parametrize("cross_attention", [True, False])
def test_fully_masked_rows_are_finite(cross_attention):
    encoder = make_encoder()
    check_fully_masked_rows_are_finite(
        lambda x, mask: [encoder(x, mask=mask)], SEQUENCES, MASK
    )
    decoder = make_decoder(cross_attention=cross_attention)
    check_fully_masked_rows_are_finite(
        lambda memory, mask: [decoder(INPUTS, memory, memory_mask=mask)], MEMORY, MASK
    )


@pytest.mark.parametrize("cross_attention", [True, False])
@pytest.mark.parametrize(
    "shared, positions",
    [
        (2, POSITIONS[0]),
        (HEADS, POSITIONS[1]),
        (2, POSITIONS[2]),
        (2, {"rotary": RotaryPositions(columns=2)}),
    ],
    ids=["none, grouped", "rotary", "relative, grouped", "grid, grouped"],
)
@pytest.mark.parametrize("steps_of_block", [64, 2])
def test_single_steps_equal_the_whole_sequence(
    cross_attention, shared, positions, steps_of_block, monkeypatch
):
    monkeypatch.setattr(cache, "STEPS_OF_BLOCK", steps_of_block)
    decoder = make_decoder(
        cross_attention=cross_attention,
        num_key_value_heads=shared,
        norm_first=shared == 2,
        width=24,
        **positions,
    )
    inputs = random_array(B, K, T, D)
    check_steps_equal_sequence(
        decoder, inputs, MEMORY, [None, MASK, EMPTY_ROW_MASK], None
    )
    check_reordered_steps_equal_sequence(decoder, inputs, MEMORY, MASK, None)


def test_the_blocks_use_the_given_rotary_layer():
    decoder = make_decoder(None, cross_attention=False, width=24, rotary=True)
    grid = make_decoder(
        None, cross_attention=False, width=24, rotary=RotaryPositions(columns=T)
    )
    grid.set_weights(decoder.get_weights())
    assert (
        (abs(array(grid(INPUTS)) - array(decoder(INPUTS)))[:, 1:] > 1e-4).all(0).any()
    )
    copy = TransformerDecoder.from_config(grid.get_config())
    copy(INPUTS)
    copy.set_weights(grid.get_weights())
    assert_close(copy(INPUTS), grid(INPUTS))
    assert copy.blocks[1].attention.rotary_positions.columns == T


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_a_rotary_layer_of_another_precision_changes_no_dtype(dtype):
    rotary = RotaryPositions(columns=2)
    decoder = TransformerDecoder(1, 3, rotary=rotary, dtype=dtype)
    outputs = decoder(INPUTS, MEMORY)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype[6:]
    state, constants = decoder.start(MEMORY, max_length=T)
    for t in range(T):
        step, state = decoder.step(INPUTS[:, t : t + 1], state, constants)
        step, whole = (
            keras.ops.cast(x, "float32") for x in (step[:, 0], outputs[:, t])
        )
        assert_close(step, whole, atol=0.1)


def test_single_steps_without_a_memory_equal_the_whole_sequence():
    decoder = make_decoder(None, cross_attention=False, rotary=True)
    outputs = array(decoder(INPUTS))
    state, constants = decoder.start(np.zeros((B, 0, D), "float32"), max_length=T)
    for t in range(T):
        step, state = decoder.step(INPUTS[:, t : t + 1], state, constants)
        assert_close(step[:, 0], outputs[:, t])


def test_steps_keep_half_precision():
    decoder = TransformerDecoder(num_heads=HEADS, dtype="mixed_bfloat16")
    decoder.build(INPUTS.shape, MEMORY.shape)
    state, constants = decoder.start(MEMORY, max_length=T)
    _, after = decoder.step(INPUTS[:, :1], state, constants)
    dtypes = [
        [keras.backend.standardize_dtype(x.dtype) for x in keras.tree.flatten(tree)]
        for tree in (state, after)
    ]
    assert dtypes[0] == dtypes[1] == ["int32"] * 2 + ["bfloat16"] * 4


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("rotary", ["yes", 2, RotaryPositions])
@pytest.mark.parametrize(
    "layer_class", [TransformerEncoder, TransformerDecoderBlock, MultiHeadAttention]
)
def test_rejects_an_invalid_rotary_argument(layer_class, rotary):
    with pytest.raises(ValueError, match="`rotary` must be True, False, or a layer"):
        layer_class(num_heads=2, rotary=rotary)


def test_rejects_cross_attention_without_a_memory():
    with pytest.raises(ValueError, match="needs a memory[\\s\\S]*`cross_attention=Fal"):
        TransformerDecoder(num_heads=HEADS)(INPUTS)
    with pytest.raises(ValueError, match="if, and only if, it has cross-attention"):
        TransformerDecoderBlock(num_heads=HEADS)(INPUTS)


def test_start_requires_max_length():
    decoder = make_decoder()
    with pytest.raises(ValueError, match="`max_length` must be a positive integer"):
        decoder.start(MEMORY)


@pytest.mark.parametrize("layer", [TransformerEncoder, TransformerDecoder])
@pytest.mark.parametrize("option", ["num_layers", "width", "intermediate_dim"])
def test_sizes_must_be_positive(layer, option):
    with pytest.raises(ValueError, match=f"`{option}` must be a positive integer"):
        layer(**{option: 0})


@pytest.mark.parametrize("layer", [TransformerEncoder, TransformerDecoderBlock])
@pytest.mark.parametrize("value", [0, -1e-5, "a", None])
def test_epsilon_must_be_positive(layer, value):
    with pytest.raises(ValueError, match=f"`epsilon` must be .*: epsilon={value!r}"):
        layer(epsilon=value)


def test_rejects_a_width_not_divisible_by_num_heads():
    with pytest.raises(ValueError, match="width 12 with num_heads=8"):
        TransformerEncoder()(SEQUENCES)


@pytest.mark.parametrize(
    ("max_length", "lengths"),
    [(0, [0]), (1, [1]), (64, [64]), (65, [64, 1]), (1000, [125] * 8)],
)
def test_a_cache_is_split_into_blocks_if_the_backend_can_skip_them(max_length, lengths):
    is_split = backends.available()
    assert cache.block_lengths(max_length) == (lengths if is_split else [max_length])


@pytest.mark.skipif(not backends.available(), reason="a cache is one block there")
def test_unwritten_blocks_of_a_cache_are_not_read(monkeypatch):
    """Later blocks hold NaN, which a product with a weight of 0 would keep."""
    monkeypatch.setattr(cache, "STEPS_OF_BLOCK", 2)
    decoder = make_decoder(cross_attention=False)
    state, constants = decoder.start(MEMORY, max_length=5)
    expected = array(decoder.step(INPUTS[:, :1], state, constants)[0])
    blocks = [
        tensor
        for path, tensor in keras.tree.flatten_with_path(state)
        if "values" in path and path[-1] > 0
    ]
    assert len(blocks) == 2 * len(decoder.blocks)
    nan = [id(block) for block in blocks]
    state = keras.tree.map_structure(
        lambda tensor: tensor * np.nan if id(tensor) in nan else tensor, state
    )
    assert_close(decoder.step(INPUTS[:, :1], state, constants)[0], expected)
