"""The search that `generate` is given: None, a search object, or its options alone."""

import inspect

from kseq.decoding import BeamSearch, GreedySearch, Sampling, Search


def as_search(search, constraints=()):
    """Returns the search with more constraints; None is short for greedy search."""
    search = GreedySearch() if search is None else search
    if not isinstance(search, Search):
        raise ValueError(
            "`search` must be a search object, such as `kseq.decoding.BeamSearch("
            f"num_beams=5)`, or None. Received: search={search!r}."
        )
    return search.with_constraints(constraints)


def refuse_options(options):
    """Refuse options of `generate`, and tell which search has one of that name."""
    for name, value in options.items():
        for search in (BeamSearch, Sampling):
            if name in inspect.signature(search).parameters:
                raise ValueError(
                    f"`{name}` is an option of a search. Received: {name}={value!r}. "
                    f"Take `search=kseq.decoding.{search.__name__}({name}={value!r})`."
                )
    if options:
        name = next(iter(options))
        raise TypeError(f"generate() got an unexpected keyword argument {name!r}")


def check_guidance(search, model):
    """Refuse guidance of a model that has not learned without its source."""
    if search.guidance is not None and not model.can_be_guided:
        raise ValueError(
            "Guidance needs a model that has learned with and without its source. "
            f"Received: guidance={search.guidance} with {model.name}. Build and train "
            "it with `source_dropout=0.1`, `kseq.one_to_many` with "
            "`condition_dropout=0.1`, `kseq.text_to_image` with "
            "`caption_dropout=0.1`, or search without guidance."
        )
