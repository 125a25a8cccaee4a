"""The cost of kseq's work as it grows: longer texts, more beams, rows and words.

    KERAS_BACKEND=jax python benchmarks/growth.py --case new_tokens

Each case varies one number of the Transformer of `decode.py`, or of the training step
of `train_transformer.py`, of 8 rows; each value has a process of its own. Beside the
milliseconds of a run stands how many matrix products it made in a second, and how often
as long it took as the value before and its products would let one expect: above 1.5 is
a cliff.
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
TRAINING_ROWS = 8  # of which 800 steps fit into 24 GB


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--case", choices=list(CASES), help="run one case alone")
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
    print(f"\nCores that others kept busy: {here['busy_before']}, {here['busy_after']}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": here, "rows": rows}, file, indent=1)


def prepare(case, value):
    """The work of one value, as `side_by_side` takes it."""
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
    """The matrix products of a run, whose cost should be all that grows."""
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
    print(f"\n{case:<18}{'ms':>10}{'GFLOP/s':>10}{'x before':>10}")
    before = None
    for value in map(str, CASES[case]):
        if value in errors:
            print(f"{value:<18}  failed: {errors[value]}")
            continue
        speed = 1e3 * gigaflops(case, int(value)) / times[value]
        growth = "" if before is None else f"{before / speed:.2f}"
        mark = "  cliff" if before is not None and before / speed > CLIFF else ""
        print(f"{value:<18}{times[value]:>10.0f}{speed:>10.0f}{growth:>10}{mark}")
        before = speed


if __name__ == "__main__":
    main()
