"""Time as the work grows: longer texts, more beams, larger batches and vocabularies.

    KERAS_BACKEND=jax python benchmarks/growth.py --case new_tokens

Each case varies one number of the Transformer of `decode.py`, or the sequence length in
the training step of `train_transformer.py` with batches of 8. Each value runs in its
own process. For each value the table shows the milliseconds of a run, the speed of its
matrix products in GFLOP/s, and a ratio: the measured time divided by the time expected
from the previous value and the matrix products. A ratio above 1.5 is marked.
"""

import argparse
import json

import decode
import machine
import side_by_side
import train_transformer

CASES = {
    "new_tokens": (32, 64, 256, 1024),
    "beams": (1, 4, 16),
    "rows": (1, 32, 256),
    "vocabulary": (1_000, 8_000, 50_000),
    "training_length": (50, 100, 200, 400, 800),
}
CLIFF = 1.5
TRAINING_ROWS = 8  # with 800 steps they fit into 24 GB


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--case", choices=list(CASES), help="run only this case")
    add("--rounds", type=int, default=2, help="turns of each value (%(default)s)")
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", nargs=2, metavar=("CASE", "VALUE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        case, value = options.worker
        return side_by_side.work(lambda: prepare(case, int(value)))
    here = {**machine.describe(), "busy_before": machine.busy_beside()}
    machine.print_description(here)
    rows = []
    for case in [options.case] if options.case else CASES:
        values = [str(value) for value in CASES[case]]
        rows += side_by_side.measure(case, values, options.rounds, None)
        print_row(case, rows)
    here["busy_after"] = machine.busy_beside()
    print(
        f"\nCores kept busy by other processes: {here['busy_before']} before and "
        f"{here['busy_after']} after."
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": here, "rows": rows}, file, indent=1)


def prepare(case, value):
    """Return the work of one value, in the form of `side_by_side`."""
    if case == "training_length":
        train_transformer.LENGTH, train_transformer.BATCH = value, TRAINING_ROWS
        return train_transformer.kseq_step()
    sizes = {"new_tokens": decode.TARGET, "beams": 1, case: value}
    decode.BATCH = sizes.get("rows", decode.BATCH)
    decode.VOCABULARY = sizes.get("vocabulary", decode.VOCABULARY)
    model = decode.our_transformer()
    run = decode.kseq_writes(model, sizes["beams"], sizes["new_tokens"])
    return {"write_ms": run}


def gigaflops(case, value):
    """Return the GFLOP of the matrix products of a run, which time should follow."""
    if case == "training_length":
        layers, width = train_transformer.NUM_LAYERS, train_transformer.WIDTH
        tokens = TRAINING_ROWS * value
        words, inner = train_transformer.VOCABULARY, train_transformer.INTERMEDIATE
        per_token = layers * (12 * width**2 + 4 * width * inner) + width * words
        attention = layers * 6 * width * value  # two products, three times
        return 6e-9 * tokens * (per_token + attention)
    sizes = {
        "new_tokens": decode.TARGET,
        "beams": 1,
        "rows": decode.BATCH,
        "vocabulary": decode.VOCABULARY,
        case: value,
    }
    layers, width, inner = decode.NUM_LAYERS, decode.WIDTH, decode.INTERMEDIATE
    rows = sizes["rows"]
    reading = layers * (6 * width**2 + 2 * width * inner) * decode.SOURCE * rows
    step = layers * (6 * width**2 + 2 * width * inner) + width * sizes["vocabulary"]
    attention = layers * width * (sizes["new_tokens"] + 2 * decode.SOURCE)
    written = sizes["new_tokens"] * rows * sizes["beams"]
    return 2e-9 * (reading + written * (step + attention))


def print_row(case, rows):
    rows = [row for row in rows if row["case"] == case]
    times = {r["system"]: r["value"] for r in rows if r.get("metric", "")[-3:] == "_ms"}
    errors = {row["system"]: row["error"] for row in rows if "error" in row}
    print(f"\n{case:<18}{'ms':>10}{'GFLOP/s':>10}{'ratio':>10}")
    before = None
    for value in map(str, CASES[case]):
        if value in errors:
            print(f"{value:<18}  failed: {errors[value]}")
            continue
        speed = 1e3 * gigaflops(case, int(value)) / times[value]
        growth = "" if before is None else f"{before / speed:.2f}"
        mark = "  slow" if before is not None and before / speed > CLIFF else ""
        print(f"{value:<18}{times[value]:>10.0f}{speed:>10.0f}{growth:>10}{mark}")
        before = speed


if __name__ == "__main__":
    main()
