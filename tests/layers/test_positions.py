import keras
import numpy as np
import pytest

from kseq.layers import (
    GridPositions,
    LearnedPositions,
    RotaryPositions,
    SinusoidalPositions,
)
from tests.helpers import (
    array,
    assert_close,
    check_layer,
    check_padding_changes_nothing,
    length_mask,
    random_array,
    randomize,
    with_keras_mask,
)

B, S, D, HEADS, LENGTH, COLUMNS = 3, 7, 12, 2, 11, 3

SEQUENCES, QUERIES = random_array(B, S, D), random_array(B, S, HEADS, D)
MASK = length_mask(5, 7, 2, size=S)
MASK[0, :2] = False  # left padding as well
POSITIONS = np.array([[3, 1, 4, 1, 5, 9, 2]], "int32")

each_layout = pytest.mark.parametrize("layout", ["interleaved", "halves"])


def make(layer):
    if layer.built:
        return layer
    layer.build((B, S, HEADS, D) if isinstance(layer, RotaryPositions) else (B, S, D))
    randomize(layer)
    return layer


def pair_of(layout, i):
    """Return the indices of the two features of pair `i`."""
    return [2 * i, 2 * i + 1] if layout == "interleaved" else [i, i + D // 2]


each_layer = pytest.mark.parametrize(
    "layer, inputs",
    [
        (SinusoidalPositions(), SEQUENCES),
        (SinusoidalPositions("halves"), SEQUENCES),
        (LearnedPositions(LENGTH), SEQUENCES),
        (RotaryPositions(), QUERIES),
        (RotaryPositions("interleaved"), QUERIES),
        (GridPositions(5, COLUMNS), SEQUENCES),
        (RotaryPositions(columns=COLUMNS), QUERIES),
    ],
    ids=[
        "sinusoidal",
        "sinusoidal halves",
        "learned",
        "rotary",
        "rotary interleaved",
        "grid",
        "rotary grid",
    ],
)


def test_sinusoidal_positions_keep_the_contract_of_layers():
    check_layer(
        SinusoidalPositions,
        {"layout": "halves", "max_wavelength": 77},
        {"sequences": SEQUENCES, "positions": np.repeat(POSITIONS, B, 0), "mask": MASK},
    )


def test_learned_positions_keep_the_contract_of_layers():
    check_layer(
        LearnedPositions,
        {
            "max_length": LENGTH,
            "embeddings_initializer": lambda: keras.initializers.RandomNormal(),
        },
        {"sequences": SEQUENCES, "mask": MASK},
    )


def test_rotary_positions_keep_the_contract_of_layers():
    check_layer(
        RotaryPositions,
        {"layout": "interleaved", "max_wavelength": 77, "columns": COLUMNS},
        {"heads": QUERIES},
    )


def test_grid_positions_keep_the_contract_of_layers():
    check_layer(
        GridPositions,
        {
            "rows": 4,
            "columns": COLUMNS,
            "embeddings_initializer": lambda: keras.initializers.RandomNormal(),
        },
        {"sequences": SEQUENCES, "mask": MASK},
    )


@each_layout
def test_sinusoidal_positions_equal_the_formula(layout):
    outputs = SinusoidalPositions(layout, max_wavelength=50)(SEQUENCES)
    for s, i in np.ndindex(S, D // 2):
        angle = s / 50 ** (2 * i / D)
        sine, cosine = (
            (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + D // 2)
        )
        assert_close(outputs[0, s, sine], SEQUENCES[0, s, sine] + np.sin(angle))
        assert_close(outputs[0, s, cosine], SEQUENCES[0, s, cosine] + np.cos(angle))


def test_learned_positions_add_a_row_of_the_table():
    layer = make(LearnedPositions(LENGTH))
    rows = array(layer.table)[POSITIONS]
    assert_close(layer(SEQUENCES, positions=POSITIONS), SEQUENCES + rows)


def test_grid_positions_add_a_row_of_each_table():
    layer = make(GridPositions(4, COLUMNS))
    row_table, column_table = array(layer.row_table), array(layer.column_table)
    outputs = layer(SEQUENCES, positions=POSITIONS)
    for s, position in enumerate(POSITIONS[0]):
        vector = row_table[position // COLUMNS] + column_table[position % COLUMNS]
        assert_close(outputs[:, s], SEQUENCES[:, s] + vector)


@each_layout
def test_rotary_positions_equal_the_formula(layout):
    outputs = RotaryPositions(layout, max_wavelength=50)(QUERIES)
    for s, i in np.ndindex(S, D // 2):
        angle = s / 50 ** (2 * i / D)
        pair = pair_of(layout, i)
        x, y = QUERIES[0, s, 1, pair]
        rotated = np.array(
            [
                x * np.cos(angle) - y * np.sin(angle),
                x * np.sin(angle) + y * np.cos(angle),
            ]
        )
        assert_close(array(outputs)[0, s, 1, pair], rotated)


@each_layout
def test_rotary_products_depend_only_on_the_distance(layout):
    layer = RotaryPositions(layout)
    query, key = random_array(1, 1, 1, D, seed=1), random_array(1, 1, 1, D, seed=2)

    def product(query_position, key_position):
        positions = np.array([[query_position]]), np.array([[key_position]])
        return np.sum(
            array(layer(query, positions[0])) * array(layer(key, positions[1]))
        )

    assert_close(product(3, 1), product(9, 7), atol=1e-4)
    assert_close(product(-3, 1), product(2, 6), atol=1e-4)
    assert abs(product(3, 1) - product(1, 3)) > 0.01


@each_layout
def test_rotary_positions_on_a_grid_rotate_by_row_and_column(layout):
    positions = np.array([[0, 5, 8, 10, -1, -3, -4]])
    rows, columns = [0, 1, 2, 3, -1, -1, -2], [0, 2, 2, 1, 2, 0, 2]  # of 3 columns
    layer = RotaryPositions(layout, max_wavelength=50, columns=3)
    outputs = layer(QUERIES, positions=positions)
    for s, i in np.ndindex(S, D // 4):
        for coordinates, pair in ((rows, i), (columns, i + D // 4)):
            angle = coordinates[s] / 50 ** (2 * i / (D // 2))
            features = pair_of(layout, pair)
            x, y = QUERIES[0, s, 1, features]
            rotated = complex(x, y) * np.exp(1j * angle)
            assert_close(
                array(outputs)[0, s, 1, features],
                np.array([rotated.real, rotated.imag]),
            )


def test_products_on_a_grid_depend_only_on_the_distances_of_rows_and_columns():
    layer = RotaryPositions(columns=5)
    query, key = random_array(1, 1, 1, D, seed=1), random_array(1, 1, 1, D, seed=2)

    def product(query_position, key_position):
        heads = [
            array(layer(x, np.array([[position]])))
            for x, position in ((query, query_position), (key, key_position))
        ]
        return np.sum(heads[0] * heads[1])

    down_and_right = product(0, 6)
    assert_close(product(2, 8), down_and_right, atol=1e-4)
    assert_close(product(11, 17), down_and_right, atol=1e-4)
    assert_close(product(-5, 1), down_and_right, atol=1e-4)
    assert_close(product(-13, -7), down_and_right, atol=1e-4)
    assert abs(product(4, 10) - down_and_right) > 0.01  # equally far apart


@each_layer
def test_a_single_step_equals_that_step_of_the_sequence(layer, inputs):
    layer = make(layer)
    whole = array(layer(inputs))
    for s in range(S):
        alone = layer(inputs[:, s : s + 1], positions=np.array([[s]]))
        assert_close(alone[:, 0], whole[:, s])


@each_layer
def test_padding_changes_nothing(layer, inputs):
    layer = make(layer)
    if isinstance(layer, RotaryPositions):
        inputs = inputs[:, :, 0]

        def apply(x, mask):
            return [layer(keras.ops.expand_dims(x, 2), mask=mask)], []
    else:

        def apply(x, mask):
            return [layer(x, mask=mask)], []

    check_padding_changes_nothing(apply, inputs, MASK)


@each_layer
def test_positions_count_only_real_steps(layer, inputs):
    layer = make(layer)
    counted = np.maximum(np.cumsum(MASK, axis=1) - 1, 0)
    assert_close(layer(inputs, mask=MASK), layer(inputs, positions=counted))


def test_the_keras_mask_is_read_and_kept():
    layer = SinusoidalPositions()
    outputs = layer(with_keras_mask(SEQUENCES, MASK))
    assert_close(outputs, layer(SEQUENCES, mask=MASK))
    np.testing.assert_array_equal(array(outputs._keras_mask), MASK)


def test_far_positions_are_exact_in_half_precision():
    # float16 cannot represent 2049.
    x = np.zeros((1, 1, D), "float32")
    far = np.array([[2049]])
    expected = SinusoidalPositions()(x, positions=far)
    for dtype in ("float16", "bfloat16"):
        half = SinusoidalPositions(dtype=f"mixed_{dtype}")(x, positions=far)
        half = keras.ops.cast(half, "float32")
        assert_close(half, expected, atol=0.01)


def test_rejects_real_steps_beyond_the_table():
    layer = make(LearnedPositions(4))
    with pytest.raises(ValueError, match="Received: more than max_length=4"):
        layer(SEQUENCES)
    mask = np.arange(S) < np.array([[4], [5], [1]][:B])
    with pytest.raises(ValueError, match="Received: more than max_length=4"):
        layer(SEQUENCES, mask=mask)
    mask = np.arange(S) >= S - 4  # padding is not counted
    outputs = array(layer(SEQUENCES, mask=np.repeat(mask[None], B, axis=0)))
    assert_close(outputs[:, mask], array(layer(SEQUENCES[:, mask])))


def test_rejects_real_steps_beyond_the_grid():
    layer = make(GridPositions(2, COLUMNS))
    with pytest.raises(ValueError, match="more than rows=2 times columns=3. Truncate"):
        layer(SEQUENCES)
    assert layer(SEQUENCES[:, : layer.max_length]).shape == (B, 6, D)
    mask = np.repeat(np.arange(S)[None] >= 1, B, axis=0)  # padding is not counted
    assert_close(array(layer(SEQUENCES, mask=mask))[:, 1:], layer(SEQUENCES[:, 1:]))


@pytest.mark.parametrize("layer", [LearnedPositions(4), GridPositions(2, 2)])
def test_explicit_positions_beyond_the_table_give_nan(layer):
    layer = make(layer)
    outputs = array(layer(np.zeros((1, 2, D)), positions=np.array([[3, 4]])))
    assert np.isfinite(outputs[0, 0]).all() and np.isnan(outputs[0, 1]).all()


@pytest.mark.parametrize("layer", [LearnedPositions(S), GridPositions(S, 1)])
def test_an_unknown_length_is_accepted(layer):
    sequences = keras.Input((None, D))
    model = keras.Model(sequences, make(layer)(sequences))
    assert model(SEQUENCES).shape == (B, S, D)


def test_positions_can_be_a_list():
    layer = make(LearnedPositions(4))
    assert layer(SEQUENCES, positions=[[0, 1, 2, 3, 2, 1, 0]]).shape == (B, S, D)


@pytest.mark.parametrize("layer", [SinusoidalPositions(), RotaryPositions()])
def test_rejects_an_odd_size(layer):
    with pytest.raises(ValueError, match="must be even. Received: size 3"):
        layer(np.zeros((2, 5, 1, 3)))


def test_the_head_size_on_a_grid_must_be_a_multiple_of_4():
    with pytest.raises(
        ValueError, match="multiple of 4. Received: size 6 with columns="
    ):
        RotaryPositions(columns=3)(np.zeros((2, 5, 1, 6)))


@pytest.mark.parametrize("columns", [0, 2.5, True])
def test_a_number_of_columns_must_be_a_positive_integer(columns):
    for make_layer in (RotaryPositions, lambda columns: GridPositions(2, columns)):
        with pytest.raises(ValueError, match="`columns` must be a positive integer"):
            make_layer(columns=columns)


@pytest.mark.parametrize("layer_class", [SinusoidalPositions, RotaryPositions])
def test_rejects_an_unknown_layout(layer_class):
    with pytest.raises(ValueError, match="`layout` must"):
        layer_class("random")


@pytest.mark.parametrize("layer_class", [SinusoidalPositions, RotaryPositions])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "a", None])
def test_a_wavelength_must_be_positive(layer_class, value):
    message = f"`max_wavelength` must be .*: max_wavelength={value!r}"
    with pytest.raises(ValueError, match=message):
        layer_class(max_wavelength=value)
