"""Keras layers for sequences; each works alone in any Keras model."""

from kseq.layers.attention import BahdanauAttention, LuongAttention
from kseq.layers.bidirectional import Bidirectional
from kseq.layers.bridge import StateBridge
from kseq.layers.cell_variants import (
    LayerNormGRUCell,
    LayerNormLSTMCell,
    PeepholeLSTMCell,
)
from kseq.layers.conditions import ClassEmbedding, VectorEmbedding
from kseq.layers.decoder import Decoder
from kseq.layers.dropout import Dropout
from kseq.layers.embeddings import FeatureEmbedding, TiedHead, TokenEmbedding
from kseq.layers.feed_forward import FeedForward
from kseq.layers.masking import (
    as_boolean_mask,
    combine_masks,
    look_ahead_mask,
    masked_softmax,
    padding_mask,
)
from kseq.layers.mean_probability import MeanProbability
from kseq.layers.multi_head_attention import MultiHeadAttention
from kseq.layers.patches import PatchEmbedding
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
    RotaryPositions,
    SinusoidalPositions,
)
from kseq.layers.recurrent import RecurrentEncoder
from kseq.layers.recurrent_decoder import RecurrentDecoder
from kseq.layers.recurrent_layers import GRU, LSTM, SimpleRNN
from kseq.layers.rnn import RNN
from kseq.layers.transformer import TransformerEncoder
from kseq.layers.transformer_blocks import (
    TransformerDecoderBlock,
    TransformerEncoderBlock,
)
from kseq.layers.transformer_decoder import TransformerDecoder
from kseq.layers.zoneout import Zoneout

__all__ = [
    "AttentionPooling",
    "BahdanauAttention",
    "Bidirectional",
    "ClassEmbedding",
    "ClassToken",
    "ClassTokenPooling",
    "Decoder",
    "Dropout",
    "FeatureEmbedding",
    "FeedForward",
    "GRU",
    "LSTM",
    "LastStepPooling",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "LearnedPositions",
    "LuongAttention",
    "MaxPooling",
    "MeanPooling",
    "MeanProbability",
    "MultiHeadAttention",
    "PatchEmbedding",
    "PeepholeLSTMCell",
    "RNN",
    "RecurrentDecoder",
    "RecurrentEncoder",
    "RotaryPositions",
    "SimpleRNN",
    "SinusoidalPositions",
    "StateBridge",
    "TiedHead",
    "TokenEmbedding",
    "TransformerDecoder",
    "TransformerDecoderBlock",
    "TransformerEncoder",
    "TransformerEncoderBlock",
    "VectorEmbedding",
    "Zoneout",
    "as_boolean_mask",
    "combine_masks",
    "look_ahead_mask",
    "masked_softmax",
    "padding_mask",
]
