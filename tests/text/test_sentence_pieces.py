"""Vocabularies of `sentencepiece`: exact round trips, and the special ids of kseq."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

import kseq
from kseq.text import TextToText, Vocabulary

MODELS = ("unigram", "bpe")
TEXTS = [
    "Ein Mann, der (nach rechts) blickt, und ein Mann, der nach links blickt.",
    "Ein Hund und ein Hund  mit zwei Hunden, hinter einem Mann.",
    "한국어 문장을 읽는 사람과 한국어 문장을 쓰는 사람",
] * 5
STRANGE = [
    "e\u0301a\u0300 \u0301",
    "👩‍👩‍👧 🇰🇷",
    "two\nlines\r\nand\ta tab\n",
    "next\u0085line\u2028separated\u2029",
    "<s> </s> <unk> <pad> <0x41> \ufffd \u2047",
    "\x01\x1f\x7f \ufeff\uffff\U0010ffff",
    "שלום",
    "▁under▁ ▁ ▅",
    "",
    " ",
    "   ",
    " lead and trail ",
    "ﬁne ①",
]


def make(model="unigram", texts=TEXTS, max_tokens=400, **options):
    options = {"max_tokens": max_tokens, "model": model, **options}
    return Vocabulary("sentence_piece", **options).adapt(texts)


@pytest.fixture(scope="module", params=MODELS)
def vocabulary(request):
    return make(request.param)


def random_texts(seed, number=300):
    alphabet = list("Mannder  ,é한국▁▅\n\t") + ["\u0301", "😀", "\u200d", "\ufffd"]
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(alphabet, rng.integers(1, 17))) for _ in range(number)]


def foreign(**options):
    """Return a model that `sentencepiece` trains with its default options."""
    writer = io.BytesIO()
    options = {"vocab_size": 90, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=writer, minloglevel=3, **options
    )
    return writer.getvalue()


def test_decoding_restores_every_text_exactly(vocabulary):
    texts = [*TEXTS[:3], *STRANGE, *random_texts(1)]
    ids = vocabulary.encode(texts, start=True, end=True)
    assert all(row[0] == 2 and row[-1] == 3 for row in ids)
    assert vocabulary.decode(ids) == texts
    assert vocabulary.unknown("漢字 ☃ ▁") == []


def test_frequent_words_are_pieces_that_include_their_space(vocabulary):
    [ids] = vocabulary.encode(["Mann und Hund"])
    assert vocabulary.spell(ids)[0] == "▁Mann"
    assert len(ids) < 6
    assert vocabulary.size == len(vocabulary.tokens) + 4 <= 400


def test_without_byte_fallback_characters_without_a_piece_are_unknown():
    vocabulary = make(max_tokens=90, byte_fallback=False)
    assert vocabulary.size <= 90
    assert vocabulary.unknown("Mann 漢字 Mann") == ["漢字"]
    [text] = vocabulary.decode(vocabulary.encode(["Mann 漢字 ▁"]))
    assert text == "Mann \ufffd  "


def test_decoding_restores_a_long_text(vocabulary):
    for text in ("x" * 100_000, "한 Mann" * 20_000):
        assert vocabulary.decode(vocabulary.encode([text])) == [text]
    assert make(texts=["Mann und Hund " * 9_999]).unknown("Mann") == []


def test_pieces_do_not_depend_on_the_kind_of_iterable(tmp_path):
    path = tmp_path / "texts"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    with open(path, encoding="utf-8") as file:
        from_file = make(texts=file)
    assert from_file.tokens == make(texts=iter(TEXTS)).tokens == make().tokens
    assert make(texts=tf.constant(TEXTS)).tokens == make().tokens


def test_texts_are_normalized_and_lowercased_first():
    vocabulary = make(normalization="NFKC", lowercase=True)
    texts = ["ﬁne ① ÉA"]
    assert vocabulary.decode(vocabulary.encode(texts)) == ["fine 1 éa"]


def test_a_saved_vocabulary_keeps_the_model(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "pieces.json")
    loaded = Vocabulary.load(tmp_path / "pieces.json")
    assert loaded.get_config().keys() == vocabulary.get_config().keys()
    assert loaded.model == vocabulary.model
    assert loaded.tokens == vocabulary.tokens
    assert loaded.encode(STRANGE) == vocabulary.encode(STRANGE)


@pytest.mark.parametrize("proto", [None, "YWJj", "?", ""])
def test_rejects_a_damaged_file(proto, tmp_path):
    path = tmp_path / "pieces.json"
    make().save(path)
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, "sentencepiece.model": proto}), "utf-8")
    with pytest.raises(ValueError, match="pieces.json is damaged"):
        Vocabulary.load(path)


def test_rejects_assets_with_other_special_ids(tmp_path):
    (tmp_path / "sentencepiece.model").write_bytes(foreign())
    with pytest.raises(ValueError, match="special ids.*'bos': 1"):
        Vocabulary("sentence_piece", max_tokens=400).load_assets(tmp_path)


def test_a_vocabulary_without_pieces_is_saved_without_pieces(tmp_path):
    vocabulary = Vocabulary("sentence_piece", max_tokens=400)
    vocabulary.save_assets(tmp_path)
    vocabulary.load_assets(tmp_path)
    assert vocabulary.tokens == []


@pytest.mark.thorough
def test_a_loaded_pipeline_keeps_its_pieces_in_a_new_process(tmp_path):
    vocabulary = make()
    model = kseq.encoder_decoder(vocabulary.size, vocabulary.size, "rnn", "rnn", 3)
    translator = TextToText(model, vocabulary, vocabulary)
    translator.save(tmp_path / "model.keras")
    expected = [best.text for [best] in translator.generate(TEXTS[:3], max_length=5)]
    script = f"""
import json, kseq
model = kseq.text.TextToText.load({str(tmp_path / "model.keras")!r})
texts = json.loads(input())
print(json.dumps([best.text for [best] in model.generate(texts, max_length=5)]))
print(json.dumps(list(model.source_vocabulary.encode(texts))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(TEXTS[:3]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    texts, ids = map(json.loads, done.stdout.splitlines()[-2:])
    assert (texts, ids) == (expected, vocabulary.encode(TEXTS[:3]))


FOREIGN = {
    "defaults": {},
    "special ids of T5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "byte fallback": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 350},
    "custom symbols": {
        "control_symbols": ["<pad>", "<mask>"],
        "user_defined_symbols": ["Mann und"],
        "pad_piece": "<x>",
    },
    "normalized": {"normalization_rule_name": "nmt_nfkc_cf"},
}


@pytest.mark.parametrize("options", FOREIGN.values(), ids=FOREIGN)
def test_a_ready_model_gives_the_pieces_and_texts_of_sentencepiece(options, tmp_path):
    path = tmp_path / "spm.model"
    path.write_bytes(foreign(**options))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocabulary = Vocabulary.from_sentence_piece(path)
    texts = [*TEXTS[:3], "Ein Mann und  漢字", "ﬁne É", ""]
    ids = vocabulary.encode(texts, start=True, end=True)
    assert all(row[0] == 2 and row[-1] == 3 for row in ids)
    spelled = [vocabulary.spell(row) for row in ids]
    known = [
        [processor.id_to_piece(i) if i != processor.unk_id() else "\ufffd" for i in row]
        for row in processor.encode(texts)
    ]
    assert spelled == known
    read = processor.decode(processor.encode(texts))
    assert vocabulary.decode(ids) == [
        text.replace(" \u2047 ", "\ufffd") for text in read
    ]
    assert vocabulary.decode([[0, 2]]) == [""]
    assert vocabulary.size == len(processor) + (processor.bos_id() < 0) + (
        processor.pad_id() < 0
    )
    again = Vocabulary.from_config(vocabulary.get_config())
    vocabulary.save_assets(tmp_path)
    again.load_assets(tmp_path)
    assert again.encode(texts) == vocabulary.encode(texts)


@pytest.mark.parametrize("proto", [b"", b"abc", b'{"kseq": 1}'])
def test_rejects_files_that_are_not_models(proto, tmp_path):
    with pytest.raises(ValueError, match="must be one of `sentencepiece`"):
        Vocabulary.from_sentence_piece(proto)
    (tmp_path / "x.model").write_bytes(proto)
    with pytest.raises(ValueError, match="x.model must be one of `sentencepiece`"):
        Vocabulary.from_sentence_piece(tmp_path / "x.model")


def test_sampled_pieces_depend_on_epoch_and_seed(vocabulary):
    rows = vocabulary.sampler(TEXTS[:3], True, True, alpha=0.3, seed=5)
    again = vocabulary.sampler(TEXTS[:3], True, True, alpha=0.3, seed=5)
    other = vocabulary.sampler(TEXTS[:3], True, True, alpha=0.3, seed=7)
    assert rows(0) == again(0) and rows(1) == again(1)
    assert len({str(cut) for cut in (rows(0), rows(1), other(0), other(1))}) == 4
    for cut in (rows(0), rows(1)):
        assert vocabulary.decode(cut) == TEXTS[:3]
        assert all(row[0] == 2 and row[-1] == 3 for row in cut)


def test_alpha_sets_the_randomness_of_sampled_pieces():
    assert make("bpe").sampler(TEXTS, alpha=0)(0) == make("bpe").encode(TEXTS)
    letters = make("bpe").sampler(["Mann"], alpha=1)(0)
    assert [len(row) for row in letters] == [len("▁Mann")]
    for alpha in (-1, 2, True, "0.1"):
        with pytest.raises(ValueError, match="`alpha` must be a number from 0 to 1"):
            make().sampler(TEXTS, alpha=alpha)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_tokens": None}, "`max_tokens`.*Received: max_tokens=None"),
        ({"max_tokens": 260}, "`max_tokens` must be an integer of at least 261"),
        ({"model": "word"}, "`model` must be one of 'unigram', 'bpe'"),
        ({"byte_fallback": 1}, "`byte_fallback` must be one of True, False"),
        ({"character_coverage": 98}, "`character_coverage` must be a number from 0"),
        ({"min_count": 2}, "`min_count` must be 1"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary("sentence_piece", **{"max_tokens": 400, **options})


def test_error_states_the_smallest_valid_max_tokens():
    with pytest.raises(ValueError, match=r"`max_tokens` must be at least (\d+)") as e:
        make(max_tokens=270)
    least = int(str(e.value).split("at least ")[1].split()[0])
    assert make(max_tokens=least).size == least
    with pytest.raises(ValueError, match="max_tokens=" + str(least - 1)):
        make(max_tokens=least - 1)


@pytest.mark.parametrize("texts", [[], [""], ["▁", "▅"]])
def test_rejects_texts_without_a_symbol(texts):
    with pytest.raises(ValueError, match="`texts` must hold a symbol"):
        make(texts=texts)


@pytest.mark.parametrize("text", ["a\0b", "a\ud83d", b"\xff"])
def test_rejects_values_that_are_not_texts(vocabulary, text):
    texts = [*TEXTS, text]
    for use in (vocabulary.encode, vocabulary.sampler, lambda x: make(texts=x)):
        with pytest.raises(ValueError, match=r"without a NUL. Received: texts\[15\]"):
            use(texts)
    with pytest.raises(ValueError, match="must be a list of strings"):
        make(texts=[3])


def test_error_names_missing_sentencepiece(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"sentencepiece.*kseq\[pieces\]"):
        make()
