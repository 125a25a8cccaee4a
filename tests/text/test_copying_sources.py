"""Unknown words that a model copies from one of several sources.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens.
"""

import types

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch
from kseq.text import TextToText, Vocabulary, alignment
from tests.text.test_copying import KNOWN, NEW, random_texts

UNKNOWN, END = 1, 3


class CopyistOfSources(keras.Model):
    """A stub that writes the words of both sources, in turn, as unknown tokens.

    Step `2 i` attends to word `i` of "left", step `2 i + 1` to word `i` of "right". The
    attention to "read", a source that is only read, is greater.
    """

    def __init__(self, attends=True, heads=(), **kwargs):
        super().__init__(**kwargs)
        ids = {"left": True, "read": False, "right": [0, 1, 2, 3, UNKNOWN, UNKNOWN]}
        self.pointer_generator = types.SimpleNamespace(alignment=ids)
        self.attends, self.heads = attends, heads
        self.built, self.scored = True, []

    def generate(self, source, search=None, max_length=40, **options):
        rows = [
            [UNKNOWN] * (len(left) + len(right))
            for left, right in zip(source["left"], source["right"], strict=True)
        ]
        longest = 1 + max(map(len, rows))
        token_ids = np.zeros((len(rows), 1, longest), "int32")
        for b, row in enumerate(rows):
            token_ids[b, 0, : len(row) + 1] = [*row, END]
        return types.SimpleNamespace(
            token_ids=token_ids,
            log_probs=np.zeros((len(rows), 1)),
            lengths=np.array([[len(row) + 1] for row in rows]),
            attention=self.attention(source, longest) if self.attends else None,
        )

    def generate_stream(self, source, **options):
        yield from self.generate(source).token_ids[:, 0].T

    def score(self, source, target, return_attention_scores=False):
        self.scored.append(source)
        return None, self.attention(source, np.shape(target)[-1])

    def attention(self, source, length):
        result = {}
        for name, rows in source.items():
            weights = np.zeros((len(rows), 1, length, max(map(len, rows))))  # B N T S
            for t in range(length):
                is_turn = name == ("left", "right")[t % 2]
                if is_turn and t // 2 < weights.shape[-1]:
                    weights[:, 0, t, t // 2] = 0.2
            if name == "read":
                weights[:] = 0.8
            if self.heads:
                noise = np.random.default_rng(1).uniform(0, 9, (*self.heads, 1, 1))
                weights = weights[:, :, None, None] + noise * (name == "read")
                weights[:, :, :-1] = 5.0 * (name == "right")  # other layers
            result[name] = weights
        return result


TEXTS = {
    "left": ["Kim Ann", "Pak", "Ngozi"],
    "read": ["x", "y z", ""],
    "right": ["cat Lee", "the", ""],
}
EXPECTED = ["Kim cat Ann Lee", "Pak the", "Ngozi"]


def pipeline(**options):
    target = Vocabulary("word").adapt(["saw"])
    sources = {
        "left": target,
        "read": Vocabulary("word").adapt(["x y"]),
        "right": Vocabulary("word").adapt(["cat the"]),
    }
    return TextToText(CopyistOfSources(**options), sources, target)


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("heads", [(), (2, 3)])
def test_unknown_words_are_spelled_as_in_the_attended_source(attends, heads):
    inflector = pipeline(attends=attends, heads=heads)
    assert [best.text for [best] in inflector.generate(TEXTS)] == EXPECTED
    assert bool(inflector.model.scored) == (not attends)


def test_streams_spell_the_same_words():
    inflector = pipeline()
    expected = [best.text for [best] in inflector.generate(TEXTS)]
    pieces = list(inflector.generate_stream(TEXTS))
    assert ["".join(each) for each in zip(*pieces, strict=True)] == expected


def test_texts_of_each_source_may_be_iterators_or_blank():
    inflector = pipeline()
    expected = [best.text for [best] in inflector.generate(TEXTS)]
    iterators = {name: iter(texts) for name, texts in TEXTS.items()}
    assert [best.text for [best] in inflector.generate(iterators)] == expected
    blank = {name: ["", *texts] for name, texts in TEXTS.items()}
    results = inflector.generate(blank, allow_blank=True)
    assert [best.text for [best] in results] == ["", *expected]
    pieces = list(inflector.generate_stream(blank, allow_blank=True))
    assert ["".join(x) for x in zip(*pieces, strict=True)] == ["", *expected]


@pytest.mark.thorough
def test_unseen_letters_of_the_lemma_appear_in_the_form(tmp_path):
    """The form is the lemma and an ending, which depends on the tags."""
    lemmas = random_texts(2000, KNOWN, seed=0)
    tags = random_texts(2000, "PG", seed=1, length=(1, 2))
    endings = {"P": "a", "G": "bb"}

    def inflected(lemmas, tags):
        return [x + endings[tag] for x, tag in zip(lemmas, tags, strict=True)]

    forms = inflected(lemmas, tags)
    letters = Vocabulary("character", max_tokens=19).adapt(lemmas)
    target_letters = Vocabulary("character", max_tokens=21).adapt(forms)
    features = Vocabulary("character").adapt(tags)
    keras.utils.set_random_seed(1)
    model = kseq.encoder_decoder(
        {"lemma": letters.size, "tags": features.size},
        target_letters.size,
        width=48,
        copy={"lemma": alignment(letters, target_letters)},
    )
    source = {"lemma": letters.encode(lemmas), "tags": features.encode(tags)}
    target = target_letters.encode(forms, start=True, end=True)
    model.compile(
        keras.optimizers.Adam(5e-3, global_clipnorm=1.0),
        kseq.training.SequenceCrossentropy(label_smoothing=0.02),
    )
    batches = kseq.training.teacher_forcing(source, target, 64, seed=1)
    model.fit(batches, epochs=8, verbose=0)
    sources = {"lemma": letters, "tags": features}
    inflector = TextToText(model, sources, target_letters)

    texts = {
        "lemma": random_texts(100, KNOWN[:12] + NEW, seed=5),
        "tags": random_texts(100, "PG", seed=6, length=(1, 2)),
    }
    for search in (None, BeamSearch(3)):
        results = inflector.generate(texts, search)
        generated = [best.text for best, *_ in results]
        pairs = zip(generated, inflected(*texts.values()), strict=True)
        assert np.mean([a == b for a, b in pairs]) > 0.9
    expected = [best.text for [best] in inflector.generate(texts)]
    inflector.save(tmp_path / "forms.keras")
    loaded = TextToText.load(tmp_path / "forms.keras")
    assert [best.text for [best] in loaded.generate(texts)] == expected
    few = {name: each[:10] for name, each in texts.items()}
    pieces = list(loaded.generate_stream(few))
    assert ["".join(x) for x in zip(*pieces, strict=True)] == expected[:10]
