"""Small models that share weights: tied embeddings, ensembles with common layers."""

import keras
import numpy as np

import kseq
from kseq.layers import (
    RecurrentDecoder,
    RecurrentEncoder,
    TiedHead,
    TokenEmbedding,
)

VOCABULARY, LABELS, WIDTH = 11, 3, 6
IDS = np.array([[4, 5, 6, 7, 3], [8, 2, 0, 0, 0]], "int32")
TARGET = np.array([[2, 4, 5, 6], [2, 6, 0, 0]], "int32")
PAIR = {"source": IDS, "target": TARGET}


def embedding():
    return TokenEmbedding(VOCABULARY, WIDTH)


def reader(source=VOCABULARY, **options):
    options = {"encoder": "rnn", "pooling": "mean", "width": WIDTH, **options}
    return kseq.many_to_one(source, LABELS, **options)


def tagger(source=VOCABULARY, num_outputs=LABELS, **options):
    return kseq.many_to_many(
        source, num_outputs, **{"encoder": "rnn", "width": WIDTH, **options}
    )


def writer(source=VOCABULARY, target=VOCABULARY, **options):
    parts = {"encoder": "rnn", "decoder": RecurrentDecoder("rnn", WIDTH)}
    return kseq.encoder_decoder(source, target, width=WIDTH, **{**parts, **options})


def tagger_of_tokens():
    words = embedding()
    return tagger(words, VOCABULARY, head=TiedHead(words))


def writer_of_one_embedding(tie_embeddings=None):
    words = embedding()
    return writer(words, words, tie_embeddings=tie_embeddings)


def of_one_embedding(build, *options):
    """An ensemble of models that read with one embedding."""
    words = embedding()
    return kseq.ensemble([build(words, **each) for each in options])


# Models in which layers share weights.
TIED = {
    "many_to_many, tied": (tagger_of_tokens, IDS),
    "encoder_decoder, one embedding": (writer_of_one_embedding, PAIR),
    "encoder_decoder, all tied": (lambda: writer_of_one_embedding("all"), PAIR),
    "encoder_decoder, target tied": (lambda: writer(tie_embeddings="target"), PAIR),
    "ensemble of taggers": (
        lambda: kseq.ensemble([tagger_of_tokens(), tagger_of_tokens()]),
        IDS,
    ),
    "ensemble of writers": (
        lambda: kseq.ensemble([writer(tie_embeddings="target"), writer()]),
        PAIR,
    ),
}

ENCODERS = [{"encoder": encoder} for encoder in ("rnn", "gru", "rnn")]


def of_one_head():
    head = keras.layers.Dense(LABELS)
    return kseq.ensemble([reader(head=head), reader(head=head, encoder="gru")])


def of_one_encoder():
    encoder = RecurrentEncoder("rnn", 4)
    return kseq.ensemble([tagger(encoder=encoder), tagger(encoder=encoder)])


def of_one_table():
    words = embedding()
    ties = ("all", "target", None)
    return kseq.ensemble([writer(words, words, tie_embeddings=tie) for tie in ties])


def of_one_model():
    model = reader()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return kseq.ensemble([model, reader(), model])


def of_crossed_embeddings():
    words, others = embedding(), embedding()
    return kseq.ensemble([writer(words, others), writer(others, words)])


def of_one_layer_in_sequence():
    layer = keras.layers.Dense(LABELS)
    models = [keras.Sequential([keras.Input((4,)), layer]) for _ in range(2)]
    return kseq.ensemble(models)


# Ensembles whose members have a layer in common.
SHARING = {
    "readers, an embedding": (lambda: of_one_embedding(reader, *ENCODERS), IDS),
    "taggers, an embedding": (lambda: of_one_embedding(tagger, *ENCODERS), IDS),
    "readers, a head": (of_one_head, IDS),
    "taggers, an encoder": (of_one_encoder, IDS),
    "writers, a tied table": (of_one_table, PAIR),
    "writers, two embeddings": (of_crossed_embeddings, PAIR),
    "readers, a model": (of_one_model, IDS),
    "layers in sequence": (of_one_layer_in_sequence, np.ones((2, 4), "float32")),
}
