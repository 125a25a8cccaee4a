"""Sentences with a label for each word."""

from kseq.datasets.files import File, Source, github

ATIS_COMMIT = "61f0307c729b1fad479ef1de94aa5ac5dee601b0"
EWT_COMMIT = "15d613d8447b3478787d4c278730a1e48a945efb"
ATIS_PARTS = {"train": "train", "validation": "valid", "test": "test"}
EWT_PARTS = {"train": "train", "validation": "dev", "test": "test"}


def read_atis(content):
    return {
        part: tuple(
            content(f"{folder}/{name}").decode("ascii").rstrip("\n").split("\n")
            for name in ("seq.in", "seq.out", "label")
        )
        for part, folder in ATIS_PARTS.items()
    }


def read_ud_english_ewt(content):
    return {
        part: _words_and_tags(content(f"en_ewt-ud-{name}.conllu").decode("utf-8"))
        for part, name in EWT_PARTS.items()
    }


def _words_and_tags(text):
    """Reads CoNLL-U: a line for each word, an empty one after each sentence."""
    texts, tags = [], []
    for sentence in text.rstrip("\n").split("\n\n"):
        rows = [line.split("\t", 4) for line in sentence.split("\n")]
        # Not comments, words that were taken apart (1-2), or words left out (8.1).
        rows = [row for row in rows if row[0].isdigit()]
        texts.append(" ".join(word for _, word, *_ in rows))
        tags.append(" ".join(tag for _, _, _, tag, _ in rows))
    return texts, tags


def _atis_file(path, sha256):
    return File(
        path, github("MiuLab/SlotGated-SLU", ATIS_COMMIT, f"data/atis/{path}"), sha256
    )


def _ewt_file(part, sha256, any_order=False):
    path = f"en_ewt-ud-{part}.conllu"
    address = github("UniversalDependencies/UD_English-EWT", EWT_COMMIT, path)
    return File(path, address, sha256, any_order=any_order)


SOURCES = (
    Source(
        name="atis",
        summary=(
            "questions to a flight information system, with slots and intents; 4,478 "
            "to train, 500 and 893"
        ),
        licence="unclear: use it, do not pass it on",
        citation=(
            "Hemphill et al., 1990, The ATIS Spoken Language Systems Pilot Corpus; "
            "split of Goo et al., 2018, Slot-Gated Modeling for Joint Slot Filling and "
            "Intent Prediction"
        ),
        files=(
            _atis_file(
                "train/seq.in",
                "3a670980841b21ab39088b2595efc17d487cdc45769c075a3e5f9458bba28c7f",
            ),
            _atis_file(
                "train/seq.out",
                "14c7131bd66562f797dbd7189bc7358f0cf354c6afb0785a9ab973c35b58f34c",
            ),
            _atis_file(
                "train/label",
                "d0a771547665eecbdf9f96ea015ef07d1f6ee9f063e861020dafabb3c2a04377",
            ),
            _atis_file(
                "valid/seq.in",
                "c7435b96e7948393608c34819628e863c5338f11ca68e8f896d2cc041d8e17f8",
            ),
            _atis_file(
                "valid/seq.out",
                "83ccff3e36f83a993f8e5b5b82adf3256076f234abda4d784051381d7ac76922",
            ),
            _atis_file(
                "valid/label",
                "06957cfe6fdffac84f8280bc3a1f8ca85c85631b363817aa4543aac611f8addf",
            ),
            _atis_file(
                "test/seq.in",
                "4b2119fc59c37f9398c6605db435d4f467505009e6ee3e5af04fed09f39dc397",
            ),
            _atis_file(
                "test/seq.out",
                "a4690d6bceadc06876d1ff99bc401744aa981cb321e598ae12a3859d7be53254",
            ),
            _atis_file(
                "test/label",
                "ce4bfe6590d9498e1078f30b4137d3e8b3e94277b444b26360c0bf2e9e282761",
            ),
        ),
        read=read_atis,
    ),
    Source(
        name="ud_english_ewt",
        summary=(
            "sentences of the web with parts of speech, 12,544 to train, 2,001 and "
            "2,077"
        ),
        licence="CC BY-SA 4.0",
        citation="Silveira et al., 2014, A Gold Standard Dependency Corpus for English",
        files=(
            _ewt_file(
                "train",
                "a5967e4df3724078570b694163feb9216578a2692499385c1dca3faa701fc34b",
                any_order=True,
            ),
            _ewt_file(
                "dev",
                "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
            ),
            _ewt_file(
                "test",
                "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd",
            ),
        ),
        read=read_ud_english_ewt,
    ),
)
