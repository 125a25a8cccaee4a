"""Batches, losses, metrics and callbacks for Keras' own `compile` and `fit`.

- Batches: `teacher_forcing` for models that generate, `batches` for classifiers and
  taggers, `windows` for long texts. `LengthBatches` is their base class. `TokenDropout`
  wraps a data set; `EvenBatches` and `layout_map` are for several devices.
- Losses: `SequenceCrossentropy`, `ContrastiveLoss`, `ForecastLoss`.
- Metrics: `TokenAccuracy`, `ExactMatch`, `EditDistanceRate`; `CRPS` and
  `IntervalCoverage` for forecasts; `span_scores` for taggers; `text_scores` (BLEU,
  chrF, error rates).
- Callbacks: `SaveBest`, `Resume`, `StopOnInterrupt`, `Unfreeze`, `GenerationScores`.
- `cli`: the argument types that the recipes share.
"""

from kseq.training import cli
from kseq.training.batches import batches
from kseq.training.callbacks import SaveBest, StopOnInterrupt
from kseq.training.contrastive import ContrastiveLoss
from kseq.training.distribution import EvenBatches, layout_map
from kseq.training.forecast_loss import ForecastLoss
from kseq.training.forecast_metrics import CRPS, IntervalCoverage, crps
from kseq.training.generation_scores import GenerationScores
from kseq.training.length_batches import LengthBatches
from kseq.training.losses import SequenceCrossentropy
from kseq.training.metrics import (
    EditDistanceRate,
    ExactMatch,
    TokenAccuracy,
    edit_distance,
)
from kseq.training.resume import Resume
from kseq.training.spans import SpanScores, span_scores, spans
from kseq.training.teacher_forcing import TeacherForcing, teacher_forcing
from kseq.training.text_scores import text_scores
from kseq.training.token_dropout import TokenDropout
from kseq.training.unfreeze import Unfreeze
from kseq.training.windows import windows

__all__ = [
    "CRPS",
    "ContrastiveLoss",
    "EditDistanceRate",
    "EvenBatches",
    "ExactMatch",
    "ForecastLoss",
    "GenerationScores",
    "IntervalCoverage",
    "LengthBatches",
    "Resume",
    "SaveBest",
    "SequenceCrossentropy",
    "SpanScores",
    "StopOnInterrupt",
    "TeacherForcing",
    "TokenAccuracy",
    "TokenDropout",
    "Unfreeze",
    "batches",
    "cli",
    "crps",
    "edit_distance",
    "layout_map",
    "span_scores",
    "spans",
    "teacher_forcing",
    "text_scores",
    "windows",
]
