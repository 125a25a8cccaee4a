"""Builders and what they build: bad calls, their advice, and corrected calls."""

import functools
import warnings

import keras
import numpy as np

import kseq
from kseq.decoding import BeamSearch, ForcedTokens, GreedySearch, Sampling
from kseq.layers import (
    FeatureEmbedding,
    PatchEmbedding,
    PointerGenerator,
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


def translator(source=11, target=13, **options):
    options = {"encoder": "rnn", "decoder": "rnn", "width": 3, **options}
    return kseq.encoder_decoder(source, target, **options)


shared_translator = functools.cache(translator)  # shared by calls that train no weights


def copier(source=13, target=13, **options):
    return translator(source, target, **{"copy": True, **options})


def inflector(copy):
    return translator({"lemma": 13, "tags": 7}, copy=copy, decoder="gru")


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


def crf_before_the_end():
    steps = keras.Input((None, 3))
    return steps, 2 * kseq.layers.CRF(2)(steps)


def ending_with_ctc():
    steps = keras.Input((None, 3))
    return steps, kseq.layers.CTC(2)(steps)


def ctc_before_the_end():
    steps, logits = ending_with_ctc()
    return steps, 2 * logits


def train_ctc(sample_weight):
    model = tagger(head="ctc")
    model.compile(**UNTRAINED)
    model.train_on_batch(IDS, np.array([[1, 0], [1, 0]]), sample_weight=sample_weight)


def generate(model=None, source=IDS, search=None, max_length=3, **options):
    model = shared_translator() if model is None else model
    with eagerly():
        return model.generate(source, search, max_length, **options)


def letters():
    return kseq.text.Vocabulary("character").adapt(["abc"])


def generate_from_texts(texts):
    pipeline = kseq.text.TextToText(shared_translator(), letters(), letters())
    with eagerly():
        pipeline.generate(texts, max_length=3)
    generate(source=letters().encode(texts))


def generate_unconditionally(source, **options):
    model = kseq.one_to_many(13, decoder="rnn", width=3)
    with eagerly():
        return model.generate(source, max_length=3, **options)


def embedding():
    return TokenEmbedding(11, 3)


def with_positions(number):
    return TokenEmbedding(13, 3, positions="learned", max_length=number)


def clone(model=None, **options):
    return keras.models.clone_model(model or shared_translator(), **options)


def doubled_output(name):
    def twice(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        return 2 * outputs if layer.name == name else outputs

    return twice


def copy(layer):
    return type(layer).from_config(layer.get_config())


def picture_model(how="pool"):
    """Return a model from a picture to three numbers."""
    inputs = keras.Input(SMALL)
    patches = PatchEmbedding(SMALL, 2, 3)(inputs)
    layers = {"pool": "GlobalAveragePooling1D", "flatten": "Flatten"}
    pooled = getattr(keras.layers, layers[how])()(patches)
    return keras.Model(inputs, keras.layers.Dense(3)(pooled), name="pictures")


def nested_model(model):
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, 2 * model(inputs), name="twice")


def quantized(model):
    with warnings.catch_warnings(action="ignore"):  # about unquantized layers
        model.quantize("int8")
    return model


def matcher(image=None):
    return kseq.text_image_matcher(11, image or picture_model(), width=4)


def tied_translator(source, target, **options):
    return translator(source, target, tie_embeddings="all", **options)


def coverage_search():
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


def functional_model():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Subclassed().dense(inputs))


def report(inputs):
    return kseq.mask_report(shared_translator(), inputs)


def data_set(rows=IDS):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(rows)


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return IDS


def models_with_a_shared_component(words):
    """Return a model with an embedding, and one whose tied head holds it."""
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


def series_translator(**options):
    return translator(FeatureEmbedding(3, 3, **options))


def captioner():
    return translator(PatchEmbedding((4, 4, 1), 2, 3))


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


def called_model(model):
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
    "a copy from a picture": (
        lambda: copier(PatchEmbedding((4, 4, 1), 2, 3)),
        "Use a `TokenEmbedding`, or its vocabulary size, or leave `copy` out.",
        lambda: (copier(TokenEmbedding(13, 3)), copier(13), captioner()),
    ),
    "a copy from another vocabulary": (
        lambda: copier(11),
        "Pass the target id of each source id: `copy=kseq.text.alignment("
        "source_vocabulary, target_vocabulary)`.",
        lambda: aligned_copier(7),
    ),
    "a copy by the ids of another vocabulary": (
        lambda: copier(11, copy=[0, 1]),
        "Compute it from the vocabularies of the model: `copy=kseq.text.alignment("
        "source_vocabulary, target_vocabulary)`.",
        lambda: aligned_copier(7),
    ),
    "a copy of several sources": (
        lambda: inflector(True),
        "Use `copy={'lemma': True}`, or for two vocabularies the target id of each "
        "source id in place of True.",
        lambda: (inflector({"lemma": True}), inflector({"tags": [0] * 7})),
    ),
    "a copy of an unknown source": (
        lambda: inflector({"form": True}),
        "Use `copy={'lemma': True}`.",
        lambda: inflector({"lemma": True}),
    ),
    "a copy of one source by name": (
        lambda: copier(copy={"lemma": True}),
        "Use `copy=True`, or pass several sources as `source={...}`.",
        lambda: (copier(), inflector({"lemma": True})),
    ),
    "a pointer-generator for some of the sources": (
        lambda: inflector(PointerGenerator({"lemma": True})),
        "Use `PointerGenerator({'lemma': True, 'tags': False})`, or for two "
        "vocabularies the target id of each source id in place of True.",
        lambda: inflector(PointerGenerator({"lemma": True, "tags": False})),
    ),
    "scheduled sampling by a name": (
        lambda: translator(scheduled_sampling="linear"),
        'For a schedule pass `kseq.layers.ScheduledSampling("linear", steps=5000)`.',
        lambda: translator(
            scheduled_sampling=kseq.layers.ScheduledSampling("linear", steps=5000)
        ),
    ),
    "a copy with source dropout": (
        lambda: copier(source_dropout=0.1),
        "Leave one of them out.",
        lambda: (copier(), copier(copy=None, source_dropout=0.1)),
    ),
    "one encoder for several sources": (
        lambda: translator(
            {"lemma": 11, "tags": 7}, encoder=RecurrentEncoder("rnn", 3)
        ),
        'Use `encoder={"lemma": ..., "tags": ...}`.',
        lambda: translator(
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
    "a clone with another operation": (
        lambda: clone(call_function=doubled_output("head")),
        "Leave out `call_function`, and let `clone_function` return a layer for each "
        "layer.",
        lambda: (clone(), generate(clone(clone_function=copy))),
    ),
    "all tied to two embeddings": (
        lambda: tied_translator(embedding(), embedding()),
        "Leave `head` out, and pass the same layer twice.",
        lambda: tied_translator(words := embedding(), words),
    ),
    "a custom head with tied embeddings": (
        lambda: tied_translator(
            words := embedding(), words, head=keras.layers.Dense(11)
        ),
        "Leave `head` out, and pass the same layer twice.",
        lambda: tied_translator(words := embedding(), words),
    ),
    "more tokens than positions": (
        lambda: generate(translator(target=with_positions(3)), max_length=4),
        "Generate less, or train with more positions.",
        lambda: (
            generate(translator(target=with_positions(3)), max_length=3),
            generate(translator(target=with_positions(4)), max_length=4),
        ),
    ),
    "coverage without attention": (
        lambda: generate(
            translator(decoder=RecurrentDecoder("rnn", 3)), search=coverage_search()
        ),
        "Search without the penalty, or use a decoder with attention.",
        lambda: (
            generate(
                translator(decoder=RecurrentDecoder("rnn", 3)), search=BeamSearch(2)
            ),
            generate(
                translator(decoder=RecurrentDecoder("rnn", 3, attention="luong")),
                search=coverage_search(),
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
        lambda: kseq.average([called_model(keras.Sequential([keras.layers.Dense(2)]))]),
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
        lambda: kseq.mask_report(functional_model()),
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
    "an encoder without a source": (
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
        lambda: translator(decoder=keras.layers.GRU(3)),
        "Use `kseq.layers.RecurrentDecoder`, which runs any Keras cell, or "
        "`TransformerDecoder`, or derive your own from `kseq.layers.Decoder`.",
        lambda: (
            translator(decoder=RecurrentDecoder(keras.layers.GRUCell(3))),
            translator(13, TokenEmbedding(13, 4), decoder=TransformerDecoder(1, 2)),
            translator(decoder=BagDecoder(3)),
        ),
    ),
    "a bidirectional network by name": (
        lambda: classifier(encoder="bilstm"),
        'Use `encoder=kseq.layers.RecurrentEncoder("lstm", 64, bidirectional=True)`.',
        lambda: classifier(encoder=RecurrentEncoder("lstm", 64, bidirectional=True)),
    ),
    "a name in capitals": (
        lambda: translator(decoder="GRU"),
        'Use `decoder="gru"`.',
        lambda: translator(decoder="gru"),
    ),
    "an encoder that returns one vector": (
        lambda: classifier(encoder=keras.layers.GRU(3)),
        "A recurrent layer needs `return_sequences=True`, and no `return_state`.",
        lambda: classifier(encoder=keras.layers.GRU(3, return_sequences=True)),
    ),
    "a pooling that does not pool": (
        lambda: classifier(pooling=keras.layers.Dense(3)),
        "For an answer at each step use `kseq.many_to_many`.",
        tagger,
    ),
    "a head with another number of outputs": (
        lambda: classifier(num_outputs=2, head=keras.layers.Dense(5)),
        "Use `keras.layers.Dense(2)` as its last layer.",
        lambda: classifier(
            num_outputs=2,
            head=keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(2)]),
        ),
    ),
    "a class token of a one-directional encoder": (
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
    "a class token of a convolutional encoder": (
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
    "an infinite data set": (
        lambda: generate(source=data_set().batch(2).repeat()),
        "Use a part: `dataset.take(10)`, or for a `PyDataset` "
        "`(dataset[i] for i in range(10))`.",
        lambda: generate(source=data_set().batch(2).repeat().take(10)),
    ),
    "an infinite PyDataset": (
        lambda: generate(source=Endless()),
        "Use a part: `dataset.take(10)`, or for a `PyDataset` "
        "`(dataset[i] for i in range(10))`.",
        lambda: generate(
            source=(dataset[i] for dataset in [Endless()] for i in range(10))
        ),
    ),
    "an unbatched data set": (
        lambda: generate(source=data_set()),
        "Pass a single row as a list of one, `[source]`. Batch the elements of a data "
        "set with `.batch(32)` first.",
        lambda: generate(source=data_set().batch(32)),
    ),
    "a single row": (
        lambda: generate(source=[4, 5]),
        "Pass a single row as a list of one, `[source]`. Batch the elements of a data "
        "set with `.batch(32)` first.",
        lambda: generate(source=[[4, 5]]),
    ),
    **{
        f"{kind} for ids": (
            functools.partial(generate, source=texts),
            TEXTS_FOR_IDS,
            functools.partial(generate_from_texts, ["abc"]),
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
        lambda: shared_translator().score([[4]], ["abc"]),
        TEXTS_FOR_IDS,
        lambda: shared_translator().score([[4]], letters().encode(["abc"], end=True)),
    ),
    "texts for a prefix": (
        lambda: generate(source=[[4]], prefix=["ab"]),
        TEXTS_FOR_IDS,
        lambda: generate(source=[[4]], prefix=letters().encode(["ab"])),
    ),
    **{
        f"{kind} for a number of rows": (
            functools.partial(generate_unconditionally, source),
            "Pass the first tokens as a prefix: `generate(2, prefix=[[4, 5], [6]])`.",
            functools.partial(generate_unconditionally, 2, prefix=[[4, 5], [6]]),
        )
        for kind, source in {"texts": ["abc"], "ids": [[4, 5]], "an array": IDS}.items()
    },
    "ids that are floats": (
        lambda: generate(source=IDS.astype("float32")),
        "Whole numbers that are floats become ids by `np.asarray(source, int)`; for a "
        "series build the model with `source=kseq.layers.FeatureEmbedding(...)`.",
        lambda: (
            generate(source=np.asarray(IDS.astype("float32"), int)),
            generate(translator(source=kseq.layers.FeatureEmbedding(3, 3)), SERIES),
        ),
    ),
    "ids of another vocabulary": (
        lambda: generate(source=[[11]]),
        "Encode it with the vocabulary that the model was made for.",
        lambda: generate(source=[[10]]),
    ),
    "a source longer than its positions": (
        lambda: generate(translator(source=with_positions(2)), [[4, 5, 6]]),
        "Truncate it, or train with more positions.",
        lambda: (
            generate(translator(source=with_positions(2)), [[4, 5]]),
            generate(translator(source=with_positions(3)), [[4, 5, 6]]),
        ),
    ),
    "padding between tokens": (
        lambda: generate(prefix=[[4, 0, 5]] * 2),
        "To generate tokens between given ones, use "
        "`kseq.decoding.ForcedTokens([4, None, 5])`.",
        lambda: generate(search=GreedySearch([ForcedTokens([4, None, 5])])),
    ),
    "a shared component of a layer": (
        lambda: kseq.ensemble(models_with_a_shared_component(embedding())),
        "Share the layer of `model.layers` that holds it, or use separate layers.",
        lambda: (
            kseq.ensemble([tagger(words := embedding(), 11), tagger(words, 11)]),
            kseq.ensemble(
                [tagger(11, 11), models_with_a_shared_component(embedding())[1]]
            ),
        ),
    ),
    "class weights of steps": (
        lambda: fit(tagger(), step_batches(), class_weight={1: 2.0}),
        "Pass it to `kseq.training.batches`, or to `teacher_forcing` for a model that "
        "generates, which weight each label.",
        lambda: (
            fit(tagger(), step_batches(class_weight={1: 2.0})),
            fit(translator(), target_batches(class_weight=WEIGHTS)),
        ),
    ),
    "a stream of beam search": (
        lambda: shared_translator().generate_stream(IDS, BeamSearch(2)),
        "`generate` returns its hypotheses when all have ended.",
        lambda: generate(search=BeamSearch(2)),
    ),
    "series of different lengths": (
        lambda: generate(series_translator(), [SERIES[0], SERIES[1][:2]]),
        "A `FeatureEmbedding` with a `mask_value` takes rows of different lengths.",
        lambda: generate(series_translator(mask_value=0.0), [SERIES[0], SERIES[1][:2]]),
    ),
    "a length relative to pictures": (
        lambda: generate(captioner(), PICTURES, max_length=lambda length: length + 1),
        "Pass a number.",
        lambda: generate(captioner(), PICTURES, max_length=2),
    ),
    "beams without a search": (
        lambda: generate(num_beams=3),
        "Use `search=kseq.decoding.BeamSearch(num_beams=3)`.",
        lambda: generate(search=BeamSearch(num_beams=3)),
    ),
    "a temperature without a search": (
        lambda: generate(temperature=0.7),
        "Use `search=kseq.decoding.Sampling(temperature=0.7)`.",
        lambda: generate(search=Sampling(temperature=0.7)),
    ),
    "weights that depend on the size of pictures": (
        lambda: kseq.resize_positions(picture_model("flatten"), LARGE),
        "Pool the patches before it.",
        lambda: kseq.resize_positions(picture_model("pool"), LARGE),
    ),
    "a Vision Transformer inside another model": (
        lambda: kseq.resize_positions(nested_model(picture_model()), LARGE),
        "For a model inside another, resize the inner one, and build the outer one on "
        "it.",
        lambda: nested_model(kseq.resize_positions(picture_model(), LARGE)),
    ),
    "a quantized model of pictures": (
        lambda: kseq.resize_positions(quantized(picture_model()), LARGE),
        "Resize it first, and quantize the result.",
        lambda: quantized(kseq.resize_positions(picture_model(), LARGE)),
    ),
    "guidance without source dropout": (
        lambda: generate(search=GreedySearch(guidance=2.0)),
        "Build and train it with `source_dropout=0.1`, `kseq.one_to_many` with "
        "`condition_dropout=0.1`, `kseq.text_to_image` with `caption_dropout=0.1`, or "
        "search without guidance.",
        lambda: (
            generate(translator(source_dropout=0.1), search=GreedySearch(guidance=2.0)),
            generate(
                kseq.one_to_many(13, 5, width=3, condition_dropout=0.1),
                [1, 4],
                GreedySearch(guidance=2.0),
            ),
            small_drawer(caption_dropout=0.1).draw([[4]], GreedySearch(guidance=2.0)),
            generate(search=GreedySearch()),
        ),
    ),
    "another loss for a CRF": (
        lambda: tagger(head="crf").compile("adam", "mse"),
        'Leave it out: `model.compile("adam")`.',
        lambda: tagger(head="crf").compile("adam"),
    ),
    "a CRF before the last layer": (
        lambda: kseq.builders.ManyToMany(*crf_before_the_end()),
        "Use a `keras.Model`, and train it with `crf.negative_log_likelihood`.",
        lambda: keras.Model(*crf_before_the_end()),
    ),
    "CTC before the last layer": (
        lambda: kseq.builders.CTCModel(*ctc_before_the_end()),
        "Use a `keras.Model`, and train it with `ctc.negative_log_likelihood`.",
        lambda: keras.Model(*ctc_before_the_end()),
    ),
    "CTC at the end of a tagger": (
        lambda: kseq.builders.ManyToMany(*ending_with_ctc()),
        "Build it from the same inputs and outputs: "
        "`kseq.builders.CTCModel(inputs, outputs)`.",
        lambda: kseq.builders.CTCModel(*ending_with_ctc()),
    ),
    "a weight for each label of CTC": (
        lambda: train_ctc(np.ones((2, 2))),
        "Use the mean over the labels.",
        lambda: train_ctc(np.ones((2, 2)).mean(axis=1)),
    ),
    "a prefix for the best path of CTC": (
        lambda: generate(tagger(head="ctc"), prefix=[[1], [1]]),
        "Use `search=kseq.decoding.BeamSearch(8)`.",
        lambda: generate(tagger(head="ctc"), search=BeamSearch(8), prefix=[[1], [1]]),
    ),
    "a coverage penalty for CTC": (
        lambda: generate(
            tagger(head="ctc"), search=BeamSearch(2, coverage_penalty=1.0)
        ),
        "Leave it out.",
        lambda: generate(tagger(head="ctc"), search=BeamSearch(2)),
    ),
    "an ensemble of CRF models": (
        lambda: kseq.ensemble([tagger(head="crf")]),
        "Build it without `head`.",
        lambda: kseq.ensemble([tagger()]),
    ),
    "towers of two widths": (
        lambda: kseq.text_image_matcher(classifier(), picture_model()),
        "Build each with the same `num_outputs=` and another `name=`.",
        lambda: kseq.text_image_matcher(
            classifier(num_outputs=3, name="words"), picture_model()
        ),
    ),
    "a tower that gives no vectors": (
        lambda: kseq.text_image_matcher(tagger(), picture_model()),
        "Use `kseq.many_to_one` or `kseq.vision_transformer` with the width E as "
        "`num_outputs=`.",
        lambda: kseq.text_image_matcher(
            classifier(num_outputs=3),
            kseq.vision_transformer(SMALL, 2, num_outputs=3, width=3),
        ),
    ),
    "a matcher with another operation": (
        lambda: keras.models.clone_model(
            matcher(), call_function=doubled_output("similarity")
        ),
        "Move other operations into the towers.",
        lambda: matcher(nested_model(picture_model())),
    ),
}
