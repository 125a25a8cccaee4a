"""Pretrained word vectors from files of every format."""

import gzip
import struct
import sys
import unicodedata

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import TokenEmbedding
from kseq.text import Vocabulary, read_vectors

WIDTH = 3
VECTORS = {
    "a": [0.5, -1.0, 2.0],
    "dog": [1.25, 0.0, -3.5],
    "한국어": [0.0, 4.0, 0.125],
    "unseen": [9.0, 9.0, 9.0],
    "dog dog": [7.0, 7.0, 7.0],  # some words of GloVe have spaces
}
WORDS = Vocabulary("word").adapt(["a a dog 한국어 cat"])


def lines(words):
    rows = (f"{word} {' '.join(map(str, row))}\n" for word, row in words.items())
    return "".join(rows).encode()


def binary(words, end=b"\n"):
    rows = (
        word.encode() + b" " + struct.pack(f"<{len(row)}f", *row) + end
        for word, row in words.items()
    )
    return b"".join(rows)


HEADER = f"{len(VECTORS)} {WIDTH}\n".encode()
FILES = {
    "GloVe": lines(VECTORS),
    "word2vec or fastText": HEADER + lines(VECTORS),
    "tabs": lines(VECTORS).replace(b" ", b"\t").replace(b"dog\tdog", b"dog dog"),
    "trailing spaces": HEADER + lines(VECTORS).replace(b"\n", b" \n"),
    "binary": HEADER + binary(VECTORS),
    "binary of gensim": HEADER + binary(VECTORS, b""),
    "gzip": gzip.compress(HEADER + binary(VECTORS), mtime=0),
    "NFD": unicodedata.normalize("NFD", lines(VECTORS).decode()).encode(),
}


def check(vectors, words=WORDS):
    assert repr(vectors) == "TokenVectors(found=3 of 4, width=3)"
    assert vectors.table.dtype == "float32" and vectors.table.shape == (8, WIDTH)
    for word in ("a", "dog", "한국어"):
        [[i]] = words.encode([word])
        assert vectors.is_found[i]
        assert vectors.table[i].tolist() == VECTORS[word]
    assert vectors.num_found == vectors.is_found.sum() == 3
    assert not vectors.table[0].any() and vectors.table[1:].all(axis=1).sum() >= 5


@pytest.mark.parametrize("kind", FILES)
def test_every_file_format_gives_the_same_table(kind, tmp_path):
    path = tmp_path / "vectors"
    path.write_bytes(FILES[kind])
    check(read_vectors(path, WORDS))
    check(read_vectors(str(path), WORDS))
    again = read_vectors(VECTORS, WORDS)
    check(again)
    np.testing.assert_array_equal(read_vectors(path, WORDS).table, again.table)
    assert (read_vectors(VECTORS, WORDS, seed=1).table != again.table).any()


def test_the_first_of_duplicate_words_is_used(tmp_path):
    path = tmp_path / "vectors"
    path.write_bytes(lines(VECTORS) + lines({"a": [0, 0, 0]}))
    check(read_vectors(path, WORDS))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_words_are_found_in_both_normalization_forms(form, tmp_path):
    words = Vocabulary("word", form).adapt(["한국어 abc"])
    path = tmp_path / "vectors"
    path.write_bytes(FILES["GloVe"] + b"abc 1 2 3\n")
    assert read_vectors(path, words).num_found == 2
    assert read_vectors({"한국어": [1.0]}, words).num_found == 1


def jamo(token):
    """Return Hangul as separate letters, as in some Korean files."""
    letters = {"한": "ㅎㅏㄴ", "국": "ㄱㅜㄱ", "어": "ㅇㅓ"}
    return "".join(letters.get(letter, letter) for letter in token)


def test_a_spelling_function_finds_words_that_are_spelled_differently(tmp_path):
    path = tmp_path / "vectors"
    path.write_text("ㅎㅏㄴㄱㅜㄱㅇㅓ 1 2\na 3 4\n", encoding="utf-8")
    assert read_vectors(path, WORDS).num_found == 1
    vectors = read_vectors(path, WORDS, spelling=jamo)
    assert vectors.num_found == 2
    assert vectors.table[WORDS.encode(["한국어"])[0]].tolist() == [[1, 2]]
    decomposed = {unicodedata.normalize("NFD", "한국어"): [1.0]}
    assert read_vectors(decomposed, WORDS, spelling="NFD").num_found == 1


def test_reads_gensim_vectors_and_complete_fasttext_models(tmp_path):
    gensim = pytest.importorskip("gensim.models")
    texts = [["한국어", "a"], ["a", "dog"]] * 3
    model = gensim.FastText(texts, vector_size=5, min_count=1, bucket=31, epochs=1)
    path = tmp_path / "model.bin"
    gensim.fasttext.save_facebook_model(model, str(path))
    vectors = read_vectors(path, WORDS)
    assert vectors.num_found == 4  # one of them by its subwords
    for word in ("dog", "cat"):
        found = vectors.table[WORDS.encode([word])[0]]
        np.testing.assert_allclose(found, [model.wv[word]], rtol=1e-6)
    for binary in (True, False):
        model.wv.save_word2vec_format(tmp_path / "vectors", binary=binary)
        assert read_vectors(tmp_path / "vectors", WORDS).num_found == 3
    keyed = gensim.KeyedVectors.load_word2vec_format(tmp_path / "vectors")
    assert read_vectors(keyed, WORDS).num_found == 3


def test_error_says_how_to_install_gensim(tmp_path, monkeypatch):
    path = tmp_path / "model.bin"
    path.write_bytes(b"\xba\x16\x4f\x2f")
    monkeypatch.setitem(sys.modules, "gensim.models.fasttext", None)
    with pytest.raises(ImportError, match=r"kseq\[vectors\]"):
        read_vectors(path, WORDS)


DAMAGED = {
    "empty": (b"", "with b'' as its first line"),
    "no numbers": (b"a dog\n", r"b'a dog\\n' as its first line"),
    "short line": (b"a 1 2 3\ndog 1 2\n", "b'dog 1 2' as the line of word 2"),
    "a letter": (b"a 1 2 3\ndog 1 2 x\n", "as the line of word 2"),
    "fewer words": (
        b"9 3\n" + FILES["GloVe"],
        "with 5 words where its first line says 9",
    ),
    "truncated": (FILES["binary"][:-9], "with 4 words where its first line says 5"),
    "truncated gzip": (FILES["gzip"][:-30], "gzip that is truncated"),
    "damaged gzip": (FILES["gzip"][:20] + b"\xff" * 99, "gzip that is"),
    "other words": (b"zebra 1 2 3\n", "none of its 4 tokens, such as 'a'. Check the"),
    "NaN": (b"a 1 2 nan\n", r"finite numbers, of shape \(3,\).*for 'a'"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_rejects_damaged_and_foreign_files(kind, tmp_path):
    content, message = DAMAGED[kind]
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_vectors(path, WORDS)


@pytest.mark.parametrize(
    "vectors, options, message",
    [
        (3, {}, "must be a path, or vectors by word.*Received: path_or_vectors=3"),
        ({"a": [1, 2], "dog": [1]}, {}, r"of shape \(2,\).*Received: \(1,\) for 'dog'"),
        (VECTORS, {"spelling": "jamo"}, "`spelling` must be None, one of NFC"),
        (VECTORS, {"seed": -1}, "`seed` must be an integer of at least 0"),
    ],
)
def test_rejects_invalid_arguments(vectors, options, message):
    with pytest.raises(ValueError, match=message):
        read_vectors(vectors, WORDS, **options)


def test_a_model_starts_with_the_vectors_and_saves_them(tmp_path):
    vectors = read_vectors(VECTORS, WORDS)
    embedding = TokenEmbedding.from_vectors(vectors.table, dropout=0.5)
    model = kseq.many_to_one(embedding, 2, "gru", width=5)
    np.testing.assert_array_equal(model.get_weights()[0], vectors.table)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], vectors.table)
    ids = np.array([[4, 5, 0]])
    np.testing.assert_allclose(
        loaded.predict_on_batch(ids), model.predict_on_batch(ids), rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"shape \(V, D\).*Received: list of shape"):
        TokenEmbedding.from_vectors([1.0])
