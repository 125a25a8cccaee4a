"""Where masks are made, used and lost, and that the report says what a run does."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import kseq
from kseq import mask_report
from tests.helpers import array

VOCABULARY, WIDTH = 11, 6

# Keras warns where a layer that knows no masks is wired; the report names it.
pytestmark = pytest.mark.filterwarnings("ignore:[^$]*does not support masking")


def model_of(part, mask_zero=True):
    """A model of an embedding and what a function makes of its output."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(VOCABULARY, WIDTH, mask_zero=mask_zero, name="embedding")(ids)
    return keras.Model(ids, part(x), name="model")


def nested(part, name="inside"):
    inputs = keras.Input((None, WIDTH))
    return keras.Model(inputs, part(inputs), name=name)


def verdicts(report):
    return {row.layer: row.verdict for row in report.rows}


def attend(x):
    return layers.MultiHeadAttention(2, 3, name="attention")(x, x)


KEEPING = {
    "Add": lambda x: layers.Add(name="part")([x, x]),
    "Concatenate": lambda x: layers.Concatenate(name="part")([x, x]),
    "Dense": lambda x: layers.Dense(5, name="part")(x),
    "Dropout": lambda x: layers.Dropout(0.5, name="part")(x),
    "Rescaling": lambda x: layers.Rescaling(2, name="part")(x),
    "LayerNormalization": lambda x: layers.LayerNormalization(name="part")(x),
    "GRU": lambda x: layers.GRU(5, return_sequences=True, name="part")(x),
    "LSTM": lambda x: layers.LSTM(5, return_sequences=True, name="part")(x),
    "Bidirectional": lambda x: layers.Bidirectional(
        layers.GRU(5, return_sequences=True), name="part"
    )(x),
    "TimeDistributed": lambda x: layers.TimeDistributed(layers.Dense(5), name="part")(
        x
    ),
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 3, name="part")(x, x),
    "RecurrentEncoder": lambda x: kseq.layers.RecurrentEncoder("gru", 5, name="part")(
        x
    ),
    # Wired, its output has no mask; run, it has.
    "a nested functional model": lambda x: nested(layers.Dense(5), name="part")(x),
    "a nested Sequential": lambda x: keras.Sequential([layers.Dense(5)], name="part")(
        x
    ),
}
LOSING = {
    "an operator": (lambda x: x * 2, "multiply"),
    "an operator, x on the right": (lambda x: 2 * x, "multiply"),
    "keras.ops": (lambda x: ops.tanh(x), "tanh"),
    "steps": (lambda x: x[:, 1:], "get_item"),
    "one feature of each step": (lambda x: x[:, :, 0], "get_item"),
    "Lambda": (lambda x: layers.Lambda(lambda y: y + 1, name="part")(x), "part"),
    "Reshape": (lambda x: layers.Reshape((-1, 2), name="part")(x), "part"),
    "Conv1D": (lambda x: layers.Conv1D(5, 3, padding="same", name="part")(x), "part"),
    "strided Conv1D": (lambda x: layers.Conv1D(5, 3, 2, name="part")(x), "part"),
    "Add beside no mask": (
        lambda x: layers.Add(name="part")([x, layers.Conv1D(WIDTH, 1, name="conv")(x)]),
        "conv part",
    ),
    # Keras' attention takes the mask off its inputs, so the sum is of one with and one
    # without.
    "residual attention": (lambda x: layers.Add(name="part")([x, attend(x)]), "part"),
    "a nested model that loses it": (
        lambda x: nested(lambda y: layers.Dense(5)(y * 2), name="part")(x),
        "part",
    ),
    # These return no steps, but could not leave out the padding.
    "a mean": (lambda x: ops.mean(x, axis=1), "mean"),
    "GlobalMaxPooling1D": (lambda x: layers.GlobalMaxPooling1D(name="part")(x), "part"),
}
USING = {
    "one step": lambda x: x[:, 0],
    "one step, features": lambda x: x[:, -1, 2:4],
    "GRU": lambda x: layers.GRU(5, name="part")(x),
    "Bidirectional": lambda x: layers.Bidirectional(layers.LSTM(5), name="part")(x),
    "return_state": lambda x: layers.LSTM(5, return_state=True, name="part")(x)[0],
    "GlobalAveragePooling1D": lambda x: layers.GlobalAveragePooling1D(name="part")(x),
    "AttentionPooling": lambda x: kseq.layers.AttentionPooling(name="part")(x),
    "a nested model": lambda x: nested(layers.GRU(5), name="part")(x),
}


@pytest.mark.parametrize("case", KEEPING)
def test_a_layer_that_hands_the_mask_on_keeps_it(case):
    report = mask_report(model_of(KEEPING[case]))
    assert verdicts(report) == {"embedding": "makes", "part": "keeps"}
    assert report.lost_at == ()


@pytest.mark.parametrize("case", LOSING)
def test_a_layer_that_drops_the_mask_is_named(case):
    part, names = LOSING[case]
    report = mask_report(model_of(part))
    assert report.lost_at == tuple(names.split())
    lost = [row for row in report.rows if row.verdict == "loses"]
    assert all(row.mask_in and not row.mask_out for row in lost)


@pytest.mark.parametrize("case", USING)
def test_a_layer_that_ends_the_steps_uses_the_mask(case):
    report = mask_report(model_of(USING[case]))
    assert report.rows[-1].verdict == "uses"
    assert report.lost_at == ()


# The others return other steps than those of the ids.
STEPS_STAY = {
    **KEEPING,
    **{
        case: part
        for case, (part, _) in LOSING.items()
        if case
        not in ("Reshape", "strided Conv1D", "a mean", "GlobalMaxPooling1D", "steps")
    },
}


@pytest.mark.parametrize("case", STEPS_STAY)
def test_the_last_row_says_whether_the_loss_of_keras_leaves_out_the_padding(case):
    """The oracle: whether labels behind the mask change what `evaluate` returns."""
    model = model_of(STEPS_STAY[case])
    model.compile(loss="mse")
    ids = np.array([[4, 5, 6, 7, 8, 0], [9, 3, 2, 0, 0, 0]])
    labels = np.zeros(model.compute_output_shape(ids.shape))
    before = model.evaluate(ids, labels, verbose=0)
    labels[ids == 0] = 99.0
    leaves_out = model.evaluate(ids, labels, verbose=0) == pytest.approx(before)
    assert leaves_out == mask_report(model).rows[-1].mask_out


def test_after_a_loss_nothing_has_a_mask():
    report = mask_report(model_of(lambda x: layers.GRU(5, name="gru")(x * 2)))
    assert [dataclasses.astuple(row) for row in report.rows] == [
        ("embedding", "Embedding", False, True, "makes"),
        ("multiply", "Multiply", True, False, "loses"),
        ("gru", "GRU", False, False, "has none"),
    ]


def test_a_model_without_a_mask_loses_none():
    report = mask_report(model_of(lambda x: ops.tanh(x), mask_zero=False))
    assert set(verdicts(report).values()) == {"has none"}
    assert report.lost_at == ()
    assert str(report).endswith("No layer makes a mask.")


def test_a_layer_called_twice_has_a_row_for_each_call():
    conv = layers.Conv1D(WIDTH, 1, name="shared")
    report = mask_report(model_of(lambda x: conv(conv(x))))
    shared = [row.verdict for row in report.rows if row.layer == "shared"]
    assert shared == ["loses", "has none"]

    report = mask_report(model_of(lambda x: layers.Add()([conv(x), conv(x)])))
    assert report.lost_at == ("shared",)


def test_only_the_input_with_a_mask_is_blamed():
    ids = keras.Input((None,), dtype="int32", name="ids")
    features = keras.Input((None, WIDTH), name="features")
    x = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True, name="embedding")(ids)
    y = layers.Conv1D(5, 3, padding="same", name="without")(features)
    z = layers.Conv1D(5, 3, padding="same", name="with")(x)
    outputs = layers.Concatenate(name="join")([layers.Masking(name="masking")(y), z])
    model = keras.Model([ids, features], outputs)
    report = mask_report(model)
    by_name = {"features": np.ones((2, 3, WIDTH)), "ids": np.ones((2, 3))}
    assert mask_report(model, by_name) == report
    assert report.lost_at == ("with",)
    expected = {"masking": "makes", "without": "has none", "join": "keeps"}
    assert verdicts(report) == {**expected, "embedding": "makes", "with": "loses"}


@pytest.mark.parametrize(
    "look",
    [
        lambda x, memory: layers.MultiHeadAttention(2, 3, name="look")(x, memory),
        lambda x, memory: kseq.layers.RecurrentDecoder(
            "gru", 5, attention="bahdanau", name="look"
        )(x, memory),
    ],
)
def test_who_looks_at_a_memory_uses_its_mask(look):
    ids = keras.Input((None,), dtype="int32")
    queries = keras.Input((None, 5))
    memory = layers.Embedding(VOCABULARY, 5, mask_zero=True)(ids)
    report = mask_report(keras.Model([ids, queries], look(queries, memory)))
    assert verdicts(report)["look"] == "uses"
    assert report.lost_at == ()


def test_a_mask_given_as_an_argument_came_in():
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH)(ids)
    x = layers.GRU(5, return_sequences=True, name="keeps")(x, mask=ids != 0)
    x = kseq.layers.MeanPooling(name="uses")(x)
    report = mask_report(keras.Model(ids, x))
    assert (verdicts(report)["keeps"], verdicts(report)["uses"]) == ("keeps", "uses")
    assert not {"not_equal", "NotEqual"} & {row.class_name for row in report.rows}


BUILT = {
    "many_to_one": lambda: kseq.many_to_one(VOCABULARY, 3, width=4),
    "many_to_one, transformer": lambda: kseq.many_to_one(
        VOCABULARY, 3, encoder="transformer", pooling="class_token", width=4
    ),
    "many_to_many": lambda: kseq.many_to_many(VOCABULARY, 3, width=4),
    "encoder_decoder": lambda: kseq.encoder_decoder(VOCABULARY, 7, width=4),
    "encoder_decoder, transformer": lambda: kseq.encoder_decoder(
        VOCABULARY, 7, encoder="transformer", decoder="transformer", width=4
    ),
    "one_to_many": lambda: kseq.one_to_many(VOCABULARY, width=4),
    "one_to_many, one class": lambda: kseq.one_to_many(VOCABULARY, 1, width=4),
}


@pytest.mark.parametrize("case", BUILT)
def test_the_builders_of_kseq_lose_no_mask(case):
    report = mask_report(BUILT[case]())
    assert report.lost_at == ()
    assert "makes" in verdicts(report).values()
    assert str(report).endswith("The mask is lost nowhere.")


def test_a_picture_has_no_mask_to_lose():
    model = kseq.vision_transformer((4, 6, 1), patch_size=2, num_outputs=3, width=4)
    assert set(verdicts(mask_report(model)).values()) == {"has none"}


def test_a_built_sequential_is_reported():
    parts = [layers.Embedding(VOCABULARY, 5, mask_zero=True), layers.Conv1D(3, 2)]
    model = keras.Sequential([keras.Input((None,)), *parts, layers.LSTM(3)])
    report = mask_report(model)
    assert [row.verdict for row in report.rows] == ["makes", "loses", "has none"]


def test_a_loaded_model_has_the_report_of_the_saved_one(tmp_path):
    model = model_of(lambda x: layers.GRU(5)(nested(layers.Dense(5))(x) * 2))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert mask_report(loaded) == mask_report(model)


def test_a_report_leaves_the_model_as_it_was():
    ids = keras.Input(batch_shape=(1, 5), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(ids)
    gru = layers.GRU(5, stateful=True)
    model = keras.Model(ids, gru(x))
    model(np.array([[3, 4, 5, 0, 0]]))
    before = array(gru.states[0]), model.to_json()
    mask_report(model)
    np.testing.assert_array_equal(array(gru.states[0]), before[0])
    assert model.to_json() == before[1]


def test_the_table_is_aligned_and_ends_with_the_answer():
    table = str(mask_report(model_of(lambda x: layers.Dense(5, name="head")(x * 2))))
    assert table == (
        "layer      class      mask in  mask out  the layer\n"
        "embedding  Embedding  -        yes       makes\n"
        "multiply   Multiply   yes      -         loses\n"
        "head       Dense      -        -         has none\n"
        "The mask is lost at: multiply."
    )


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    "make",
    [
        lambda: "model",
        lambda: layers.Dense(3),
        lambda: Subclassed,
        lambda: Subclassed(),
        lambda: keras.Sequential([layers.Dense(3)]),
        lambda: keras.Sequential(),
    ],
)
def test_a_model_without_a_graph_is_refused(make):
    model = make()
    with pytest.raises(ValueError, match="graph of layers.*Received: model=.*build"):
        mask_report(model)


def test_a_model_that_needs_other_inputs_says_so_and_takes_them():
    three_steps = layers.Reshape((3 * WIDTH,), name="three_steps")
    model = model_of(lambda x: layers.Dense(5)(three_steps(x)))
    with pytest.raises(ValueError, match=r"(?s)\(1, 16\).*as `inputs`"):
        mask_report(model)
    ids = np.array([[4, 5, 0], [7, 0, 0]])
    for inputs in (ids, [ids], {"ids": ids}):
        assert mask_report(model, inputs).lost_at == ("three_steps",)


def test_inputs_that_do_not_fit_the_model_are_refused():
    model = model_of(lambda x: layers.Dense(5)(x))
    for inputs in ({"words": np.ones((2, 3))}, [np.ones((2, 3))] * 2):
        with pytest.raises(ValueError, match="`inputs` must .*one array.*Received"):
            mask_report(model, inputs)
