"""A translator exported as a graph of strings: the same texts as `generate`, and speed.

    python benchmarks/strings.py --load multi30k/model.keras
    python benchmarks/strings.py --load multi30k/model.keras --texts 1000 --fresh

The file is exported and loaded in a process that cannot import kseq. The graph then
gets the same batches of texts as `generate` in this process, which is measured twice,
before and after the graph. Both run every batch once before they are timed. The speed
counts tokens of the target vocabulary in the generated texts. With `--fresh` the graph
runs in a new environment with only TensorFlow and tensorflow-text, in the versions
installed here.

It exits with an error if more than one text in 200 differs.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import venv

from machine import busy_beside, describe, print_description
from serve import texts_of

PACKAGES = ("tensorflow", "tensorflow-text")
SERVE = """
import importlib.util, json, pathlib, sys, time
sys.modules["kseq"] = None  # makes an import of kseq fail
path, name, texts, size, rounds = json.load(sys.stdin)
import tensorflow as tf
import tensorflow_text
served = tf.saved_model.load(path).signatures["serving_default"]
batches = [texts[first : first + size] for first in range(0, len(texts), size)]

def write():
    for batch in batches:
        yield from served(**{name: tf.constant(batch)})["texts"].numpy()[:, 0].tolist()

written, seconds = list(write()), []
for _ in range(rounds):
    began = time.perf_counter()
    again = list(write())
    seconds.append(time.perf_counter() - began)
    assert again == written
print(json.dumps([[text.decode() for text in written], min(seconds)]))
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--load", required=True, metavar="FILE", help="saved translator to export"
    )
    parser.add_argument("--lines", metavar="FILE", help="file with one text per line")
    parser.add_argument(
        "--texts", type=int, default=1000, help="number of texts (%(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=50, help="texts in a batch (%(default)s)"
    )
    parser.add_argument(
        "--beams", type=int, default=1, help="number of beams (%(default)s)"
    )
    parser.add_argument(
        "--max-length",
        type=int,
        default=80,
        help="maximum number of tokens in an output (%(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds; the best counts (%(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="use a new environment")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args()
    machine = {**describe(), "busy_beside": busy_beside()}
    print_description(machine)
    import kseq

    pipeline = kseq.text.load(options.load)
    search = kseq.decoding.BeamSearch(options.beams) if options.beams > 1 else None
    texts = sorted(texts_of(options), key=len)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "graph")
        pipeline.export_generation(path, search, options.max_length)
        python = fresh_python(folder) if options.fresh else sys.executable
        written, seconds = {}, {}
        for name in ("generate", "graph", "generate again"):
            if name == "graph":
                found = by_graph(python, path, texts, options)
            else:
                found = by_generate(pipeline, texts, search, options)
            written[name], seconds[name] = found
    tokens = sum(map(len, pipeline.target_vocabulary.encode(written["generate"])))
    speeds = {name: tokens / value for name, value in seconds.items()}
    for name, speed in speeds.items():
        print(f"{name:<16}{speed:>12,.0f} tokens/s")
    generate = (speeds["generate"] + speeds["generate again"]) / 2
    pairs = zip(written["graph"], written["generate"], strict=True)
    others = sum(one != other for one, other in pairs)
    print(f"The graph is {speeds['graph'] / generate:.3f} times as fast as `generate`.")
    print(f"{others} of {len(texts)} texts differ.")
    if options.json:
        figures = {
            "tokens_per_s": speeds,
            "times_generate": {"graph": speeds["graph"] / generate},
            "other_texts": {"graph": others},
        }
        rows = [
            {"case": "strings", "system": name, "metric": metric, "value": value}
            for metric, values in figures.items()
            for name, value in values.items()
        ]
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=1)
    if others > len(texts) // 200:
        sys.exit("The graph must return the same texts as `generate`.")


def by_generate(pipeline, texts, search, options):
    """Return the texts of `generate`, and its seconds."""
    size = options.batch_size
    batches = [texts[first : first + size] for first in range(0, len(texts), size)]

    def write():
        for batch in batches:
            results = pipeline.generate(batch, search, options.max_length)
            yield from (best.text for best, *_ in results)

    written, seconds = list(write()), []
    for _ in range(options.rounds):
        began = time.perf_counter()
        list(write())
        seconds.append(time.perf_counter() - began)
    return written, min(seconds)


def by_graph(python, path, texts, options):
    """Return the texts of the graph in its own process, and its seconds."""
    asked = [str(path), "texts", texts, options.batch_size, options.rounds]
    done = subprocess.run(
        [python, "-c", SERVE], input=json.dumps(asked), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def fresh_python(folder):
    """Return the Python of a new environment with the two packages of a graph."""
    import importlib.metadata

    home = pathlib.Path(folder, "environment")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    return python


if __name__ == "__main__":
    main()
