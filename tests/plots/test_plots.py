"""Plots: attention maps, training curves, highlighted texts and fan charts."""

import itertools
import sys
import types
import warnings

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from kseq.plots import (
    attention_heads,
    attention_heatmap,
    fan_chart,
    figures,
    highlighted_texts,
    legible,
    training_curve,
)

HISTORY = {
    "loss": [3.0, 2.0, 1.5],
    "accuracy": [0.1, 0.4, 0.6],
    "val_loss": [3.1, 2.5, 2.4],
}


def labels(ax):
    return [
        [label.get_text() for label in side]
        for side in (ax.get_yticklabels(), ax.get_xticklabels())
    ]


def random_weights(rows, columns, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(columns), rows)


@pytest.fixture
def base_font_only(monkeypatch):
    fonts = {figures.BASE_FONT: figures.installed_fonts()[figures.BASE_FONT]}
    monkeypatch.setattr(figures, "installed_fonts", lambda: fonts)


def test_a_heat_map_has_targets_as_rows_and_sources_as_columns():
    weights = random_weights(2, 3)
    ax = attention_heatmap(weights, ["a", "b", "c"], ["X", "Y"], title="abc")
    np.testing.assert_array_equal(ax.images[0].get_array(), weights)
    assert labels(ax) == [["X", "Y"], ["a", "b", "c"]]
    assert ax.get_title(loc="left") == "abc"
    assert ax.images[0].get_clim() == (0, weights.max())


def test_cells_are_square():
    ax = attention_heatmap(random_weights(2, 7), list("abcdefg"), ["X", "Y"])
    box = ax.get_window_extent()
    assert box.width / 7 == pytest.approx(box.height / 2)


@pytest.mark.parametrize("source", [list("xyz"), ["a long word", "b", "another one"]])
def test_a_heat_map_fits_into_its_figure(source, tmp_path):
    title = "a title that is wider than the map of three columns"
    ax = attention_heatmap(random_weights(2, 3), source, ["y", "z" * 30], title=title)
    ax.figure.savefig(tmp_path / "map.png")
    box, whole = ax.get_tightbbox(), ax.figure.bbox
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= whole.x1 and box.y1 <= whole.y1


def test_a_map_of_zeros_can_be_drawn(tmp_path):
    ax = attention_heatmap(np.zeros((1, 1)), ["a"], ["b"])
    ax.figure.savefig(tmp_path / "map.png")
    assert ax.images[0].get_clim() == (0, 1)


@pytest.mark.filterwarnings("ignore:No installed font has")
def test_any_script_is_drawn_without_a_warning_of_matplotlib(tmp_path):
    source, target = list("한국語ش😀"), ["\n", " ", "a b", "\u2028", "\u0301", "\x00"]
    ax = attention_heatmap(random_weights(6, 5), source, target, title="한국어")
    ax.figure.savefig(tmp_path / "map.png")
    assert labels(ax)[0] == ["\\n", "␣", "a␣b", "\\u2028", "◌\u0301", "\\x00"]


def test_a_character_without_a_font_is_shown_as_its_code_point(
    base_font_only, tmp_path
):
    with pytest.warns(
        UserWarning, match="No installed font has '국한'.* Noto Sans CJK"
    ):
        ax = attention_heatmap(random_weights(2, 1), ["한"], ["é", "x국"])
    ax.figure.savefig(tmp_path / "map.png")
    assert labels(ax) == [["é", "xU+AD6D"], ["U+D55C"]]


def test_fonts_are_added_until_every_character_can_be_drawn(monkeypatch):
    glyphs = {"base": "ab", "more": "abc", "none": "", "hangul": "한", "late": "한d"}
    monkeypatch.setattr(figures, "BASE_FONT", "base")
    monkeypatch.setattr(figures, "installed_fonts", lambda: {f: f for f in glyphs})
    monkeypatch.setattr(figures, "characters", lambda file: set(glyphs[file]))
    assert figures.drawable(["b"]) == (["base"], ["b"])
    assert figures.drawable(["c한"]) == (["base", "more", "hangul"], ["c한"])
    with pytest.warns(UserWarning, match="No installed font has '국'"):
        fonts, texts = figures.drawable(["한d국"])
    assert fonts == ["base", "hangul", "late"] and texts == ["한dU+AD6D"]


def test_hangul_is_drawn_on_every_machine(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = attention_heatmap(random_weights(2, 3), list("한글은"), list("좋다"))
        ax.figure.savefig(tmp_path / "map.png")
    assert labels(ax) == [["좋", "다"], ["한", "글", "은"]]


def test_dollar_signs_are_not_formulas(tmp_path):
    ax = attention_heatmap([[1.0]], ["$\\frac$"], ["$x$"], title="$\\bad$")
    ax.figure.savefig(tmp_path / "map.png")
    assert labels(ax) == [["$x$"], ["$\\frac$"]]


def test_a_heat_map_can_be_drawn_on_given_axes():
    first, second = Figure().subplots(1, 2)
    assert attention_heatmap([[1.0]], ["a"], ["b"], ax=second) is second
    assert not first.images and len(second.images) == 1


def test_plots_do_not_create_figures_of_pyplot():
    attention_heatmap([[1.0]], ["a"], ["b"])
    training_curve(HISTORY)
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    "shape, tokens", [((2, 3), "ab"), ((3, 2), "ab"), ((0, 2), ""), ((2,), "ab")]
)
def test_rejects_weights_that_do_not_fit_the_tokens(shape, tokens):
    with pytest.raises(ValueError, match="`weights` must have one row for each target"):
        attention_heatmap(np.zeros(shape), ["x", "y"], list(tokens))


def test_every_head_has_its_own_map(tmp_path):
    weights = np.random.default_rng(3).random((5, 2, 3))
    figure = attention_heads(weights, list("한국어"), list("ab"), "five heads")
    panels = figure.axes
    titles = [panel.get_title(loc="left") for panel in panels]
    assert titles == [f"head {number}" for number in range(1, 6)]
    for panel, expected in zip(panels, weights, strict=True):
        np.testing.assert_allclose(panel.images[0].get_array(), expected)
    figure.savefig(tmp_path / "heads.png")


def test_a_single_head_has_no_title():
    [panel] = attention_heads(np.ones((1, 2, 1)), ["x"], ["a", "b"]).axes
    assert panel.get_title(loc="left") == ""


@pytest.mark.parametrize("shape", [(2, 3), (0, 2, 3), (1, 1, 2, 3)])
def test_heads_need_three_axes(shape):
    with pytest.raises(ValueError, match="`weights` must have three axes"):
        attention_heads(np.zeros(shape), list("abc"), list("ab"))


def test_each_metric_has_a_panel_with_training_and_validation():
    figure = training_curve(HISTORY)
    loss, accuracy = figure.axes
    assert loss.get_title(loc="left") == "loss"
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert loss.lines[1].get_xydata().tolist() == [[1, 3.1], [2, 2.5], [3, 2.4]]
    assert [line.get_label() for line in accuracy.lines] == ["training"]


def test_metrics_select_the_panels_and_their_order():
    panels = training_curve(HISTORY, metrics=["accuracy", "loss"]).axes
    assert [panel.get_title(loc="left") for panel in panels] == ["accuracy", "loss"]
    assert len(training_curve(HISTORY, metrics=["loss"]).axes) == 1


def test_epochs_are_whole_numbers(tmp_path):
    figure = training_curve({"loss": [2.0, 1.0]})
    figure.savefig(tmp_path / "curve.png")
    ticks = figure.axes[0].get_xticks()
    assert all(tick == int(tick) for tick in ticks) and {1, 2} <= set(ticks)


def test_a_history_may_hold_arrays():
    history = {"loss": np.array([2.0, 1.0]), "val_loss": np.array([2.5, 1.5])}
    training, validation = training_curve(history).axes[0].lines
    assert training.get_ydata().tolist() == [2.0, 1.0]
    assert validation.get_ydata().tolist() == [2.5, 1.5]


def test_a_history_of_keras_sets_the_epochs():
    history = types.SimpleNamespace(history={"loss": [2.0, 1.0]}, epoch=[5, 6])
    [line] = training_curve(history).axes[0].lines
    assert line.get_xdata().tolist() == [6, 7]


def test_rare_validation_is_plotted_at_its_epochs():
    history = {"loss": [5.0, 4.0, 3.0, 2.0, 1.0], "val_loss": [4.5, 2.5]}
    validation = training_curve(history).axes[0].lines[1]
    assert validation.get_xdata().tolist() == [2, 4]


def test_a_curve_can_be_drawn_on_a_given_figure():
    figure = Figure()
    assert training_curve(HISTORY, figure=figure) is figure
    assert len(figure.axes) == 2


@pytest.mark.parametrize(
    "history, metrics", [({}, None), ({"loss": []}, None), (HISTORY, ["bleu"])]
)
def test_rejects_a_history_without_the_metrics(history, metrics):
    with pytest.raises(ValueError, match="`metrics` must name at least one metric"):
        training_curve(history, metrics)


def test_error_says_how_to_install_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for plot in (
        lambda: training_curve(HISTORY),
        lambda: attention_heatmap([], [], []),
    ):
        with pytest.raises(ImportError, match=r"pip install kseq\[plots\]"):
            plot()


def positions(figure):
    """Return the positions of the words of a text, in inches from the upper left."""
    width, height = figure.get_size_inches()
    return [
        (x * width, (1 - y) * height)
        for x, y in (text.get_position() for text in figure.texts)
    ]


def test_words_with_larger_weights_are_darker():
    figure = highlighted_texts([["a", "b", "c"]], [[0.0, 0.2, 0.1]])
    *words, caption = figure.texts
    a, b, c = (sum(text.get_bbox_patch().get_facecolor()[:3]) for text in words)
    assert a > c > b
    assert [text.get_color() for text in words] == ["black", "white", "black"]
    assert caption.get_text() == "Darker words have a higher weight."


def test_a_long_text_is_wrapped_within_the_figure():
    words = [f"word{i}" for i in range(61)]
    figure = highlighted_texts([words, ["end"]], [range(61), [0]], ["x", ""])
    places = positions(figure)[1:-1]  # without title and caption
    width, height = figure.get_size_inches()
    assert all(0 < x < width and 0 < y < height for x, y in places)
    assert places == sorted(places, key=lambda place: (round(place[1], 6), place[0]))
    lines = [y for _, y in places[:-1]]
    assert len(set(np.round(lines, 6))) > 1 and places[-1][1] > max(lines)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    first = [box for box in boxes[1:] if box.y0 == boxes[1].y0]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(first))


def test_a_text_with_zero_weights_can_be_drawn(base_font_only):
    with pytest.warns(UserWarning, match="No installed font has '한'"):
        figure = highlighted_texts([["$a$", "bc"], ["\n"]], [[0, 0], [0]], ["", "x 한"])
    *texts, _ = [text.get_text() for text in figure.texts]
    assert texts == ["$a$", "bc", "x U+D55C", "\\n"]
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("weights", "titles", "complaint"),
    [
        ([[1.0, 2.0, 3.0]], None, "one number for each token"),
        ([[1.0, 2.0], [1.0]], None, "one number for each token"),
        ([[1.0, -2.0]], None, "non-negative numbers"),
        ([[1.0, float("nan")]], None, "non-negative numbers"),
        ([[1.0, 2.0]], ["a", "b"], "`titles` must be one for each text"),
    ],
)
def test_rejects_weights_that_do_not_fit_the_words(weights, titles, complaint):
    with pytest.raises(ValueError, match=complaint):
        highlighted_texts([["a", "b"]], weights, titles)
    with pytest.raises(ValueError, match="one number for each token"):
        highlighted_texts([], [])


def test_a_custom_figure_becomes_legible(tmp_path):
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2])
    ax.set_ylabel("해_$x$_\N{BLACK CHESS KING}")
    assert legible(figure) is figure
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "own.png")
    assert ax.get_ylabel() == "해_$x$_\N{BLACK CHESS KING}"


def test_a_fan_chart_has_a_band_for_each_level_around_the_median():
    draws = np.random.default_rng(0).normal(size=(50, 6))
    ax = fan_chart(draws, seen=np.arange(4), truth=np.zeros(6), levels=(0.5, 0.8))
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["seen"][:, 0], [-4, -3, -2, -1])
    np.testing.assert_array_equal(lines["seen"][:, 1], np.arange(4))
    np.testing.assert_array_equal(lines["truth"][:, 1], np.zeros(6))
    np.testing.assert_allclose(lines["median"][:, 1], np.median(draws, axis=0))
    bands = {band.get_label(): band.get_paths()[0].vertices for band in ax.collections}
    assert list(bands) == ["80 %", "50 %"]
    for label, level in (("50 %", 0.5), ("80 %", 0.8)):
        ends = np.quantile(draws[:, 2], [0.5 - level / 2, 0.5 + level / 2])
        at_two = bands[label][bands[label][:, 0] == 2]
        np.testing.assert_allclose(np.sort(np.unique(at_two[:, 1])), ends)


def test_rejects_a_truth_with_fewer_steps_than_the_draws():
    with pytest.raises(ValueError, match=r"truth of shape \(5,\), draws of shape"):
        fan_chart(np.zeros((3, 6)), truth=np.zeros(5))


def test_only_wide_labels_are_rotated():
    for tokens, angle in ((["AH", "r"], 0), (["한", "글"], 0), (["먹었다", "나"], 45)):
        axes = attention_heatmap(np.full((2, 2), 0.5), tokens, ["a", "b"])
        assert {label.get_rotation() for label in axes.get_xticklabels()} == {angle}
