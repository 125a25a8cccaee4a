"""Embeddings of several inputs, compared with the single embeddings.

Axes in shape comments: B batch, S steps, D width.
"""

import keras
import numpy as np
import pytest

from kseq.layers import (
    ClassEmbedding,
    FeatureEmbedding,
    NamedEmbeddings,
    SummedEmbedding,
    TokenEmbedding,
)
from kseq.layers.masking import mask_of
from kseq.layers.named_embeddings import each_embedding
from tests.helpers import (
    array,
    assert_close,
    check_config_keeps_every_argument,
    check_frozen_layers_stay_frozen,
    check_layer_runs,
    dtype_policy,
    random_array,
    randomize,
)

WORDS = np.array([[4, 5, 6], [7, 0, 0]], "int32")  # B S
CASES = np.array([[2, 0, 3], [4, 0, 0]], "int32")
NUMBERS = random_array(2, 3, 2)
TAGS = np.array([[3, 2, 4, 1, 2], [5, 4, 0, 0, 0]], "int32")


def named():
    return {"lemma": TokenEmbedding(11, 5), "tags": TokenEmbedding(7, 3)}


def summed():
    return {
        "word": TokenEmbedding(11, 6, positions="sinusoidal"),
        "case": TokenEmbedding(7, 6),
        "numbers": FeatureEmbedding(2, 6),
    }


KINDS = {
    "NamedEmbeddings": (NamedEmbeddings, named, {"lemma": WORDS, "tags": TAGS}),
    "SummedEmbedding": (
        SummedEmbedding,
        summed,
        {"word": WORDS, "case": CASES, "numbers": NUMBERS},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_several_inputs_keep_the_contract_of_layers(kind):
    layer_class, embeddings, inputs = KINDS[kind]
    init_args, inputs = {"embeddings": embeddings}, {"inputs": inputs}
    check_config_keeps_every_argument(layer_class, init_args)
    check_frozen_layers_stay_frozen(layer_class, init_args, inputs)
    check_layer_runs(layer_class, init_args, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_compute_output_shape_equals_the_shape_of_outputs(kind):
    layer_class, embeddings, inputs = KINDS[kind]
    layer = layer_class(embeddings())
    shapes = {name: x.shape for name, x in inputs.items()}
    got = keras.tree.map_structure(lambda x: tuple(x.shape), layer(inputs))
    assert layer.compute_output_shape(shapes) == got


def test_each_source_has_its_own_vectors_and_mask():
    layer = NamedEmbeddings(named())
    outputs = layer({"lemma": WORDS, "tags": TAGS})
    for name, ids in (("lemma", WORDS), ("tags", TAGS)):
        assert_close(outputs[name], layer.embeddings[name](ids))
        assert_close(mask_of(outputs[name]), ids != 0)
    assert layer.width == {"lemma": 5, "tags": 3}
    assert layer.padding == {"lemma": 0, "tags": 0}
    assert layer.vocabulary_size == {"lemma": 11, "tags": 7}
    assert layer.num_positions == {"lemma": None, "tags": None}


def test_vectors_are_summed_where_any_input_is_real():
    layer = SummedEmbedding(summed())
    inputs = {"word": WORDS, "case": CASES, "numbers": NUMBERS}
    outputs = layer(inputs)
    randomize(layer)
    outputs = layer(inputs)
    expected = sum(array(layer.embeddings[name](x)) for name, x in inputs.items())
    assert_close(outputs, expected)
    assert_close(mask_of(outputs), WORDS != 0)  # also where a word has no case
    only_case = {**inputs, "word": np.zeros_like(WORDS)}
    assert_close(mask_of(layer(only_case)), CASES != 0)
    assert layer.width == 6
    assert layer.padding == {"word": 0, "case": 0, "numbers": 0.0}


def test_half_precision_keeps_the_mask_value_of_features():
    value = -1234.567
    with dtype_policy("mixed_bfloat16"):
        layer = NamedEmbeddings({"past": FeatureEmbedding(2, 5, mask_value=value)})
    past = np.array([[[1.0, 2.0], [value, value]]], "float32")
    assert_close(mask_of(layer({"past": past})["past"]), np.array([[True, False]]))


def test_one_table_can_embed_several_sources():
    shared = TokenEmbedding(11, 5)
    layer = NamedEmbeddings({"left": shared, "right": shared})
    layer({"left": WORDS, "right": WORDS})
    assert len(layer.weights) == 1
    copy = NamedEmbeddings.from_config(layer.get_config())
    assert copy.embeddings["left"] is copy.embeddings["right"]


def test_symbolic_inputs_are_named_by_their_path():
    symbols = NamedEmbeddings(
        {"tokens": SummedEmbedding(summed()), "speaker": ClassEmbedding(3, 5)}
    ).symbolic_input("source")
    assert symbols["tokens"]["case"].name == "source_tokens_case"
    assert symbols["speaker"].shape == (None,)


def test_nested_embeddings_are_found():
    word, speaker = TokenEmbedding(11, 5), ClassEmbedding(3, 5)
    inner = SummedEmbedding({"word": word})
    layer = NamedEmbeddings({"tokens": inner, "speaker": speaker})
    assert each_embedding(layer) == [word, speaker]
    assert each_embedding(word) == [word]


@pytest.mark.parametrize("layer_class", [NamedEmbeddings, SummedEmbedding])
def test_error_names_missing_and_unknown_inputs(layer_class):
    layer = layer_class({"word": TokenEmbedding(11, 5), "case": TokenEmbedding(7, 5)})
    with pytest.raises(ValueError, match=r"without \['case'\]"):
        layer({"word": WORDS})
    with pytest.raises(ValueError, match=r"with \['tag'\], unknown to the model"):
        layer({"word": WORDS, "case": CASES, "tag": CASES})


@pytest.mark.parametrize("layer_class", [NamedEmbeddings, SummedEmbedding])
@pytest.mark.parametrize(
    "wrong, message",
    [
        ([TokenEmbedding(11, 5)], "a dictionary with a layer for each name"),
        ({"word": 11}, "a dictionary with a layer for each name"),
        ({"word": keras.layers.Dense(5)}, "a dictionary with a layer for each name"),
        ({"a/b": TokenEmbedding(11, 5)}, "letters, digits and underscores"),
    ],
)
def test_rejects_a_value_that_is_not_a_dictionary_of_embeddings(
    layer_class, wrong, message
):
    with pytest.raises(ValueError, match=message):
        layer_class(wrong)


def test_rejects_embeddings_or_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match=r"one width.*\{'word': 5, 'case': 4\}"):
        SummedEmbedding({"word": TokenEmbedding(11, 5), "case": TokenEmbedding(7, 4)})
    layer = SummedEmbedding(
        {"word": TokenEmbedding(11, 5), "case": TokenEmbedding(7, 5)}
    )
    with pytest.raises(ValueError, match="the same steps"):
        layer({"word": WORDS, "case": TAGS})
    with pytest.raises(ValueError, match="must be one sequence"):
        NamedEmbeddings({"all": NamedEmbeddings(named())})
