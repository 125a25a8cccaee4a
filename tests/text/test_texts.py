"""Texts of vocabularies: lower case, invalid values, kinds of batches, round trips."""

import itertools
import json
import os
import subprocess
import sys
import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kseq.text import Vocabulary
from kseq.text.tokenizers import COMPOSED, FIXED, SPLITS, WHOLE

LOWERCASE_PROGRAM = """
import json, sys, unicodedata
from kseq.text import Vocabulary
characters = (chr(code) for code in range(1, 0x2000))
cased = [c for c in characters if unicodedata.category(c) == "Lu"]
accented = [c + "\\u0303\\u0307" for c in cased]
texts = ["TITLE", *cased, *accented, "\\u03a3\\u0391\\u03a3 I"]
words = Vocabulary("character", lowercase=True).adapt(texts)
ids = list(words.encode(texts))
print(json.dumps([words.tokens, ids, words.decode(ids)]))
"""


def lowercase_in_locale(language):
    env = {k: value for k, value in os.environ.items() if not k.startswith("LC_")}
    env["LANG"] = language
    command = [sys.executable, "-c", LOWERCASE_PROGRAM]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("language", ["tr_TR.UTF-8", "lt_LT.UTF-8", "az_AZ"])
def test_lowercasing_does_not_depend_on_the_locale(language):
    here = {"__name__": "here"}
    printed = []
    exec(LOWERCASE_PROGRAM, {**here, "print": printed.append})
    expected = json.loads(printed[0])
    assert expected[2][0] == "title" and expected[2][-1] == "σας i"
    assert lowercase_in_locale(language) == expected


INVALID_TEXTS = {
    "NUL": "a\0b",
    "NUL in bytes": b"a\0b",
    "Latin-1": b"caf\xe9",
    "truncated UTF-8": "é".encode()[:1],
    "lone surrogate": "a\ud83db",
}


def adapt_vocabulary(vocabulary, texts):
    Vocabulary(vocabulary.split, max_tokens=997).adapt(texts)


def encode_texts(vocabulary, texts):
    vocabulary.encode(texts)


@pytest.mark.parametrize("use", [adapt_vocabulary, encode_texts])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", INVALID_TEXTS)
def test_error_names_an_invalid_text_and_corrects_it(use, split, kind):
    if split in FIXED and use is adapt_vocabulary:
        pytest.skip("has fixed tokens and reads no texts")
    texts = ["a b", "c", INVALID_TEXTS[kind], "d"]
    texts = texts if split else [["x", text] for text in texts]
    vocabulary = Vocabulary(split, max_tokens=997).adapt(texts[:2])
    place = r"texts\[2\]" if split else r"texts\[2\]\[1\]"
    with pytest.raises(ValueError, match=f"without a NUL. Received: {place}=") as error:
        use(vocabulary, texts)
    advice = str(error.value).split("`")[-2]
    mended = eval(advice, {"texts": texts})
    if split:
        texts[2] = mended
    else:
        texts[2][1] = mended
    use(vocabulary, texts)


def test_error_names_an_invalid_text_in_arrays_tensors_and_long_iterables():
    letters = Vocabulary("character").adapt(["ab"])
    for texts in (np.array([b"a", b"\xff"]), tf.constant(["a", "\0"])):
        with pytest.raises(ValueError, match=r"texts\[1\]"):
            letters.encode(texts)
    symbols = Vocabulary(None).adapt([["a"]])
    with pytest.raises(ValueError, match=r"texts\[1\]\[0\]"):
        symbols(tf.ragged.constant([["a"], ["\0"]]))
    many = itertools.chain(itertools.repeat("a", 10_003), ["b\0"])
    with pytest.raises(ValueError, match=r"texts\[10003\]"):
        Vocabulary("word").adapt(many)
    with pytest.raises(ValueError, match=r"texts\[10003\]=None"):
        Vocabulary("word").adapt([*["a"] * 10_003, None])


STRANGE = [
    "",
    " ",
    "a b, (c) und Mann  c",
    "\u00c9, 한국 e\u0301 \u0301",
    "👩\u200d👩\u200d👧 🇰🇷",
    "two\nlines\r\nand\ta tab\x01\x7f",
    "<s> <0x41> ## \ufffd ▁ \u2028",
    "שלום",
]


@pytest.mark.parametrize("form, lowercase", [(None, False), ("NFD", True)])
@pytest.mark.parametrize("split", [split for split in SPLITS if split])
def test_calls_equal_encode_for_lists_arrays_tensors_and_datasets(
    split, form, lowercase
):
    max_tokens = 340 if split in WHOLE else 37
    vocabulary = Vocabulary(split, form, lowercase, max_tokens).adapt(STRANGE[2:] * 3)
    texts = [*STRANGE, "new ☃"]
    ids = vocabulary.encode(texts, start=True, end=True)
    width = max(map(len, ids))
    expected = [row + [0] * (width - len(row)) for row in ids]

    def read(batch):
        return vocabulary(batch, start=True, end=True)

    for batch in (texts, np.array(texts, object), tf.constant(texts)):
        called = keras.ops.convert_to_numpy(read(batch))
        assert called.dtype == "int32"
        assert called.tolist() == expected
    dataset = tf.data.Dataset.from_tensors(texts).map(read)
    assert next(dataset.as_numpy_iterator()).tolist() == expected


# Characters with special treatment are sampled more often than others.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\0")
SPECIAL = st.sampled_from(
    " \t\n\x1f\x85\u00a0\u200a.,'\"(#-$I\u03a3\u0130\u00e9\u0301\ud55c\u200d"
)
TEXTS = st.lists(st.text(CHARACTERS | SPECIAL, max_size=17), min_size=1, max_size=5)


def single_spaced(text):
    def is_space(c):
        return unicodedata.category(c)[0] == "Z" or c in "\t\n\v\f\r\x85"

    words = "".join(" " if is_space(c) else c for c in text).split(" ")
    return " ".join(word for word in words if word)


@given(
    texts=TEXTS,
    split=st.sampled_from(["character", "word", "word_and_mark", "word_piece"]),
    form=st.sampled_from(list(COMPOSED)),
    lowercase=st.booleans(),
)
def test_decoding_restores_every_normalized_text(texts, split, form, lowercase):
    vocabulary = Vocabulary(split, form, lowercase, max_tokens=997)
    if any(map(single_spaced, texts)):
        vocabulary.adapt(texts)
        decoded = vocabulary.decode(vocabulary.encode(texts, start=True, end=True))
        assert decoded == [normalized(text, split, form, lowercase) for text in texts]


def normalized(text, split, form, lowercase):
    text = unicodedata.normalize(form, text) if form else text
    text = text.lower() if lowercase else text
    text = text if split == "character" else single_spaced(text)
    return unicodedata.normalize(COMPOSED[form], text) if form else text


@given(st.lists(st.lists(st.text(CHARACTERS, min_size=1)), min_size=1))
def test_decoding_restores_ready_symbols(rows):
    if any(rows):
        vocabulary = Vocabulary(None).adapt(rows)
        assert vocabulary.decode(vocabulary.encode(rows)) == rows


@pytest.mark.parametrize("split", ["word", None])
def test_rejects_a_dictionary_of_texts(split):
    vocabulary = Vocabulary(split).adapt(["a b"] if split else [["a", "b"]])
    for method in (vocabulary.encode, vocabulary.adapt):
        with pytest.raises(ValueError, match="must be a list of.*Received: texts={'a'"):
            method({"a": 1})
