"""`TextWriter`: a language model with its vocabulary, for texts of any length."""

import types
import unicodedata

import keras
import numpy as np
import pytest

import kseq
from kseq.text import TextWriter, Vocabulary

NO_SPECIAL_TOKENS = kseq.decoding.BannedTokens([1, 2, 3])  # unknown, start, end


class Alphabet:
    """A model that continues the alphabet and records the prefixes of its calls."""

    end_token_id = 3

    def __init__(self, size, last=None):
        self.size, self.last, self.prefixes = size, last, []

    def generate(self, source, search=None, max_length=40, prefix=None):
        self.prefixes.append([list(row) for row in prefix])
        token_ids = np.zeros((source, 1, max_length), "int32")
        for row, view in zip(token_ids[:, 0], prefix, strict=True):
            ids = list(view) or [4]
            while len(ids) < max_length and ids[-1] != 3:
                is_last = self.last is not None and ids[-1] == self.last
                ids.append(3 if is_last else 4 + (ids[-1] - 3) % (self.size - 4))
            row[: len(ids)] = ids
        lengths = (token_ids > 0).sum(axis=-1)
        return types.SimpleNamespace(token_ids=token_ids, lengths=lengths)


@pytest.fixture
def letters():
    # Equally frequent, so in the order of the alphabet: "a" is 4.
    return Vocabulary("character").adapt(["abcdefg"])


def scripted(letters, window=None, last=None):
    """Return a writer with a scripted model, and the model, which records its calls."""
    model = kseq.one_to_many(letters.size, width=2)
    writer = TextWriter(model, letters, window)
    writer._tracker.unlock()
    alphabet = Alphabet(letters.size, last)
    model.generate, model.end_token_id = alphabet.generate, alphabet.end_token_id
    return writer, alphabet


def test_a_text_within_the_window_is_generated_in_one_call(letters):
    writer, alphabet = scripted(letters, window=5)
    assert writer.generate(["cd", ""], max_length=5) == ["cdefg", "abcde"]
    assert alphabet.prefixes == [[[6, 7], []]]


def test_a_longer_text_continues_from_half_a_window(letters):
    writer, alphabet = scripted(letters, window=5)
    assert writer.generate(["bcdef"], max_length=13) == ["bcdefgabcdefg"]
    seen = [letters.decode([row]) for [row] in alphabet.prefixes]
    assert seen == [["ef"], ["ab"], ["de"]]


def test_without_a_window_the_model_sees_everything(letters):
    writer, alphabet = scripted(letters)
    assert writer.generate(["bcd"], max_length=17) == ["bcdefgabcdefgabcd"]
    assert len(alphabet.prefixes) == 1


def test_finished_texts_are_not_changed(letters):
    writer, _ = scripted(letters, window=4, last=8)  # "e" is the last letter
    assert writer.generate(["c", "f"], max_length=11) == ["cde", "fgabcde"]


def test_no_prompts_give_no_texts(letters):
    assert (
        TextWriter(kseq.one_to_many(letters.size, width=2), letters).generate([]) == []
    )


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("decoder", ["gru", "transformer"])
def test_a_loaded_writer_generates_the_same_texts(decoder, tmp_path):
    words = Vocabulary("character", normalization="NFD").adapt(["한국어", "나라"])
    model = kseq.one_to_many(words.size, decoder=decoder, width=8)
    writer = TextWriter(model, words, window=7)
    writer.save(tmp_path / "writer.keras")
    loaded = keras.saving.load_model(tmp_path / "writer.keras")
    assert loaded.window == 7 and loaded.vocabulary.tokens == words.tokens
    search = kseq.decoding.Sampling(constraints=[NO_SPECIAL_TOKENS])
    texts = []
    for each in (writer, loaded):
        keras.utils.set_random_seed(5)
        texts.append(each.generate(["한국", ""], search, max_length=23))
    assert texts[0] == texts[1]
    # The continuation may extend the last syllable, but keeps its letters.
    first, prompt = (unicodedata.normalize("NFD", t) for t in (texts[0][0], "한국"))
    assert first.startswith(prompt)


def test_each_piece_has_its_own_random_numbers(letters):
    writer = TextWriter(kseq.one_to_many(letters.size, width=2), letters, window=6)
    [text] = writer.generate(
        ["a"], kseq.decoding.Sampling(constraints=[NO_SPECIAL_TOKENS]), max_length=60
    )
    pieces = {text[i : i + 3] for i in range(6, 60, 3)}
    assert len(pieces) > 9


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"prompts": ["abcdefg"], "max_length": 7}, "prompt of 7 tokens"),
        ({"prompts": ["a"], "max_length": 0}, "`max_length`"),
        ({"prompts": "abc"}, "list of strings"),
        (
            {"prompts": ["a"], "search": kseq.decoding.Sampling(seed=3)},
            "Leave out the seed",
        ),
    ],
)
def test_rejects_invalid_requests(letters, arguments, complaint):
    writer, _ = scripted(letters, window=5)
    with pytest.raises(ValueError, match=complaint):
        writer.generate(**arguments)


def test_rejects_wrong_components(letters):
    model = kseq.one_to_many(letters.size, width=2)
    with pytest.raises(ValueError, match="must have a method `generate`"):
        TextWriter(keras.Sequential(), letters)
    with pytest.raises(ValueError, match="`vocabulary` must be"):
        TextWriter(model, ["a", "b"])
    with pytest.raises(ValueError, match="`window` must be an integer of at least 2"):
        TextWriter(model, letters, window=1)
