import numpy as np
import pytest

from kseq.text import Vocabulary
from kseq.token_rows import SHOWN, TokenRows, smallest

LISTS = [[5, 6, 7], [], [8], [300, 5]]


def test_rows_behave_like_a_list_of_lists():
    rows = TokenRows.of_lists(LISTS, "uint16")
    assert rows == LISTS and LISTS == rows and list(rows) == LISTS
    assert rows != LISTS[:3] and rows != [[5, 6, 7], [], [9], [300, 5]]
    assert (len(rows), rows[0], rows[-1], rows[1:3]) == (
        4,
        LISTS[0],
        LISTS[3],
        [[], [8]],
    )
    assert rows.index([8]) == 2 and [] in rows and repr(rows) == repr(LISTS)
    assert rows + [[1]] == [*LISTS, [1]] and [[1]] + rows == [[1], *LISTS]
    assert all(type(token) is int for row in rows for token in row)
    with pytest.raises(IndexError):
        rows[4]


def test_repr_shows_only_some_of_many_rows():
    rows = TokenRows.of_lists([[5]] * (SHOWN + 1))
    assert repr(rows) == f"[[5], [5], [5], ...] ({SHOWN + 1} rows)"


def test_join_concatenates_rows():
    parts = [TokenRows.of_lists(rows) for rows in (LISTS[:2], [], LISTS[2:])]
    assert TokenRows.join(parts) == LISTS
    assert TokenRows.join([]) == [] and not TokenRows.join([])


def test_ids_are_stored_in_two_bytes_if_they_fit():
    assert [smallest(size) for size in (8, 65_536, 65_537)] == [
        "uint16",
        "uint16",
        "int32",
    ]
    rows = Vocabulary("character").adapt(["abc"]).encode(["abc", "", "cab"])
    assert rows.flat.nbytes == 2 * 6


@pytest.mark.parametrize("split", ["word", "character", "byte", "sentence_piece"])
def test_texts_are_encoded_chunk_by_chunk_from_any_iterable(split, monkeypatch):
    monkeypatch.setattr("kseq.text.encoding.CHUNK", 3)
    texts = ["a b", "b", "a a b", "", "b a", "a", "a b b"] * 3
    options = {"max_tokens": 280} if split == "sentence_piece" else {}
    vocabulary = Vocabulary(split, **options).adapt(texts)
    found = vocabulary.encode(iter(texts), start=True, end=True)
    assert found == [vocabulary.encode([t], start=True, end=True)[0] for t in texts]
    assert vocabulary.decode(found)[2] == "a a b" and vocabulary.encode([]) == []


def test_error_names_the_number_of_a_text_in_a_later_chunk(monkeypatch):
    monkeypatch.setattr("kseq.text.encoding.CHUNK", 2)
    vocabulary = Vocabulary("word").adapt(["a"])
    with pytest.raises(ValueError, match=r"texts\[3\]"):
        vocabulary.encode(["a", "a", "a", 5])


def test_rows_can_be_pickled_and_converted_to_arrays():
    import pickle

    rows = pickle.loads(pickle.dumps(TokenRows.of_lists([[1, 2], [3, 4]])))
    np.testing.assert_array_equal(np.asarray(rows), [[1, 2], [3, 4]])


def test_models_accept_rows_like_lists():
    import kseq

    model = kseq.encoder_decoder(311, 311, "rnn", "rnn", width=3)
    source = TokenRows.of_lists([[5, 6, 7], [300, 5]])
    target = TokenRows.of_lists([[5, 3], [6, 6, 3]])
    lists = model.score(list(source), list(target))
    np.testing.assert_array_equal(model.score(source, target), lists)
    prefix = TokenRows.of_lists([[9], [8, 8]])
    result = model.generate(source, max_length=4, prefix=prefix)
    assert result.token_ids[:, 0, 0].tolist() == [9, 8]
    assert len(model.generate(source, max_length=4).lengths) == 2
