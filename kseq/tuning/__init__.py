"""Hyperparameter search spaces, and a search over them, built on KerasTuner.

- Spaces: `Space` wraps a call. `Choice`, `Int`, `Float`, `Boolean` and `Fixed` replace
  values. `Training` and `Decoding` add training and decoding. `spaces` has one for each
  builder.
- `search` runs trials, each in its own process, on this machine or on an executor.
- `Results`, which `search` returns: the best models, a table, a report.
- `MedianStopping` and `SuccessiveHalving` stop trials early. `objective` names the
  metric to optimize.
"""

from kseq.tuning import spaces
from kseq.tuning.choice import Choice
from kseq.tuning.decoding import Decoding
from kseq.tuning.dimensions import Boolean, Fixed, Float, Int
from kseq.tuning.objectives import objective
from kseq.tuning.results import Results
from kseq.tuning.search import search
from kseq.tuning.space import Space
from kseq.tuning.training import Training, training_steps
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.stopping import MedianStopping, SuccessiveHalving

__all__ = [
    "Boolean",
    "Choice",
    "Decoding",
    "Fixed",
    "Float",
    "Int",
    "MedianStopping",
    "Results",
    "SearchFailed",
    "Space",
    "SuccessiveHalving",
    "Training",
    "objective",
    "search",
    "spaces",
    "training_steps",
]
