from kseq.training.batches import LengthBatches, batches
from kseq.training.callbacks import SaveBest, StopOnInterrupt
from kseq.training.losses import SequenceCrossentropy
from kseq.training.metrics import (
    EditDistanceRate,
    ExactMatch,
    TokenAccuracy,
    edit_distance,
)
from kseq.training.teacher_forcing import TeacherForcing, teacher_forcing
from kseq.training.windows import windows

__all__ = [
    "EditDistanceRate",
    "ExactMatch",
    "LengthBatches",
    "SaveBest",
    "SequenceCrossentropy",
    "StopOnInterrupt",
    "TeacherForcing",
    "TokenAccuracy",
    "batches",
    "edit_distance",
    "teacher_forcing",
    "windows",
]
