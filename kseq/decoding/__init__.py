"""Searches: how a step function becomes finished sequences; they know no model."""

from kseq.decoding.beam import BeamSearch
from kseq.decoding.generation import Generation
from kseq.decoding.greedy import GreedySearch

__all__ = ["BeamSearch", "Generation", "GreedySearch"]
