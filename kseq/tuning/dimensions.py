"""Dimensions of a search space: values that are still to be chosen.

A dimension has no name of its own; it gets its name from its place in a `Space`.
Dimensions are compared by identity, so one object in two places is one hyperparameter.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, Literal

SCALES = ("linear", "log", "reverse_log")


class Dimension:
    """A value that is still to be chosen, the base class of all dimensions.

    A subclass defines `config`, the arguments of KerasTuner's hyperparameter with the
    same class name; `size`, the number of values; and `contains(value)`.

    Args:
        name: Name of the hyperparameter. None to derive it from its place.
    """

    config: Any
    size: Any

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not (isinstance(name, str) and name):
            raise ValueError(f"`name` must be a string. Received: name={name!r}.")
        self.name = name

    @property
    def default(self) -> Any:
        return self.config["default"]

    def contains(self, value: Any) -> bool:
        raise NotImplementedError

    def _arguments(self) -> list[str]:
        """Return the arguments of the call that makes it, as code."""
        raise NotImplementedError

    def __repr__(self) -> str:
        name = [] if self.name is None else [f"name={self.name!r}"]
        return f"{type(self).__name__}({', '.join(self._arguments() + name)})"

    def check(self, name: str, value: Any) -> None:
        """Raise unless this dimension contains the value."""
        if not self.contains(value):
            raise ValueError(
                f"The value of `{name}` must be one of {self}. Received: {value!r}."
            )


class _Numerical(Dimension):
    _kind: str
    _size_without_step: Any
    _is_number: Callable[[Any], bool]

    def __init__(
        self,
        min_value: Any,
        max_value: Any,
        step: Any,
        scale: str,
        default: Any,
        name: str | None,
    ) -> None:
        super().__init__(name)
        kind = type(self).__name__
        for option, value in (("min_value", min_value), ("max_value", max_value)):
            self._check_number(option, value)
        if scale not in SCALES:
            listed = ", ".join(f'"{option}"' for option in SCALES)
            raise ValueError(f"`scale` must be one of {listed}. Received: {scale!r}.")
        if min_value > max_value:
            raise ValueError(
                f"{kind}: `min_value` must not exceed `max_value`. Received: "
                f"min_value={min_value}, max_value={max_value}. Swap them."
            )
        if scale != "linear" and min_value <= 0:
            raise ValueError(
                f"{kind}: `min_value` must be above 0 on the scale {scale!r}. "
                f"Received: min_value={min_value}."
            )
        if step is not None:
            self._check_number("step", step)
            least = 0 if scale == "linear" else 1
            if step <= least:
                factor = "" if scale == "linear" else ", the factor between two values,"
                raise ValueError(
                    f"{kind}: `step`{factor} must be above {least} on the scale "
                    f"{scale!r}. Received: step={step}."
                )
        self.min_value, self.max_value = min_value, max_value
        self.step, self.scale = step, scale
        self._default = min_value if default is None else default
        self.check("default", self._default)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "min_value": self.min_value,
            "max_value": self.max_value,
            "step": self.step,
            "sampling": self.scale,
            "default": self._default,
        }

    @property
    def size(self) -> float:
        if self.min_value == self.max_value:
            return 1
        if self.step is None:
            return self._size_without_step
        if self.scale == "linear":
            steps = (self.max_value - self.min_value) / self.step
        else:
            steps = math.log(self.max_value / self.min_value, self.step)
        return int(steps + 1e-8) + 1

    def contains(self, value: Any) -> bool:
        if not self._is_number(value):
            return False
        rounding = 1e-9 * max(
            abs(self.min_value), abs(self.max_value)
        )  # for rounding errors of steps
        if not self.min_value - rounding <= value <= self.max_value + rounding:
            return False
        if self.step is None or value == self.min_value:  # KerasTuner's default
            return True
        if self.scale == "linear":
            steps = (value - self.min_value) / self.step
        else:
            if self.scale == "reverse_log":
                value = self.min_value + self.max_value - value
            steps = math.log(value / self.min_value, self.step)
        return abs(steps - round(steps)) < 1e-6

    def _check_number(self, option: str, value: Any) -> None:
        if not self._is_number(value):
            raise ValueError(
                f"{type(self).__name__}: `{option}` must be {self._kind}. Received: "
                f"{option}={value!r}."
            )

    def _arguments(self) -> list[str]:
        given = {"step": self.step, "scale": self.scale, "default": self._default}
        usual = {"step": None, "scale": "linear", "default": self.min_value}
        options = [f"{k}={v!r}" for k, v in given.items() if v != usual[k]]
        return [f"{self.min_value!r}", f"{self.max_value!r}", *options]

    def __str__(self) -> str:
        text = f"{self.min_value} to {self.max_value}"
        if self.step not in (None, 1):
            text += f", {'step' if self.scale == 'linear' else 'factor'} {self.step}"
        return text if self.scale == "linear" else f"{text}, {self.scale}"


class Int(_Numerical):
    """An integer from a range that includes both ends.

    Args:
        min_value: The lowest value.
        max_value: The highest value.
        step: Distance between two values; on a logarithmic scale, the factor between
            them. None for every integer.
        scale: "linear", "log" (8 to 16 is as likely as 16 to 32), or "reverse_log"
            (dense at the upper end).
        default: The value where none is given, as in `first=[{}]` of a search. The
            grid begins with it. None for the lowest.
        name: Name of the hyperparameter. None to derive it from its place.

    Raises:
        ValueError: The range is reversed, or not positive on a logarithmic scale; the
            default is outside the range or between two steps; a number is not an
            integer; the step is too small.

    Example:

    >>> from kseq.tuning import Int
    >>> Int(32, 256, step=2, scale="log").size  # 32, 64, 128, 256
    4
    """

    _kind = "an integer"

    def __init__(
        self,
        min_value: int,
        max_value: int,
        step: int | None = None,
        scale: Literal["linear", "log", "reverse_log"] = "linear",
        default: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(min_value, max_value, step, scale, default, name)

    @property
    def _size_without_step(self) -> int:
        return self.max_value - self.min_value + 1

    @staticmethod
    def _is_number(value: Any) -> bool:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)


class Float(_Numerical):
    """A real number from a range.

    Args:
        min_value: See `Int` for this and the following arguments.

    Raises:
        ValueError: As for `Int`; a number is not finite.

    Example:

    >>> from kseq.tuning import Float
    >>> Float(0.0, 0.3, step=0.1).size
    4
    >>> Float(1e-4, 1e-2, scale="log").size
    inf
    """

    _kind = "a finite number"
    _size_without_step = math.inf

    def __init__(
        self,
        min_value: float,
        max_value: float,
        step: float | None = None,
        scale: Literal["linear", "log", "reverse_log"] = "linear",
        default: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(min_value, max_value, step, scale, default, name)

    @staticmethod
    def _is_number(value: Any) -> bool:
        is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return is_real and math.isfinite(value)


class Boolean(Dimension):
    """True or False.

    Args:
        default: The value where none is given, as in `first=[{}]` of a search.
        name: Name of the hyperparameter. None to derive it from its place.
    """

    size = 2

    def __init__(self, default: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        if not isinstance(default, bool):
            raise ValueError(
                f"`default` must be True or False. Received: default={default!r}."
            )
        self.config = {"default": default}

    def contains(self, value: Any) -> bool:
        return isinstance(value, bool)

    def _arguments(self) -> list[str]:
        return ["default=True"] if self.default else []

    def __str__(self) -> str:
        return "True, False"


class Fixed(Dimension):
    """A value that is not searched, but is listed in the table of every trial.

    Args:
        value: An integer, a float, a string or a boolean.
        name: Name of the hyperparameter. None to derive it from its place.
    """

    size = 1

    def __init__(self, value: int | float | str, name: str | None = None) -> None:
        super().__init__(name)
        if not isinstance(value, int | float | str):
            raise ValueError(
                "`value` must be an integer, a float, a string or a boolean. Received: "
                f"value={value!r}. Pass anything else to a `Space` as it is."
            )
        self.config = {"value": value}

    @property
    def default(self) -> Any:
        return self.config["value"]

    def contains(self, value: Any) -> bool:
        return value == self.default

    def _arguments(self) -> list[str]:
        return [repr(self.default)]

    def __str__(self) -> str:
        return f"{self.default} (fixed)"
