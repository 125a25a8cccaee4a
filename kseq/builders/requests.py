"""Requests: checked inputs of `generate` and `score`, split into batches.

    user input ──Request──> rows by name ──batches──> Batch ──arrays──> loop
    outputs by name, in the order of the rows <──outputs── results of the batches <─┘

Axes in shape comments: B batch, N hypotheses, T target steps, S source steps.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.builders.row_checks import (
    check_pairs,
    check_room,
    check_target,
    prefix_rows,
    token_rows,
)
from kseq.builders.searches import as_search
from kseq.builders.source_rows import (
    real_steps,
    row_length,
    rows_of_batches,
    source_rows,
    source_symbol,
)
from kseq.decoding import Search
from kseq.decoding.constraints import Constraint
from kseq.decoding.loop import check_max_length
from kseq.few_shapes import rounded_up, rows_to_add
from kseq.layers.validation import one_of, positive_integer


class Request:
    """Checked rows of a call, in the order in which they go through a loop.

    Rows of similar length are neighbours, so that there is little padding.

    Args:
        model: The `GenerativeModel` that was called.
        source: The source as passed by the user, with batches joined.
        rows: Inputs of the loop by name, one row for each source. "source" is always
            present.
    """

    def __init__(self, model: keras.Model, source: Any, rows: dict[str, Any]) -> None:
        self.model, self.source, self.rows = model, source, rows
        lengths = list(map(row_length, rows["source"]))
        self.order = np.lexsort((rows.get("max_lengths", lengths), lengths))

    def batches(self, batch_size: int) -> Iterator["Batch"]:
        """Yield batches of at most `batch_size` rows."""
        positive_integer("batch_size", batch_size)
        for first in range(0, len(self.order), batch_size):
            yield self.batch(self.order[first : first + batch_size], batch_size)

    def batch(self, places: Iterable[int], most_rows: int) -> "Batch":
        """Return the `Batch` of the rows at these places."""
        rows = {name: [rows[i] for i in places] for name, rows in self.rows.items()}
        return Batch(rows, self.paddings, most_rows, self.max_length_of(rows))

    @property
    def paddings(self) -> dict[str, Any]:
        """Padding of short rows by name. Rows of other inputs are never short."""
        pad = self.model.pad_token_id
        return {"source": self.model.source_padding, "prefix": pad, "target": pad}

    def max_length_of(self, rows: dict[str, Any]) -> int | None:
        """Return the maximum number of tokens for a batch, or None."""
        return None

    def outputs(self, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the results of the batches by name, in the original order of rows."""
        order = np.argsort(self.order, kind="stable")
        paddings = {"token_ids": self.model.pad_token_id}
        return {
            name: joined([r[name] for r in results], paddings.get(name, 0), order)
            for name in results[0]
        }


class GenerateRequest(Request):
    """A call of `generate`, with its arguments."""

    def __init__(
        self,
        model: keras.Model,
        source: Any,
        search: Search | None,
        max_length: int | Callable[[int], int],
        prefix: Any,
        jit_compile: bool | None,
        constraints: Sequence[Constraint],
    ) -> None:
        source = rows_of_batches(source, source_symbol(model))
        if not callable(max_length):
            check_max_length(max_length)
        check_jit_compile(jit_compile)
        self.max_length, self.jit_compile = max_length, jit_compile
        self.search = as_search(search, constraints)
        rows = {"source": source_rows(model, source)}
        num_rows = len(rows["source"])
        if callable(max_length):
            rows["max_lengths"] = max_lengths(model, rows["source"], max_length)
        seeds = self.search.row_seeds(num_rows)
        if seeds is not None:  # a row keeps its seed in any batch
            rows["row_seeds"] = ops.convert_to_numpy(seeds)
        if prefix is not None:
            rows["prefix"] = prefix_rows(model, prefix, num_rows)
            limits = rows.get("max_lengths", [max_length] * num_rows)
            check_room(rows["prefix"], limits, model.pad_token_id)
        super().__init__(model, source, rows)

    def whole(self) -> "Batch":
        """Return one `Batch` of all rows in their original order."""
        count = len(self.order)
        return self.batch(range(count), most_rows=2 * count)

    def max_length_of(self, rows: dict[str, Any]) -> int:
        if not callable(self.max_length):
            return self.max_length
        longest = int(max(rows["max_lengths"]))
        length = rounded_up(longest, to_power_of_two=True)  # few different lengths
        most = self.model.target_length
        return length if most is None else max(min(length, most), longest)

    def outputs(self, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        outputs = super().outputs(results)
        if callable(self.max_length):
            written = max(outputs["lengths"].max(), 1)
            for name in ("token_ids", "token_log_probs"):
                outputs[name] = outputs[name][..., :written]
        return outputs


class ScoreRequest(Request):
    """A call of `score`.

    Args:
        model: The `GenerativeModel` that was called.
        source: As for `generate`.
        target: Token ids `(B, T)`, or N hypotheses for each source `(B, N, T)`, padded,
            or as lists.
    """

    def __init__(self, model: keras.Model, source: Any, target: Any) -> None:
        target = token_rows("target", target)
        source = rows_of_batches(source, source_symbol(model))
        sources = source_rows(model, source, len(target))
        check_pairs("target", target, len(sources))
        self.axes: tuple[int, ...] = (len(target),)
        if any(len(row) and np.ndim(row[0]) for row in target):
            self.axes = len(target), len(target[0])  # B N
            if any(len(row) != self.axes[1] for row in target):
                raise ValueError(
                    "Every source must have the same number of hypotheses. Received: "
                    f"targets of {[len(row) for row in target]} hypotheses."
                )
            target = [hypothesis for row in target for hypothesis in row]  # BN T
            sources = [row for row in sources for _ in range(self.axes[1])]
        check_target(model, target)
        super().__init__(model, source, {"source": sources, "target": target})

    def outputs(self, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        outputs = super().outputs(results)
        if "attention" in outputs:  # BN ... T S
            steps = max(len(row) for row in self.rows["target"])
            outputs["attention"] = cut(
                outputs["attention"],
                steps,
                self.rows["source"],
                self.model.source_padding,
            )
        return keras.tree.map_structure(
            lambda value: value.reshape(*self.axes, *value.shape[1:]), outputs
        )


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of a request that a loop processes together.

    Attributes:
        rows: Rows by name.
        paddings: Padding of short rows by name. None, or no entry, if all rows have the
            same shape.
        most_rows: Maximum number of rows of a batch.
        max_length: Maximum number of tokens to generate for a row of this batch.
    """

    rows: dict[str, Any]
    paddings: dict[str, Any]
    most_rows: int
    max_length: int | None

    def __len__(self) -> int:
        return len(self.rows["source"])

    def arrays(self, to_power_of_two: bool) -> dict[str, Any]:
        """Return arrays by name, in few different shapes, so that few loops compile.

        Lengths are rounded up to a multiple of 8, or to a power of two if XLA takes
        seconds for each. The number of rows is rounded up to a power of two, but not
        above `most_rows`, by repeating the last row.
        """
        more = rows_to_add(len(self), self.most_rows)
        return {
            name: padded(
                [*rows, *[rows[-1]] * more], self.paddings.get(name), to_power_of_two
            )
            for name, rows in self.rows.items()
        }


def check_jit_compile(jit_compile: Any) -> None:
    """Raise unless `jit_compile` is None or a boolean, or if it is True on PyTorch."""
    if jit_compile is not None:
        one_of("jit_compile", jit_compile, (True, False))
    if jit_compile and keras.backend.backend() == "torch":
        raise ValueError(
            "PyTorch does not compile a search, which would take minutes; its steps "
            "are recorded and replayed instead. Received: jit_compile=True. "
            "Leave it out."
        )


def max_lengths(
    model: keras.Model, sources: Sequence[Any], max_length: Callable[[int], int]
) -> np.ndarray:
    """Return the maximum number of tokens for each source: integers `(B,)`."""
    symbol = source_symbol(model)
    if model.source_padding is None and len(symbol.shape) != 3:
        raise ValueError(
            "`max_length` can only be a function if sources have a length. "
            f"Received: max_length as a function, with sources {symbol.shape}. "
            "Pass a number."
        )
    steps = real_steps(sources, symbol, model.source_padding)
    lengths = [max_length(n) for n in steps]
    for length in lengths:
        check_max_length(length)
    return np.array(lengths, "int32")


def padded(rows: Sequence[Any], padding: Any, to_power_of_two: bool) -> Any:
    """Return rows of different lengths as one padded array, or several by name."""
    if isinstance(rows[0], dict):
        return {
            name: padded([row[name] for row in rows], padding[name], to_power_of_two)
            for name in rows[0]
        }
    if padding is None:
        return np.stack(rows)
    length = rounded_up(max(len(row) for row in rows), to_power_of_two)
    features = max((np.shape(row)[1:] for row in rows), key=len)
    array = np.full(
        (len(rows), length, *features), padding, "float32" if features else "int32"
    )
    for target, row in zip(array, rows, strict=True):
        if len(row):
            target[: len(row)] = row
    return array


def cut(attention: Any, steps: int, sources: Sequence[Any], padding: Any) -> Any:
    """Remove what is padding in all rows from attention, also of several sources."""
    if isinstance(attention, dict):
        return {
            name: cut(each, steps, [row[name] for row in sources], padding[name])
            for name, each in attention.items()
        }
    attention = attention[..., :steps, :]
    if padding is None:
        return attention
    return attention[..., : max(map(row_length, sources))]


def joined(arrays: Sequence[Any], padding: Any, order: np.ndarray) -> Any:
    """Join arrays of batches, padded to one length, and reorder the rows."""
    if isinstance(arrays[0], dict):
        return {
            name: joined([each[name] for each in arrays], padding, order)
            for name in arrays[0]
        }
    sizes = np.max([array.shape[1:] for array in arrays], axis=0)
    filled = []
    for array in arrays:
        widths = [(0, 0), *((0, size) for size in sizes - array.shape[1:])]
        filled.append(np.pad(array, widths, constant_values=padding))
    return np.concatenate(filled)[order]
