"""Vocabularies of words and marks and of word pieces: round trips, spaces, merges."""

import collections
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from kseq.text import TextToText, Vocabulary

TEXTS = [
    "Ein Mann, der (nach rechts) blickt.",
    'He said: "yes" - isn\'t it? 50 % of $5,000!',
    "T-Shirt und/oder Hose ...",
    "12시 땡! 오늘은 뭐하지~ ㅎㅎ^^",
    "你好，世界。「是」",
    "« Où est-ce ? »",
    "👩‍👩‍👧 🇰🇷 x²=1",
    "[UNK] ## ##ein [START] \ufffd",
]
SPLITS = ("word_and_mark", "word_piece")


def make(split, texts=TEXTS, max_tokens=997, **options):
    return Vocabulary(split, max_tokens=max_tokens, **options).adapt(texts)


def random_texts(seed, number=300):
    """Return texts in which every kind of character is beside every other."""
    alphabet = list("ab7é한  .,-\"'(&#。%$~") + ["\u0301", "😀", "\u200d", "\x1f"]
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(alphabet, rng.integers(1, 17))) for _ in range(number)]


def single_spaced(text):
    return " ".join(filter(None, text.split(" ")))


def test_a_file_of_word_pieces_is_read(tmp_path):
    path = tmp_path / "vocab.txt"
    pieces = ["play", "##ing", "한", "##국어", ".", "##.", "##e", "e"]
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_bytes("\r\n".join([*special, *pieces, ""]).encode())
    vocabulary = Vocabulary.from_word_pieces(path, lowercase=True)
    assert vocabulary.tokens[2:] == pieces
    ids = vocabulary.encode(["Playing 한국어 . Playe x"])
    symbols = vocabulary.spell(ids[0])
    space = "\N{NO-BREAK SPACE}"
    assert symbols == ["play", "##ing", "한", "##국어", space, ".", "play", "##e", "�"]
    assert vocabulary.decode(ids) == ["playing 한국어 . playe �"]
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert loaded.encode(["Playing 한국어 . Playe x"]) == ids


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not empty"),
        (b"[PAD]\n[UNK]\n", "not empty"),
        (b"a\nb\na\n", "unique. Received: 'a', 2 times"),
        (b"a\n\xff\n", "must be UTF-8"),
    ],
    ids=["empty", "special tokens only", "repeated", "not UTF-8"],
)
def test_rejects_a_file_that_holds_no_word_pieces(content, message, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_word_pieces(path)


@pytest.mark.parametrize("split", SPLITS)
def test_decoding_restores_every_text_with_single_spaces(split):
    texts = [*TEXTS, *random_texts(1)]
    vocabulary = make(split, texts, max_tokens=9973)
    decoded = vocabulary.decode(vocabulary.encode(texts, start=True, end=True))
    assert decoded == [single_spaced(text) for text in texts]


def test_word_pieces_spell_unseen_words_of_known_letters():
    vocabulary = make("word_piece", ["ein, zwei; drei", "eine zweite"], max_tokens=53)
    texts = ["weinrenner", "dreizwei, eindrei", "r;e"]
    assert vocabulary.decode(vocabulary.encode(texts)) == texts


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("space", ["\t", "\n", "\r\n", "\v", "\u00a0", "\u200a", "  "])
def test_any_white_space_is_read_as_one_space(split, space):
    vocabulary = make(split)
    text = f"{space}Ein{space}Mann{space}"
    assert vocabulary.decode(vocabulary.encode([text])) == ["Ein Mann"]


def test_marks_are_separate_symbols_with_implied_spaces():
    vocabulary = make("word_and_mark")
    [ids] = vocabulary.encode(["Mann, der (blickt)."])
    assert vocabulary.spell(ids) == ["Mann", ",", "der", "(", "blickt", ")", "."]


def test_symbols_mark_unexpected_and_missing_spaces():
    texts = ["a - b-c", "1,5 x , y"]
    vocabulary = Vocabulary("word_and_mark").adapt(texts)
    space, joined = "\N{NO-BREAK SPACE}", "\N{HAIR SPACE}"
    assert [vocabulary.spell(ids) for ids in vocabulary.encode(texts)] == [
        ["a", space, "-", space, "b", "-", "c"],
        ["1", ",", joined, "5", "x", space, ",", "y"],
    ]


@pytest.mark.parametrize(
    "symbols, text",
    [
        (["\u00a0", "a", "\u00a0", "\u200a", "b", "\u00a0"], "ab"),
        (["##a", "##b", ",", "##c", "d"], "ab, c d"),
        (["(", ")", "-", "\u00a0"], "()-"),
    ],
)
def test_decodes_symbols_that_no_text_is_encoded_to(symbols, text):
    vocabulary = Vocabulary("word_piece", max_tokens=23)
    vocabulary._set_tokens(list(dict.fromkeys(symbols)))
    ids = [vocabulary.tokens.index(symbol) + 4 for symbol in symbols]
    assert vocabulary.decode([ids]) == [text]


@pytest.mark.parametrize("letter", ["x", "한"])
def test_a_long_frequent_word_is_learned_in_pieces(letter):
    texts = [letter * 300, f"{letter * 300} a"]
    vocabulary = Vocabulary("word_piece", max_tokens=97).adapt(texts * 3)
    assert max(len(piece.encode()) for piece in vocabulary.tokens) <= 256 + len("##")
    assert vocabulary.decode(vocabulary.encode(texts)) == texts


def merged_by_brute_force(words, number):
    """Return the first merges of Sennrich et al., 3.2, by recounting all pairs."""
    words = [([w[0], *("##" + c for c in w[1:])], n) for w, n in words.items()]
    pieces = []
    while len(pieces) < number:
        pairs = collections.Counter()
        for parts, count in words:
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = best[0] + best[1][2:]
        pieces += [] if merged in pieces else [merged]
        for parts, _ in words:
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = [merged]
                i += 1
    return pieces


def test_pieces_are_learned_by_merging_the_most_frequent_pair():
    rng = np.random.default_rng(3)
    words = collections.Counter(
        "".join(rng.choice(list("abcd"), rng.integers(1, 11))) for _ in range(211)
    )
    texts = [word for word, count in words.items() for _ in range(count)]
    tokens = make("word_piece", texts, max_tokens=61).tokens
    assert set(tokens[2:10]) == {*"abcd", "##a", "##b", "##c", "##d"}
    assert tokens[10:] == merged_by_brute_force(words, 61 - 4 - 10)


def test_pieces_do_not_depend_on_the_order_of_the_texts():
    assert make("word_piece").tokens == make("word_piece", TEXTS[::-1]).tokens


def test_words_are_split_into_the_longest_pieces_from_the_left():
    vocabulary = Vocabulary("word_piece", max_tokens=23)
    vocabulary._set_tokens(["a", "ab", "##b", "##bc", "##c", "##cd", "##d"])
    [ids] = vocabulary.encode(["abcd"])
    assert vocabulary.spell(ids) == ["ab", "##cd"]


@pytest.mark.parametrize("split", SPLITS)
def test_symbols_of_spaces_are_always_in_the_vocabulary(split):
    vocabulary = make(split, ["a a", "b - b"])
    assert vocabulary.tokens[:2] == ["\N{NO-BREAK SPACE}", "\N{HAIR SPACE}"]
    assert vocabulary.decode(vocabulary.encode(["a - b-a"])) == ["a - b-a"]


def test_limits_hold_for_pieces():
    vocabulary = make("word_piece", random_texts(5), max_tokens=31)
    assert vocabulary.size == 31
    often = make("word_piece", ["aab aab ab", "c"], max_tokens=31, min_count=2)
    assert often.tokens[2:] == ["a", "##a", "b", "##b", "##ab", "aab"]


def test_a_word_with_an_unknown_letter_is_unknown():
    vocabulary = make("word_piece", ["ein Mann, ein Wort"], max_tokens=61)
    text = "ein Mönn, ein " + "x" * 3
    assert vocabulary.unknown(text) == ["Mönn", "xxx"]
    ids = vocabulary.encode([text])
    assert vocabulary.decode(ids) == ["ein \ufffd, ein \ufffd"]


def test_a_word_of_more_than_a_thousand_bytes_is_unknown():
    vocabulary = make("word_piece", ["한국 a"], max_tokens=61)
    assert vocabulary.unknown("한" * 333) == []
    assert vocabulary.unknown("한" * 334) == ["한" * 334]


@pytest.mark.parametrize("split", SPLITS)
def test_texts_are_normalized_and_lowercased_first(split):
    vocabulary = make(split, ["É, 한국"], normalization="NFD", lowercase=True)
    assert vocabulary.decode(vocabulary.encode(["É, 한국 É"])) == ["é, 한국 é"]


@pytest.mark.parametrize("split", SPLITS)
def test_ids_of_a_text_do_not_depend_on_its_batch(split):
    texts = random_texts(2, 50)
    vocabulary = make(split, texts)
    together = vocabulary.encode(texts)
    assert together == [vocabulary.encode([text])[0] for text in texts]


@pytest.mark.parametrize("split", SPLITS)
def test_a_saved_vocabulary_keeps_the_pieces(split, tmp_path):
    vocabulary = make(split, normalization="NFC")
    vocabulary.save(tmp_path / "words.json")
    loaded = Vocabulary.load(tmp_path / "words.json")
    assert loaded.tokens == vocabulary.tokens
    assert loaded.encode(TEXTS) == vocabulary.encode(TEXTS)


@pytest.mark.thorough
def test_a_saved_model_keeps_the_pieces_in_a_new_process(tmp_path):
    vocabulary = make("word_piece")
    texts = keras.Input((), dtype="string")
    keras.Model(texts, vocabulary(texts)).save(tmp_path / "model.keras")
    script = f"""
import json, keras, kseq
model = keras.saving.load_model({str(tmp_path / "model.keras")!r})
print(json.dumps(list(model.layers[-1].encode(json.loads(input())))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == vocabulary.encode(TEXTS)


def test_a_pipeline_works_with_pieces(tmp_path):
    class Echo(keras.Model):
        def generate(self, source_ids, search=None, max_length=40):
            row = np.array([[[*source_ids[0], 3]]])
            parts = {"log_probs": np.zeros((1, 1)), "lengths": [[row.shape[-1]]]}
            return type("R", (), {"token_ids": row, "attention": None, **parts})

    vocabulary = make("word_piece")
    [[best]] = TextToText(Echo(), vocabulary, vocabulary).generate(TEXTS[:1])
    assert best.text == TEXTS[0]


def test_word_pieces_need_max_tokens():
    with pytest.raises(ValueError, match="`max_tokens` must be .* at least 7"):
        Vocabulary("word_piece", max_tokens=6)
    with pytest.raises(ValueError, match="`max_tokens`.*max_tokens=None"):
        Vocabulary("word_piece")


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["\n "]])
def test_rejects_texts_without_a_piece(texts):
    with pytest.raises(ValueError, match="at least 2 times"):
        Vocabulary("word_piece", max_tokens=13, min_count=2).adapt(texts)
