"""Errors that end a trial or the search."""


class SearchFailed(RuntimeError):
    """A search that cannot continue, for the given reason. Its results are kept."""


class FailedTrial(Exception):
    """A trial without a usable result, for the given reason. The search continues."""


class FatalError(Exception):
    """No trial of the search can succeed, for the given reason."""
