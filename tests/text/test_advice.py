"""Code in error messages of `kseq.text`, which corrects the argument."""

import keras
import numpy as np
import pytest

import kseq
from kseq.text import TextToLabels, Vocabulary

WORDS = Vocabulary("word").adapt(["Anna works here"])  # Anna, here, works
SYMBOLS = Vocabulary(None).adapt([["Anna", "works"]])


class Result:
    token_ids = np.array([[[4, 5, 3], [4, 3, 0]]])


LABELS = TextToLabels(
    kseq.many_to_many(SYMBOLS.size, 2, width=3), SYMBOLS, ["name", "verb"]
)
LONG = "Anna works and works " * 9

# A call, its argument, a wrong value, the advice, and the result of the advised call.
IN_CODE = [
    (WORDS.encode, "texts", "Anna works", "[texts]", [[4, 6]]),
    (WORDS.encode, "texts", LONG, "[texts]", [[4, 6, 1, 6] * 9]),
    (WORDS.encode, "texts", [["Anna", "b"]], '[" ".join(x) for x in texts]', [[4, 1]]),
    (SYMBOLS.encode, "texts", ["Anna works"], "[x.split() for x in texts]", [[4, 5]]),
    (SYMBOLS.encode, "texts", [["Anna"], "works"], None, None),
    (SYMBOLS.encode, "texts", "Anna works", "[texts.split()]", [[4, 5]]),
    (LABELS.label_ids, "names", "verb", "[names]", [1]),
    (WORDS.decode, "ids", 4, "[[ids]]", ["Anna"]),
    (WORDS.decode, "ids", [4, 5], "[ids]", ["Anna here"]),
    (WORDS.decode, "ids", np.array([4, 5]), "[ids]", ["Anna here"]),
    (WORDS.decode, "ids", keras.ops.array([4, 5]), "[ids]", ["Anna here"]),
    (WORDS.decode, "ids", [[[4, 5]]], "[row[0] for row in ids]", ["Anna here"]),
    (WORDS.decode, "ids", Result.token_ids, "[row[0] for row in ids]", ["Anna here"]),
    (WORDS.decode, "ids", Result(), "ids.token_ids[:, 0]", ["Anna here"]),
]


@pytest.mark.parametrize("call, name, wrong, advice, result", IN_CODE)
def test_code_in_a_message_corrects_the_argument(call, name, wrong, advice, result):
    with pytest.raises(ValueError, match=f"`{name}` must be") as error:
        call(wrong)
    if advice:
        assert str(error.value).endswith(f"`{advice}`.")
        assert call(eval(advice, {name: wrong})) == result


def test_the_advised_split_of_a_text_gives_a_label_for_each_word():
    with pytest.raises(ValueError, match=r"texts\[0\]='Anna works'") as error:
        LABELS.label(["Anna works"])
    advice = str(error.value).split("`")[-2]
    [labels] = LABELS.label(eval(advice, {"texts": ["Anna works"]}))
    assert len(labels) == 2
