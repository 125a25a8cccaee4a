"""Describe the machine of a benchmark: processor, versions, backend and load."""

import importlib.metadata
import os
import pathlib
import platform
import time

import numpy as np

PACKAGES = (
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "keras-hub",
    "transformers",
    "ctranslate2",
)
QUIET = 0.5  # busy cores below which the machine counts as idle


def describe():
    """Return a description of the machine as a dictionary for JSON."""
    return {
        "processor": processor(),
        "vector_units": vector_units(),
        "cores": len(os.sched_getaffinity(0)),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "versions": versions(),
    }


def print_description(machine):
    units = ", ".join(machine["vector_units"]) or "no known vector units"
    print(f"{machine['processor']} ({units}), {machine['cores']} cores available")
    names = (f"{name} {version}" for name, version in machine["versions"].items())
    print(f"Keras backend: {machine['backend']}; {', '.join(names)}")


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def vector_units():
    """Return the vector units of the processor that decide the speed of products."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    flags = set(text.split())
    found = {
        "AVX2": "avx2" in flags,
        "AVX-512": "avx512f" in flags,
        "AVX512-BF16": "avx512_bf16" in flags,
        "AMX": "amx_tile" in flags,
    }
    return [name for name, is_there in found.items() if is_there]


def versions():
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def busy_beside(seconds=2.0):
    """Return how many cores other processes keep busy while this one sleeps."""
    before, began = _busy_jiffies(), time.perf_counter()
    if before is None:
        return None
    time.sleep(seconds)
    ticks = os.sysconf("SC_CLK_TCK") * (time.perf_counter() - began)
    return round((_busy_jiffies() - before) / ticks, 2)


def _busy_jiffies():
    """Return the busy time of all cores since boot, stolen time included."""
    try:
        first = pathlib.Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, irq, soft_irq, steal, *_ = map(int, first.split()[1:])
    return user + nice + system + irq + soft_irq + steal


def matrix_speed(size=2048, repeats=5):
    """Return the speed of a large float32 matrix product, in GFLOP/s."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype("float32")
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        np.matmul(a, b)
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times) / 1e9
