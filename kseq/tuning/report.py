"""A report of a search: one self-contained HTML file with SVG charts."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from kseq.tuning.importance import importances
from kseq.tuning.trials.curves import any_value
from kseq.tuning.trials.events import duration, trials
from kseq.tuning.trials.files import write_text
from kseq.tuning.trials.layout import SearchDirectory
from kseq.typing import PathLike

if TYPE_CHECKING:
    from kseq.tuning.results import Results

Row = dict[str, Any]  # of `Results.table`

WIDTH = 960
HALO = (  # keeps labels legible where lines cross them
    'stroke="white" stroke-width="6" stroke-linejoin="round" paint-order="stroke"'
)
BEST, WORST = np.array([38, 30, 90]), np.array([222, 100, 10])  # legible on white
FAR = 3  # interquartile ranges beyond the quartiles, from where values are outliers
MOST_CURVES = 60
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 960px;
       margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; font-size: 13px }
td, th { padding: 2px 10px 2px 0; text-align: left; border-bottom: 1px solid #ddd;
         vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto; font-size: 13px }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif }
path { fill: none } path:hover { stroke: #d00; stroke-width: 3; opacity: 1 }
circle:hover { fill: #d00; opacity: 1 }
.note { color: #666; font-size: 13px }
"""


def write_report(results: "Results", path: PathLike) -> PathLike:
    """Write the results of a search to one HTML file.

    It shows the best trial and how to build its model, the importance of each
    hyperparameter, all trials as parallel coordinates, their learning curves, failures
    with their reasons, and the table of all trials.

    Args:
        results: The `Results` of a search.
        path: The file to write.

    Returns:
        The path.

    Raises:
        ValueError: The path is a folder, or cannot be written to.
    """
    rows = [tidy(row) for row in results.table()]
    scored = [row for row in rows if row["score"] is not None]
    sign = 1 if results.objective.direction == "min" else -1
    scored.sort(key=lambda row: sign * row["score"])
    sections = [
        summary(results, rows, scored),
        best_section(results, scored),
        importance_section(scored),
        section(
            "All trials as parallel coordinates",
            parallel_coordinates(scored, results.objective.name),
            "Each line is a trial, from orange (worst) to dark (best). For an inactive "
            "hyperparameter, the line passes below the axis, at the dash. Hover over a "
            "line to see its trial.",
        ),
        section(
            "Learning curves",
            learning_curves(results, scored),
            f"{escape(results.objective.name)} after each epoch, for at most "
            f"{MOST_CURVES} trials, the best ones. A dot is a trial of one epoch. Far "
            "outliers are drawn at the edge.",
        ),
        failures_section(rows),
        table_section(scored + [row for row in rows if row["score"] is None]),
    ]
    title = f"Search for the best {escape(results.objective.name)}"
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}'
        f"</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(filter(None, sections))
        + "\n</body></html>\n"
    )
    try:
        write_text(os.fspath(path), page)
    except (OSError, TypeError) as error:
        example = "report.html"
        if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
            example = os.path.join(path, example)
        raise ValueError(
            "`path` must be a file in a folder that you can write to. Received: path="
            f"{str(path)!r} ({getattr(error, 'strerror', None) or error}). Use a path "
            f"such as {example}."
        ) from error
    return path


def tidy(row: Row) -> Row:
    values = {n: v for n, v in row["values"].items() if not n.startswith("tuner/")}
    return {**row, "values": values}


def section(title: str, content: str, note: str = "") -> str:
    if not content:
        return ""
    note = note and f'<p class="note">{note}</p>'
    return f"<h2>{title}</h2>\n{content}{note}"


def summary(results: "Results", rows: Sequence[Row], scored: Sequence[Row]) -> str:
    count = {status: 0 for status in ("completed", "stopped", "failed", "unfinished")}
    for row in rows:
        count[row["status"]] += 1
    parts = ", ".join(f"{number} {status}" for status, number in count.items())
    seconds = duration(sum(row["seconds"] or 0 for row in rows))
    return (
        f"<p>{trials(len(rows))} ({parts}) in {seconds} of trial time; "
        f"{escape(results.identity['tuner'])}, {results.objective.direction}imal "
        f"{escape(results.objective.name)}, directory "
        f"<code>{escape(str(results.directory))}</code>.</p>"
    )


def best_section(results: "Results", scored: Sequence[Row]) -> str:
    if not scored:
        return section("The best trial", "<p>No trial has completed.</p>")
    best = scored[0]
    size = best["parameters"]
    weights = SearchDirectory(results.directory.absolute()).trial(best["trial"]).weights
    lines = [f"    {name!r}: {value!r},\n" for name, value in best["values"].items()]
    code = escape(
        "import keras_tuner\n\n"
        "hp = keras_tuner.HyperParameters()\n"
        f"hp.values = {{\n{''.join(lines)}}}\n"
        "model = space.build(hp)  # space: the searched space\n"
        "model.optimizer.build(model.trainable_variables)\n"
        f"model.load_weights({str(weights)!r})"
    )
    return section(
        "The best trial",
        f"<p>Trial {best['trial']}: {escape(results.objective.name)} "
        f"{best['score']:.6g} after epoch {best['epoch']}"
        f"{f', {size:,} parameters' if size else ''}.</p>"
        f"{value_table(best['values'])}<p>To build its model, as "
        f"<code>results.best_model()</code> does:</p><pre>{code}</pre>",
    )


def value_table(values: Mapping[str, Any]) -> str:
    lines = [
        f"<tr><td>{escape(n)}</td><td>{escape(show(v))}</td></tr>"
        for n, v in values.items()
    ]
    return f"<table>{''.join(lines)}</table>"


def importance_section(scored: Sequence[Row]) -> str:
    found = importances([(row["values"], row["score"]) for row in scored])
    if not found:
        return ""
    height, left = 24 * len(found) + 8, 330
    parts = []
    for index, (name, share, used) in enumerate(found):
        y = 24 * index + 4
        length = (share or 0) * (WIDTH - left - 190)
        label = "too few trials" if share is None else f"{share:.2f}"
        parts.append(text(left - 8, y + 14, short(name, 50), "end"))
        parts.append(
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="18" fill="#46a"/>'
        )
        parts.append(text(left + length + 6, y + 14, f"{label} ({trials(used)})"))
    return section(
        "Importance of hyperparameters",
        svg(height, parts),
        "Eta squared of the Kruskal-Wallis test (Tomczak and Tomczak, 2014): the share "
        "of the ranking of trials that the hyperparameter alone explains, among the "
        "trials that used it. It is uncertain with few trials.",
    )


def parallel_coordinates(scored: Sequence[Row], objective: str) -> str:
    if not scored:
        return ""
    used = dict.fromkeys(name for row in scored for name in row["values"])
    names = [n for n in used if len({show(r["values"].get(n)) for r in scored}) > 1]
    height, top, bottom = 430, 170, 380
    xs = np.linspace(20, WIDTH - 105, len(names) + 1)
    columns = [[row["values"].get(name) for row in scored] for name in names]
    columns.append([row["score"] for row in scored])
    places: list[list[float]] = []
    parts: list[str] = []
    for x, name, column in zip(xs, [*names, objective], columns, strict=True):
        position, ticks, is_log = axis(column)
        places.append([bottom - p * (bottom - top) for p in position])
        parts.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#999"/>')
        label = short(name, 26) + (" (log)" if is_log else "")
        turned = f'transform="rotate(-60 {x:.1f} {top - 12})"'
        parts.append(text(x, top - 12, label, "start", turned))
        for p, label in ticks:
            y = bottom - p * (bottom - top)
            parts.append(text(x + 5, y + 4, short(label, 16), "start", HALO))
    lines = []
    for index, row in reversed(list(enumerate(scored))):  # the best on top
        points = zip(xs, (place[index] for place in places), strict=True)
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        hint = f"trial {row['trial']}: {row['score']:.5g}"
        lines.append(line(path, index / max(1, len(scored) - 1), hint))
    return svg(height, lines + parts)


def axis(
    column: Sequence[Any],
) -> tuple[list[float], list[tuple[float, str]], bool]:
    """Return positions of values on an axis, its ticks, and whether it is logarithmic.

    Positions are from 0 to 1, or below 0 for a missing value.
    """
    present = [value for value in column if value is not None]
    ticks: list[tuple[float, str]] = []
    if len(present) < len(column):
        ticks = [(-0.12, "\N{EN DASH}")]
    numeric = all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in present
    )
    is_log = False
    if numeric and len(set(present)) > 1:
        low, high = min(present), max(present)
        is_log = low > 0 and high / low > 50
        scale: Any = np.log if is_log else float
        ticks += [(0, show(low, 2)), (1, show(high, 2))]

        def place(value):
            return float((scale(value) - scale(low)) / (scale(high) - scale(low)))
    else:
        options = list(dict.fromkeys(sorted(map(show, present))))
        steps = {o: (i + 0.5) / len(options) for i, o in enumerate(options)}
        ticks += [(step, option) for option, step in steps.items()]

        def place(value):
            return steps[show(value)]

    positions = [-0.12 if value is None else place(value) for value in column]
    return positions, ticks, is_log


def learning_curves(results: "Results", scored: Sequence[Row]) -> str:
    shown = scored[:MOST_CURVES]
    curves = [results.curves(r["trial"]).get(results.objective.name) for r in shown]
    pairs = [(r, c) for r, c in zip(shown, curves, strict=True) if c and any_value(c)]
    if not pairs:
        return ""
    everything = [v for _, curve in pairs for v in curve if v is not None]
    low, high = limits(everything, results.objective.direction)
    span = (high - low) or 1.0
    longest = max(len(curve) for _, curve in pairs)
    left, right, top, bottom = 70, WIDTH - 20, 15, 285
    first = left + 12  # so that the dots of epoch 1 are not on the axis

    def point(epoch, value):
        x = first + (right - first) * (epoch / max(1, longest - 1))
        share = float(np.clip((value - low) / span, -0.03, 1.03))
        return f"{x:.1f} {bottom - share * (bottom - top):.1f}"

    parts = []
    for index, (row, curve) in reversed(list(enumerate(pairs))):
        hint = f"trial {row['trial']}: {row['score']:.5g}"
        points = [point(e, value) for e, value in enumerate(curve) if value is not None]
        draw = dot if len(points) == 1 else line
        parts.append(draw("L".join(points), index / max(1, len(pairs) - 1), hint))
    parts.append(f'<path d="M{left} {top}V{bottom}H{right}" stroke="#999"/>')
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top) + 4
        parts.append(text(left - 6, y, f"{low + share * span:.4g}", "end"))
    parts.append(text(first, bottom + 18, "epoch 1"))
    parts.append(text(right, bottom + 18, f"epoch {longest}", "end"))
    return svg(310, parts)


def limits(values: Sequence[float], direction: str) -> tuple[float, float]:
    """Return the lowest and the highest value of an axis.

    A diverging trial must not flatten the others: far outliers on the side of the worse
    values are left out.
    """
    low, high = float(np.min(values)), float(np.max(values))
    quarter, three_quarters = (float(np.percentile(values, q)) for q in (25, 75))
    beyond = FAR * (three_quarters - quarter)
    if beyond and direction == "min":
        high = min(high, three_quarters + beyond)
    elif beyond:
        low = max(low, quarter - beyond)
    return low, high


def failures_section(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row["status"] == "failed"]
    lines = [
        f"<tr><td>{row['trial']}</td><td>{escape(row['reason'])}</td>"
        f"<td>{row['attempts']}</td><td>{escape(show_all(row['values']))}</td></tr>"
        for row in failed
    ]
    head = "<tr><th>trial</th><th>reason</th><th>attempts</th><th>values</th></tr>"
    table = f"<table>{head}{''.join(lines)}</table>" if lines else ""
    return section("Failures", table)


def table_section(rows: Sequence[Row]) -> str:
    names = ("trial", "status", "score", "epochs", "parameters", "seconds", "values")
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = []
    for row in rows:
        cells = {**row, "values": show_all(row["values"])}
        lines.append("<tr>" + "".join(cell(cells[name]) for name in names) + "</tr>")
    return section("All trials", f"<table><tr>{head}</tr>{''.join(lines)}</table>")


def cell(value: Any) -> str:
    kind = ' class="number"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{'' if value is None else escape(show(value))}</td>"


def show(value: Any, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def show_all(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in values.items())


def short(label: Any, length: int) -> str:
    """Return the end of a long name, which is more informative than its beginning."""
    label = str(label)
    return (
        label
        if len(label) <= length
        else "\N{HORIZONTAL ELLIPSIS}" + label[1 - length :]
    )


def text(
    x: float, y: float, content: Any, anchor: str = "start", more: str = ""
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>'
        f"{escape(str(content))}</text>"
    )


def line(points: str, place: float, hint: str) -> str:
    """Draw a path, colored by its `place` from 0, the best, to 1."""
    width = 3 if place == 0 else 1.3
    return (
        f'<path d="M{points}" stroke="{color(place)}" '
        f'stroke-width="{width}" opacity="0.85"><title>{escape(hint)}</title></path>'
    )


def dot(point: str, place: float, hint: str) -> str:
    """Draw a dot, colored like a `line`."""
    x, y = point.split()
    return (
        f'<circle cx="{x}" cy="{y}" r="{4 if place == 0 else 3}" '
        f'fill="{color(place)}" opacity="0.85"><title>{escape(hint)}</title></circle>'
    )


def color(place: float) -> str:
    red, green, blue = (BEST + (WORST - BEST) * place**0.6).astype(int)
    return f"rgb({red},{green},{blue})"


def svg(height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
