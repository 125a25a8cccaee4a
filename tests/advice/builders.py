"""Builders and what they build: bad calls, the advice, and calls that follow it."""

import functools
import warnings

import keras
import numpy as np

import kseq
from kseq.decoding import BeamSearch, ForcedTokens, GreedySearch, Sampling
from kseq.layers import (
    FeatureEmbedding,
    PatchEmbedding,
    RecurrentDecoder,
    RecurrentEncoder,
    TiedHead,
    TokenEmbedding,
    TransformerDecoder,
)
from tests.advice.eagerly import eagerly
from tests.builders.test_own_embedding import OneHotEmbedding
from tests.helpers import random_array
from tests.layers.test_decoder import BagDecoder

IDS = np.array([[4, 5, 6], [7, 8, 0]])
SMALL, LARGE = (4, 6, 1), (6, 8, 1)
SERIES = random_array(2, 5, 3)
TEXTS_FOR_IDS = (
    "Encode texts with `vocabulary.encode(texts)`, or use a pipeline that takes texts, "
    "such as `kseq.text.TextToText(model, vocabulary, vocabulary)`, or "
    "`kseq.text.TextToImage(model, vocabulary)` for images."
)
UNTRAINED = {"optimizer": "sgd", "run_eagerly": True}  # tracing takes longer


def writer(source=11, target=13, **options):
    options = {"encoder": "rnn", "decoder": "rnn", "width": 3, **options}
    return kseq.encoder_decoder(source, target, **options)


plain_writer = functools.cache(writer)  # what trains no weights can share it


def copier(source=13, target=13, **options):
    return writer(source, target, **{"copy": True, **options})


def aligned_copier(target):
    copy = kseq.text.alignment(letters(), letters())
    return copier(letters().size, target, copy=copy)


def small_drawer(**options):
    tokenizer = kseq.image_tokenizer((4, 4, 3), (3, 4), width=4)
    return kseq.text_to_image(11, tokenizer, width=4, **options)


def classifier(source=11, num_outputs=2, encoder="rnn", **options):
    return kseq.many_to_one(source, num_outputs, encoder, width=3, **options)


def tagger(source=11, num_outputs=2, **options):
    return kseq.many_to_many(source, num_outputs, encoder="rnn", width=3, **options)


def behind_a_crf():
    steps = keras.Input((None, 3))
    return steps, 2 * kseq.layers.CRF(2)(steps)


def ending_with_ctc():
    steps = keras.Input((None, 3))
    return steps, kseq.layers.CTC(2)(steps)


def behind_a_ctc():
    steps, logits = ending_with_ctc()
    return steps, 2 * logits


def train_reader(sample_weight):
    model = tagger(head="ctc")
    model.compile(**UNTRAINED)
    model.train_on_batch(IDS, np.array([[1, 0], [1, 0]]), sample_weight=sample_weight)


def write(model=None, source=IDS, search=None, max_length=3, **options):
    model = plain_writer() if model is None else model
    with eagerly():
        return model.generate(source, search, max_length, **options)


def letters():
    return kseq.text.Vocabulary("character").adapt(["abc"])


def write_texts(texts):
    pipeline = kseq.text.TextToText(plain_writer(), letters(), letters())
    with eagerly():
        pipeline.generate(texts, max_length=3)
    write(source=letters().encode(texts))


def write_freely(source, **options):
    model = kseq.one_to_many(13, decoder="rnn", width=3)
    with eagerly():
        return model.generate(source, max_length=3, **options)


def embedding():
    return TokenEmbedding(11, 3)


def with_positions(number):
    return TokenEmbedding(13, 3, positions="learned", max_length=number)


def clone(model=None, **options):
    return keras.models.clone_model(model or plain_writer(), **options)


def twice_at(name):
    def twice(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        return 2 * outputs if layer.name == name else outputs

    return twice


def copy(layer):
    return type(layer).from_config(layer.get_config())


def reader_of_pictures(how="pool"):
    """Three numbers of a picture, of all its patches or of their mean."""
    inputs = keras.Input(SMALL)
    patches = PatchEmbedding(SMALL, 2, 3)(inputs)
    layers = {"pool": "GlobalAveragePooling1D", "flatten": "Flatten"}
    pooled = getattr(keras.layers, layers[how])()(patches)
    return keras.Model(inputs, keras.layers.Dense(3)(pooled), name="pictures")


def around(model):
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, 2 * model(inputs), name="twice")


def quantized(model):
    with warnings.catch_warnings(action="ignore"):  # of what cannot be quantized
        model.quantize("int8")
    return model


def matcher(image=None):
    return kseq.text_image_matcher(11, image or reader_of_pictures(), width=4)


def all_tied(source, target, **options):
    return writer(source, target, tie_embeddings="all", **options)


def covering():
    return BeamSearch(2, coverage_penalty=0.2)


def two_outputs():
    inputs = keras.Input((3,))
    outputs = [keras.layers.Dense(2)(inputs) for _ in range(2)]
    return keras.Model(inputs, outputs)


def one_output(model):
    return keras.Model(model.inputs, model.outputs[0])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def built_sequential():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.build((None, 3))
    return model


def wired():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Subclassed().dense(inputs))


def report(inputs):
    return kseq.mask_report(plain_writer(), inputs)


def data_set(rows=IDS):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(rows)


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return IDS


def parts_of(words):
    """A tied head, and a model that has its embedding in another place."""
    return [tagger(words, 11), tagger(11, 11, head=TiedHead(words))]


def fit(model, batches, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, **UNTRAINED)
    return model.fit(batches, verbose=0, **options)


WEIGHTS = {4: 2.0}
LABELS, TARGETS = [[0, 1, 1], [1, 0]], [[2, 4, 3], [2, 3]]


def step_batches(**options):
    return kseq.training.batches([[4, 5, 6], [7, 8]], LABELS, 2, **options)


def target_batches(**options):
    return kseq.training.teacher_forcing([[4, 5], [6]], TARGETS, 2, **options)


def of_series(**options):
    return writer(FeatureEmbedding(3, 3, **options))


def of_pictures():
    return writer(PatchEmbedding((4, 4, 1), 2, 3))


PICTURES = random_array(2, 4, 4, 1)
NO_IDS = (
    'Ids that are floats become integers by `.astype("int32")`; a series of numbers '
    "needs a model with `source=kseq.layers.FeatureEmbedding(num_features, width)`."
)


def classify(inputs, source=11):
    return kseq.many_to_one(source, num_outputs=2, encoder="rnn", width=4)(inputs)


def eager_score(target):
    with eagerly():
        kseq.one_to_many(11, decoder="rnn", width=3).score(len(target), target)


def called(model):
    model(SERIES)
    return model


ADVICE = {
    "a copy without attention": (
        lambda: copier(decoder=RecurrentDecoder("gru", 3)),
        'Use `decoder="gru"`, a `RecurrentDecoder` with `attention="bahdanau"`, or a '
        "`TransformerDecoder` with `cross_attention=True`.",
        lambda: (
            copier(decoder="gru"),
            copier(decoder=RecurrentDecoder("gru", 3, attention="bahdanau")),
            copier(decoder=TransformerDecoder(1, 1, cross_attention=True), width=4),
        ),
    ),
    "a copy of a picture": (
        lambda: copier(PatchEmbedding((4, 4, 1), 2, 3)),
        "Use a `TokenEmbedding`, or its vocabulary size, or leave `copy` out.",
        lambda: (copier(TokenEmbedding(13, 3)), copier(13), of_pictures()),
    ),
    "a copy from another vocabulary": (
        lambda: copier(11),
        "Pass the target id of each source id: `copy=kseq.text.alignment("
        "source_vocabulary, target_vocabulary)`.",
        lambda: aligned_copier(7),
    ),
    "a copy by the ids of another vocabulary": (
        lambda: copier(11, copy=[0, 1]),
        "Compute it from the vocabularies of the model: `kseq.text.alignment("
        "source_vocabulary, target_vocabulary)`.",
        lambda: aligned_copier(7),
    ),
    "scheduled sampling by a name": (
        lambda: writer(scheduled_sampling="linear"),
        'For a schedule pass `kseq.layers.ScheduledSampling("linear", steps=5000)`.',
        lambda: writer(
            scheduled_sampling=kseq.layers.ScheduledSampling("linear", steps=5000)
        ),
    ),
    "a copy of a source that is dropped": (
        lambda: copier(source_dropout=0.1),
        "Leave one of them out.",
        lambda: (copier(), copier(copy=None, source_dropout=0.1)),
    ),
    "one encoder for several sources": (
        lambda: writer({"lemma": 11, "tags": 7}, encoder=RecurrentEncoder("rnn", 3)),
        'Use `encoder={"lemma": ..., "tags": ...}`.',
        lambda: writer(
            {"lemma": 11, "tags": 7},
            encoder={"lemma": RecurrentEncoder("rnn", 3), "tags": "rnn"},
        ),
    ),
    "floats in place of ids": (
        lambda: classify(np.array([[4.0, 5.0]], "float32")),
        NO_IDS,
        lambda: classify(np.array([[4.0, 5.0]], "float32").astype("int32")),
    ),
    "a series in place of ids": (
        lambda: classify(random_array(2, 7, 1)),
        NO_IDS,
        lambda: classify(random_array(2, 7, 1), FeatureEmbedding(1, 4)),
    ),
    "padding among the tokens of a target": (
        lambda: eager_score([[4, 0, 5]]),
        "Leave it out.",
        lambda: eager_score([[4, 5]]),
    ),
    "a clone that doubles": (
        lambda: clone(call_function=twice_at("head")),
        "Leave out `call_function`, and let `clone_function` return a layer for each "
        "layer.",
        lambda: (clone(), write(clone(clone_function=copy))),
    ),
    "all tied to two embeddings": (
        lambda: all_tied(embedding(), embedding()),
        "Leave `head` out, and pass the same layer twice.",
        lambda: all_tied(words := embedding(), words),
    ),
    "a tied head of one's own": (
        lambda: all_tied(words := embedding(), words, head=keras.layers.Dense(11)),
        "Leave `head` out, and pass the same layer twice.",
        lambda: all_tied(words := embedding(), words),
    ),
    "more tokens than positions": (
        lambda: write(writer(target=with_positions(3)), max_length=4),
        "Generate less, or train with more positions.",
        lambda: (
            write(writer(target=with_positions(3)), max_length=3),
            write(writer(target=with_positions(4)), max_length=4),
        ),
    ),
    "coverage without attention": (
        lambda: write(writer(decoder=RecurrentDecoder("rnn", 3)), search=covering()),
        "Search without the penalty, or use a decoder with attention.",
        lambda: (
            write(writer(decoder=RecurrentDecoder("rnn", 3)), search=BeamSearch(2)),
            write(
                writer(decoder=RecurrentDecoder("rnn", 3, attention="luong")),
                search=covering(),
            ),
        ),
    ),
    "models of two vocabularies": (
        lambda: kseq.ensemble([classifier(11, 2), classifier(11, 3)]),
        "Build them on the same vocabularies, labels or features.",
        lambda: kseq.ensemble([classifier(11, 2), classifier(11, 2)])(IDS),
    ),
    "the mean of a model that is not built": (
        lambda: kseq.average([keras.Sequential([keras.layers.Dense(2)])]),
        "Call a model on a batch to build it.",
        lambda: kseq.average([called(keras.Sequential([keras.layers.Dense(2)]))]),
    ),
    "the mean of models of two kinds": (
        lambda: kseq.average([classifier(encoder="rnn"), classifier(encoder="gru")]),
        "Combine different models with `kseq.ensemble`.",
        lambda: kseq.ensemble([classifier(encoder="rnn"), classifier(encoder="gru")]),
    ),
    "the mean of quantized models": (
        lambda: kseq.average([quantized(classifier()), quantized(classifier())]),
        "Average the models before they are quantized.",
        lambda: quantized(kseq.average([classifier(), classifier()])),
    ),
    "a model of two outputs": (
        lambda: kseq.ensemble([two_outputs()]),
        "Build a `keras.Model` with one of them.",
        lambda: kseq.ensemble([one_output(two_outputs())]),
    ),
    "a Sequential that is not built": (
        lambda: kseq.mask_report(keras.Sequential([keras.layers.Dense(2)])),
        "Build a Sequential with `model.build(input_shape)`; wire the layers of a "
        "subclassed model with `keras.Input` and `keras.Model(inputs, outputs)`.",
        lambda: kseq.mask_report(built_sequential()),
    ),
    "a subclassed model": (
        lambda: kseq.mask_report(Subclassed()),
        "Build a Sequential with `model.build(input_shape)`; wire the layers of a "
        "subclassed model with `keras.Input` and `keras.Model(inputs, outputs)`.",
        lambda: kseq.mask_report(wired()),
    ),
    "one input of two": (
        lambda: report(IDS),
        "Pass an array, a list in this order, or a dictionary with these names.",
        lambda: (
            kseq.mask_report(classifier(), IDS),
            report([IDS, IDS]),
            report({"source": IDS, "target": IDS}),
        ),
    ),
    "an encoder of nothing": (
        lambda: kseq.one_to_many(13, encoder="rnn", width=3),
        "Leave `encoder` out.",
        lambda: kseq.one_to_many(13, width=3),
    ),
    "an embedding of Keras": (
        lambda: classifier(keras.layers.Embedding(11, 3)),
        "Use one of `kseq.layers`, such as `TokenEmbedding`, or derive your own from "
        "`kseq.layers.SequenceEmbedding`.",
        lambda: (classifier(TokenEmbedding(11, 3)), classifier(OneHotEmbedding(11))),
    ),
    "a decoder of Keras": (
        lambda: writer(decoder=keras.layers.GRU(3)),
        "Use `kseq.layers.RecurrentDecoder`, which runs any Keras cell, or "
        "`TransformerDecoder`, or derive your own from `kseq.layers.Decoder`.",
        lambda: (
            writer(decoder=RecurrentDecoder(keras.layers.GRUCell(3))),
            writer(13, TokenEmbedding(13, 4), decoder=TransformerDecoder(1, 2)),
            writer(decoder=BagDecoder(3)),
        ),
    ),
    "a bidirectional network by name": (
        lambda: classifier(encoder="bilstm"),
        'Use `encoder=kseq.layers.RecurrentEncoder("lstm", 64, bidirectional=True)`.',
        lambda: classifier(encoder=RecurrentEncoder("lstm", 64, bidirectional=True)),
    ),
    "a name in capitals": (
        lambda: writer(decoder="GRU"),
        'Use `decoder="gru"`.',
        lambda: writer(decoder="gru"),
    ),
    "an encoder of one vector": (
        lambda: classifier(encoder=keras.layers.GRU(3)),
        "A recurrent layer needs `return_sequences=True`, and no `return_state`.",
        lambda: classifier(encoder=keras.layers.GRU(3, return_sequences=True)),
    ),
    "a pooling that does not pool": (
        lambda: classifier(pooling=keras.layers.Dense(3)),
        "For an answer at each step use `kseq.many_to_many`.",
        tagger,
    ),
    "a head of other answers": (
        lambda: classifier(num_outputs=2, head=keras.layers.Dense(5)),
        "Use `keras.layers.Dense(2)` as its last layer.",
        lambda: classifier(
            num_outputs=2,
            head=keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(2)]),
        ),
    ),
    "a class token that has read nothing": (
        lambda: classifier(encoder="gru", pooling="class_token"),
        "Use `kseq.layers.RecurrentEncoder(..., bidirectional=True)`, or "
        'pooling="last".',
        lambda: (
            classifier(
                encoder=RecurrentEncoder("gru", 3, bidirectional=True),
                pooling="class_token",
            ),
            classifier(encoder="gru", pooling="last"),
        ),
    ),
    "a class token that few steps reach": (
        lambda: classifier(encoder="conv", pooling="class_token"),
        'Use pooling="attention" or "max".',
        lambda: (
            classifier(encoder="conv", pooling="attention"),
            classifier(encoder="conv", pooling="max"),
        ),
    ),
    "a convolutional network by another name": (
        lambda: classifier(encoder="tcn"),
        'Use `encoder="conv"`.',
        lambda: classifier(encoder="conv"),
    ),
    "a data set without an end": (
        lambda: write(source=data_set().batch(2).repeat()),
        "Use a part: `dataset.take(10)`, or for a `PyDataset` "
        "`(dataset[i] for i in range(10))`.",
        lambda: write(source=data_set().batch(2).repeat().take(10)),
    ),
    "a PyDataset without an end": (
        lambda: write(source=Endless()),
        "Use a part: `dataset.take(10)`, or for a `PyDataset` "
        "`(dataset[i] for i in range(10))`.",
        lambda: write(
            source=(dataset[i] for dataset in [Endless()] for i in range(10))
        ),
    ),
    "rows one by one": (
        lambda: write(source=data_set()),
        "Pass a single row as a list of one, `[source]`. Batch the elements of a data "
        "set with `.batch(32)` first.",
        lambda: write(source=data_set().batch(32)),
    ),
    "one row alone": (
        lambda: write(source=[4, 5]),
        "Pass a single row as a list of one, `[source]`. Batch the elements of a data "
        "set with `.batch(32)` first.",
        lambda: write(source=[[4, 5]]),
    ),
    **{
        f"{kind} for ids": (
            functools.partial(write, source=texts),
            TEXTS_FOR_IDS,
            functools.partial(write_texts, ["abc"]),
        )
        for kind, texts in {
            "texts": ["abc"],
            "a text": "abc",
            "tokens": [["a", "b"]],
            "an array of texts": np.array(["abc"]),
            "bytes": [b"abc"],
        }.items()
    },
    "texts for a target": (
        lambda: plain_writer().score([[4]], ["abc"]),
        TEXTS_FOR_IDS,
        lambda: plain_writer().score([[4]], letters().encode(["abc"], end=True)),
    ),
    "texts for a prefix": (
        lambda: write(source=[[4]], prefix=["ab"]),
        TEXTS_FOR_IDS,
        lambda: write(source=[[4]], prefix=letters().encode(["ab"])),
    ),
    **{
        f"{kind} for a number of rows": (
            functools.partial(write_freely, source),
            "Pass the first tokens as a prefix: `generate(2, prefix=[[4, 5], [6]])`.",
            functools.partial(write_freely, 2, prefix=[[4, 5], [6]]),
        )
        for kind, source in {"texts": ["abc"], "ids": [[4, 5]], "an array": IDS}.items()
    },
    "ids that are floats": (
        lambda: write(source=IDS.astype("float32")),
        "Whole numbers that are floats become ids by `np.asarray(source, int)`; for a "
        "series build the model with `source=kseq.layers.FeatureEmbedding(...)`.",
        lambda: (
            write(source=np.asarray(IDS.astype("float32"), int)),
            write(writer(source=kseq.layers.FeatureEmbedding(3, 3)), SERIES),
        ),
    ),
    "ids of another vocabulary": (
        lambda: write(source=[[11]]),
        "Encode it with the vocabulary that the model was made for.",
        lambda: write(source=[[10]]),
    ),
    "a source longer than its positions": (
        lambda: write(writer(source=with_positions(2)), [[4, 5, 6]]),
        "Truncate it, or train with more positions.",
        lambda: (
            write(writer(source=with_positions(2)), [[4, 5]]),
            write(writer(source=with_positions(3)), [[4, 5, 6]]),
        ),
    ),
    "padding between tokens": (
        lambda: write(prefix=[[4, 0, 5]] * 2),
        "To generate tokens between given ones, use "
        "`kseq.decoding.ForcedTokens([4, None, 5])`.",
        lambda: write(search=GreedySearch([ForcedTokens([4, None, 5])])),
    ),
    "a part of a layer in common": (
        lambda: kseq.ensemble(parts_of(embedding())),
        "Share the layer of `model.layers` that holds it, or use separate layers.",
        lambda: (
            kseq.ensemble([tagger(words := embedding(), 11), tagger(words, 11)]),
            kseq.ensemble([tagger(11, 11), parts_of(embedding())[1]]),
        ),
    ),
    "weights of the classes of steps": (
        lambda: fit(tagger(), step_batches(), class_weight={1: 2.0}),
        "Pass it to `kseq.training.batches`, or to `teacher_forcing` for a model that "
        "generates, which weight each label.",
        lambda: (
            fit(tagger(), step_batches(class_weight={1: 2.0})),
            fit(writer(), target_batches(class_weight=WEIGHTS)),
        ),
    ),
    "a stream of beams": (
        lambda: plain_writer().generate_stream(IDS, BeamSearch(2)),
        "`generate` returns its hypotheses when all have ended.",
        lambda: write(search=BeamSearch(2)),
    ),
    "series of different lengths": (
        lambda: write(of_series(), [SERIES[0], SERIES[1][:2]]),
        "A `FeatureEmbedding` with a `mask_value` takes rows of different lengths.",
        lambda: write(of_series(mask_value=0.0), [SERIES[0], SERIES[1][:2]]),
    ),
    "a length relative to pictures": (
        lambda: write(of_pictures(), PICTURES, max_length=lambda length: length + 1),
        "Pass a number.",
        lambda: write(of_pictures(), PICTURES, max_length=2),
    ),
    "beams without a search": (
        lambda: write(num_beams=3),
        "Use `search=kseq.decoding.BeamSearch(num_beams=3)`.",
        lambda: write(search=BeamSearch(num_beams=3)),
    ),
    "a temperature without a search": (
        lambda: write(temperature=0.7),
        "Use `search=kseq.decoding.Sampling(temperature=0.7)`.",
        lambda: write(search=Sampling(temperature=0.7)),
    ),
    "weights that depend on the size of pictures": (
        lambda: kseq.resize_positions(reader_of_pictures("flatten"), LARGE),
        "Pool the patches before it.",
        lambda: kseq.resize_positions(reader_of_pictures("pool"), LARGE),
    ),
    "a Vision Transformer within a model": (
        lambda: kseq.resize_positions(around(reader_of_pictures()), LARGE),
        "For a model inside another, resize the inner one, and build the outer one on "
        "it.",
        lambda: around(kseq.resize_positions(reader_of_pictures(), LARGE)),
    ),
    "a quantized model of pictures": (
        lambda: kseq.resize_positions(quantized(reader_of_pictures()), LARGE),
        "Resize it first, and quantize the result.",
        lambda: quantized(kseq.resize_positions(reader_of_pictures(), LARGE)),
    ),
    "guidance without source dropout": (
        lambda: write(search=GreedySearch(guidance=2.0)),
        "Build and train it with `source_dropout=0.1`, `kseq.one_to_many` with "
        "`condition_dropout=0.1`, `kseq.text_to_image` with `caption_dropout=0.1`, or "
        "search without guidance.",
        lambda: (
            write(writer(source_dropout=0.1), search=GreedySearch(guidance=2.0)),
            write(
                kseq.one_to_many(13, 5, width=3, condition_dropout=0.1),
                [1, 4],
                GreedySearch(guidance=2.0),
            ),
            small_drawer(caption_dropout=0.1).draw([[4]], GreedySearch(guidance=2.0)),
            write(search=GreedySearch()),
        ),
    ),
    "a loss beside that of a CRF": (
        lambda: tagger(head="crf").compile("adam", "mse"),
        'Leave it out: `model.compile("adam")`.',
        lambda: tagger(head="crf").compile("adam"),
    ),
    "a CRF within a model": (
        lambda: kseq.builders.ManyToMany(*behind_a_crf()),
        "Use a `keras.Model`, and train it with `crf.negative_log_likelihood`.",
        lambda: keras.Model(*behind_a_crf()),
    ),
    "a CTC within a model": (
        lambda: kseq.builders.CTCModel(*behind_a_ctc()),
        "Use a `keras.Model`, and train it with `ctc.negative_log_likelihood`.",
        lambda: keras.Model(*behind_a_ctc()),
    ),
    "a CTC at the end of a tagger": (
        lambda: kseq.builders.ManyToMany(*ending_with_ctc()),
        "Build it from the same inputs and outputs: "
        "`kseq.builders.CTCModel(inputs, outputs)`.",
        lambda: kseq.builders.CTCModel(*ending_with_ctc()),
    ),
    "a weight for each label of CTC": (
        lambda: train_reader(np.ones((2, 2))),
        "Use the mean over the labels.",
        lambda: train_reader(np.ones((2, 2)).mean(axis=1)),
    ),
    "rules for the best path": (
        lambda: write(tagger(head="ctc"), prefix=[[1], [1]]),
        "Use `search=kseq.decoding.BeamSearch(8)`.",
        lambda: write(tagger(head="ctc"), search=BeamSearch(8), prefix=[[1], [1]]),
    ),
    "attention of CTC": (
        lambda: write(tagger(head="ctc"), search=BeamSearch(2, coverage_penalty=1.0)),
        "Leave it out.",
        lambda: write(tagger(head="ctc"), search=BeamSearch(2)),
    ),
    "an ensemble of potentials": (
        lambda: kseq.ensemble([tagger(head="crf")]),
        "Build it without `head`.",
        lambda: kseq.ensemble([tagger()]),
    ),
    "towers of two widths": (
        lambda: kseq.text_image_matcher(classifier(), reader_of_pictures()),
        "Build each with the same `num_outputs=` and another `name=`.",
        lambda: kseq.text_image_matcher(
            classifier(num_outputs=3, name="words"), reader_of_pictures()
        ),
    ),
    "a tower that gives no vectors": (
        lambda: kseq.text_image_matcher(tagger(), reader_of_pictures()),
        "Use `kseq.many_to_one` or `kseq.vision_transformer` with the width E as "
        "`num_outputs=`.",
        lambda: kseq.text_image_matcher(
            classifier(num_outputs=3),
            kseq.vision_transformer(SMALL, 2, num_outputs=3, width=3),
        ),
    ),
    "a matcher with another operation": (
        lambda: keras.models.clone_model(
            matcher(), call_function=twice_at("similarity")
        ),
        "Move other operations into the towers.",
        lambda: matcher(around(reader_of_pictures())),
    ),
}
