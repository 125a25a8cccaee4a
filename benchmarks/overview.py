"""The main benchmarks on TensorFlow, JAX and PyTorch, which `make bench` prints.

    python benchmarks/overview.py --backends jax torch --json overview.json

For each backend: training and inference of a recurrent layer, training of a decoder
with attention and of a Transformer, and generation, each compared with the fastest
other libraries on that backend. A column is a system, a row is a measurement. The last
column is the speed of kseq divided by that of the fastest other system. All three
backends take 10 to 15 minutes on two idle cores. Needs the extra `benchmarks`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import machine

BACKENDS = ("tensorflow", "jax", "torch")
WORK = {  # script, case, and the systems to compare with on each backend
    ("recurrent.py", "lstm_2x256"): {
        "tensorflow": ["keras", "torch"],
        "jax": ["keras"],
        "torch": ["keras", "torch"],
    },
    ("attention_decoder.py", "bahdanau_gru256"): {
        "tensorflow": ["keras", "torch"],
        "jax": ["keras"],
        "torch": ["torch"],
    },
    ("train_transformer.py", "transformer_3x256"): {
        "tensorflow": ["keras_hub", "torch"],
        "jax": ["keras_hub"],
        "torch": ["torch"],
    },
    ("decode.py", "greedy"): {
        "tensorflow": ["ctranslate2"],
        "jax": ["keras_hub"],
        "torch": ["transformers"],
    },
    ("decode.py", "beam4"): {
        "tensorflow": ["ctranslate2"],
        "jax": ["keras_hub"],
        "torch": ["transformers"],
    },
}
HERE = pathlib.Path(__file__).resolve().parent


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--backends",
        nargs="+",
        choices=BACKENDS,
        default=BACKENDS,
        help="run only these backends",
    )
    add("--rounds", type=int, default=2, help="turns of each system (%(default)s)")
    add("--json", metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args(argv)
    found = {}
    for backend in options.backends:
        print(f"\n{backend}", flush=True)
        found[backend] = [measure(*work, backend, options.rounds) for work in WORK]
        print_table([row for each in found[backend] for row in each["rows"]])
        busy = [each["machine"]["busy_before"] for each in found[backend]]
        print(
            f"Cores kept busy by other processes: at most {max(busy)} "
            f"(idle: below {machine.QUIET})."
        )
    described = {**machine.describe(), "backend": ", ".join(options.backends)}
    machine.print_description(described)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


def measure(script, case, backend, rounds):
    """Run a benchmark on one backend, and return the JSON that it writes."""
    systems = ["kseq", *WORK[script, case][backend]]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "figures.json")
        command = [sys.executable, str(HERE / script), "--case", case, "--systems"]
        command += [*systems, "--rounds", str(rounds), "--json", str(path)]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return json.loads(path.read_text(encoding="utf-8"))


def print_table(rows):
    values, errors = {}, {}
    for row in rows:
        if "error" in row:
            errors[row["case"], row["system"]] = row["error"]
        elif row["metric"] not in ("compile_s", "peak_mb"):
            work = row["case"], row["metric"]
            values.setdefault(work, {})[row["system"]] = row["value"]
    systems = list(dict.fromkeys(row["system"] for row in rows))
    head = "".join(f"{system:>14}" for system in systems)
    print(f"{'case':<20}{'metric':<14}{head}{'kseq speed':>12}")
    for (case, metric), figures in values.items():
        cells = (f"{figures[s]:>14.0f}" if s in figures else " " * 14 for s in systems)
        print(f"{case:<20}{metric:<14}{''.join(cells)}{ahead(metric, figures):>12}")
    for (case, system), error in errors.items():
        print(f"{case}: {system} failed: {error}")


def ahead(metric, figures):
    """Return the speed of kseq divided by the best other speed, as `1.25 x`."""
    others = [value for system, value in figures.items() if system != "kseq"]
    if "kseq" not in figures or not others:
        return ""
    if metric == "tokens_per_s":
        return f"{figures['kseq'] / max(others):.2f} x"
    return f"{min(others) / figures['kseq']:.2f} x"


if __name__ == "__main__":
    main()
