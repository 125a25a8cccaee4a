"""Joined encoders, compared with the single encoders.

Axes in shape comments: B batch, S steps, D features, U units.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import (
    ConvEncoder,
    JoinedEncoders,
    RecurrentDecoder,
    RecurrentEncoder,
    TransformerEncoder,
)
from kseq.layers.masking import mask_of
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_layer,
    length_mask,
    random_array,
    randomize,
)

B, LEMMA, TAGS, WORD = 3, 5, 2, 4  # steps
SOURCES = {
    "lemma": random_array(B, LEMMA, 6),
    "tags": random_array(B, TAGS, 7, seed=1),
    "word": random_array(B, WORD, 8, seed=2),
}
MASKS = {
    "lemma": length_mask(5, 2, 0, size=LEMMA),
    "tags": length_mask(1, 2, 2, size=TAGS),
    "word": length_mask(0, 4, 0, size=WORD),  # the last row has only tags
}


def encoders():
    return {
        "lemma": RecurrentEncoder("lstm", 4, 2, bidirectional=True, name="lemma"),
        "tags": TransformerEncoder(1, 2, width=6, name="tags"),
        "word": None,
    }


def joined():
    layer = JoinedEncoders(encoders())
    layer(SOURCES)
    randomize(layer)
    return layer


def test_joined_encoders_keep_the_contract_of_layers():
    inputs = {"sources": SOURCES, "mask": MASKS}
    check_layer(JoinedEncoders, {"encoders": encoders}, inputs)


def test_states_are_returned_in_a_functional_model():
    layer = joined()
    symbols = {name: keras.Input(x.shape[1:], name=name) for name, x in SOURCES.items()}
    model = keras.Model(symbols, layer(symbols, return_state=True))
    memory, states = layer(SOURCES, return_state=True)
    for got, expected in zip(
        keras.tree.flatten(model(SOURCES)),
        keras.tree.flatten((memory, states)),
        strict=True,
    ):
        assert_close(got, expected)


def test_the_memory_concatenates_the_outputs_of_the_encoders():
    layer = joined()
    memory = array(layer(SOURCES, mask=MASKS))  # B 11 8
    lemma, tags = layer.encoders["lemma"], layer.encoders["tags"]
    projection = layer.projections["tags"]
    narrow = array(tags(SOURCES["tags"], mask=MASKS["tags"]))
    expected = {
        "lemma": array(lemma(SOURCES["lemma"], mask=MASKS["lemma"])),
        "tags": narrow @ array(projection.kernel) + array(projection.bias),
        "word": SOURCES["word"],
    }
    assert list(layer.projections) == ["tags"]  # 6 wide, where the others have 8
    assert_close(memory, np.concatenate(list(expected.values()), axis=1))


def test_states_are_joined_at_the_top_with_mean_outputs_for_missing_ones():
    layer = joined()
    _, states = layer(SOURCES, mask=MASKS, return_state=True)
    lemma, tags = layer.encoders["lemma"], layer.encoders["tags"]
    _, own = lemma(SOURCES["lemma"], mask=MASKS["lemma"], return_state=True)
    read = array(tags(SOURCES["tags"], mask=MASKS["tags"]))
    means = []
    for outputs, name in ((read, "tags"), (SOURCES["word"], "word")):
        rows = zip(outputs, MASKS[name], strict=True)
        zeros = np.zeros(outputs.shape[-1])
        means.append(
            [row[is_real].mean(0) if any(is_real) else zeros for row, is_real in rows]
        )
    assert [len(height) for height in states] == [2, 4]  # h and c of the LSTM
    assert_close(states[0], own[0])
    assert_close(states[1][:2], own[1])
    assert_close(states[1][2], np.stack(means[0]))
    assert_close(states[1][3], np.stack(means[1]))
    decoder = RecurrentDecoder("gru", 3, attention=None)
    inputs = random_array(B, 2, 5)
    outputs = decoder(inputs, layer(SOURCES, mask=MASKS), initial_state=states)
    assert outputs.shape == (B, 2, 3)


def test_the_mask_covers_all_steps():
    layer = joined()
    memory = layer(SOURCES, mask=MASKS)
    assert_close(mask_of(memory), np.concatenate(list(MASKS.values()), axis=1))
    some = {**MASKS, "tags": None}
    expected = np.concatenate(
        [MASKS["lemma"], np.ones((B, TAGS), "bool"), MASKS["word"]], axis=1
    )
    assert_close(mask_of(layer(SOURCES, mask=some)), expected)
    assert mask_of(layer(SOURCES)) is None


@pytest.mark.parametrize("left, right", [(0, 3), (3, 0), (1, 2)])
@pytest.mark.parametrize("padded", SOURCES)
def test_padding_of_one_source_changes_nothing(padded, left, right):
    layer = joined()
    memory, states = layer(SOURCES, mask=MASKS, return_state=True)
    real = np.concatenate(list(MASKS.values()), axis=1)
    sources, masks = dict(SOURCES), dict(MASKS)
    widths = ((0, 0), (left, right))
    masks[padded] = np.pad(masks[padded], widths)
    garbage = np.pad(sources[padded], (*widths, (0, 0)), constant_values=37.0)
    garbage[~masks[padded]] = 37.0
    sources[padded] = garbage
    more, more_states = layer(sources, mask=masks, return_state=True)
    more_real = np.concatenate(list(masks.values()), axis=1)
    assert_close(array(more)[more_real], array(memory)[real])
    for got, expected in zip(
        keras.tree.flatten(more_states), keras.tree.flatten(states), strict=True
    ):
        assert_close(got, expected)


def test_a_batch_equals_its_rows():
    layer = joined()

    def apply(sources, masks):
        return layer(sources, mask=masks, return_state=True)

    check_batch_equals_rows(apply, SOURCES, MASKS)


def test_attention_is_split_by_source():
    layer = joined()
    weights = random_array(B, 2, LEMMA + TAGS + WORD)
    split = layer.split(ops.convert_to_tensor(weights), SOURCES)
    assert list(split) == ["lemma", "tags", "word"]
    assert_close(split["tags"], weights[..., LEMMA : LEMMA + TAGS])
    assert_close(np.concatenate([array(x) for x in split.values()], axis=-1), weights)


def test_one_encoder_can_read_several_sources(tmp_path):
    encoder = RecurrentEncoder("gru", 4)
    layer = JoinedEncoders({"left": encoder, "right": encoder})
    sources = {"left": random_array(2, 3, 5), "right": random_array(2, 4, 5, seed=1)}
    symbols = {name: keras.Input((None, 5), name=name) for name in sources}
    model = keras.Model(symbols, layer(symbols))
    randomize(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights) == len(encoder.weights)
    assert_close(loaded(sources), model(sources))
    copy = JoinedEncoders.from_config(layer.get_config())
    assert copy.encoders["left"] is copy.encoders["right"]


class EncoderWithoutMask(keras.layers.Dense):
    """Encoder that takes no mask."""


def test_an_encoder_without_a_mask_argument_keeps_the_mask():
    layer = JoinedEncoders({"lemma": EncoderWithoutMask(4), "tags": ConvEncoder(4, 1)})
    sources = {name: SOURCES[name] for name in ("lemma", "tags")}
    masks = {name: MASKS[name] for name in sources}
    memory = layer(sources, mask=masks)
    assert_close(mask_of(memory), np.concatenate(list(masks.values()), axis=1))


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_masks_must_be_boolean_or_0_and_1(dtype):
    layer = joined()
    expected = layer(SOURCES, mask=MASKS)
    masks = {name: mask.astype(dtype) for name, mask in MASKS.items()}
    assert_close(layer(SOURCES, mask=masks), expected)
    with pytest.raises(ValueError, match="boolean or contain only 0 and 1"):
        layer(SOURCES, mask={**masks, "tags": 2 * masks["tags"]})


def test_error_names_missing_and_unknown_sources():
    layer = joined()
    lacking = {"lemma": SOURCES["lemma"], "forms": SOURCES["tags"]}
    with pytest.raises(
        ValueError, match=r"without \['tags', 'word'\] and with \['forms'\], unknown"
    ):
        layer(lacking)
    with pytest.raises(ValueError, match="`mask` must have the names"):
        layer(SOURCES, mask={"lemma": MASKS["lemma"]})


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "a dictionary with a layer for each name"),
        ([RecurrentEncoder("gru", 4)], "a dictionary with a layer for each name"),
        ({"lemma": "gru"}, "a dictionary with a layer for each name"),
        ({"the lemma": None}, "letters, digits and underscores"),
        ({3: None}, "letters, digits and underscores"),
    ],
)
def test_rejects_a_value_that_is_not_a_dictionary_of_encoders(wrong, message):
    with pytest.raises(ValueError, match=message):
        JoinedEncoders(wrong)


def test_error_names_an_encoder_that_returns_no_steps():
    layer = JoinedEncoders({"lemma": keras.layers.GRU(3), "tags": None})
    sources = {name: SOURCES[name] for name in ("lemma", "tags")}
    with pytest.raises(ValueError, match="one vector for each step.*'lemma'"):
        layer(sources)
