"""Choice: a dimension of a search space with several options, each with a label."""

from collections.abc import Sequence
from typing import Any

from kseq.tuning.dimensions import Dimension


class Choice(Dimension):
    """One of several options: values, None, Spaces, dimensions, or anything else.

    Integers, floats or strings are their own labels, which KerasTuner, tables and
    `values` show. Other options are labeled by what they are (`Space(Dense, ...)` is
    `"Dense"`), or by keyword: `Choice(deep=Space(...), wide=Space(...))`.

    Dimensions within an option are used only if that option is chosen.

    Args:
        *options: The options.
        default: Label of the option where none is given, as in `first=[{}]` of a
            search. None for the first.
        name: Name of the hyperparameter. None to derive it from its place.
        **named_options: Options by their labels.

    Raises:
        ValueError: There is no option, two have the same label, or none has the label
            `default`.

    Example:

    >>> from kseq.tuning import Choice, Float
    >>> Choice("mean", "max", "attention").labels
    ['mean', 'max', 'attention']
    >>> Choice(small=8, large=16)
    Choice(small=8, large=16)
    >>> Choice(None, Float(0.1, 0.5)).labels
    ['None', 'Float']
    """

    def __init__(
        self,
        *options: Any,
        default: Any = None,
        name: str | None = None,
        **named_options: Any,
    ) -> None:
        super().__init__(name)
        self.options = [*options, *named_options.values()]
        if not self.options:
            raise ValueError(
                "A `Choice` must have at least one option. Received: Choice()."
            )
        self.labels = [*_labels(options, bool(named_options)), *named_options]
        if repeated := sorted({x for x in self.labels if self.labels.count(x) > 1}):
            raise ValueError(
                "Options of a `Choice` must have different labels. Received: several "
                f"options {', '.join(map(repr, repeated))}. Name them by keyword: "
                "Choice(first=..., second=...)."
            )
        self._default = self.labels[0] if default is None else default
        self.check("default", self._default)

    @property
    def config(self) -> dict[str, Any]:
        return {"values": list(self.labels), "default": self._default}

    @property
    def size(self) -> int:
        return len(self.options)

    def contains(self, value: Any) -> bool:
        return not isinstance(value, bool) and value in self.labels

    def option(self, label: Any) -> Any:
        return self.options[self.labels.index(label)]

    def _arguments(self) -> list[str]:
        plain = _labels(self.options, False) == self.labels
        pairs = list(zip(self.labels, self.options, strict=True))
        options = [
            repr(option) if plain or label == _label(option) else f"{label}={option!r}"
            for label, option in pairs
        ]
        is_first = self._default == self.labels[0]
        return [*options, *([] if is_first else [f"default={self._default!r}"])]

    def __str__(self) -> str:
        return ", ".join(map(str, self.labels))


def _labels(options: Sequence[Any], have_names: bool) -> list[Any]:
    """Return labels of options. Values of a single type of KerasTuner are their own."""
    types = {type(option) for option in options}
    if types == {str} or (not have_names and types in ({int}, {float})):
        return list(options)
    if not have_names and types == {int, float}:
        return [float(option) for option in options]
    return [_label(option) for option in options]


def _label(option: Any) -> str:
    if isinstance(option, Dimension):
        return type(option).__name__
    if hasattr(option, "label"):  # a Space
        return option.label
    return getattr(option, "__name__", None) or str(option)
