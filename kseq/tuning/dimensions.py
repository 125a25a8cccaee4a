"""The dimensions of a search space: values that are still to be chosen.

A dimension has no name of its own: it is called after the place where it stands in a
`Space`. It is compared by identity, so one object in two places is one hyperparameter.
"""

import math
import numbers

SCALES = ("linear", "log", "reverse_log")


class Dimension:
    """A value that is still to be chosen, the base of all dimensions.

    A subclass gives `config`, what KerasTuner's hyperparameter of the same class name
    takes; `size`, how many values there are; and `check(value)`, which refuses others.

    Args:
        name: What the hyperparameter is called, instead of the place where it stands.
    """

    def __init__(self, name=None):
        if name is not None and not (isinstance(name, str) and name):
            raise ValueError(f"`name` must be a string. Received: name={name!r}.")
        self.name = name

    @property
    def default(self):
        return self.config["default"]

    def check(self, name, value):
        """Refuses what is no value of this dimension."""
        if not self.contains(value):
            raise ValueError(
                f"The value of `{name}` must be one of {self}. Received: {value!r}."
            )


class _Numerical(Dimension):
    def __init__(self, min_value, max_value, step, scale, default, name):
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
    def config(self):
        return {
            "min_value": self.min_value,
            "max_value": self.max_value,
            "step": self.step,
            "sampling": self.scale,
            "default": self._default,
        }

    @property
    def size(self):
        if self.min_value == self.max_value:
            return 1
        if self.step is None:
            return self._size_without_step
        if self.scale == "linear":
            steps = (self.max_value - self.min_value) / self.step
        else:
            steps = math.log(self.max_value / self.min_value, self.step)
        return int(steps + 1e-8) + 1

    def contains(self, value):
        if not self._is_number(value):
            return False
        rounding = 1e-9 * max(abs(self.min_value), abs(self.max_value))  # of steps
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

    def _check_number(self, option, value):
        if not self._is_number(value):
            raise ValueError(
                f"{type(self).__name__}: `{option}` must be {self._kind}. Received: "
                f"{option}={value!r}."
            )

    def __str__(self):
        text = f"{self.min_value} to {self.max_value}"
        if self.step not in (None, 1):
            text += f", {'step' if self.scale == 'linear' else 'factor'} {self.step}"
        return text if self.scale == "linear" else f"{text}, {self.scale}"


class Int(_Numerical):
    """An integer from a range, both ends included.

    Args:
        min_value: The least value.
        max_value: The greatest value.
        step: Distance between two values; on a logarithmic scale the factor between
            them. None for every integer.
        scale: "linear", "log", on which 8 to 16 is as likely as 16 to 32, or
            "reverse_log", which is dense at the upper end.
        default: The value that is tried first. None for the least.
        name: What the hyperparameter is called, instead of the place where it stands.

    Raises:
        ValueError: The range is upside down, not positive on a logarithmic scale, or
            does not hold the default, or has it between two steps; a number is no
            integer; a step goes nowhere.

    Example:

    >>> from kseq.tuning import Int
    >>> Int(32, 256, step=2, scale="log").size  # 32, 64, 128, 256
    4
    """

    _kind = "an integer"

    def __init__(
        self, min_value, max_value, step=None, scale="linear", default=None, name=None
    ):
        super().__init__(min_value, max_value, step, scale, default, name)

    @property
    def _size_without_step(self):
        return self.max_value - self.min_value + 1

    @staticmethod
    def _is_number(value):
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)


class Float(_Numerical):
    """A real number from a range.

    Args:
        min_value: As for `Int`, and so are the arguments after it.

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
        self, min_value, max_value, step=None, scale="linear", default=None, name=None
    ):
        super().__init__(min_value, max_value, step, scale, default, name)

    @staticmethod
    def _is_number(value):
        is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return is_real and math.isfinite(value)


class Boolean(Dimension):
    """True or False.

    Args:
        default: The value that is tried first.
        name: What the hyperparameter is called, instead of the place where it stands.
    """

    size = 2

    def __init__(self, default=False, name=None):
        super().__init__(name)
        if not isinstance(default, bool):
            raise ValueError(
                f"`default` must be True or False. Received: default={default!r}."
            )
        self.config = {"default": default}

    def contains(self, value):
        return isinstance(value, bool)

    def __str__(self):
        return "True, False"


class Fixed(Dimension):
    """A value that is not searched, but stands in the table of every trial.

    Args:
        value: An integer, a float, a string or a boolean.
        name: What the hyperparameter is called, instead of the place where it stands.
    """

    size = 1

    def __init__(self, value, name=None):
        super().__init__(name)
        if not isinstance(value, int | float | str):
            raise ValueError(
                "`value` must be an integer, a float, a string or a boolean. Received: "
                f"value={value!r}. Anything else stands in a `Space` as it is."
            )
        self.config = {"value": value}

    @property
    def default(self):
        return self.config["value"]

    def contains(self, value):
        return value == self.default

    def __str__(self):
        return f"{self.default} (fixed)"


class Choice(Dimension):
    """One of some options: values, None, Spaces, dimensions, or anything else.

    Integers, floats or strings are their own labels: what KerasTuner, tables and
    `values` show. Other options are called after what they are (`Space(Dense, ...)` is
    `"Dense"`), or by keyword: `Choice(deep=Space(...), wide=Space(...))`.

    Dimensions within an option count only where that option is chosen.

    Args:
        *options: The options.
        default: Label of the option that is tried first. None for the first.
        name: What the hyperparameter is called, instead of the place where it stands.
        **named_options: Options by their labels.

    Raises:
        ValueError: There is no option, two have the same label, or none has the label
            `default`.

    Example:

    >>> from kseq.tuning import Choice, Float
    >>> Choice("mean", "max", "attention").labels
    ['mean', 'max', 'attention']
    >>> Choice(None, Float(0.1, 0.5)).labels
    ['None', 'Float']
    """

    def __init__(self, *options, default=None, name=None, **named_options):
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
                f"of {', '.join(map(repr, repeated))}. Name them by keyword: "
                "Choice(first=..., second=...)."
            )
        self._default = self.labels[0] if default is None else default
        self.check("default", self._default)

    @property
    def config(self):
        return {"values": list(self.labels), "default": self._default}

    @property
    def size(self):
        return len(self.options)

    def contains(self, value):
        return not isinstance(value, bool) and value in self.labels

    def option(self, label):
        return self.options[self.labels.index(label)]

    def __str__(self):
        return ", ".join(map(str, self.labels))


def _labels(options, have_names):
    """Options of one type that KerasTuner has are their own labels."""
    types = {type(option) for option in options}
    if types == {str} or (not have_names and types in ({int}, {float})):
        return list(options)
    if not have_names and types == {int, float}:
        return [float(option) for option in options]
    return [_label(option) for option in options]


def _label(option):
    if isinstance(option, Dimension):
        return type(option).__name__
    if hasattr(option, "label"):  # a Space
        return option.label
    return getattr(option, "__name__", None) or str(option)
