"""Texts: bad calls, their advice, and corrected calls."""

import functools

import keras
import numpy as np

import kseq
from kseq.decoding import Sampling
from kseq.text import TextToLabels, TextToText, TextWriter, Vocabulary, read_vectors
from tests.advice.eagerly import eagerly

WORDS = Vocabulary("word").adapt(["Anna works here"])  # Anna, here, works
RARE = ["aaaaaaaaaa"] * 60 + ["bcdefg"]
SYMBOLS = Vocabulary(None).adapt([["Anna", "works"]])


def classifier(size=WORDS.size, num_outputs=2):
    model = kseq.many_to_one(size, num_outputs, "rnn", width=3)
    return TextToLabels(model, WORDS, ["a", "b"])


@functools.cache
def tagger(labels=("name", "verb")):
    model = kseq.many_to_many(SYMBOLS.size, len(labels), "rnn", width=3)
    return TextToLabels(model, SYMBOLS, labels)


def ending_with_a_crf(model_class):
    ids = keras.Input((None,), dtype="int32")
    vectors = keras.layers.Embedding(WORDS.size, 3, mask_zero=True)(ids)
    return model_class(ids, kseq.layers.CRF(2)(vectors))


def with_a_crf(labels):
    head = kseq.layers.CRF(labels=["name", "verb"])
    model = kseq.many_to_many(WORDS.size, 2, "rnn", width=3, head=head)
    return TextToLabels(model, WORDS, labels)


def ctc_model():
    return kseq.many_to_many(WORDS.size, WORDS.size, "rnn", width=3, head="ctc")


def train_crf(model):
    model.compile("sgd", run_eagerly=True, jit_compile=False)
    model.train_on_batch(np.array([[4, 5]]), np.array([[0, 1]]))


def label(*args, **options):
    model = tagger()
    with eagerly():
        return model.label(*args, **options)


@functools.cache
def translator():
    model = kseq.encoder_decoder(WORDS.size, WORDS.size, "rnn", "rnn", width=3)
    return TextToText(model, WORDS, WORDS)


@functools.cache
def inflector():
    sizes = {"lemma": WORDS.size, "tags": WORDS.size}
    model = kseq.encoder_decoder(sizes, WORDS.size, "rnn", "rnn", width=3)
    return TextToText(model, {"lemma": WORDS, "tags": WORDS}, WORDS)


def inflect(texts, **options):
    model = inflector()
    with eagerly():
        return model.generate(texts, max_length=2, **options)


def translate(texts, **options):
    model = translator()
    with eagerly():
        return model.generate(texts, max_length=3, **options)


class WithoutStream(keras.Model):
    """A model with `generate`, but without `generate_stream`."""

    end_token_id = 3

    def __init__(self):
        super().__init__()
        self.inner = translator().model

    def generate(self, source, *args, **options):
        return self.inner.generate(source, *args, **options)


def translator_without_stream():
    return TextToText(WithoutStream(), WORDS, WORDS)


def generate_without_stream():
    model = translator_without_stream()
    with eagerly():
        return model.generate(["Anna"], max_length=3)


def sample(seed=None):
    model = kseq.one_to_many(WORDS.size, decoder="rnn", width=3)
    writer = TextWriter(model, WORDS, window=4)
    with eagerly():
        return writer.generate(["Anna"], Sampling(seed=seed), max_length=7)


def sample_after_a_seed():
    texts = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        texts.append(sample())
    assert texts[0] == texts[1]


def clone_model_alone():
    old = translator()
    clone = keras.models.clone_model(old.model)
    new = TextToText(clone, old.source_vocabulary, old.target_vocabulary)
    with eagerly():
        assert len(new.generate(["Anna"], max_length=3)) == 1


def train(pipeline, data, class_weight=None):
    loss = kseq.training.SequenceCrossentropy(pad_token_id=-1)
    pipeline.compile("sgd", loss, run_eagerly=True)
    pipeline.fit(data, class_weight=class_weight, verbose=0)


def step_batches(**options):
    return kseq.training.batches([[4, 5], [5]], [[0, 1], [1]], 2, **options)


def target_batches(**options):
    ids = [[2, 4, 5, 3], [2, 5, 3]]
    return kseq.training.teacher_forcing(ids, ids, batch_size=2, **options)


def writer(model=None):
    model = model or kseq.one_to_many(WORDS.size, decoder="rnn", width=3)
    return TextWriter(model, WORDS)


def short_writer():
    return TextWriter(writer().model, WORDS, window=4)


def exported(model):
    if keras.backend.backend() == "tensorflow":
        model.export_generation("writer", max_length=4)


def saved(name):
    translator().save(name)
    return TextToText.load(name)


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(["Anna works"])


def score_in_a_window(texts):
    model = short_writer()
    with eagerly():
        return model.score(texts)


ADVICE = {
    "several vocabularies for one source": (
        lambda: TextToText(translator().model, {"lemma": WORDS}, WORDS),
        "For several sources, build the model by `kseq.encoder_decoder(source={...}, "
        "...)`.",
        lambda: inflector(),
    ),
    "a blank row of several sources": (
        lambda: inflect({"lemma": ["Anna", ""], "tags": ["works", ""]}),
        "Leave them out, or pass `allow_blank=True` for an empty result in its place.",
        lambda: (
            inflect({"lemma": ["Anna"], "tags": ["works"]}),
            inflect({"lemma": ["Anna", ""], "tags": ["", ""]}, allow_blank=True),
        ),
    ),
    "a class weight of a tagger": (
        lambda: train(tagger(), step_batches(), {0: 2.0}),
        "Pass it to `kseq.training.batches`, or to `teacher_forcing` for a model that "
        "generates, which weight each label.",
        lambda: train(tagger(), step_batches(class_weight={0: 2.0})),
    ),
    "a class weight of a translator": (
        lambda: train(translator(), target_batches(), {4: 2.0}),
        "Pass it to `kseq.training.batches`, or to `teacher_forcing` for a model that "
        "generates, which weight each label.",
        lambda: train(translator(), target_batches(class_weight={4: 2.0})),
    ),
    "a pipeline in HDF5": (
        lambda: saved("translator.h5"),
        "Use 'translator.keras'.",
        lambda: saved("translator.keras"),
    ),
    "a translator with fewer tokens": (
        lambda: TextToText(kseq.encoder_decoder(9, 5, "rnn", "rnn", 3), WORDS, WORDS),
        "Build it with the `size` of the target vocabulary.",
        lambda: TextToText(
            kseq.encoder_decoder(9, WORDS.size, "rnn", "rnn", 3), WORDS, WORDS
        ),
    ),
    "a language model as a translator": (
        lambda: TextToText(writer().model, WORDS, WORDS),
        "Use `kseq.text.TextWriter` for a language model.",
        lambda: writer(),
    ),
    "a translator as a language model": (
        lambda: writer(translator().model),
        "Use `kseq.text.TextToText` for a model from text to text.",
        lambda: TextToText(translator().model, WORDS, WORDS),
    ),
    "a classifier of series for texts": (
        lambda: TextToLabels(
            kseq.many_to_one(kseq.layers.FeatureEmbedding(2, 3), 2, "rnn", width=3),
            WORDS,
            ["a", "b"],
        ),
        "Build it with `vocabulary.size` as its source.",
        lambda: classifier(WORDS.size),
    ),
    "a prefix of words": (
        lambda: translate(["Anna"], prefix=["works"]),
        "Encode it: `target_vocabulary.encode(prefix)`.",
        lambda: translate(["Anna"], prefix=WORDS.encode(["works"])),
    ),
    "a data set of tensors": (
        lambda: Vocabulary("word").adapt(dataset()),
        "For a data set, use `texts.as_numpy_iterator()`.",
        lambda: Vocabulary("word").adapt(dataset().as_numpy_iterator()),
    ),
    "fewer pieces than letters": (
        lambda: Vocabulary("word_piece", max_tokens=8).adapt(["hello world"]),
        "Letters need room: 8000 suits many.",
        lambda: Vocabulary("word_piece", max_tokens=8000).adapt(["hello world"]),
    ),
    "a single text": (
        lambda: WORDS.encode("Anna works"),
        "Wrap it in a list: `[texts]`.",
        lambda: WORDS.encode(["Anna works"]),
    ),
    "symbols in place of texts": (
        lambda: WORDS.encode([["Anna", "works"]]),
        'Join symbols: `[" ".join(x) for x in texts]`.',
        lambda: WORDS.encode([" ".join(x) for x in [["Anna", "works"]]]),
    ),
    "texts in place of symbols": (
        lambda: SYMBOLS.encode(["Anna works"]),
        "Split the texts: `[x.split() for x in texts]`.",
        lambda: SYMBOLS.encode([x.split() for x in ["Anna works"]]),
    ),
    "a text with a NUL": (
        lambda: WORDS.encode(["Anna\0 works"]),
        'Fix it: `texts[0].replace("\\0", "")`.',
        lambda: WORDS.encode(["Anna\0 works".replace("\0", "")]),
    ),
    "bytes with a NUL": (
        lambda: WORDS.encode([b"Anna\0 works"]),
        'Fix it: `texts[0].replace(b"\\0", b"")`.',
        lambda: WORDS.encode([b"Anna\0 works".replace(b"\0", b"")]),
    ),
    "a lone surrogate": (
        lambda: WORDS.encode(["Anna \ud83d"]),
        'Fix it: `texts[0].encode("utf-8", "replace").decode()`.',
        lambda: WORDS.encode(["Anna \ud83d".encode("utf-8", "replace").decode()]),
    ),
    "bytes of Latin 1": (
        lambda: WORDS.encode([b"caf\xe9"]),
        'Fix it: `texts[0].decode("latin-1")`.',
        lambda: WORDS.encode([b"caf\xe9".decode("latin-1")]),
    ),
    "an unknown label": (
        lambda: tagger().label_ids(["noun"]),
        "Build the model with this label, or leave out the examples that have it.",
        lambda: (
            tagger(("name", "verb", "noun")).label_ids(["noun"]),
            tagger().label_ids([]),
        ),
    ),
    "more outputs than labels": (
        lambda: classifier(num_outputs=3),
        "Build it with num_outputs=2.",
        lambda: classifier(num_outputs=2),
    ),
    "a vocabulary larger than the model's": (
        lambda: classifier(5),
        "Build it with `vocabulary.size`.",
        lambda: classifier(WORDS.size),
    ),
    "a blank text to label": (
        lambda: label([["Anna"], []]),
        "Leave it out, or pass `allow_blank=True` for an empty result in its place.",
        lambda: (label([["Anna"]]), label([["Anna"], []], allow_blank=True)),
    ),
    "a blank text to translate": (
        lambda: translate(["Anna", " "]),
        "Leave it out, or pass `allow_blank=True` for an empty result in its place.",
        lambda: (translate(["Anna"]), translate(["Anna", " "], allow_blank=True)),
    ),
    "a stream of a model that cannot stream": (
        lambda: translator_without_stream().generate_stream(["Anna"]),
        "Use `generate`.",
        generate_without_stream,
    ),
    "tokens of another vocabulary": (
        lambda: WORDS.decode([[4, 11]]),
        "Decode with the vocabulary that the model was trained with.",
        lambda: Vocabulary("word").adapt(["a b c d e f g h"]).decode([[4, 11]]),
    ),
    "a vocabulary without tokens": (
        lambda: Vocabulary("word").encode(["a"]),
        "Call `adapt(texts)` first. A clone is made from a config, which holds no "
        "tokens. Clone the model alone: "
        "`TextToText(keras.models.clone_model(old.model), old.source_vocabulary, "
        "old.target_vocabulary)`.",
        lambda: (Vocabulary("word").adapt(["a"]).encode(["a"]), clone_model_alone()),
    ),
    "word pieces without a number": (
        lambda: Vocabulary("word_piece"),
        "8000 suits many languages.",
        lambda: Vocabulary("word_piece", max_tokens=8000).adapt(["a"]).encode(["a"]),
    ),
    "sentence pieces without a number": (
        lambda: Vocabulary("sentence_piece"),
        "8000 suits many languages.",
        lambda: Vocabulary("sentence_piece", max_tokens=8000).adapt(["a"]),
    ),
    "too few sentence pieces": (
        lambda: Vocabulary("sentence_piece", max_tokens=263).adapt(RARE),
        "8000 suits many languages; a smaller `character_coverage` leaves rare letters "
        "out.",
        lambda: (
            Vocabulary("sentence_piece", max_tokens=8000).adapt(RARE),
            Vocabulary("sentence_piece", max_tokens=263, character_coverage=0.98).adapt(
                RARE
            ),
        ),
    ),
    "a model of pieces for words": (
        lambda: Vocabulary("word", model="bpe"),
        "Leave it out.",
        lambda: Vocabulary("word").adapt(["a"]).encode(["a"]),
    ),
    "a graph of a vocabulary without a split": (
        lambda: SYMBOLS.detokenize([[4]]),
        'Train with split="word", which puts a space between symbols.',
        lambda: Vocabulary("word").adapt(["Anna works"]).detokenize([[4]]),
    ),
    "an export of more than a window": (
        lambda: short_writer().export_generation("writer", max_length=5),
        "Export it with `max_length=4`.",
        lambda: exported(short_writer()),
    ),
    "a CRF in a plain model of Keras": (
        lambda: TextToLabels(ending_with_a_crf(keras.Model), WORDS, ["a", "b"]),
        "Build it from the same inputs and outputs: `kseq.builders.ManyToMany(inputs, "
        "outputs)`.",
        lambda: TextToLabels(
            ending_with_a_crf(kseq.builders.ManyToMany), WORDS, ["a", "b"]
        ),
    ),
    "labels of another CRF": (
        lambda: with_a_crf(["a", "b"]),
        "Pass the same list to both.",
        lambda: with_a_crf(["name", "verb"]),
    ),
    "labels of texts by CTC": (
        lambda: TextToLabels(ctc_model(), WORDS, ["a", "b"]),
        "Use `kseq.text.TextToText(model, vocabulary, labels)`, where the labels are "
        "a vocabulary.",
        lambda: TextToText(ctc_model(), WORDS, WORDS),
    ),
    "a pipeline compiled in place of its model": (
        lambda: train_crf(with_a_crf(["name", "verb"])),
        "Compile and fit the inner model, `pipeline.model`.",
        lambda: train_crf(with_a_crf(["name", "verb"]).model),
    ),
    "sampled pieces of words": (
        lambda: WORDS.sampler(["Anna"]),
        "Use `encode`.",
        lambda: WORDS.encode(["Anna"]),
    ),
    "vectors that are spelled differently": (
        lambda: read_vectors({"ANNA": [1.0, 2.0]}, WORDS),
        "Check the language of the file, or pass `spelling` if it spells tokens "
        "differently.",
        lambda: read_vectors({"ANNA": [1.0, 2.0]}, WORDS, spelling=str.upper),
    ),
    "a score of a text longer than the window": (
        lambda: score_in_a_window(["Anna works here works"]),
        "Split it into several.",
        lambda: score_in_a_window(["Anna works", "here works"]),
    ),
    "a seed for a text longer than the window": (
        lambda: sample(seed=3),
        "Leave out the seed, and call `keras.utils.set_random_seed` before.",
        sample_after_a_seed,
    ),
}
