"""Running text, without lines that mean anything."""

from kseq.datasets.files import File, Source, github

COMMIT = "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"


def read_tiny_shakespeare(content):
    text = content("input.txt").decode("ascii")
    end = int(0.9 * len(text))  # as in nanoGPT
    return {"train": (text[:end],), "validation": (text[end:],)}


SOURCES = (
    Source(
        name="tiny_shakespeare",
        summary="1,115,394 characters of Shakespeare's plays",
        licence="public domain",
        citation=(
            "Karpathy, 2015, The Unreasonable Effectiveness of Recurrent Neural "
            "Networks"
        ),
        files=(
            File(
                "input.txt",
                github("karpathy/char-rnn", COMMIT, "data/tinyshakespeare/input.txt"),
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
        read=read_tiny_shakespeare,
    ),
)
