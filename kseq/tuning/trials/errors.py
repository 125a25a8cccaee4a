"""Errors that end a trial or the search."""


class SearchFailed(RuntimeError):
    """A search that cannot go on, for the reason given; what it has is kept."""


class FailedTrial(Exception):
    """This trial is no use, for the reason given; the search goes on."""


class FatalError(Exception):
    """No trial of this search can be of use, for the reason given."""
