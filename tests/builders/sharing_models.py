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


def classifier(source=VOCABULARY, **options):
    options = {"encoder": "rnn", "pooling": "mean", "width": WIDTH, **options}
    return kseq.many_to_one(source, LABELS, **options)


def tagger(source=VOCABULARY, num_outputs=LABELS, **options):
    return kseq.many_to_many(
        source, num_outputs, **{"encoder": "rnn", "width": WIDTH, **options}
    )


def translator(source=VOCABULARY, target=VOCABULARY, **options):
    components = {"encoder": "rnn", "decoder": RecurrentDecoder("rnn", WIDTH)}
    return kseq.encoder_decoder(
        source, target, width=WIDTH, **{**components, **options}
    )


def tied_tagger():
    words = embedding()
    return tagger(words, VOCABULARY, head=TiedHead(words))


def translator_with_one_embedding(tie_embeddings=None):
    words = embedding()
    return translator(words, words, tie_embeddings=tie_embeddings)


def ensemble_with_shared_embedding(build, *options):
    """Build an ensemble of models that share one embedding."""
    words = embedding()
    return kseq.ensemble([build(words, **each) for each in options])


# Models whose layers share weights.
TIED = {
    "many_to_many, tied": (tied_tagger, IDS),
    "encoder_decoder, one embedding": (translator_with_one_embedding, PAIR),
    "encoder_decoder, all tied": (lambda: translator_with_one_embedding("all"), PAIR),
    "encoder_decoder, target tied": (lambda: translator(tie_embeddings="target"), PAIR),
    "ensemble of taggers": (
        lambda: kseq.ensemble([tied_tagger(), tied_tagger()]),
        IDS,
    ),
    "ensemble of translators": (
        lambda: kseq.ensemble([translator(tie_embeddings="target"), translator()]),
        PAIR,
    ),
}

ENCODERS = [{"encoder": encoder} for encoder in ("rnn", "gru", "rnn")]


def ensemble_with_shared_head():
    head = keras.layers.Dense(LABELS)
    return kseq.ensemble([classifier(head=head), classifier(head=head, encoder="gru")])


def ensemble_with_shared_encoder():
    encoder = RecurrentEncoder("rnn", 4)
    return kseq.ensemble([tagger(encoder=encoder), tagger(encoder=encoder)])


def ensemble_with_tied_table():
    words = embedding()
    ties = ("all", "target", None)
    return kseq.ensemble([translator(words, words, tie_embeddings=tie) for tie in ties])


def ensemble_with_repeated_model():
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return kseq.ensemble([model, classifier(), model])


def ensemble_with_crossed_embeddings():
    words, others = embedding(), embedding()
    return kseq.ensemble([translator(words, others), translator(others, words)])


def ensemble_of_sequential_models():
    layer = keras.layers.Dense(LABELS)
    models = [keras.Sequential([keras.Input((4,)), layer]) for _ in range(2)]
    return kseq.ensemble(models)


# Ensembles whose members share a layer.
SHARING = {
    "classifiers, one embedding": (
        lambda: ensemble_with_shared_embedding(classifier, *ENCODERS),
        IDS,
    ),
    "taggers, one embedding": (
        lambda: ensemble_with_shared_embedding(tagger, *ENCODERS),
        IDS,
    ),
    "classifiers, one head": (ensemble_with_shared_head, IDS),
    "taggers, one encoder": (ensemble_with_shared_encoder, IDS),
    "translators, a tied table": (ensemble_with_tied_table, PAIR),
    "translators, two embeddings": (ensemble_with_crossed_embeddings, PAIR),
    "classifiers, a repeated model": (ensemble_with_repeated_model, IDS),
    "sequential models, one layer": (
        ensemble_of_sequential_models,
        np.ones((2, 4), "float32"),
    ),
}
