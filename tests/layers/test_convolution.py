import keras
import numpy as np
import pytest

from kseq.layers import ConvEncoder
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_layer_runs,
    check_padding_changes_nothing,
    compiled,
    length_mask,
    random_array,
    randomize,
    sigmoid,
    with_keras_mask,
)

B, S, D, UNITS = 3, 13, 5, 7

MASK = length_mask(11, 13, 3, size=S)
MASK[0, :2] = False  # left padding as well

SEQUENCES = random_array(B, S, D)
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "linear": lambda x: x,
}
each_direction = pytest.mark.parametrize(
    "causal", [True, False], ids=["causal", "centered"]
)


def build(units=UNITS, num_layers=2, width=D, **options):
    encoder = ConvEncoder(units, num_layers, **options)
    encoder.build((None, None, width))
    randomize(encoder)
    return encoder


def convolve(part, steps):
    """Return one convolution of a row by its formula, with zeros beyond the ends."""
    kernel, bias, outputs = array(part.kernel), array(part.bias), []
    if part.scale is not None:
        kernel = kernel / np.sqrt((kernel**2).sum(axis=(0, 1))) * array(part.scale)
    taps = part.kernel_size - 1 if part.causal else (part.kernel_size - 1) // 2
    for s in range(len(steps)):
        total = bias.astype("float64")
        for j in range(part.kernel_size):
            read = s + (j - taps) * part.dilation
            if 0 <= read < len(steps):
                total = total + steps[read] @ kernel[j]
        outputs.append(total)
    return np.array(outputs)


def run(encoder, steps, real=None):
    """Return all outputs of a row, some steps of which may be masked."""
    is_real = np.ones((len(steps), 1)) if real is None else real[:, None]
    steps = steps * is_real
    activation = ACTIVATIONS[keras.activations.serialize(encoder.activation)]
    for layer in range(encoder.num_layers):
        y = steps
        for index in (2 * layer, 2 * layer + 1):
            y = convolve(encoder.convolutions[index], y)
            if encoder.gated:
                y, gates = np.split(y, 2, axis=-1)
                y = activation(y) * sigmoid(gates)
            else:
                y = activation(y)
            y = y * is_real
        if encoder.residual:
            is_projected = steps.shape[-1] != encoder.units
            way = array(encoder.projection.kernel) if is_projected else None
            y = y + (steps @ way if is_projected else steps)
        steps = y
    return steps


# Layer checks -----------------------------------------------------------------------


def test_causal_gated_encoder_passes_the_layer_checks():
    dead = MASK.copy()
    dead[1] = False
    check_layer(
        ConvEncoder,
        {
            "units": UNITS,
            "num_layers": 2,
            "kernel_size": 2,
            "dilation_base": 3,
            "causal": True,
            "gated": True,
            "residual": False,
            "activation": "tanh",
            "weight_normalization": False,
            "dropout": 0.2,
        },
        {"sequences": SEQUENCES, "mask": dead},
        {"return_state": True},
    )


@pytest.mark.parametrize("gated", [False, True])
def test_centered_residual_encoder_passes_the_layer_checks(gated):
    check_layer_runs(
        ConvEncoder,
        {"units": UNITS, "num_layers": 1, "gated": gated, "dropout": 0.1},
        {"sequences": SEQUENCES, "mask": MASK},
    )


# The formula ------------------------------------------------------------------------


@each_direction
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 1},
        {"kernel_size": 4, "dilation_base": 1},
        {"num_layers": 3, "kernel_size": 2},
        {"residual": False, "dilation_base": 3},
        {"units": D, "num_layers": 1},
        {"gated": True, "activation": "tanh"},
        {"gated": True, "activation": "linear", "weight_normalization": False},
    ],
    ids=lambda options: "-".join(f"{n}={v}" for n, v in options.items()) or "default",
)
def test_encoder_equals_a_numpy_loop(options, causal):
    encoder = build(**options, causal=causal)
    outputs = array(encoder(SEQUENCES, mask=MASK))
    for b in range(B):
        assert_close(outputs[b, MASK[b]], run(encoder, SEQUENCES[b, MASK[b]]))
    assert (outputs[~MASK] == 0).all()


def test_only_the_input_of_the_first_layer_is_projected():
    encoder = build(num_layers=3)
    assert tuple(encoder.projection.kernel.shape) == (D, UNITS)
    assert build(units=D, num_layers=3).projection is None


@each_direction
@pytest.mark.parametrize("kernel_size, base", [(2, 2), (3, 2), (4, 3), (1, 2)])
def test_receptive_field_equals_the_steps_that_change_an_output(
    causal, kernel_size, base
):
    encoder = build(kernel_size=kernel_size, dilation_base=base, causal=causal)
    field = encoder.receptive_field
    length, place = 2 * field + 3, field + 1
    series = random_array(1, length, D)
    outputs = array(encoder(series))
    reads = []
    for s in range(length):
        other = series.copy()
        other[:, s] += 1
        difference = np.abs(array(encoder(other)) - outputs)[0, place].max()
        reads += [s] if difference > 1e-6 else []
    assert len(reads) <= field and reads[-1] - reads[0] + 1 == field
    taps = kernel_size - 1 if causal else (kernel_size - 1) // 2
    assert place - reads[0] == 2 * taps * (1 + base)


# Masks ------------------------------------------------------------------------------


@each_direction
@pytest.mark.parametrize("gated", [False, True])
def test_padding_does_not_change_the_outputs(causal, gated):
    encoder = build(causal=causal, gated=gated)

    def apply(sequences, mask):
        return [encoder(sequences, mask=mask)], []

    check_padding_changes_nothing(apply, SEQUENCES, MASK)


def test_left_padding_does_not_change_the_states():
    encoder = build(causal=True)
    _, states = encoder(SEQUENCES, return_state=True)
    noise = np.full((B, 4, D), np.nan, "float32")
    padded = np.concatenate([noise, SEQUENCES], axis=1)
    mask = np.arange(S + 4)[None] >= np.full((B, 1), 4)
    _, others = encoder(padded, mask=mask, return_state=True)
    assert_close(others, states)


@each_direction
def test_batch_equals_its_rows(causal):
    encoder = build(causal=causal)
    check_batch_equals_rows(lambda x, mask: encoder(x, mask=mask), SEQUENCES, MASK)


@each_direction
def test_fully_masked_row_returns_zeros(causal):
    encoder = build(causal=causal)
    check_fully_masked_rows_are_finite(
        lambda x, mask: [encoder(x, mask=mask)], SEQUENCES, MASK, zeros=True
    )


def test_masked_step_between_real_ones_keeps_its_position():
    encoder, mask = build(), MASK.copy()
    mask[1, 5] = False
    garbage = np.where(mask[..., None], SEQUENCES, np.nan).astype("float32")
    outputs = array(encoder(garbage, mask=mask))[1]
    assert_close(outputs, run(encoder, SEQUENCES[1], mask[1]))
    skipped = run(encoder, SEQUENCES[1, mask[1]])
    assert np.abs(outputs[mask[1]] - skipped)[4:6].max() > 1e-3


@pytest.mark.parametrize("has_states", [False, True])
def test_keras_mask_is_used_and_passed_on(has_states):
    encoder = build(causal=True)
    _, states = encoder(SEQUENCES, return_state=True)
    options = {"initial_state": states} if has_states else {}
    carried = encoder(with_keras_mask(SEQUENCES, MASK), **options)
    assert_close(carried, encoder(SEQUENCES, mask=MASK, **options))
    assert array(carried._keras_mask).tolist() == MASK.tolist()


def test_causal_encoder_does_not_read_later_steps():
    encoder = build(causal=True)
    other = SEQUENCES.copy()
    other[:, 6:] = np.nan
    assert_close(array(encoder(other))[:, :6], array(encoder(SEQUENCES))[:, :6])
    centred = build()
    assert np.isnan(array(centred(other))[:, 5]).all()


# Chunks -----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, 9), (1,) * S, (0, 13), (2, 0, 11)], ids=str)
@pytest.mark.parametrize("kernel_size", [3, 1])
@pytest.mark.parametrize("has_mask", [False, True])
def test_chunks_with_passed_states_equal_the_whole_sequence(
    sizes, kernel_size, has_mask
):
    encoder = build(causal=True, kernel_size=kernel_size)
    mask = MASK if has_mask else None
    whole = array(encoder(SEQUENCES, mask=mask))
    states, start, outputs = None, 0, []
    for size in sizes:
        places = slice(start, start + size)
        options = {"mask": mask[:, places]} if has_mask else {}
        chunk, states = encoder(
            SEQUENCES[:, places], initial_state=states, return_state=True, **options
        )
        outputs.append(array(chunk))
        start += size
    assert_close(np.concatenate(outputs, axis=1), whole)
    _, last = encoder(SEQUENCES, mask=mask, return_state=True)
    assert_close(states, last)


def test_compiled_single_steps_equal_the_whole_sequence():
    encoder = build(causal=True)
    step = compiled(lambda x, s: encoder(x, initial_state=s, return_state=True))
    whole = array(encoder(SEQUENCES))
    _, states = encoder(SEQUENCES[:, :1], return_state=True)
    for s in range(1, S):
        outputs, states = step(SEQUENCES[:, s : s + 1], states)
        assert_close(array(outputs)[:, 0], whole[:, s])


def test_functional_model_takes_states_as_inputs():
    encoder = build(causal=True, kernel_size=2)
    _, states = encoder(SEQUENCES, return_state=True)
    expected = encoder(SEQUENCES, initial_state=states, return_state=True)
    flat = [array(x) for x in keras.tree.flatten(states)]
    symbols = [keras.Input(x.shape[1:]) for x in flat]
    chunk = keras.Input((None, D))
    given = encoder(chunk, initial_state=symbols, return_state=True)
    model = keras.Model([chunk, *symbols], given)
    assert_close(model([SEQUENCES, *flat]), expected)


def test_rejects_states_without_causal():
    for options in ({"return_state": True}, {"initial_state": [[SEQUENCES] * 2] * 2}):
        with pytest.raises(ValueError, match="with causal=False. Create it"):
            build()(SEQUENCES, **options)


def test_rejects_states_of_another_encoder():
    encoder = build(causal=True)
    _, states = encoder(SEQUENCES, return_state=True)
    others = (
        states[:1],
        [[state[:2] for state in layer] for layer in states],
        build(causal=True, kernel_size=2)(SEQUENCES, return_state=True)[1],
    )
    for wrong in others:
        with pytest.raises(ValueError, match="`initial_state` must be states that"):
            encoder(SEQUENCES, initial_state=wrong)


# Dropout and errors -----------------------------------------------------------------


def test_dropout_drops_the_same_features_at_every_step_in_training_only():
    encoder = build(units=101, num_layers=1, kernel_size=1, dropout=0.5, residual=False)
    constant = np.repeat(SEQUENCES[:, :1], S, axis=1)
    plain, dropped = array(encoder(constant)), array(encoder(constant, training=True))
    assert_close(dropped, np.repeat(dropped[:, :1], S, axis=1))
    assert 0.6 < (dropped == 0).mean() < 0.9  # half by dropout, then half by ReLU
    assert_close(encoder(constant, training=False), plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name, value",
    [
        ("units", 0),
        ("num_layers", 0),
        ("kernel_size", 2.5),
        ("dilation_base", 0),
        ("dropout", 1.0),
    ],
)
def test_rejects_bad_numbers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must.*Received: {name}={value!r}"):
        ConvEncoder(**{"units": UNITS, name: value})
