"""Layers: bad calls, their advice, and corrected calls."""

import functools

import keras
import numpy as np
from keras import ops

import kseq
from kseq.layers import (
    CRF,
    CTC,
    GRU,
    RNN,
    BahdanauAttention,
    Bidirectional,
    ClassEmbedding,
    ConvEncoder,
    CosineSimilarity,
    FeatureEmbedding,
    GridPositions,
    JoinedEncoders,
    LayerNormGRUCell,
    LearnedPositions,
    LuongAttention,
    MeanProbability,
    MultiHeadAttention,
    NamedEmbeddings,
    PointerGenerator,
    RecurrentDecoder,
    RecurrentEncoder,
    SummedEmbedding,
    TiedHead,
    TokenEmbedding,
    TransformerDecoder,
    VectorEmbedding,
    VectorQuantizer,
    WordCharacterEmbedding,
    Zoneout,
    as_boolean_mask,
)
from kseq.text import Vocabulary, WordCharacterVocabulary
from tests.advice.eagerly import eagerly
from tests.helpers import array, compiled, gradient, gradient_of_gradient, random_array

B, T, S, D, U, K = 2, 3, 5, 6, 4, 3
INPUTS, MEMORY = random_array(B, T, D), random_array(B, S, D)
STATE = random_array(B, U)
NEWEST, NEWEST_IDS = random_array(B, K, D), np.array([[4, 5, 6], [7, 8, 9]])
LOGITS = random_array(B, T, K)
ADDITIVE = np.array([[0, -1e9, 0]], "float32")
WORDS, OTHERS = Vocabulary("word"), Vocabulary("word")
WORDS.adapt(["Anna works here"])
OTHERS.adapt(["Anna works and sings here"])

DIFFERENT_LENGTHS = {
    "lemma": np.array([[4, 5, 6]], "int32"),
    "tags": np.array([[4, 5]], "int32"),
}


def two_embeddings():
    return {"lemma": TokenEmbedding(11, 3), "tags": TokenEmbedding(7, 3)}


@functools.cache
def crf():
    layer = CRF(K)
    layer(MEMORY)
    return layer


def likelihood(labels, potentials, mask=None):
    return crf().negative_log_likelihood(labels, potentials, mask)


def spell(labels):
    return CTC(K).negative_log_likelihood(np.array(labels), LOGITS)


TAGS = np.array([[0, 1, 2], [2, 1, 9]])


def embed(vocabulary):
    ids = np.array(vocabulary.encode(["Anna works here"]))
    return TokenEmbedding(WORDS.size, U)(ids)


def ragged():
    import tensorflow as tf

    return tf.ragged.constant([[4, 5], [6]])


def with_ragged_rows():
    model = kseq.encoder_decoder(11, 7, "rnn", "rnn", width=3)
    with eagerly():
        model.generate(ragged(), max_length=2)
        model.score(ragged(), [[3], [3]])
    return kseq.training.batches(ragged(), [0, 1])[0]


def decode(cell, initial_state, **options):
    decoder = RecurrentDecoder(cell, U, **options)
    return decoder(INPUTS, MEMORY, initial_state=initial_state)


def step(decoder, newest=NEWEST, num_beams=K):
    decoder(INPUTS, MEMORY)
    state = decoder.start(MEMORY, max_length=T, num_beams=num_beams)
    return decoder.step(newest, *state)


def recurrent_decoder(**options):
    return RecurrentDecoder("gru", U, **{"attention": "bahdanau", **options})


def last_states():
    _, *states = GRU(U, return_state=True)(MEMORY)
    return states


def continue_with_states(rows):
    encoder = ConvEncoder(U, causal=True)
    _, states = encoder(MEMORY[:rows], return_state=True)
    encoder(MEMORY, initial_state=states)


def use_codebooks():
    called, built = VectorQuantizer(5, D), VectorQuantizer(5, D)
    called(INPUTS)
    built.build((None, D))
    for quantizer in (called, built):
        codes = quantizer.ids_to_codes([[1, 2]])
        assert array(quantizer.codes_to_ids(codes)).tolist() == [[1, 2]]


def second_gradient(layer=None, **options):
    layer = layer or GRU(37, **options)  # wide enough for the fast loop
    layer.build((B, T, D))

    def total(x):
        return ops.sum(layer(x, training=True) ** 3)

    assert np.abs(gradient_of_gradient(total, INPUTS)).max() > 0


def second_gradient_of_a_decoder(cell, units=None):
    import tensorflow as tf

    decoder = RecurrentDecoder(cell, units)
    decoder(INPUTS, MEMORY)

    @tf.function
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = ops.sum(decoder(x, MEMORY, training=True) ** 3)
        return ops.sum(tape.gradient(y, x) ** 2)

    assert np.abs(gradient(slope, INPUTS)).max() > 0


def mask_in_a_compiled_function(cast):
    mask = ops.convert_to_tensor(np.array([[1.0, 0.0]], "float32"))
    return compiled(lambda mask: as_boolean_mask(cast(mask)))(mask)


def additive_mask_becomes_boolean(mask):
    assert (array(as_boolean_mask(mask)) == [[True, False, True]]).all()


def point_to_source(token_ids):
    weights = np.ones((B, T, S)) / S
    return PointerGenerator()(LOGITS, INPUTS, INPUTS, MEMORY, token_ids, weights)


def tied_head(width):
    return TiedHead(TokenEmbedding(11, width))(INPUTS)


class CustomAttention(keras.layers.Layer):
    """An attention with even weights and the methods of `BahdanauAttention`."""

    def build(self, query_shape, value_shape):
        pass

    def project_keys(self, key):
        return key

    def attend(self, query, keys, value, value_mask=None):
        weights = ops.ones((*ops.shape(query)[:2], ops.shape(value)[1])) / S
        return ops.matmul(weights, value), weights


UNROLLED_LOOP = (
    "Build the layer with `unroll=True` and a known length, so that Keras runs its "
    "loop, or use `keras.layers.RNN(keras.layers.GRUCell(64))`. Pass such a cell to a "
    "`RecurrentEncoder` or `RecurrentDecoder`."
)
ADVICE = {
    "an alignment of words": (
        lambda: PointerGenerator(["the", "a"]),
        "For two vocabularies use `kseq.text.alignment(source_vocabulary, "
        "target_vocabulary)`.",
        lambda: PointerGenerator(kseq.text.alignment(WORDS, OTHERS)),
    ),
    "an alignment that copies no source": (
        lambda: PointerGenerator({"lemma": False}),
        "Pass True, or the target id of each source id, for one of them.",
        lambda: (PointerGenerator({"lemma": True}), PointerGenerator({"lemma": [0]})),
    ),
    "a source of other steps than its memory": (
        lambda: point_to_source(np.ones((B, S - 1), "int32")),
        "Use an encoder that keeps the number of steps.",
        lambda: point_to_source(np.ones((B, S), "int32")),
    ),
    "encoders that are not layers": (
        lambda: JoinedEncoders({"lemma": "gru"}),
        "Write for example `JoinedEncoders({'lemma': RecurrentEncoder('gru', 64)})`.",
        lambda: JoinedEncoders({"lemma": RecurrentEncoder("gru", 64)}),
    ),
    "an embedding with an invalid name": (
        lambda: SummedEmbedding({"the word": TokenEmbedding(8_000, 64)}),
        "Write for example `SummedEmbedding({'word': TokenEmbedding(8_000, 64)})`.",
        lambda: SummedEmbedding({"word": TokenEmbedding(8_000, 64)}),
    ),
    "sources within sources": (
        lambda: NamedEmbeddings({"all": NamedEmbeddings(two_embeddings())}),
        "List all sources in one dictionary, or use `SummedEmbedding` to sum several "
        "inputs into one sequence.",
        lambda: (
            NamedEmbeddings(two_embeddings()),
            NamedEmbeddings({"all": SummedEmbedding(two_embeddings())}),
        ),
    ),
    "a sum of sequences of different lengths": (
        lambda: SummedEmbedding(two_embeddings())(DIFFERENT_LENGTHS),
        'For sources of different lengths use `source={"lemma": ..., "tags": ...}`, '
        "with an encoder for each.",
        lambda: kseq.encoder_decoder(two_embeddings(), 7, "rnn", "rnn", width=3),
    ),
    "a layer in place of a cell": (
        lambda: RNN(Zoneout(keras.layers.LSTMCell(U)))(MEMORY),
        "Use it in place of `RNN`.",
        lambda: Zoneout(keras.layers.LSTMCell(U))(MEMORY),
    ),
    "a sequence without steps": (
        lambda: GRU(U)(MEMORY[:, :0]),
        "Pad empty sequences with masked steps, which are skipped.",
        lambda: GRU(U)(MEMORY[:, :1], mask=np.zeros((B, 1), "bool")),
    ),
    "a decoder without steps": (
        lambda: RecurrentDecoder("gru", U)(MEMORY[:, :0]),
        "Pad empty sequences with masked steps, which are skipped.",
        lambda: RecurrentDecoder("gru", U)(
            MEMORY[:, :1], inputs_mask=np.zeros((B, 1), "bool")
        ),
    ),
    "states of an encoder that is not causal": (
        lambda: ConvEncoder(U)(MEMORY, return_state=True),
        "Create it with `causal=True`.",
        lambda: ConvEncoder(U, causal=True)(MEMORY, return_state=True),
    ),
    "states with another number of rows": (
        lambda: continue_with_states(rows=1),
        "Call the encoder on the previous steps with `return_state=True`.",
        lambda: continue_with_states(rows=B),
    ),
    "features with another size than a code": (
        lambda: VectorQuantizer(7, width=U)(MEMORY),
        f"Put a dense layer with {U} units before this layer.",
        lambda: VectorQuantizer(7, width=U)(keras.layers.Dense(U)(MEMORY)),
    ),
    "ids of another vocabulary": (
        lambda: embed(OTHERS),
        "Encode it with the vocabulary or the classes that the model was made for.",
        lambda: embed(WORDS),
    ),
    "a ragged tensor": (
        lambda: TokenEmbedding(11, U)(ragged()),
        "Pad it: `token_ids.to_tensor()`. `generate`, `score` and the batches of "
        "`kseq.training` accept ragged tensors.",
        lambda: (
            TokenEmbedding(11, U)(ragged().to_tensor()),
            with_ragged_rows(),
        ),
    ),
    "numbers as tokens": (
        lambda: TokenEmbedding(11, U)(INPUTS[..., 0]),
        "For floats use a `FeatureEmbedding`.",
        lambda: FeatureEmbedding(1, U)(INPUTS[..., :1]),
    ),
    "more beams than the state has": (
        lambda: step(recurrent_decoder(), num_beams=1),
        "Pass the number when you start: `decoder.start(memory, num_beams=3)`.",
        lambda: step(recurrent_decoder(), num_beams=3),
    ),
    "more beams than a Transformer's state has": (
        lambda: step(TransformerDecoder(1, 2), num_beams=1),
        "Pass the number when you start: `decoder.start(memory, num_beams=3)`.",
        lambda: step(TransformerDecoder(1, 2), num_beams=3),
    ),
    "ids where a step takes vectors": (
        lambda: step(recurrent_decoder(), NEWEST_IDS),
        "Embed the last tokens, integers (B, K), first.",
        lambda: step(recurrent_decoder(), TokenEmbedding(11, D)(NEWEST_IDS)),
    ),
    "units of a score that has none": (
        lambda: LuongAttention("dot", units=U),
        'Leave it out, or use score="concat".',
        lambda: (
            LuongAttention("dot")(INPUTS, MEMORY),
            LuongAttention("concat", units=U)(INPUTS, MEMORY),
        ),
    ),
    "a dot product of two sizes": (
        lambda: LuongAttention("dot")(INPUTS, random_array(B, S, U)),
        'Use score="general", which learns a matrix between the two.',
        lambda: LuongAttention(score="general")(INPUTS, random_array(B, S, U)),
    ),
    "both directions of a layer that is not recurrent": (
        lambda: Bidirectional(keras.layers.Dense(U)),
        "Pass, for example, `keras.layers.GRU(64, return_sequences=True)`.",
        lambda: Bidirectional(keras.layers.GRU(64, return_sequences=True))(INPUTS),
    ),
    "both directions of the last step": (
        lambda: Bidirectional(keras.layers.GRU(U)),
        "Build it with `return_sequences=True`, and with `return_state=True` for the "
        "final states.",
        lambda: Bidirectional(
            keras.layers.GRU(U, return_sequences=True, return_state=True)
        )(INPUTS)[1],
    ),
    "copied states of other sizes": (
        lambda: decode("lstm", [[STATE]], bridge="copy"),
        'Use bridge="dense", which adapts them, or, with attention, bridge="zero".',
        lambda: (
            decode("lstm", [[STATE]], bridge="dense"),
            decode("lstm", [[STATE]], bridge="zero", attention="luong"),
        ),
    ),
    "a state without lists": (
        lambda: decode("gru", STATE),
        "Use `initial_state=[[initial_state]]`.",
        lambda: decode("gru", [[STATE]]),
    ),
    "states of one layer without a list": (
        lambda: decode("lstm", [STATE, STATE]),
        "Use `initial_state=[initial_state]`.",
        lambda: decode("lstm", [[STATE, STATE]]),
    ),
    "the implementation of a cell": (
        lambda: LayerNormGRUCell(U, implementation=1),
        "Omit it.",
        lambda: RecurrentEncoder(LayerNormGRUCell(U))(INPUTS),
    ),
    "a layer as a cell": (
        lambda: RecurrentEncoder(keras.layers.LSTM(U)),
        "Pass, for example, `keras.layers.LSTMCell(64)`.",
        lambda: RecurrentEncoder(keras.layers.LSTMCell(64))(INPUTS),
    ),
    "stacked cells": (
        lambda: RecurrentEncoder(
            keras.layers.StackedRNNCells([keras.layers.GRUCell(U) for _ in range(2)])
        ),
        "Pass a single cell and `num_layers=2`.",
        lambda: RecurrentEncoder(keras.layers.GRUCell(U), num_layers=2)(INPUTS),
    ),
    "units beside a cell": (
        lambda: RecurrentEncoder(keras.layers.GRUCell(U), 7),
        "Omit `units`.",
        lambda: RecurrentEncoder(keras.layers.GRUCell(U))(INPUTS),
    ),
    "states of another cell": (
        lambda: GRU(U)(INPUTS, initial_state=[STATE, STATE]),
        "A layer with the same cell and `return_state=True` returns such states after "
        "its output.",
        lambda: GRU(U)(INPUTS, initial_state=last_states()),
    ),
    "sequences of classes": (
        lambda: ClassEmbedding(11, U)(NEWEST_IDS),
        "Use a `TokenEmbedding` for sequences.",
        lambda: TokenEmbedding(11, U)(NEWEST_IDS),
    ),
    "series of vectors": (
        lambda: VectorEmbedding(D, U)(INPUTS),
        "Use a `FeatureEmbedding` for series.",
        lambda: FeatureEmbedding(D, U)(INPUTS),
    ),
    "a tied head of another width": (
        lambda: tied_head(U),
        "Use `width=6` for the embedding, or `keras.layers.Dense(11)` as the head.",
        lambda: (tied_head(width=6), keras.layers.Dense(11)(INPUTS)),
    ),
    "a mask of floats in a compiled function": (
        lambda: mask_in_a_compiled_function(lambda mask: mask),
        'Cast a 0/1 mask with `keras.ops.cast(mask, "bool")`.',
        lambda: mask_in_a_compiled_function(lambda mask: keras.ops.cast(mask, "bool")),
    ),
    "an additive mask": (
        lambda: additive_mask_becomes_boolean(ADDITIVE),
        "Convert an additive mask (0 and -1e9) with `mask == 0`.",
        lambda: additive_mask_becomes_boolean(ADDITIVE == 0),
    ),
    "the mean of one model": (
        lambda: MeanProbability()(LOGITS),
        "Pass the logits of all models in one list.",
        lambda: MeanProbability()([LOGITS, LOGITS]),
    ),
    "the mean of values": (
        lambda: MeanProbability()([LOGITS[..., :1]] * 2),
        "The mean of values is `keras.layers.Average`.",
        lambda: keras.layers.Average()([LOGITS[..., :1]] * 2),
    ),
    "heads that do not divide the width": (
        lambda: MultiHeadAttention(U)(INPUTS),
        "Or pass `key_dim`, the size of a head.",
        lambda: MultiHeadAttention(U, key_dim=5)(INPUTS),
    ),
    "Keras' name of the look-ahead mask": (
        lambda: MultiHeadAttention(2)(INPUTS, use_causal_mask=True),
        "Use `look_ahead=True`.",
        lambda: MultiHeadAttention(2)(INPUTS, look_ahead=True),
    ),
    "learned positions without a number": (
        lambda: TokenEmbedding(11, U, positions="learned"),
        'Or use positions="sinusoidal", which has no maximum length.',
        lambda: TokenEmbedding(11, U, positions="sinusoidal")(NEWEST_IDS),
    ),
    "a number of positions that are not learned": (
        lambda: TokenEmbedding(11, U, positions="sinusoidal", max_length=T),
        'Omit it, or use positions="learned".',
        lambda: (
            TokenEmbedding(11, U, positions="sinusoidal")(NEWEST_IDS),
            TokenEmbedding(11, U, positions="learned", max_length=T)(NEWEST_IDS),
        ),
    ),
    "more steps than positions": (
        lambda: LearnedPositions(T)(MEMORY),
        "Truncate the sequence, or use a larger `max_length`.",
        lambda: (LearnedPositions(T)(MEMORY[:, :T]), LearnedPositions(S)(MEMORY)),
    ),
    "more steps than places on a grid": (
        lambda: GridPositions(2, 2)(MEMORY),
        "Truncate the sequence, or use a larger grid.",
        lambda: (GridPositions(2, 2)(MEMORY[:, :4]), GridPositions(3, 2)(MEMORY)),
    ),
    "a second gradient": (
        second_gradient,
        UNROLLED_LOOP,
        lambda: (
            second_gradient(unroll=True),
            second_gradient(keras.layers.RNN(keras.layers.GRUCell(37))),
        ),
    ),
    "a second gradient of an encoder": (
        lambda: second_gradient(RecurrentEncoder("gru", 37)),
        UNROLLED_LOOP,
        lambda: second_gradient(RecurrentEncoder(keras.layers.GRUCell(37))),
    ),
    "a codebook that is not built": (
        lambda: VectorQuantizer(5, D, name="codes").ids_to_codes([[1, 2]]),
        f"Call it with features first, or call `build((None, {D}))`.",
        use_codebooks,
    ),
    "a second gradient of a decoder": (
        lambda: second_gradient_of_a_decoder("gru", 64),
        UNROLLED_LOOP,
        lambda: second_gradient_of_a_decoder(keras.layers.GRUCell(64)),
    ),
    "recurrent dropout beside a cell": (
        lambda: RecurrentEncoder(keras.layers.GRUCell(U), recurrent_dropout=0.1),
        "Pass it to the cell.",
        lambda: RecurrentEncoder(keras.layers.GRUCell(U, recurrent_dropout=0.1))(
            INPUTS, training=True
        ),
    ),
    "recurrent dropout of a mingru": (
        lambda: RecurrentEncoder("mingru", U, recurrent_dropout=0.1),
        "Use `dropout` or `zoneout`.",
        lambda: (
            RecurrentEncoder("mingru", U, dropout=0.1)(INPUTS, training=True),
            RecurrentEncoder("mingru", U, zoneout=0.1)(INPUTS, training=True),
        ),
    ),
    "an attention of Keras": (
        lambda: recurrent_decoder(attention=keras.layers.AdditiveAttention()),
        "A custom layer needs the methods `build(query_shape, value_shape)`, "
        "`project_keys` and `attend`, see `kseq.layers.BahdanauAttention`.",
        lambda: (
            recurrent_decoder(attention=CustomAttention())(INPUTS, MEMORY),
            recurrent_decoder(attention=BahdanauAttention(U))(INPUTS, MEMORY),
        ),
    ),
    "a decoder that sees no source": (
        lambda: RecurrentDecoder("gru", U, bridge="zero"),
        'Use bridge="dense" or attention="bahdanau".',
        lambda: (
            decode("gru", None, bridge="dense"),
            decode("gru", None, bridge="zero", attention="bahdanau"),
        ),
    ),
    "a cell with dropout": (
        lambda: RecurrentDecoder(keras.layers.GRUCell(U, dropout=0.1)),
        "Use the decoder's own `dropout`.",
        lambda: RecurrentDecoder(keras.layers.GRUCell(U), dropout=0.1)(
            INPUTS, MEMORY, training=True
        ),
    ),
    "attention without a memory": (
        lambda: recurrent_decoder()(INPUTS),
        "Use `attention=None` for a language model.",
        lambda: recurrent_decoder(attention=None)(INPUTS),
    ),
    "cross-attention without a memory": (
        lambda: TransformerDecoder(1, 2)(INPUTS),
        "Use `cross_attention=False` for a language model.",
        lambda: TransformerDecoder(1, 2, cross_attention=False)(INPUTS),
    ),
    "one zoneout of many cells": (
        lambda: Zoneout([keras.layers.LSTMCell(U)] * 2),
        "Use one layer for each cell, `Zoneout(cell, return_sequences=True)`, or "
        '`RecurrentEncoder("lstm", 64, 2, zoneout=0.1)`.',
        lambda: (
            RecurrentEncoder("lstm", 64, 2, zoneout=0.1)(INPUTS, training=True),
            keras.Sequential(
                Zoneout(keras.layers.LSTMCell(U), return_sequences=True)
                for _ in range(2)
            )(INPUTS, training=True),
        ),
    ),
    "the gradient of the marginals of a CRF": (
        lambda: gradient(lambda x: ops.sum(crf().marginals(x)), LOGITS),
        "Train with `crf.negative_log_likelihood(labels, potentials)`.",
        lambda: gradient(lambda x: ops.sum(likelihood(TAGS % K, x)), LOGITS),
    ),
    "values that are not potentials of a CRF": (
        lambda: crf().marginals(MEMORY),
        "Call the layer first: `potentials = crf(inputs)`.",
        lambda: crf().marginals(crf()(MEMORY)),
    ),
    "labels of a CRF as vectors": (
        lambda: likelihood(LOGITS, LOGITS),
        "If they are one-hot vectors, use `labels.argmax(-1)`.",
        lambda: likelihood(LOGITS.argmax(-1), LOGITS),
    ),
    "a label that a CRF lacks": (
        lambda: likelihood(TAGS, LOGITS),
        "Mask steps without a label.",
        lambda: likelihood(TAGS, LOGITS, TAGS != 9),
    ),
    "more labels than CTC has steps": (
        lambda: CTC(K).negative_log_likelihood(
            np.array([[1, 1, 1], [2, 0, 0]]), LOGITS
        ),
        "Leave out such examples, or let the encoder keep more steps.",
        lambda: CTC(K).negative_log_likelihood(
            np.array([[1, 2, 1], [2, 0, 0]]), LOGITS
        ),
    ),
    "a label that CTC lacks": (
        lambda: CTC(K).log_likelihood(TAGS + 1, LOGITS),
        "Create the head with one label more than the highest id: "
        "`num_labels=int(labels.max()) + 1`.",
        lambda: CTC(11).log_likelihood(TAGS + 1, random_array(B, T, 11)),
    ),
    "values that are not logits of CTC": (
        lambda: CTC(K).best_path(MEMORY),
        "Call the layer first: `logits = ctc(inputs)`.",
        lambda: CTC(K).best_path(CTC(K)(MEMORY)),
    ),
    "a number for names of labels": (
        lambda: CRF(labels=K),
        "Pass a number of labels as `num_labels`.",
        lambda: CRF(num_labels=K),
    ),
    "two numbers of labels": (
        lambda: CRF(2, labels=["a", "b", "c"]),
        "Leave out `num_labels`.",
        lambda: CRF(labels=["a", "b", "c"]),
    ),
    "labels without a path": (
        lambda: CRF(2, allowed=[[0, 1], [0, 0]]),
        "Allow more in `allowed`, `allowed_first` or `allowed_last`.",
        lambda: CRF(2, allowed=[[0, 1], [1, 0]]),
    ),
    "words without their characters": (
        lambda: WordCharacterEmbedding(11, 300, D, U)(NEWEST_IDS),
        "Encode texts with `kseq.text.WordCharacterVocabulary`.",
        lambda: WordCharacterEmbedding(11, 300, D, U)(
            WordCharacterVocabulary(spelling="byte").adapt(["Anna works"])(["Anna"])
        ),
    ),
    "vectors of two widths": (
        lambda: CosineSimilarity()(STATE, NEWEST[:, 0]),
        "Project one of them to the width of the other with a dense layer.",
        lambda: CosineSimilarity()(keras.layers.Dense(D)(STATE), NEWEST[:, 0]),
    ),
    "a causal prefix of cross-attention": (
        lambda: TransformerDecoder(1, 2, causal_prefix=True),
        "Add `cross_attention=False`.",
        lambda: TransformerDecoder(1, 2, causal_prefix=True, cross_attention=False),
    ),
    "the prefix of cross-attention": (
        lambda: TransformerDecoder(1, 2)(INPUTS, MEMORY, return_prefix=True),
        "Omit `return_prefix`, or pass a memory to a decoder with "
        "`cross_attention=False`.",
        lambda: (
            TransformerDecoder(1, 2)(INPUTS, MEMORY),
            TransformerDecoder(1, 2, cross_attention=False)(
                INPUTS, MEMORY, return_prefix=True
            ),
        ),
    ),
}
