"""Builders: functions that assemble layers into Keras models."""

from kseq.builders.average import average
from kseq.builders.ctc import CTCModel
from kseq.builders.drawings import Drawings
from kseq.builders.encoder_decoder import encoder_decoder
from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.ensemble import ensemble
from kseq.builders.forecast import Forecast
from kseq.builders.forecaster import Forecaster
from kseq.builders.generation import GenerativeModel
from kseq.builders.image_tokenizer import ImageTokenizer, image_tokenizer
from kseq.builders.many_to_many import ManyToMany, many_to_many
from kseq.builders.many_to_one import many_to_one
from kseq.builders.mask_report import MaskReport, MaskRow, mask_report
from kseq.builders.one_to_many import one_to_many
from kseq.builders.resize_positions import resize_positions
from kseq.builders.text_image_matcher import TextImageMatcher, text_image_matcher
from kseq.builders.text_to_image import TextToImageModel, text_to_image
from kseq.builders.vision_transformer import vision_transformer

__all__ = [
    "CTCModel",
    "Drawings",
    "EncoderDecoder",
    "Forecast",
    "Forecaster",
    "GenerativeModel",
    "ImageTokenizer",
    "ManyToMany",
    "MaskReport",
    "MaskRow",
    "TextToImageModel",
    "TextImageMatcher",
    "average",
    "encoder_decoder",
    "ensemble",
    "image_tokenizer",
    "many_to_many",
    "many_to_one",
    "mask_report",
    "one_to_many",
    "resize_positions",
    "text_to_image",
    "text_image_matcher",
    "vision_transformer",
]
