"""Checks of the `search` of `generate` and of misplaced search options."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kseq.decoding import BeamSearch, GreedySearch, Sampling, Search
from kseq.decoding.constraints import Constraint


def as_search(search: Any, constraints: Sequence[Constraint] = ()) -> Search:
    """Return the search with more constraints; None is shorthand for greedy search."""
    search = GreedySearch() if search is None else search
    if not isinstance(search, Search):
        raise ValueError(
            "`search` must be a search object, such as `kseq.decoding.BeamSearch("
            f"num_beams=5)`, or None. Received: search={search!r}."
        )
    return search.with_constraints(constraints)


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raise for unknown options of `generate`, and name the search that has them."""
    for name, value in options.items():
        for search in (BeamSearch, Sampling):
            if name in inspect.signature(search).parameters:
                raise ValueError(
                    f"`{name}` is an option of a search. Received: {name}={value!r}. "
                    f"Use `search=kseq.decoding.{search.__name__}({name}={value!r})`."
                )
    if options:
        name = next(iter(options))
        raise TypeError(f"generate() got an unexpected keyword argument {name!r}")


def check_guidance(search: Search, model: keras.Model) -> None:
    """Raise if the search has guidance and the model is not trained for it."""
    if search.guidance is not None and not model.can_be_guided:
        raise ValueError(
            "Guidance needs a model trained with and without its source. "
            f"Received: guidance={search.guidance} with {model.name}. Build and train "
            "it with `source_dropout=0.1`, `kseq.one_to_many` with "
            "`condition_dropout=0.1`, `kseq.text_to_image` with "
            "`caption_dropout=0.1`, or search without guidance."
        )
