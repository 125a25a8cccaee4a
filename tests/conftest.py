"""Fixtures for all tests: a fresh, seeded Keras, and the real data sets."""

import collections
import gc
import math
import os
import re
import zlib
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
BACKEND = os.environ["KERAS_BACKEND"]  # so that xdist need not import Keras
OF_MANY_CASES = (
    "tests/layers",
    "tests/builders",
    "tests/decoding",
    "tests/text/test_hostile_texts.py",
)
OF_VERY_MANY_CASES = "tests/test_advice.py::test_the_advice_of_a_message_works"
# Names of tests whose expected numbers come from a loop in NumPy or from a paper.
ORACLE = re.compile(
    r"_equals?_(a_|the_|two_|plain_)?(numpy_)?"
    r"(loops?|formulas?|papers?|equations|brute_force)"
)

# The same inputs in every run, so that a test does not fail by chance.
hypothesis.settings.register_profile(
    "brief", max_examples=20, derandomize=True, database=None, deadline=None
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("brief"), max_examples=500
)


def is_thorough(config):
    return config.option.markexpr == "thorough"


def pytest_configure(config):
    profile = "thorough" if is_thorough(config) else "brief"
    hypothesis.settings.load_profile(profile)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config, items):
    """Leave cases to `make test-thorough`, by marking them `thorough`.

    - Of a test marked `thorough(all_but=n)`, all cases after the first n.
    - Of any other test of layers, builders and decoding, and of hostile texts, with n
      cases, all but the square root of n. A checksum of the names chooses them, so that
      two tests of all layers keep different layers. But a test that compares with an
      oracle, as its name says, keeps all: its cases are often different classes, and
      quick.
    - Two thirds of the rows of advice.
    - On JAX and PyTorch, every second test, two thirds of the cases that the others
      have left, and two thirds of the doctests. An error on one backend alone is
      usually one of an operation, which many tests use.

    Tests of hypothesis are in both runs, with few and with many examples.
    """
    cases = collections.defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    for test, group in cases.items():
        marker = group[0].get_closest_marker("thorough")
        if marker and "all_but" in marker.kwargs:
            left = group[marker.kwargs["all_but"] :]
            for item in group:
                item.own_markers.remove(marker)
        elif test.startswith(OF_MANY_CASES) and not ORACLE.search(test):
            left = sorted(group, key=checksum)[number_of_cases(len(group)) :]
        elif test == OF_VERY_MANY_CASES or is_portable_doctest(group[0]):
            left = [item for item in group if checksum(item) % 3]
        else:
            left = []
        if BACKEND != "tensorflow" and zlib.crc32(test.encode()) % 2:
            left = group if test.startswith("tests/") else left
        for item in left:
            item.add_marker("thorough")
        for item in group if is_thorough(config) else ():
            if hypothesis.is_hypothesis_test(getattr(item, "obj", None)):
                item.add_marker("thorough")


def number_of_cases(count):
    """Return the number of cases of a test that `make test` runs."""
    root = math.isqrt(count)
    return root if BACKEND == "tensorflow" else math.ceil(root / 3)


def is_portable_doctest(item):
    return BACKEND != "tensorflow" and isinstance(item, pytest.DoctestItem)


def checksum(item):
    return zlib.crc32(item.nodeid.encode())


def pytest_collection_finish(session):
    """Collect garbage rarely, and not in modules, which saves an eighth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_runtest_teardown(item, nextitem):
    if nextitem is None or nextitem.path != item.path:
        gc.collect()  # the models and compiled functions of this file


@pytest.fixture
def untraced():
    """Run functions of TensorFlow without tracing, which takes most of the time."""
    if BACKEND != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True, scope="session")
def without_graph_optimization():
    """Skip graph optimization, which costs more time than it saves in short tests."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def fresh_seeded_keras():
    """Start each test with the same seed, the default dtype and no used names."""
    import keras

    # A full garbage collection after every test would cost more than most tests do.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def forked_servers():
    """Start searches in this process at once, without importing Keras first."""
    from kseq.tuning.trials.server import TrialServer
    from tests.forking import ForkingContext

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialServer, "context", ForkingContext())
        yield


@pytest.fixture(scope="session")
def data_set():
    """Return a function that finds the folder of a real data set by its name.

    It skips the test if KSEQ_DATA_DIR is unset, so that nobody needs the data to run
    the tests, and fails if KSEQ_DATA_DIR lacks the data set.
    """

    def find(name):
        root = os.environ.get("KSEQ_DATA_DIR")
        if not root:
            pytest.skip(f"needs the data set {name}: set KSEQ_DATA_DIR to its parent")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.fail(f"KSEQ_DATA_DIR has no data set {name}. Received: {root}")
        return folder

    return find
