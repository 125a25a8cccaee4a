"""Small models of every builder, with every kind of component, for shared tests.

Axes in shape comments: B batch, S source steps, T target steps.
"""

import numpy as np

import kseq
from kseq.layers import (
    FeatureEmbedding,
    LuongAttention,
    PointerGenerator,
    RecurrentDecoder,
    RecurrentEncoder,
    RotaryPositions,
    SummedEmbedding,
    TokenEmbedding,
    TransformerDecoder,
    TransformerEncoder,
)
from tests.helpers import random_array

SOURCE = np.array([[4, 5, 6, 7, 2], [8, 2, 0, 0, 0], [9, 1, 3, 0, 0]], "int32")  # B S
TARGET = np.array([[2, 5, 6, 4], [2, 4, 0, 0], [2, 3, 0, 0]], "int32")  # B T
TAGS = np.array([[2, 3, 4], [6, 0, 0], [5, 3, 0]], "int32")
SERIES = random_array(3, 5, 2)
NUMBERS = random_array(3, 4, 3, seed=1)
NUMBERS[:, 0] = np.nan  # the target is unknown before the first step
PICTURES = random_array(3, 4, 6, 1)


def tagger():
    encoder = RecurrentEncoder("lstm", 5, 2, bidirectional=True, residual="highway")
    return kseq.many_to_many(11, 3, encoder=encoder, width=6)


def classifier():
    encoder = TransformerEncoder(2, 2, rotary=True)
    return kseq.many_to_one(TokenEmbedding(11, 8), 3, encoder, "attention")


def forecaster():
    encoder = RecurrentEncoder("gru", 5, layer_normalization=True)
    return kseq.many_to_one(FeatureEmbedding(2, 6), 4, encoder, "last")


def translator():
    return kseq.encoder_decoder(
        source=TokenEmbedding(11, 6),
        encoder=RecurrentEncoder("gru", 5, bidirectional=True),
        target=TokenEmbedding(13, 6),
        decoder=RecurrentDecoder("lstm", 6, 2, attention="bahdanau"),
    )


def luong_translator():
    decoder = RecurrentDecoder("gru", 6, attention=LuongAttention("concat", units=5))
    return kseq.encoder_decoder(11, 13, encoder="transformer", decoder=decoder, width=8)


def transformer_translator():
    return kseq.encoder_decoder(
        source=TokenEmbedding(13, 8, positions="learned", max_length=9),
        encoder=TransformerEncoder(2, 2),
        target=TokenEmbedding(13, 8, positions="sinusoidal", scale=True),
        decoder=TransformerDecoder(2, 2),
        tie_embeddings="target",
    )


def copier():
    copy = PointerGenerator([0, 1, 2, 3, 7, 6, 5, 4, 1, 1, -1], coverage=0.5)
    return kseq.encoder_decoder(11, 13, encoder="gru", copy=copy, width=8)


def copying_transformer():
    components = {"encoder": "transformer", "decoder": TransformerDecoder(2, 2)}
    return kseq.encoder_decoder(
        13, 13, **components, copy=True, tie_embeddings="all", width=8
    )


def inflector():
    return kseq.encoder_decoder(
        source={"lemma": TokenEmbedding(11, 6), "tags": 7},
        target=13,
        encoder={
            "lemma": RecurrentEncoder("gru", 5, bidirectional=True),
            "tags": TransformerEncoder(1, 2, width=6),
        },
        decoder=RecurrentDecoder("lstm", 6, attention="bahdanau"),
        width=6,
    )


def copying_inflector():
    tags = TransformerEncoder(1, 2, width=6)
    return kseq.encoder_decoder(
        source={"lemma": TokenEmbedding(11, 6), "tags": 7},
        target=13,
        encoder={"lemma": RecurrentEncoder("gru", 5), "tags": tags},
        copy={"lemma": [0, 1, 2, 3, 7, 6, 5, 4, 1, 1, -1]},
        width=6,
    )


def reader_of_features():
    words = {"word": TokenEmbedding(11, 6), "numbers": FeatureEmbedding(2, 6)}
    source = SummedEmbedding(words)
    return kseq.encoder_decoder(source, 13, RecurrentEncoder("gru", 5), width=6)


def language_model():
    return kseq.one_to_many(13, decoder="transformer", width=8, tie_embeddings="target")


def conditional_language_model():
    decoder = TransformerDecoder(
        2,
        2,
        cross_attention=False,
        num_key_value_heads=1,
        rotary=RotaryPositions(columns=2),
    )
    return kseq.one_to_many(TokenEmbedding(13, 8), condition=5, decoder=decoder)


def sequence_forecaster():
    return kseq.encoder_decoder(
        source=FeatureEmbedding(2, 6),
        target=FeatureEmbedding(3, 6),
        encoder=RecurrentEncoder("gru", 5),
        decoder=RecurrentDecoder("gru", 6, attention="luong"),
        covariates=FeatureEmbedding(2, 6),
        head="student_t",
    )


def image_classifier():
    return kseq.vision_transformer((4, 6, 1), patch_size=2, num_outputs=3, width=8)


def image_generator():
    tokenizer = kseq.image_tokenizer((4, 6, 1), (3, 4), 2, width=4, num_blocks=1)
    return kseq.text_to_image(11, tokenizer, width=8, caption_dropout=0.1)


def single_stream_image_generator():
    tokenizer = kseq.image_tokenizer((4, 6, 1), (3, 4), 2, width=4, num_blocks=1)
    return kseq.text_to_image(11, tokenizer, encoder=None, width=8)


def matcher():
    return kseq.text_image_matcher(11, image_classifier(), width=8)


def ensemble():
    return kseq.ensemble([translator(), luong_translator()])


CLASSES = np.array([4, 0, 2], "int32")
PAIR = {"source": SOURCE, "target": TARGET}
CLASS_INPUTS = {"source": CLASSES, "target": TARGET}
MODELS = {  # a function that builds the model, and its inputs
    "many_to_many": (tagger, SOURCE),
    "many_to_one": (classifier, SOURCE),
    "many_to_one of a series": (forecaster, SERIES),
    "encoder_decoder, bahdanau": (translator, PAIR),
    "encoder_decoder, luong": (luong_translator, PAIR),
    "encoder_decoder, transformer": (transformer_translator, PAIR),
    "encoder_decoder that copies": (copier, PAIR),
    "encoder_decoder that copies, transformer": (copying_transformer, PAIR),
    "encoder_decoder of several sources": (
        inflector,
        {"source": {"lemma": SOURCE, "tags": TAGS}, "target": TARGET},
    ),
    "encoder_decoder that copies from one of several sources": (
        copying_inflector,
        {"source": {"lemma": SOURCE, "tags": TAGS}, "target": TARGET},
    ),
    "encoder_decoder of words and features": (
        reader_of_features,
        {"source": {"word": SOURCE, "numbers": SERIES}, "target": TARGET},
    ),
    "one_to_many": (language_model, {"target": TARGET}),
    "one_to_many with a condition": (
        conditional_language_model,
        {"source": CLASSES, "target": TARGET},
    ),
    "encoder_decoder of numbers": (
        sequence_forecaster,
        {"source": SERIES, "target": NUMBERS, "covariates": SERIES[:, :4]},
    ),
    "vision_transformer": (image_classifier, PICTURES),
    "text_to_image": (image_generator, PAIR),
    "text_to_image in a single stream": (single_stream_image_generator, PAIR),
    "text_image_matcher": (matcher, {"text": SOURCE, "image": PICTURES}),
    "ensemble": (ensemble, PAIR),
}
