"""Builders: functions that wire layers into Keras models."""

from kseq.builders.encoder_decoder import EncoderDecoder, encoder_decoder
from kseq.builders.writing import WritingModel

__all__ = ["EncoderDecoder", "WritingModel", "encoder_decoder"]
