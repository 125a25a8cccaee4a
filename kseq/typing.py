"""Types that the annotations of kseq share.

Shapes are not part of them: they stand in docstrings and at line ends.
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import keras


class SupportsArray(Protocol):
    """Anything that NumPy can read: an array, or a tensor of any backend."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...


# What layers compute with: a tensor of the backend, or a symbolic one.
Tensor: TypeAlias = keras.KerasTensor

# What a function takes that is called with data: tensors, arrays, lists, numbers.
TensorLike: TypeAlias = Tensor | SupportsArray | Sequence[Any] | float

# Texts, or lists of symbols: in an iterable, an array or a string tensor.
Text: TypeAlias = str | bytes | Sequence[str | bytes]
Texts: TypeAlias = Iterable[Text] | SupportsArray | Tensor

# A nested structure of tensors: dictionaries, lists and tuples.
Tree: TypeAlias = Any

Shape: TypeAlias = tuple[int | None, ...]
Config: TypeAlias = dict[str, Any]
PathLike: TypeAlias = str | os.PathLike[str]
Seed: TypeAlias = int | keras.random.SeedGenerator | None
Activation: TypeAlias = str | Callable[[Tensor], Tensor] | None
Initializer: TypeAlias = str | keras.initializers.Initializer

# A decoding step: (token_ids (B, K), state, constants) -> (logits (B, K, V), state).
StepFunction: TypeAlias = Callable[[Any, Tree, Tree], tuple[Any, Tree]]

# A layer, or its shorthand: a name such as "gru", or a size.
LayerLike: TypeAlias = keras.layers.Layer | str | int

Method = TypeVar("Method", bound=Callable[..., Any])


def wraps(method: Callable[..., Any]) -> Callable[[Method], Method]:
    """Return `functools.wraps(method)`, typed so that the result is still a method."""
    return functools.wraps(method)  # type: ignore[return-value]
