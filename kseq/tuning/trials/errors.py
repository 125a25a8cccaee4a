"""Errors that end a trial, its server or the search."""

SERVER_DIED = (
    "The server of the trials' processes died time and again, with no trial ended in "
    "between. Is there memory enough for the data?"
)


class SearchFailed(RuntimeError):
    """A search that cannot go on, for the reason given; what it has is kept."""


class FailedTrial(Exception):
    """This trial is no use, for the reason given; the search goes on."""


class FatalError(Exception):
    """No trial of this search can be of use, for the reason given."""


class TrialServerLost(Exception):
    """The server is gone, and all trials with it."""
