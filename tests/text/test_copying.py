"""Unknown source words that a model copies into its texts.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens.
"""

import itertools
import types

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, Sampling
from kseq.text import TextToText, Vocabulary, alignment
from kseq.text.streaming import TextStream

UNKNOWN, END = 1, 3


class Copyist(keras.Model):
    """A stub that copies each token of its source, in reverse order.

    The second of its two hypotheses begins with the unknown token, which attends to the
    first source token and a little to the others.
    """

    def __init__(self, ids=None, attends=False, heads=(), **kwargs):
        super().__init__(**kwargs)
        self.pointer_generator = types.SimpleNamespace(alignment=ids)
        self.ids, self.attends, self.heads = ids, attends, heads
        self.built, self.scored = True, []

    def copied_ids(self, row):
        row = row if self.ids is None else [self.ids[i] for i in row]
        return [*row[::-1], END]

    def generate(self, source_ids, search=None, max_length=40, **options):
        rows = [self.copied_ids(row) for row in source_ids]
        longest = max(map(len, rows))
        token_ids = np.zeros((len(rows), 2, longest), "int32")
        for b, row in enumerate(rows):
            token_ids[b, :, : len(row)] = row
            token_ids[b, 1, 0] = UNKNOWN
        attention = self.attention(source_ids, longest) if self.attends else None
        return types.SimpleNamespace(
            token_ids=token_ids,
            log_probs=np.zeros((len(rows), 2)),
            lengths=np.array([[len(row)] * 2 for row in rows]),
            attention=attention,
        )

    def generate_stream(self, source_ids, **options):
        token_ids = self.generate(source_ids).token_ids[:, 0]
        yield from token_ids.T

    def score(self, source_ids, target, return_attention_scores=False):
        self.scored.append(source_ids)
        _, n, length = np.shape(target)
        return None, self.attention(source_ids, length)[:, :n]

    def attention(self, source_ids, length):
        longest = max(map(len, source_ids))
        attention = np.zeros((len(source_ids), 2, length, longest))  # B N T S
        for b, row in enumerate(source_ids):
            for t in range(min(len(row), length)):
                attention[b, :, t, len(row) - 1 - t] = 1
            attention[b, 1, 0, : len(row)] = 0.1
            attention[b, 1, 0, 0] = 0.5
        if self.heads:
            noise = np.random.default_rng(1).uniform(0, 9, (*self.heads, 1, 1))
            attention = attention[:, :, None, None] + noise
            attention[:, :, :-1] = noise[:-1]  # all layers but the last
        return attention


TEXTS = ["the Kim cat saw Lee", "the cat", "Pak ran", "cat saw the"]


@pytest.fixture(scope="module")
def words():
    return Vocabulary("word").adapt(["the cat saw the cat"])


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("heads", [(), (2, 3)])
def test_unknown_tokens_become_the_attended_source_words(words, attends, heads):
    model = Copyist(attends=attends, heads=heads)
    results = TextToText(model, words, words).generate(TEXTS)
    assert [best.text for best, _ in results] == [
        "Lee saw cat Kim the",
        "cat the",
        "ran Pak",
        "the saw cat",
    ]
    assert results[0][0].tokens == ["Lee", "saw", "cat", "Kim", "the"]
    # An unknown word is copied even if a known one gets more attention. Without any
    # unknown word, the token stays.
    seconds = [second.text.split()[0] for _, second in results]
    assert seconds == ["Kim", "\ufffd", "Pak", "\ufffd"]
    assert results[0][0].source_tokens[1] == "\ufffd"
    expected = [] if attends else [[list(words.encode(TEXTS)[i]) for i in (0, 2)]]
    assert [list(map(list, rows)) for rows in model.scored] == expected


def test_a_model_without_copying_generates_the_unknown_token(words):
    model = Copyist()
    model.pointer_generator = None
    [[best, _]] = TextToText(model, words, words).generate(["Kim saw"])
    assert best.text == "saw \ufffd" and not model.scored


def test_texts_may_be_blank_an_iterator_or_an_array(words):
    pipeline = TextToText(Copyist(), words, words)
    results = pipeline.generate([" ", "the Kim"], allow_blank=True)
    assert [row[0].text for row in results] == ["", "Kim the"]
    results = pipeline.generate(iter(["Kim saw", "Lee"]))
    assert [row[0].text for row in results] == ["saw Kim", "Lee"]
    array = np.array(["Kim saw"])
    assert pipeline.generate(array)[0][0].text == "saw Kim"


def test_two_vocabularies_are_aligned_by_spelling(words):
    other = Vocabulary("word").adapt(["saw saw ran dog"])
    ids = alignment(words, other)
    assert ids.dtype == "int32"
    assert words.tokens == ["cat", "the", "saw"] and other.tokens[0] == "saw"
    assert ids.tolist() == [0, 1, 2, 3, UNKNOWN, UNKNOWN, 4]
    model = Copyist(ids=ids.tolist())
    [[best, _]] = TextToText(model, words, other).generate(["the Kim saw"])
    assert best.text == "saw Kim the"  # only the source vocabulary has `the`


@pytest.mark.parametrize("value", [None, "words", 7])
def test_alignment_rejects_a_value_that_is_not_a_vocabulary(words, value):
    with pytest.raises(ValueError, match="`target_vocabulary` must be a .* Received"):
        alignment(words, value)
    with pytest.raises(ValueError, match="`source_vocabulary` must be a .* Received"):
        alignment(value, words)
    with pytest.raises(ValueError, match="must have tokens before it is used"):
        alignment(words, Vocabulary("word"))


KINDS = {
    "character": (["hello"], "holz", "zloh"),
    "word_and_mark": (["the cat, the dog."], "the elk.", ". elk the"),
    "word_piece": (["the cats, the cat. the cats"], "the elk.", ". elk the"),
    None: ([["a", "b"]], ["a", "c"], ["c", "a"]),
}


@pytest.mark.parametrize("split", KINDS)
def test_unknown_symbols_are_copied_with_every_kind_of_split(split):
    learned, text, expected = KINDS[split]
    options = {"max_tokens": 40} if split == "word_piece" else {}
    vocabulary = Vocabulary(split, **options).adapt(learned)
    [[best, _]] = TextToText(Copyist(), vocabulary, vocabulary).generate([text])
    if split in ("word_and_mark", "word_piece"):
        assert best.tokens[-1] == "the" and "elk" in best.tokens
    else:
        assert best.text == expected


def test_bytes_have_no_unknown_symbols_to_copy():
    letters = Vocabulary("byte")
    [[best, second]] = TextToText(Copyist(), letters, letters).generate(["abc"])
    assert best.text == "cba" and second.text == "\ufffdba"


def test_a_stream_copies_the_same_words(words):
    pipeline = TextToText(Copyist(), words, words)
    pieces = zip(*pipeline.generate_stream(TEXTS), strict=True)
    texts = [best.text for best, _ in pipeline.generate(TEXTS)]
    assert ["".join(each) for each in pieces] == texts


def test_a_stream_waits_for_a_copied_accent():
    letters = Vocabulary("character", "NFD").adapt(["ae"])
    stream = TextStream(letters, copy=lambda ids: "\N{COMBINING ACUTE ACCENT}")
    pieces = [*(stream.push([i]) for i in (4, 5, UNKNOWN)), stream.close()]
    assert "".join(pieces) == "a\N{LATIN SMALL LETTER E WITH ACUTE}"


# A trained model that copies --------------------------------------------------------

KNOWN, NEW = "abcdefghijklmnopqrst", "가나다라마바사"


def random_texts(number, symbols, seed, length=(2, 6)):
    """Return random texts of some symbols."""
    random = np.random.default_rng(seed)
    lengths = random.integers(*length, number)
    return ["".join(random.choice(list(symbols), n)) for n in lengths]


TRAINED = {"gru": (8, 3e-3), "transformer": (14, 2e-3)}  # epochs and learning rate
KINDS_OF_MODELS = ["gru", pytest.param("transformer", marks=pytest.mark.thorough)]


@pytest.fixture(scope="module", params=KINDS_OF_MODELS)
def trained(request):
    """Return a pipeline that was trained to reverse texts of known symbols."""
    texts = random_texts(3000, KNOWN, seed=0)
    letters = Vocabulary("character", max_tokens=19).adapt(texts)
    keras.utils.set_random_seed(1)
    sizes, parts = (letters.size, letters.size), (request.param, request.param)
    model = kseq.encoder_decoder(*sizes, *parts, width=64, copy=True)
    source = letters.encode(texts)
    target = letters.encode([text[::-1] for text in texts], start=True, end=True)
    batches = kseq.training.teacher_forcing(source, target, 64, seed=1)
    epochs, learning_rate = TRAINED[request.param]
    model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        kseq.training.SequenceCrossentropy(label_smoothing=0.02),
    )
    model.fit(batches, epochs=epochs, verbose=0)
    return TextToText(model, letters, letters)


def test_a_trained_model_copies_unseen_symbols(trained):
    texts = random_texts(100, KNOWN[:12] + NEW, seed=5)
    assert sum(any(symbol in NEW for symbol in text) for text in texts) > 70
    for search in (None, BeamSearch(3)):
        results = trained.generate(texts, search)
        generated = [best.text for best, *_ in results]
        right = [a == b[::-1] for a, b in zip(generated, texts, strict=True)]
        assert np.mean(right) > 0.9


def test_streams_and_loaded_pipelines_copy_the_same_symbols(trained, tmp_path):
    texts = random_texts(20, KNOWN[:12] + NEW, seed=6)
    expected = [best.text for [best] in trained.generate(texts)]
    pieces = itertools.zip_longest(*trained.generate_stream(texts), fillvalue="")
    assert ["".join(each) for each in pieces] == expected
    trained.save(tmp_path / "copies.keras")
    loaded = TextToText.load(tmp_path / "copies.keras")
    assert [best.text for [best] in loaded.generate(texts)] == expected
    search = Sampling(num_draws=2, seed=1)
    for text, samples in zip(texts, trained.generate(texts, search), strict=True):
        for sample in samples:
            new = {symbol for symbol in sample.text if symbol in NEW}
            assert new <= set(text)
