"""Fixtures for all tests: a fresh, seeded Keras, and the real data sets."""

import collections
import gc
import os
import zlib
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
BACKEND = os.environ["KERAS_BACKEND"]  # so that xdist need not import Keras
PORTABLE = ("tests/layers", "tests/builders", "tests/decoding")
SEVERAL = 4

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
    """Leaves cases to `make test-thorough`: all but every n-th of a test `sampled(n)`.

    Of other tests with several cases, in the rooms that run on every backend, it leaves
    two thirds, which the checksum of their names picks; on JAX and PyTorch all but
    every twelfth of every test, two thirds of the doctests, and all of `any_backend`.
    What hypothesis draws is run by both, briefly and long.
    """
    tests = [item.nodeid.partition("[")[0] for item in items]
    counts, cases = collections.Counter(tests), collections.Counter()
    for item, test in zip(items, tests, strict=True):
        sampled = item.get_closest_marker("sampled")
        step = sampled.args[0] if sampled else 1
        is_elsewhere = BACKEND != "tensorflow"
        is_left = cases[test] % (max(step, 12) if is_elsewhere else step)
        is_picked = zlib.crc32(item.nodeid.encode()) % 3 == 0
        if step == 1 and test.startswith(PORTABLE) and counts[test] >= SEVERAL:
            is_left = is_left or cases[test] and not is_picked
        if is_elsewhere and isinstance(item, pytest.DoctestItem):
            is_left = not is_picked
        if is_left or is_elsewhere and item.get_closest_marker("any_backend"):
            item.add_marker("thorough")
        elif is_thorough(config) and hypothesis.is_hypothesis_test(item.obj):
            item.add_marker("thorough")
        cases[test] += 1


def pytest_collection_finish(session):
    """Saves an eighth of the time: garbage is looked for seldom, and not in modules."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_runtest_teardown(item, nextitem):
    if nextitem is None or nextitem.path != item.path:
        gc.collect()  # the models and compiled functions of this file


@pytest.fixture
def untraced():
    """Lets TensorFlow run without tracing, where that takes most of the time."""
    if BACKEND != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True, scope="session")
def graphs_as_they_are():
    """Saves a fifth of what a graph costs: few of them run longer than that takes."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def fresh_seeded_keras():
    """Starts each test with the same seed, the default dtype and no used names."""
    import keras

    # A full garbage collection after every test would cost more than most tests do.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def forked_servers():
    """Lets searches in this process start at once, instead of importing Keras first."""
    from kseq.tuning.trials.server import TrialServer
    from tests.forking import Forking

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialServer, "context", Forking())
        yield


@pytest.fixture(scope="session")
def data_set():
    """Finds a real data set by name: `data_set("multi30k")` is the path of its folder.

    Skips the test where KSEQ_DATA_DIR is unset, so that nobody needs the data to run
    the tests, and fails where it is set but lacks the data set.
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
