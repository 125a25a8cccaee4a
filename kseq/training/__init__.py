from kseq.training.losses import SequenceCrossentropy
from kseq.training.metrics import (
    EditDistanceRate,
    ExactMatch,
    TokenAccuracy,
    edit_distance,
)
from kseq.training.teacher_forcing import TeacherForcing, teacher_forcing

__all__ = [
    "EditDistanceRate",
    "ExactMatch",
    "SequenceCrossentropy",
    "TeacherForcing",
    "TokenAccuracy",
    "edit_distance",
    "teacher_forcing",
]
