import copy
import functools
import itertools
import math
import pickle
import subprocess
import sys

import keras
import keras_tuner
import pytest

import kseq
from kseq.layers import RecurrentEncoder, TransformerEncoder
from kseq.tuning import Boolean, Choice, Fixed, Float, Int, Space
from kseq.tuning.naming import fixed_values


def record(*args, **kwargs):
    return args, kwargs


def deep(num_layers, rate=None):
    return "deep", num_layers, rate


def wide(units):
    return "wide", units


def fail(units):
    raise TypeError(f"no {units} units")


def nested():
    return Space(
        record,
        encoder=Choice(
            Space(deep, Int(1, 3), rate=Choice(None, Float(0.1, 0.3, step=0.1))),
            Space(wide, Int(8, 32, step=8)),
        ),
        pooling=Choice("mean", "max"),
    )


def all_points(space):
    """Return every point, from all combinations of values."""
    dimensions = space.hyperparameters()
    grids = [
        getattr(x, "labels", None)
        or [x.min_value + i * (x.step or 1) for i in range(x.size)]
        for x in dimensions.values()
    ]
    points = set()
    for combination in itertools.product(*grids):
        values = {}
        for name, value in zip(dimensions, combination, strict=True):
            if name in space.checked_values(values):  # is it active so far?
                values[name] = value
        points.add(tuple(values.items()))
    return points


def test_names_follow_from_the_nesting():
    assert list(nested().hyperparameters()) == [
        "encoder",
        "encoder/deep/num_layers",
        "encoder/deep/rate",
        "encoder/deep/rate/Float",
        "encoder/wide/units",
        "pooling",
    ]


def test_lists_tuples_and_dicts_can_contain_dimensions():
    space = Space(record, [Int(1, 2), {"a": Int(3, 4)}], x=(5, Space(wide, Int(6, 7))))
    assert list(space.hyperparameters()) == ["args/0/0", "args/0/1/a", "x/1/units"]
    args, kwargs = space.build({"args/0/1/a": 4})
    assert args == ([1, {"a": 4}],) and kwargs == {"x": (5, ("wide", 6))}


def test_points_contain_only_active_dimensions():
    space = nested()
    assert space.defaults() == {
        "encoder": "deep",
        "encoder/deep/num_layers": 1,
        "encoder/deep/rate": "None",
        "pooling": "mean",
    }
    samples = [space.sample(seed) for seed in range(40)]
    for sample in samples:
        assert ("encoder/wide/units" in sample) == (sample["encoder"] == "wide")
        has_rate = sample.get("encoder/deep/rate") == "Float"
        assert ("encoder/deep/rate/Float" in sample) == has_rate
        assert space.checked_values(sample) == sample
    assert space.sample(3) == space.sample(3)
    assert len({tuple(sample.items()) for sample in samples}) > 15


def test_count_is_the_number_of_points():
    space = nested()
    assert space.count() == len(all_points(space)) == (3 * (1 + 3) + 4) * 2
    assert Space(record, Float(0, 1)).count() == math.inf
    assert Space(record, 5).count() == 1


def test_build_calls_functions_with_the_chosen_values():
    values = {"encoder": "wide", "encoder/wide/units": 24}
    assert nested().build(values) == ((), {"encoder": ("wide", 24), "pooling": "mean"})
    values = {"encoder/deep/rate": "Float", "encoder/deep/rate/Float": 0.2}
    assert nested().build(values)[1]["encoder"] == ("deep", 1, 0.2)


def test_options_are_passed_to_the_function_unchanged():
    space = Space(record, Choice(True, False), Choice(0, 0.5), Choice(None, (1, 2)))
    (flag, number, pair), _ = space.build({"args/2": "(1, 2)"})
    assert flag is True and number == 0 and isinstance(number, int) and pair == (1, 2)


def test_dimension_used_twice_is_one_hyperparameter():
    width = Choice(8, 16)
    space = Space(
        record,
        encoder=Choice(Space(deep, width), Space(wide, width), plain="plain"),
        width=width,
    )
    assert list(space.hyperparameters()) == ["encoder", "width"]
    assert space.count() == 6
    values = {"encoder": "wide", "width": 16}
    assert space.build(values)[1] == {"encoder": ("wide", 16), "width": 16}


def test_dimension_of_two_options_is_active_only_with_them():
    units = Int(8, 9)
    space = Space(
        record, encoder=Choice(Space(deep, units), Space(wide, units), plain="plain")
    )
    name = "encoder/deep/num_layers"
    assert list(space.hyperparameters()) == ["encoder", name]
    assert space.count() == 5
    assert space.build({"encoder": "wide", name: 9})[1]["encoder"] == ("wide", 9)
    assert name not in space.checked_values({"encoder": "plain"})


def test_dimension_under_two_choices_is_active_under_either():
    space = Space(tiny, **two_choices())
    assert space.count() == 3 * 2 + 1
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    assert [x.name for x in hp.space] == ["first", "second", "units"]
    for first, second in itertools.product(["wide", "none"], repeat=2):
        values = {"first": first, "second": second, "units": 9}
        assert ("units" in space.relevant(values)) == ("wide" in (first, second))


def two_choices():
    units = Int(8, 9, name="units")
    options = {"wide": Space(wide, units), "none": None}
    return {"first": Choice(**options), "second": Choice(**options)}


def test_space_used_twice_is_called_once():
    table = Space(record, Int(1, 2))
    first, second = Space(record, table, table).build({})[0]
    assert first is second
    model = Space(
        kseq.encoder_decoder,
        source=(both := Space(kseq.layers.TokenEmbedding, 9, Choice(4, 8))),
        target=both,
        width=Choice(4, 8),
        tie_embeddings="all",
    ).build({})
    assert model.source is model.target


def test_given_name_replaces_the_path():
    space = Space(record, x=Space(record, y=Choice(Space(wide, Int(1, 2)), name="z")))
    assert list(space.hyperparameters()) == ["z", "z/wide/units"]


def test_describe_prints_the_tree(capsys):
    nested().describe()
    expected = """record
  encoder: deep, wide
    deep
      num_layers: 1 to 3
      rate: None, Float
        Float: 0.1 to 0.3, step 0.1
    wide
      units: 8 to 32, step 8
  pooling: mean, max
"""
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("copy_space", [copy.copy, copy.deepcopy])
def test_a_space_can_be_copied(copy_space):
    check_same(copy_space(space_with_shared_width()), space_with_shared_width())


def test_pickled_space_keeps_shared_dimensions():
    check_same(
        pickle.loads(pickle.dumps(space_with_shared_width())), space_with_shared_width()
    )


def space_with_shared_width():
    width = Choice(8, 16)
    space = Space(record, Choice(Space(wide, width), Space(deep, width)), width=width)
    return space.limited(max_parameters=3)


def check_same(space, original):
    assert str(space) == str(original)
    assert list(space.hyperparameters()) == list(original.hyperparameters())
    assert space.build({"width": 16}) == original.build({"width": 16})
    assert space.budget.max_parameters == 3
    space.function = fail  # the bound methods of KerasTuner belong to this copy
    with pytest.raises(TypeError):
        space.build({})


@pytest.mark.thorough
def test_pickled_space_builds_in_another_process(tmp_path):
    space = Space(
        kseq.many_to_one, 11, num_outputs=2, width=8, encoder=Choice("gru", "lstm")
    )
    (tmp_path / "space").write_bytes(pickle.dumps(space))
    program = (
        "import pickle, sys; s = pickle.load(open(sys.argv[1], 'rb'));"
        "print(s.build({'encoder': 'lstm'}).output_shape, s.count())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "space")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "(None, 2) 2\n", done.stderr


def test_partial_function_has_the_label_of_its_function():
    assert Space(functools.partial(wide, units=3)).label == "wide"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Space(5), "must begin with something callable.*Received: 5"),
        (lambda: Space(wide, width=3), r"fit its function: wide\(units\).*width"),
        (lambda: Space(wide, 1, 2), "too many positional arguments"),
        (
            lambda: Space(record, keras.layers.Dense(3)),
            r"all trials would share them.*Use Space\(Dense, ...\)",
        ),
        (
            lambda: Space(record, x=[keras.optimizers.Adam()]),
            r"record with x/0=.*Use Space\(Adam",
        ),
        (
            lambda: Space(record, Choice(keras.layers.Dense(3), None)),
            r"Use Space\(Dense",
        ),
        (
            lambda: Space(record, Int(1, 2, name="a"), Int(1, 3, name="a")).count(),
            "must have different names.*name='a'",
        ),
        (
            lambda: nested().build({"pool": "max"}),
            r"must belong to these dimensions: \['encoder'.*Received: \['pool'\]",
        ),
        (
            lambda: nested().build({"pooling": "median"}),
            "value of `pooling` must be one of mean, max. Received: 'median'",
        ),
        (
            lambda: nested().build({"encoder/deep/num_layers": 4}),
            "must be one of 1 to 3. Received: 4",
        ),
        (
            lambda: nested().build({"encoder/wide/units": 8}),
            r"that the chosen options use.*Received: \['encoder/wide/units'\]",
        ),
        (
            lambda: keras_tuner.RandomSearch(Space(record, 3, Fixed(4)), "loss"),
            "with several values. Received: record, whose .*: args/1",
        ),
    ],
)
def test_rejects_invalid_spaces_and_values(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        make()


def test_error_of_a_function_has_a_note_with_its_values():
    space = Space(record, Space(fail, Int(8, 16)))
    with pytest.raises(TypeError, match="no 16 units") as caught:
        space.build({"args/0/units": 16})
    notes = ["Raised by fail with the values {'args/0/units': 16}."]
    assert caught.value.__notes__ == notes


def test_keras_tuner_gets_the_same_ranges_and_scales():
    space = Space(
        record,
        a=Int(32, 256, step=2, scale="log", default=64),
        b=Float(0.1, 0.4, step=0.1),
        c=Boolean(True),
        d=Fixed("x"),
        e=Choice(4, 8),
    )
    hp = keras_tuner.HyperParameters()
    assert space.build(hp) == ((), {"a": 64, "b": 0.1, "c": True, "d": "x", "e": 4})
    by_name = {x.name: x for x in hp.space}
    assert list(map(int, by_name["a"].values)) == [32, 64, 128, 256]
    assert list(by_name["b"].values) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert by_name["e"].values == [4, 8] and by_name["d"].value == "x"


def test_design_example_builds_at_every_point():
    space = Space(
        kseq.many_to_one,
        20,
        num_outputs=2,
        width=8,
        encoder=Choice(
            Space(RecurrentEncoder, Choice("lstm", "gru"), units=Int(3, 5, step=2)),
            Space(TransformerEncoder, num_layers=Int(1, 2), num_heads=2, width=8),
        ),
        pooling=Choice("mean", "attention"),
    )
    sizes = {space.build(dict(p)).count_params() for p in all_points(space)}
    assert len(sizes) == space.count() == (2 * 2 + 2) * 2


def visited_by_grid_search(space, folder):
    tuner = keras_tuner.GridSearch(space, "val_loss", directory=folder)
    tuner.oracle.verbose = 0
    visited = []
    while (trial := tuner.oracle.create_trial("tuner0")).status == "RUNNING":
        visited.append(trial.hyperparameters.values)
        tuner.oracle.update_trial(trial.trial_id, {"val_loss": 1.0})
        trial.status = "COMPLETED"
        tuner.oracle.end_trial(trial)
        assert len(visited) < 100
    return visited


def test_grid_search_visits_every_point_once(tmp_path):
    units = Int(8, 9)
    space = Space(
        tiny,
        first=Choice(Space(wide, units), Space(deep, units), none=None),
        second=Choice(Space(deep, Int(1, 3), Choice(None, Int(1, 2))), none=None),
    )
    visited = visited_by_grid_search(space, tmp_path)
    points = {tuple(sorted(values.items())) for values in visited}
    assert len(visited) == len(points) == space.count() == 5 * (3 * 3 + 1)
    assert points == {tuple(sorted(point)) for point in all_points(space)}


def test_grid_search_visits_every_point_of_a_dimension_under_two_choices(tmp_path):
    space = Space(tiny, **two_choices())
    visited = visited_by_grid_search(space, tmp_path)
    points = {tuple(sorted(space.relevant(values).items())) for values in visited}
    assert points == {tuple(sorted(point)) for point in all_points(space)}


def tiny(first, second):
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def test_fixed_values_have_names():
    space = Space(
        record,
        20,
        encoder=Choice(Space(deep, 3, rate=Float(0.1, 0.3)), Space(wide, Int(8, 32))),
        name="a",
        bias=True,
        data=list(range(30)),
    )
    plain = {"args/0": 20, "encoder/deep/num_layers": 3, "name": "a", "bias": True}
    found = fixed_values(space)
    assert {name: found.pop(name) for name in plain} == plain
    kinds = {"encoder/deep": "deep", "encoder/wide": "wide", "data": "list"}
    assert {name: value.split()[0] for name, value in found.items()} == kinds
