"""The mask report: layers that make, keep, use or lose the mask."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import kseq
from kseq import mask_report
from tests.helpers import array

VOCABULARY, WIDTH = 11, 6

# Keras warns about layers without mask support; the report names them.
pytestmark = pytest.mark.filterwarnings("ignore:[^$]*does not support masking")


def model_of(part, mask_zero=True):
    """Build a model of an embedding and the layers that a function adds to it."""
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
    # Its symbolic output has no mask, but the output of a run has one.
    "a nested functional model": lambda x: nested(layers.Dense(5), name="part")(x),
    "a nested Sequential": lambda x: keras.Sequential([layers.Dense(5)], name="part")(
        x
    ),
}
LOSING = {
    "an operator": (lambda x: x * 2, "multiply"),
    "an operator, x on the right": (lambda x: 2 * x, "multiply"),
    "keras.ops": (lambda x: ops.tanh(x), "tanh"),
    "a slice of steps": (lambda x: x[:, 1:], "get_item"),
    "one feature of each step": (lambda x: x[:, :, 0], "get_item"),
    "Lambda": (lambda x: layers.Lambda(lambda y: y + 1, name="part")(x), "part"),
    "Reshape": (lambda x: layers.Reshape((-1, 2), name="part")(x), "part"),
    "Conv1D": (lambda x: layers.Conv1D(5, 3, padding="same", name="part")(x), "part"),
    "strided Conv1D": (lambda x: layers.Conv1D(5, 3, 2, name="part")(x), "part"),
    "Add with one masked input": (
        lambda x: layers.Add(name="part")([x, layers.Conv1D(WIDTH, 1, name="conv")(x)]),
        "conv part",
    ),
    # Keras' attention drops the mask of its inputs, so the sum is of one input with a
    # mask and one without.
    "residual attention": (lambda x: layers.Add(name="part")([x, attend(x)]), "part"),
    "a nested model that loses it": (
        lambda x: nested(lambda y: layers.Dense(5)(y * 2), name="part")(x),
        "part",
    ),
    # These return no steps, but do not ignore the padding.
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
def test_layers_that_pass_the_mask_on_keep_it(case):
    report = mask_report(model_of(KEEPING[case]))
    assert verdicts(report) == {"embedding": "makes", "part": "keeps"}
    assert report.lost_at == ()


@pytest.mark.parametrize("case", LOSING)
def test_reports_layers_that_lose_the_mask(case):
    part, names = LOSING[case]
    report = mask_report(model_of(part))
    assert report.lost_at == tuple(names.split())
    lost = [row for row in report.rows if row.verdict == "loses"]
    assert all(row.mask_in and not row.mask_out for row in lost)


@pytest.mark.parametrize("case", USING)
def test_layers_that_reduce_the_steps_use_the_mask(case):
    report = mask_report(model_of(USING[case]))
    assert report.rows[-1].verdict == "uses"
    assert report.lost_at == ()


# The excluded cases do not keep one output for each step.
STEPS_STAY = {
    **KEEPING,
    **{
        case: part
        for case, (part, _) in LOSING.items()
        if case
        not in (
            "Reshape",
            "strided Conv1D",
            "a mean",
            "GlobalMaxPooling1D",
            "a slice of steps",
        )
    },
}


@pytest.mark.parametrize("case", STEPS_STAY)
def test_the_last_row_tells_whether_the_keras_loss_ignores_padding(case):
    """Oracle: labels at the padding change the loss of `evaluate` without a mask."""
    model = model_of(STEPS_STAY[case])
    model.compile(loss="mse")
    ids = np.array([[4, 5, 6, 7, 8, 0], [9, 3, 2, 0, 0, 0]])
    labels = np.zeros(model.compute_output_shape(ids.shape))
    before = model.evaluate(ids, labels, verbose=0)
    labels[ids == 0] = 99.0
    ignores_padding = model.evaluate(ids, labels, verbose=0) == pytest.approx(before)
    assert ignores_padding == mask_report(model).rows[-1].mask_out


def test_layers_after_a_lost_mask_have_none():
    report = mask_report(model_of(lambda x: layers.GRU(5, name="gru")(x * 2)))
    assert [dataclasses.astuple(row) for row in report.rows] == [
        ("embedding", "Embedding", False, True, "makes"),
        ("multiply", "Multiply", True, False, "loses"),
        ("gru", "GRU", False, False, "has none"),
    ]


def test_reports_that_no_layer_makes_a_mask():
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


def test_only_layers_with_a_masked_input_lose_the_mask():
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
def test_attention_layers_use_the_mask_of_the_memory(look):
    ids = keras.Input((None,), dtype="int32")
    queries = keras.Input((None, 5))
    memory = layers.Embedding(VOCABULARY, 5, mask_zero=True)(ids)
    report = mask_report(keras.Model([ids, queries], look(queries, memory)))
    assert verdicts(report)["look"] == "uses"
    assert report.lost_at == ()


def test_a_mask_argument_counts_as_an_input_mask():
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH)(ids)
    x = layers.GRU(5, return_sequences=True, name="keeps")(x, mask=ids != 0)
    x = kseq.layers.MeanPooling(name="uses")(x)
    report = mask_report(keras.Model(ids, x))
    assert (verdicts(report)["keeps"], verdicts(report)["uses"]) == ("keeps", "uses")
    assert not {"not_equal", "NotEqual"} & {row.class_name for row in report.rows}


BUILDER_MODELS = {
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


@pytest.mark.parametrize("case", BUILDER_MODELS)
def test_builders_lose_no_mask(case):
    report = mask_report(BUILDER_MODELS[case]())
    assert report.lost_at == ()
    assert "makes" in verdicts(report).values()
    assert str(report).endswith("The mask is lost nowhere.")


def test_image_models_have_no_mask():
    model = kseq.vision_transformer((4, 6, 1), patch_size=2, num_outputs=3, width=4)
    assert set(verdicts(mask_report(model)).values()) == {"has none"}


def test_reports_a_built_sequential_model():
    parts = [layers.Embedding(VOCABULARY, 5, mask_zero=True), layers.Conv1D(3, 2)]
    model = keras.Sequential([keras.Input((None,)), *parts, layers.LSTM(3)])
    report = mask_report(model)
    assert [row.verdict for row in report.rows] == ["makes", "loses", "has none"]


def test_a_loaded_model_has_the_same_report(tmp_path):
    model = model_of(lambda x: layers.GRU(5)(nested(layers.Dense(5))(x) * 2))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert mask_report(loaded) == mask_report(model)


def test_the_report_does_not_change_the_model():
    ids = keras.Input(batch_shape=(1, 5), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(ids)
    gru = layers.GRU(5, stateful=True)
    model = keras.Model(ids, gru(x))
    model(np.array([[3, 4, 5, 0, 0]]))
    before = array(gru.states[0]), model.to_json()
    mask_report(model)
    np.testing.assert_array_equal(array(gru.states[0]), before[0])
    assert model.to_json() == before[1]


def test_the_table_is_aligned_and_ends_with_a_summary():
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
def test_rejects_a_model_without_a_graph(make):
    model = make()
    with pytest.raises(ValueError, match="graph of layers.*Received: model=.*build"):
        mask_report(model)


def test_a_model_with_a_fixed_length_needs_the_inputs_argument():
    three_steps = layers.Reshape((3 * WIDTH,), name="three_steps")
    model = model_of(lambda x: layers.Dense(5)(three_steps(x)))
    with pytest.raises(ValueError, match=r"(?s)\(1, 16\).*as `inputs`"):
        mask_report(model)
    ids = np.array([[4, 5, 0], [7, 0, 0]])
    for inputs in (ids, [ids], {"ids": ids}):
        assert mask_report(model, inputs).lost_at == ("three_steps",)


def test_rejects_inputs_that_do_not_fit_the_model():
    model = model_of(lambda x: layers.Dense(5)(x))
    for inputs in ({"words": np.ones((2, 3))}, [np.ones((2, 3))] * 2):
        with pytest.raises(ValueError, match="`inputs` must .*one array.*Received"):
            mask_report(model, inputs)
