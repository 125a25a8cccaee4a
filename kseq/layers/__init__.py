"""Keras layers for sequences; each works alone in any Keras model."""

from kseq.layers.alignment_attention import CoverageAttention, LocationAwareAttention
from kseq.layers.attention import BahdanauAttention, LuongAttention
from kseq.layers.caption_loss import CaptionLoss
from kseq.layers.conditions import ClassEmbedding, VectorEmbedding
from kseq.layers.convolution import ConvEncoder
from kseq.layers.crf import CRF
from kseq.layers.ctc import CTC
from kseq.layers.decoder import Decoder
from kseq.layers.dropout import Dropout, SourceDropout
from kseq.layers.embeddings import FeatureEmbedding, TokenEmbedding
from kseq.layers.factorized_head import FactorizedHead
from kseq.layers.forecast_head import ForecastHead
from kseq.layers.grid_positions import GridPositions
from kseq.layers.images import ImageDecoder, ImageEncoder, ResidualBlock
from kseq.layers.joined_encoders import JoinedEncoders
from kseq.layers.masking import (
    as_boolean_mask,
    combine_masks,
    look_ahead_mask,
    masked_softmax,
    padding_mask,
)
from kseq.layers.mean_probability import MeanProbability
from kseq.layers.monotonic_attention import MonotonicAttention
from kseq.layers.named_embeddings import NamedEmbeddings, SummedEmbedding
from kseq.layers.patches import PatchEmbedding
from kseq.layers.pointer_generator import PointerGenerator
from kseq.layers.pooling import (
    AttentionPooling,
    ClassToken,
    ClassTokenPooling,
    LastStepPooling,
    MaxPooling,
    MeanPooling,
)
from kseq.layers.positions import (
    LearnedPositions,
    SinusoidalPositions,
)
from kseq.layers.quantizers import FiniteScalarQuantizer, VectorQuantizer
from kseq.layers.recurrent.bidirectional import Bidirectional
from kseq.layers.recurrent.bridge import StateBridge
from kseq.layers.recurrent.cell_variants import (
    LayerNormGRUCell,
    LayerNormLSTMCell,
    MinGRUCell,
    PeepholeLSTMCell,
)
from kseq.layers.recurrent.decoder import RecurrentDecoder
from kseq.layers.recurrent.encoder import RecurrentEncoder
from kseq.layers.recurrent.layers import GRU, LSTM, MinGRU, SimpleRNN
from kseq.layers.recurrent.rnn import RNN
from kseq.layers.recurrent.zoneout import Zoneout
from kseq.layers.rotary_positions import RotaryPositions
from kseq.layers.scheduled_sampling import ScheduledSampling
from kseq.layers.sequence_embedding import SequenceEmbedding
from kseq.layers.similarity import CosineSimilarity
from kseq.layers.tied_head import TiedHead
from kseq.layers.transformer.decoder import TransformerDecoder
from kseq.layers.transformer.decoder_block import TransformerDecoderBlock
from kseq.layers.transformer.encoder import TransformerEncoder
from kseq.layers.transformer.encoder_block import TransformerEncoderBlock
from kseq.layers.transformer.feed_forward import FeedForward
from kseq.layers.transformer.multi_head_attention import MultiHeadAttention
from kseq.layers.word_characters import WordCharacterEmbedding

__all__ = [
    "AttentionPooling",
    "BahdanauAttention",
    "Bidirectional",
    "CRF",
    "CTC",
    "CaptionLoss",
    "ClassEmbedding",
    "ClassToken",
    "ClassTokenPooling",
    "ConvEncoder",
    "CosineSimilarity",
    "CoverageAttention",
    "Decoder",
    "Dropout",
    "FactorizedHead",
    "FeatureEmbedding",
    "FeedForward",
    "FiniteScalarQuantizer",
    "ForecastHead",
    "GRU",
    "GridPositions",
    "ImageDecoder",
    "ImageEncoder",
    "JoinedEncoders",
    "LSTM",
    "LastStepPooling",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "LearnedPositions",
    "LocationAwareAttention",
    "LuongAttention",
    "MaxPooling",
    "MeanPooling",
    "MinGRU",
    "MinGRUCell",
    "MeanProbability",
    "MonotonicAttention",
    "MultiHeadAttention",
    "NamedEmbeddings",
    "PatchEmbedding",
    "PeepholeLSTMCell",
    "PointerGenerator",
    "RNN",
    "RecurrentDecoder",
    "RecurrentEncoder",
    "ResidualBlock",
    "RotaryPositions",
    "ScheduledSampling",
    "SequenceEmbedding",
    "SimpleRNN",
    "SinusoidalPositions",
    "SourceDropout",
    "StateBridge",
    "SummedEmbedding",
    "TiedHead",
    "TokenEmbedding",
    "TransformerDecoder",
    "TransformerDecoderBlock",
    "TransformerEncoder",
    "TransformerEncoderBlock",
    "VectorEmbedding",
    "VectorQuantizer",
    "WordCharacterEmbedding",
    "Zoneout",
    "as_boolean_mask",
    "combine_masks",
    "look_ahead_mask",
    "masked_softmax",
    "padding_mask",
]
