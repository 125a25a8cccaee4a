"""Searches that turn a step function into sequences: greedy, beam search, sampling.

They work on the step function alone and do not depend on any model.
"""

from kseq.decoding.allowed import AllowedSequences
from kseq.decoding.beam import BeamSearch
from kseq.decoding.constraints import (
    AllowedTokens,
    BannedTokens,
    ForcedTokens,
    MaximumLength,
    MinimumLength,
)
from kseq.decoding.generation import Generation
from kseq.decoding.greedy import GreedySearch
from kseq.decoding.guidance import Guidance
from kseq.decoding.hypotheses import Hypotheses
from kseq.decoding.lengths import RelativeLength
from kseq.decoding.repetition import (
    BannedSequences,
    NoRepeatNGrams,
    RepetitionPenalty,
)
from kseq.decoding.reranking import best_of, expected_utility
from kseq.decoding.sampling import Sampling
from kseq.decoding.search import Search

__all__ = [
    "AllowedSequences",
    "AllowedTokens",
    "BannedSequences",
    "BannedTokens",
    "BeamSearch",
    "ForcedTokens",
    "Generation",
    "GreedySearch",
    "Guidance",
    "Hypotheses",
    "MaximumLength",
    "MinimumLength",
    "NoRepeatNGrams",
    "RelativeLength",
    "RepetitionPenalty",
    "Sampling",
    "Search",
    "best_of",
    "expected_utility",
]
