import math

import keras_tuner
import pytest

from kseq.tuning import Boolean, Choice, Fixed, Float, Int, Space


@pytest.mark.parametrize(
    "dimension, size",
    [
        (Int(1, 3), 3),
        (Int(64, 512, step=64), 8),
        (Int(10, 25, step=7), 3),
        (Int(32, 256, step=2, scale="log"), 4),
        (Int(32, 100, scale="log"), 69),
        (Int(5, 5), 1),
        (Float(0.0, 0.5, step=0.1), 6),
        (Float(1e-4, 1e-1, step=10, scale="log"), 4),
        (Float(0.0, 0.5), math.inf),
        (Float(0.5, 0.5), 1),
        (Boolean(), 2),
        (Fixed("gru"), 1),
        (Choice("a", "b", None), 3),
    ],
)
def test_size_of_a_dimension_is_its_number_of_values(dimension, size):
    assert dimension.size == size


@pytest.mark.parametrize(
    "code",
    [
        "Int(4, 8)",
        "Int(4, 8, step=2, default=6, name='n')",
        "Float(0.001, 0.01, scale='log')",
        "Boolean()",
        "Boolean(default=True)",
        "Fixed('a')",
        "Choice(8, 16, default=16)",
        "Choice(None, Float(0.1, 0.5))",
        "Choice(8, large=16)",
    ],
)
def test_a_dimension_is_shown_as_the_call_that_makes_it(code):
    assert repr(eval(code)) == code


@pytest.mark.parametrize(
    "options, labels",
    [
        (("mean", "max"), ["mean", "max"]),
        ((4, 8), [4, 8]),
        ((0, 0.5), [0.0, 0.5]),
        ((True, False), ["True", "False"]),
        ((None, "gru"), ["None", "gru"]),
        ((None, Float(0, 1)), ["None", "Float"]),
        ((Space(dict), Space(list)), ["dict", "list"]),
        ((max, (1, 2)), ["max", "(1, 2)"]),
    ],
)
def test_labels_of_options_follow_from_the_options(options, labels):
    choice = Choice(*options)
    assert choice.labels == labels
    assert [choice.option(label) for label in labels] == list(options)


def test_keywords_are_labels_of_options():
    choice = Choice("plain", deep=Space(dict), wide=Space(dict))
    assert choice.labels == ["plain", "deep", "wide"]


def test_first_value_is_the_default_if_none_is_given():
    assert Int(2, 5).default == 2 and Int(2, 5, default=3).default == 3
    assert (
        Choice("a", "b").default == "a" and Choice("a", "b", default="b").default == "b"
    )
    assert Boolean().default is False and Boolean(True).default is True
    assert Fixed(7).default == 7


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Int(5, 3), "must not exceed `max_value`.*min_value=5, max_value=3"),
        (lambda: Float(0.5, 0.1), "must not exceed"),
        (lambda: Int(1, 2.5), "`max_value` must be an integer"),
        (lambda: Int(True, 2), "`min_value` must be an integer"),
        (lambda: Float(0, math.inf), "`max_value` must be a finite number"),
        (lambda: Int(0, 8, scale="log"), "must be above 0 on the scale 'log'"),
        (lambda: Int(1, 10, step=3, default=5), "of `default` must be one of 1 to 10"),
        (lambda: Int(1, 9, step=3, scale="log", default=6), "must be one of 1 to 9"),
        (lambda: Int(1, 8, step=1, scale="log"), "must be above 1"),
        (lambda: Int(1, 8, step=0), "must be above 0"),
        (lambda: Int(1, 8, scale="cubic"), "`scale` must be one of"),
        (lambda: Int(1, 8, default=9), "value of `default` must be one of 1 to 8"),
        (lambda: Choice(), "at least one option"),
        (lambda: Choice("a", "a"), "different labels.*'a'"),
        (lambda: Choice(Space(dict), Space(dict)), "different labels.*'dict'.*keyword"),
        (lambda: Choice("a", default="b"), "must be one of a. Received: 'b'"),
        (lambda: Boolean(default=1), "must be True or False"),
        (lambda: Fixed([1]), "must be an integer, a float, a string"),
        (lambda: Int(1, 2, name=""), "`name` must be a string"),
    ],
)
def test_rejects_invalid_dimensions(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("scale", ["linear", "log", "reverse_log"])
@pytest.mark.parametrize("kind", [Int, Float])
def test_dimension_contains_the_values_that_keras_tuner_samples(kind, scale):
    dimension = kind(10, 90, step=3, scale=scale)
    form = getattr(keras_tuner.engine.hyperparameters, kind.__name__)
    hyperparameter = form("x", **dimension.config)
    sampled = {hyperparameter.prob_to_value(p / 100) for p in range(100)}
    assert len(sampled) == dimension.size and all(map(dimension.contains, sampled))
    assert not dimension.contains(kind(11, 11).default)
