"""Recurrent decoders: comparison with the papers' equations, laws and errors."""

import inspect
import re

import keras
import numpy as np
import pytest

from kseq.layers import (
    BahdanauAttention,
    CoverageAttention,
    LocationAwareAttention,
    LuongAttention,
    MonotonicAttention,
    RecurrentDecoder,
)
from kseq.layers.alignment_attention import AlignmentAttention
from tests.helpers import (
    array,
    assert_close,
    attend,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_layer_runs,
    check_padding_changes_nothing,
    check_reordered_steps_equal_sequence,
    check_steps_equal_sequence,
    dense,
    length_mask,
    random_array,
    randomize,
    step_cell,
    with_keras_mask,
)
from tests.layers import alignment_oracles

B, K, T, S, D, MEMORY_SIZE, UNITS, SOURCE_UNITS = 2, 3, 5, 7, 11, 13, 17, 19

MASK = length_mask(6, 3, size=S)
MASK[0, :2] = False  # left padding as well

INPUTS = random_array(B, T, D)
MEMORY = random_array(B, S, MEMORY_SIZE)

BAHDANAU = {"attention": "bahdanau"}
LUONG = {"attention": "luong"}
PARALLEL = {"attention": "luong", "input_feeding": False}
CONTEXT_VECTOR = {"attention": None}
LOCATION = {"attention": lambda: LocationAwareAttention(3, 2, kernel_size=5)}
COVERAGE = {
    "attention": lambda: CoverageAttention(3),
    "attention_order": "luong",
    "input_feeding": False,
}
SOFT = {
    "attention": lambda: MonotonicAttention(3, "soft"),
    "attention_order": "luong",
}
HARD = {"attention": lambda: MonotonicAttention(3, score_bias=0.5)}
EVERY_WAY = {
    "bahdanau": BAHDANAU,
    "luong": LUONG,
    "no input feeding": PARALLEL,
    "no attention": CONTEXT_VECTOR,
    "location": LOCATION,
    "coverage": COVERAGE,
    "soft monotonic": SOFT,
    "hard monotonic": HARD,
}

each_way = pytest.mark.parametrize("way", EVERY_WAY.values(), ids=EVERY_WAY)


def states_of(cell, units=SOURCE_UNITS, num_layers=1):
    """Return random final states of an encoder."""
    number = 2 if cell == "lstm" else 1
    return [
        [random_array(B, units, seed=10 * i + j) for j in range(number)]
        for i in range(num_layers)
    ]


def build(cell="gru", initial_state=None, **options):
    if inspect.isfunction(options.get("attention")):
        options["attention"] = options["attention"]()
    decoder = RecurrentDecoder(cell, UNITS, **options)
    shapes = None
    if initial_state is not None:
        shapes = [[state.shape for state in layer] for layer in initial_state]
    decoder.build(INPUTS.shape, MEMORY.shape, shapes)
    randomize(decoder)
    return decoder


def with_dead_row(mask):
    return mask & (np.arange(len(mask)) != 1)[:, None]


# Layer contract -----------------------------------------------------------------------


def test_recurrent_decoder_keeps_the_contract_of_layers():
    check_layer(
        RecurrentDecoder,
        {
            "cell": "lstm",
            "units": UNITS,
            "num_layers": 2,
            "attention": lambda: LuongAttention("concat", units=3, scaled=True),
            "attention_order": "bahdanau",
            "input_feeding": False,
            "bridge": "copy",
            "dropout": 0.2,
        },
        {
            "inputs": INPUTS,
            "memory": MEMORY,
            "memory_mask": with_dead_row(MASK),
            "initial_state": states_of("lstm", UNITS, num_layers=2),
            "inputs_mask": length_mask(5, 3, size=T),
        },
        {"return_attention_scores": True},
    )


@pytest.mark.thorough
def test_a_decoder_with_input_feeding_keeps_the_contract_of_layers():
    check_layer_runs(
        RecurrentDecoder,
        {"cell": lambda: keras.layers.GRUCell(UNITS), "num_layers": 2, **LUONG},
        {"inputs": INPUTS, "memory": MEMORY, "memory_mask": with_dead_row(MASK)},
    )


@pytest.mark.thorough
def test_a_decoder_in_bahdanau_order_keeps_the_contract_of_layers():
    check_layer_runs(
        RecurrentDecoder,
        {"units": UNITS, "bridge": "zero", **BAHDANAU},
        {"inputs": INPUTS, "memory": MEMORY},
    )


def test_a_decoder_without_attention_keeps_the_contract_of_layers():
    check_layer_runs(
        RecurrentDecoder,
        {"cell": "rnn", "units": UNITS},
        {"inputs": INPUTS, "memory": MEMORY, "initial_state": states_of("lstm")},
    )


# The expected outputs: loops over the steps of one row ------------------------------


def first_states(decoder, initial_state, row):
    """Return the initial states from as many encoder layers as the decoder has."""
    given = [[state[row] for state in layer] for layer in initial_state]
    if decoder.bridge == "copy":
        return given
    if decoder.bridge == "zero":
        return [[np.zeros(UNITS) for _ in layer] for layer in given]
    return [
        [dense(projection, np.concatenate(layer)) for projection in projections]
        for projections, layer in zip(
            decoder.state_bridge.projections, given, strict=True
        )
    ]


def step_cells(decoder, x, states):
    new_states = []
    for cell, cell_states in zip(decoder.cells, states, strict=True):
        new_states.append(step_cell(cell, x, cell_states))
        x = new_states[-1][0]
    return new_states


def outputs_of(decoder, inputs, memory, states):
    """Return outputs `(T, U)` and weights `(T, S)` by the equations of the papers."""
    outputs, all_weights, alignment = [], [], None
    last_output = np.zeros(UNITS)
    if isinstance(decoder.attention, AlignmentAttention):
        alignment = alignment_oracles.start(decoder.attention, len(memory))

    def read(query):
        nonlocal alignment
        given = (decoder.attention, query, memory, memory)
        if alignment is None:
            return attend(*given)
        context, weights, alignment = alignment_oracles.read(*given, alignment)
        return context, weights

    for y in inputs:
        if decoder.attention is None:  # Sutskever et al., 2
            states = step_cells(decoder, y, states)
            output, weights = states[-1][0], np.zeros(len(memory))
        elif decoder.attention_order == "bahdanau":  # Bahdanau et al., A.2.2
            context, weights = read(states[-1][0])
            states = step_cells(decoder, np.concatenate([y, context]), states)
            joint = np.concatenate([states[-1][0], context, y])
            output = dense(decoder.readout, joint)
        else:  # Luong et al., 3.1 and 3.3
            fed = np.concatenate([y, last_output]) if decoder.input_feeding else y
            states = step_cells(decoder, fed, states)
            context, weights = read(states[-1][0])
            output = dense(decoder.readout, np.concatenate([states[-1][0], context]))
        last_output = output
        outputs.append(output)
        all_weights.append(weights)
    return np.array(outputs), np.array(all_weights)


@pytest.mark.parametrize(
    "cell, options",
    [
        ("gru", {**BAHDANAU}),
        ("lstm", {**BAHDANAU, "num_layers": 2, "bridge": "copy"}),
        ("gru", {**BAHDANAU, "attention_order": "luong", "bridge": "zero"}),
        ("rnn", {**LUONG, "num_layers": 2}),
        ("lstm", {**LUONG, "attention_order": "bahdanau"}),
        ("lstm", {**LUONG, "bridge": "copy"}),
        ("gru", {**PARALLEL, "num_layers": 2, "bridge": "copy"}),
        ("rnn", {**PARALLEL}),
        ("lstm", {**CONTEXT_VECTOR, "num_layers": 2}),
        ("gru", {**CONTEXT_VECTOR, "bridge": "copy"}),
        ("lstm", {**LOCATION, "bridge": "copy"}),
        ("gru", {**LOCATION, "attention_order": "luong"}),
        ("gru", {**COVERAGE, "num_layers": 2}),
        ("rnn", {**SOFT}),
        ("lstm", {**HARD}),
    ],
    ids=lambda value: (
        "-".join(str(x) for x in value.values() if not callable(x))
        if isinstance(value, dict)
        else value
    ),
)
def test_the_decoder_equals_a_loop(cell, options):
    units = UNITS if options.get("bridge") == "copy" else SOURCE_UNITS
    initial_state = states_of(cell, units, options.get("num_layers", 1))
    decoder = build(cell, initial_state, **options)
    attends = decoder.attention is not None
    results = decoder(
        INPUTS, MEMORY, MASK, initial_state, return_attention_scores=attends
    )
    outputs, weights = results if attends else (results, np.zeros((B, T, S)))
    for b in range(B):
        states = first_states(decoder, initial_state, b)
        expected, expected_weights = outputs_of(
            decoder, INPUTS[b], MEMORY[b, MASK[b]], states
        )
        assert_close(outputs[b], expected)
        assert_close(array(weights)[b][:, MASK[b]], expected_weights)
        assert (array(weights)[b][:, ~MASK[b]] == 0).all()


# Laws ---------------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize("num_beams", [1, K])
@pytest.mark.parametrize("cell, num_layers", [("gru", 1), ("lstm", 2)])
def test_steps_equal_the_whole_sequence(way, num_beams, cell, num_layers):
    initial_state = states_of("lstm", num_layers=2)
    decoder = build(cell, initial_state, num_layers=num_layers, **way)
    inputs, masks = random_array(B, num_beams, T, D), [None, MASK, with_dead_row(MASK)]
    check_steps_equal_sequence(decoder, inputs, MEMORY, masks, initial_state)


@pytest.mark.parametrize("bridge", ["copy", "dense", "zero"])
def test_steps_equal_the_whole_sequence_with_every_bridge(bridge):
    initial_state = states_of("lstm", UNITS)
    decoder = build("lstm", initial_state, attention="bahdanau", bridge=bridge)
    inputs = random_array(B, K, T, D)
    check_steps_equal_sequence(decoder, inputs, MEMORY, [MASK], initial_state)


def test_steps_equal_the_whole_sequence_without_encoder_states():
    decoder = build("gru", attention="luong")
    check_steps_equal_sequence(decoder, random_array(B, K, T, D), MEMORY, [MASK], None)


def test_steps_equal_the_whole_sequence_for_given_cell_and_attention_layers():
    decoder = RecurrentDecoder(
        keras.layers.LSTMCell(UNITS), attention=BahdanauAttention(3), num_layers=2
    )
    decoder.build(INPUTS.shape, MEMORY.shape)
    randomize(decoder)
    check_steps_equal_sequence(decoder, random_array(B, K, T, D), MEMORY, [MASK], None)


@each_way
def test_reordered_hypotheses_continue_from_their_own_inputs(way):
    decoder = build("lstm", **way)
    inputs = random_array(B, K, T, D)
    check_reordered_steps_equal_sequence(decoder, inputs, MEMORY, MASK, None)


@each_way
def test_memory_padding_does_not_change_the_outputs(way):
    initial_state = states_of("gru")
    decoder = build("gru", initial_state, **way)
    check_padding_changes_nothing(
        lambda memory, mask: ([], [decoder(INPUTS, memory, mask, initial_state)]),
        MEMORY,
        MASK,
    )


def test_memory_padding_does_not_change_initial_states_made_from_it():
    decoder = build("lstm", **BAHDANAU)
    check_padding_changes_nothing(
        lambda memory, mask: ([], [decoder(INPUTS, memory, mask)]), MEMORY, MASK
    )


@each_way
def test_input_padding_does_not_change_the_outputs(way):
    decoder = build("lstm", num_layers=2, **way)
    inputs_mask = length_mask(4, 5, size=T)
    inputs_mask[0, 0] = False

    def apply(inputs, mask):
        if decoder.attention is None:
            return [decoder(inputs, MEMORY, MASK, inputs_mask=mask)], []
        outputs = decoder(
            inputs, MEMORY, MASK, inputs_mask=mask, return_attention_scores=True
        )
        return list(outputs), []

    check_padding_changes_nothing(apply, INPUTS, inputs_mask)


def test_outputs_before_the_first_real_step_are_the_initial_state():
    [[state]] = states_of("gru", UNITS)
    decoder = build("gru", [[state]], bridge="copy", **CONTEXT_VECTOR)
    late = np.arange(T) > np.array([[1], [T]])
    outputs = array(decoder(INPUTS, MEMORY, initial_state=[[state]], inputs_mask=late))
    assert_close(outputs[:, :2], np.stack([state, state], axis=1))
    assert abs(outputs[0, 2] - state[0]).max() > 0.01


@each_way
def test_later_inputs_do_not_change_earlier_outputs(way):
    decoder = build("gru", **way)
    outputs = array(decoder(INPUTS, MEMORY))
    changed = INPUTS.copy()
    changed[:, 3:] += 1
    changed = array(decoder(changed, MEMORY))
    assert_close(changed[:, :3], outputs[:, :3])
    assert np.abs(changed[:, 3:] - outputs[:, 3:]).max() > 0.01


@each_way
def test_a_batch_equals_its_rows(way):
    initial_state = states_of("gru")
    decoder = build("gru", initial_state, **way)
    check_batch_equals_rows(decoder, INPUTS, MEMORY, MASK, initial_state)


@each_way
def test_rows_with_a_fully_masked_memory_are_finite(way):
    decoder = build("gru", **way)

    def apply(memory, mask):
        if decoder.attention is None:
            return [decoder(INPUTS, memory, mask)]
        return list(decoder(INPUTS, memory, mask, return_attention_scores=True))

    check_fully_masked_rows_are_finite(apply, MEMORY, MASK)


@each_way
def test_rows_with_fully_masked_inputs_are_finite(way):
    decoder = build("gru", **way)
    check_fully_masked_rows_are_finite(
        lambda inputs, mask: [decoder(inputs, MEMORY, inputs_mask=mask)],
        INPUTS,
        length_mask(5, 5, size=T),
    )


@each_way
def test_returning_the_scores_does_not_change_the_outputs(way):
    decoder = build("gru", **way)
    if decoder.attention is None:
        pytest.skip("there are no scores")
    outputs, weights = decoder(INPUTS, MEMORY, MASK, return_attention_scores=True)
    assert_close(decoder(INPUTS, MEMORY, MASK), outputs, rtol=0, atol=0)
    if not isinstance(decoder.attention, MonotonicAttention):
        np.testing.assert_allclose(array(weights).sum(axis=-1), 1, atol=1e-6)


@each_way
def test_the_scores_of_steps_equal_those_of_a_call(way):
    decoder = build("lstm", **way)
    if decoder.attention is None:
        pytest.skip("there are no scores")
    inputs_mask = length_mask(5, 2, size=T)
    outputs, weights = decoder(
        INPUTS, MEMORY, MASK, inputs_mask=inputs_mask, return_attention_scores=True
    )
    state, constants = decoder.start(MEMORY, MASK)
    for t in range(T):
        step = decoder.step(
            INPUTS[:, t : t + 1], state, constants, return_attention_scores=True
        )
        state = step[1]
        for part, whole in zip(step[::2], (outputs, weights), strict=True):
            real = inputs_mask[:, t]
            assert_close(array(part)[real, 0], array(whole)[real, t])


def test_monotonic_attention_is_soft_in_training():
    decoder = build("gru", attention=MonotonicAttention(3, noise=0.0))
    soft = build("gru", attention=MonotonicAttention(3, "soft", noise=0.0))
    soft.set_weights(decoder.get_weights())
    given = {"inputs": INPUTS, "memory": MEMORY, "return_attention_scores": True}
    expected = soft(**given)
    assert_close(list(decoder(**given, training=True)), list(expected))
    weights = array(decoder(**given)[1])
    assert set(np.unique(weights)) <= {0, 1}


def test_scores_in_training_are_those_that_were_used():
    """The contexts are the memory itself: weights times the identity matrix."""
    decoder = RecurrentDecoder("gru", S, attention=MonotonicAttention(3, noise=2.0))
    memory = np.tile(np.eye(S, dtype="float32"), (B, 1, 1))
    decoder(INPUTS, memory)
    decoder.readout.kernel.assign(
        np.concatenate([np.zeros((S, S)), np.eye(S), np.zeros((D, S))])
    )
    outputs, weights = decoder(
        INPUTS, memory, training=True, return_attention_scores=True
    )
    assert_close(outputs, np.tanh(array(weights)))
    assert 0.01 < array(weights).max() < 1


@each_way
def test_keras_masks_are_used_and_passed_on(way):
    decoder = build("gru", **way)
    inputs_mask = length_mask(3, 4, size=T)
    inputs_mask[0, 0] = False
    carried = decoder(
        with_keras_mask(INPUTS, inputs_mask), with_keras_mask(MEMORY, MASK)
    )
    explicit = decoder(INPUTS, MEMORY, MASK, inputs_mask=inputs_mask)
    assert_close(carried, explicit)
    assert array(carried._keras_mask).tolist() == inputs_mask.tolist()
    for other in (
        decoder(INPUTS, MEMORY, MASK),
        decoder(INPUTS, MEMORY, inputs_mask=inputs_mask),
    ):
        assert np.abs(array(carried) - array(other))[inputs_mask].max() > 0.01


@each_way
def test_dropout_drops_the_same_features_at_every_step_only_in_training(way):
    decoder = build("rnn", num_layers=2, dropout=0.5, bridge="dense", **way)
    plain = array(decoder(INPUTS, MEMORY))
    assert_close(decoder(INPUTS, MEMORY, training=False), plain, rtol=0, atol=0)
    dropped = array(decoder(INPUTS, MEMORY, training=True)) == 0  # B T U
    assert (dropped == dropped[:, :1]).all()
    assert 0.2 < dropped.mean() < 0.8


def test_dropout_is_applied_to_the_inputs():
    decoder = build("rnn", dropout=0.5)
    plain = array(decoder(INPUTS, MEMORY))
    outputs = array(decoder(INPUTS, MEMORY, training=True))
    kept = outputs != 0
    assert np.abs(outputs / 2 - plain)[kept].max() > 0.01


def test_dropout_is_applied_between_stacked_cells():
    decoder = build("rnn", num_layers=2, dropout=0.5)
    top = decoder.cells[1]  # a copy of its input
    top.kernel.assign(np.eye(UNITS, dtype="float32"))
    top.recurrent_kernel.assign(np.zeros((UNITS, UNITS), "float32"))
    top.bias.assign(np.zeros(UNITS, "float32"))
    inputs, memory = random_array(53, T, D), random_array(53, S, MEMORY_SIZE)
    dropped = array(decoder(inputs, memory, training=True)) == 0
    assert 0.65 < dropped.mean() < 0.85  # with one dropout it would be half
    assert (dropped == dropped[:, :1]).all()


# Errors -----------------------------------------------------------------------------


def test_attention_names_set_the_layer_and_its_order():
    decoder = RecurrentDecoder("gru", UNITS, attention="bahdanau")
    assert isinstance(decoder.attention, BahdanauAttention)
    assert (decoder.attention.units, decoder.attention_order) == (UNITS, "bahdanau")
    decoder = RecurrentDecoder("gru", UNITS, attention="luong")
    assert isinstance(decoder.attention, LuongAttention)
    assert (decoder.attention.score, decoder.attention_order) == ("general", "luong")


@pytest.mark.parametrize(
    "name, value",
    [
        ("cell", "elman"),
        ("units", 0),
        ("units", None),
        ("num_layers", 0),
        ("attention", "dot"),
        ("attention_order", "between"),
        ("bridge", "linear"),
        ("dropout", 1),
    ],
)
def test_rejects_bad_numbers_and_names(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must[\s\S]*{name}={value!r}"):
        RecurrentDecoder(**{"cell": "gru", "units": UNITS, name: value})


@pytest.mark.parametrize("shape", [(B, D), (B + 1, K, D)])
def test_a_step_needs_one_vector_per_hypothesis(shape):
    decoder = build("gru", attention="luong")
    state, constants = decoder.start(MEMORY, num_beams=K)
    message = f"is {(B, K)}. Received: inputs of shape {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        decoder.step(random_array(*shape), state, constants)


def test_rejects_an_attention_without_project_keys_and_attend():
    with pytest.raises(ValueError, match="`project_keys` and `attend`"):
        RecurrentDecoder("gru", UNITS, attention=keras.layers.Attention())


def test_rejects_a_decoder_that_cannot_see_the_source():
    message = 'Received: attention=None with bridge="zero"'
    with pytest.raises(ValueError, match=message):
        RecurrentDecoder("gru", UNITS, bridge="zero")


@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
def test_rejects_a_cell_with_dropout(option):
    cell = keras.layers.GRUCell(UNITS, name="leaky", **{option: 0.2})
    with pytest.raises(ValueError, match="Received: cell=leaky with dropout"):
        RecurrentDecoder(cell)


def test_attention_scores_need_attention():
    decoder = build("gru")
    with pytest.raises(ValueError, match="return_attention_scores=True on a decoder"):
        decoder(INPUTS, MEMORY, return_attention_scores=True)


def test_rejects_states_that_cannot_be_copied():
    decoder = RecurrentDecoder("gru", UNITS, bridge="copy")
    message = r"sizes \[\[17\]\][\s\S]*Received: states of sizes \[\[19, 19\]\]"
    with pytest.raises(ValueError, match=message):
        decoder(INPUTS, MEMORY, initial_state=states_of("lstm"))


def test_rejects_a_dot_score_of_unequal_sizes():
    decoder = RecurrentDecoder("gru", UNITS, attention=LuongAttention("dot"))
    with pytest.raises(ValueError, match=f"query size {UNITS}, key size {MEMORY_SIZE}"):
        decoder(INPUTS, MEMORY)


@each_way
def test_rejects_additive_masks(way):
    decoder = build("gru", **way)
    memory_mask = np.where(MASK, 0, -1e9).astype("float32")
    inputs_mask = np.full((B, T), -1e9, "float32")
    message = r"mask with the value -1000000000\.0"
    with pytest.raises(ValueError, match=message):
        decoder(INPUTS, MEMORY, memory_mask)
    with pytest.raises(ValueError, match=message):
        decoder.start(MEMORY, memory_mask, initial_state=states_of("gru", MEMORY_SIZE))
    with pytest.raises(ValueError, match=message):
        decoder(INPUTS, MEMORY, inputs_mask=inputs_mask)


def test_error_for_stacked_cells_names_num_layers():
    cells = keras.layers.StackedRNNCells([keras.layers.GRUCell(UNITS)] * 2)
    message = "`cell` must be one cell. Received: cell=<Stack.*Pass .*`num_layers=2`"
    with pytest.raises(ValueError, match=message):
        RecurrentDecoder(cells)
