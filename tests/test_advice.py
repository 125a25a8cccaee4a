"""Advice in error messages, and calls that follow it.

A message of kseq gives its advice after "Received: ...". Each advice has a row in a
table of `tests/advice`, one file for each topic, or a test that is named in
`ELSEWHERE`. A row is a call that raises, the whole advice, and a call that follows it.
"""

import ast
import configparser
import importlib
import re
from pathlib import Path

import keras
import pytest

import kseq
from kseq.layers import RecurrentDecoder
from tests.helpers import random_array

ROOT = Path(__file__).parents[1]
TOPICS = "builders corpora datasets decoding images layers plots text training".split()
TOPICS += ["numbers", "tuning"]
TABLES = {
    topic: importlib.import_module(f"tests.advice.{topic}").ADVICE for topic in TOPICS
}
ROWS = {
    f"{topic}: {name}": row
    for topic, table in TABLES.items()
    for name, row in table.items()
}
ONLY_ON = {  # other backends accept these calls, or lack the feature
    "layers: a ragged tensor": ["tensorflow"],
    "layers: a mask of floats in a compiled function": ["tensorflow", "jax"],
    "layers: a second gradient": ["tensorflow", "jax"],
    "layers: a second gradient of a decoder": ["tensorflow"],
    "layers: a second gradient of an encoder": ["tensorflow", "jax"],
    "training: a second gradient of a loss": ["tensorflow", "jax"],
}

# Advice that needs downloads, processes or packages, and the test that follows it.
ELSEWHERE = {
    'Use format="tf_saved_model".': (
        "tests/text/test_sources.py::test_an_export_takes_texts_by_name"
    ),
    "Use `pipeline.model.export_generation` for a file from token ids to token ids.": (
        "tests/builders/test_exporting.py::test_exported_files_match_generate"
    ),
    "Use `...(path)`.": (
        "tests/text/test_exporting.py::test_a_graph_returns_the_texts_of_generate"
    ),
    "Download it from ..., or use no folder of your own: kseq then downloads it.": (
        "tests/datasets/test_datasets.py::test_error_names_a_folder_without_the_data_set"
    ),
    "It is damaged, incomplete or another version. Delete it, and download it again.": (
        "tests/datasets/test_datasets.py::test_rejects_a_damaged_file_in_the_cache"
    ),
    "Nothing was kept. Try again when there is a connection, or ...": (
        "tests/datasets/test_datasets.py::test_a_file_at_the_advised_path_is_read"
    ),
    "Set KSEQ_DATA_DIR to your own folder, and put the file into its subfolder ....": (
        "tests/datasets/test_pictures.py"
        "::test_error_says_where_files_without_an_address_go"
    ),
    "Save the model, and load and export it in a process with "
    "KERAS_BACKEND=tensorflow.": (
        "tests/builders/test_exporting.py"
        "::test_models_of_other_backends_are_exported_with_tensorflow"
    ),
    'Export it as "tf_saved_model", which supports every model.': (
        "tests/builders/test_exporting.py::test_exported_files_match_generate"
    ),
    "Pass other options to CTranslate2 when you call it, or export as "
    '"onnx" or "tf_saved_model".': (
        "tests/builders/test_exporting.py::test_exported_files_match_generate"
    ),
    'Export the original model, with `quantization="int8"`.': (
        "tests/builders/test_ctranslate2.py"
        "::test_a_quantized_export_is_smaller_and_nearly_as_good"
    ),
    "Wait for it, or use another.": (
        "tests/tuning/trials/test_journal.py"
        "::test_two_searches_cannot_share_a_directory_at_once"
    ),
    "Make the same call with a new one; it goes on from here.": (
        "tests/tuning/trials/test_executors.py"
        "::test_broken_pool_ends_the_search_and_another_resumes_it"
    ),
    "Look at the logs of the executor's workers, or at the memory of this host; the "
    "same call continues.": (
        "tests/tuning/trials/test_executors.py"
        "::test_an_executor_that_loses_all_trials_ends_the_search"
    ),
    'A script that searches needs `if __name__ == "__main__":` around the call; its '
    "messages are above.": (
        "tests/tuning/test_prompt.py::test_a_script_needs_a_guard_around_its_search"
    ),
    "Move `...` to the top of the script, above `if __name__ ...`.": (
        "tests/tuning/test_prompt.py::test_a_function_under_the_guard_is_named"
    ),
    **{
        f"Install it{advice}": (
            "tests/test_advice.py::test_advised_packages_contain_the_missing_module"
        )
        for advice in (
            " with `pip install kseq[export]`.",
            " with `pip install kseq[pieces]`.",
            " with `pip install kseq[plots]`.",
            " with `pip install kseq[torch]`.",
            " with `pip install kseq[vectors]`.",
            " with `pip install kseq[tuning]`, or use `table()`, which needs nothing.",
            " with `pip install tensorflow-text`.",
            ": pip install kseq[metrics]",
            ": pip install tensorboard.",
        )
    },
}
PACKAGES = {
    "kseq[export]": "tf2onnx",
    "kseq[pieces]": "sentencepiece",
    "kseq[plots]": "matplotlib",
    "kseq[metrics]": "sacrebleu",
    "kseq[torch]": "torch",
    "kseq[tuning]": "pandas",
    "kseq[vectors]": "gensim",
    "tensorboard": "tensorboard",
    "tensorflow-text": "tensorflow-text",
}
SLOT = "\0"  # a placeholder for an expression in braces


@pytest.mark.usefixtures("forked_servers")
@pytest.mark.parametrize("name", ROWS)
def test_the_advice_of_a_message_works(name, tmp_path, monkeypatch):
    if keras.backend.backend() not in ONLY_ON.get(name, [keras.backend.backend()]):
        pytest.skip(f"holds on {ONLY_ON[name]}")
    monkeypatch.chdir(tmp_path)
    bad, advice, good = ROWS[name]
    with pytest.raises((ValueError, NotImplementedError)) as error:
        bad()
    assert advice in str(error.value)
    good()


def test_every_advice_has_a_row_or_a_test():
    followed = [*ELSEWHERE, *(advice for _, advice, _ in ROWS.values())]
    left = [
        f"{place}: {advice.replace(SLOT, '...')}"
        for place, message in messages()
        if (advice := advice_of(message)) and not any(fits(advice, x) for x in followed)
    ]
    assert left == []


def test_advice_elsewhere_and_its_tests_exist():
    given = [advice for _, message in messages() if (advice := advice_of(message))]
    assert [x for x in ELSEWHERE if not any(fits(advice, x) for advice in given)] == []
    for path, _, test in (where.partition("::") for where in ELSEWHERE.values()):
        assert f"def {test}(" in (ROOT / path).read_text("utf-8")


def test_advised_packages_contain_the_missing_module():
    text = " ".join(message for _, message in messages())
    named = re.findall(r"pip install ([\w-]+(?:\[\w+\])?)", text)
    assert set(named) == set(PACKAGES)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    for name, package in PACKAGES.items():
        extra = name.removeprefix("kseq[").rstrip("]")
        requirements = config["options.extras_require"].get(
            extra, config["options"]["install_requires"]
        )
        assert re.search(rf"^{package}\b", requirements, re.M)


def messages():
    """Yield every error message of kseq, with its file and line.

    An expression in braces is replaced by `SLOT`.
    """
    for path in sorted((ROOT / "kseq").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Raise(exc=ast.Call(args=[message, *_])):
                    text = text_of(message)
                case ast.Assign(value=value) if "Received" in text_of(value):
                    text = text_of(value)
                case _:
                    continue
            yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def text_of(node):
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
        case ast.BinOp(left=text, op=ast.Mult()) | ast.IfExp(body=text):
            return text_of(text)
    return SLOT


def advice_of(message):
    """Return the sentences after "Received: ...", or else after the first; or None."""
    before, received, after = message.partition("Received")
    found = re.search(r"\. ([A-Z\d`].*)", after if received else before, re.S)
    return found and found[1]


def fits(advice, text):
    return re.fullmatch(".*".join(map(re.escape, advice.split(SLOT))), text, re.S)


B, T, S, D, U = 2, 3, 5, 6, 4
INPUTS, MEMORY = random_array(B, T, D), random_array(B, S, D)
STATE = random_array(B, U)


@pytest.mark.parametrize(
    "states",
    [[[random_array(B, U + 1)]], [[random_array(B + 1, U)]], [[STATE, STATE]]],
    ids=["other width", "other rows", "other number"],
)
@pytest.mark.parametrize("bridge", ["dense", "copy"])
def test_a_built_decoder_rejects_states_of_other_sizes(bridge, states):
    decoder = RecurrentDecoder("gru", U, bridge=bridge)
    decoder(INPUTS, MEMORY, initial_state=[[STATE]])
    with pytest.raises(ValueError, match="`initial_state` must have the sizes"):
        decoder(INPUTS, MEMORY, initial_state=states)


def test_generate_rejects_an_unknown_argument():
    model = kseq.encoder_decoder(source=11, target=13, width=8)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        model.generate([[4, 5]], colour=3)
