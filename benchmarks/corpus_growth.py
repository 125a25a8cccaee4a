"""Estimate what a corpus of a billion pairs needs, from measurements of smaller ones.

    python benchmarks/corpus_growth.py
    python benchmarks/corpus_growth.py --measured corpus.json --pairs 1000000000

The script measures the bytes of memory that the plan of an epoch takes for each pair.
For 1, 8 and 64 hosts it then computes disk space, memory of each host, and bytes sent
in a step. With a file that `corpus.py --json` wrote on an idle machine it also
estimates times: to learn the vocabularies, encode, plan an epoch, and train.
"""

import argparse
import json
import resource

import machine

HOSTS = 1, 8, 64
TOKENS = 47.25  # of a pair of `corpus.py`, both sides (300,000 pairs)
TEXT = 216  # bytes of a pair there
ID, LIMITS = 2, 16  # bytes of an id, and of a pair in the two files of limits
NETWORK = 25e9 / 8  # bytes per second
MEMORY, DISK = 64e9, 1e12  # of a host


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--pairs",
        type=int,
        default=1_000_000_000,
        help="pairs of the corpus (%(default)s)",
    )
    add(
        "--weights",
        type=int,
        default=60_000_000,
        help="weights of the model (%(default)s)",
    )
    add(
        "--batch-tokens",
        type=int,
        default=25_000,
        help="tokens in a batch of each host (%(default)s)",
    )
    add("--sample", type=int, default=2_000_000, help="pairs to measure (%(default)s)")
    add("--measured", metavar="FILE", help="file that `corpus.py --json` wrote")
    options = parser.parse_args()
    machine.print_description(machine.describe())
    plan = bytes_of_plan(options.sample)
    print(f"plan of an epoch, measured: {plan:.0f} bytes per pair")
    rows = dict(needs(options, plan))
    if options.measured:
        with open(options.measured, encoding="utf-8") as file:
            rows |= times(options, json.load(file))
    print(f"{options.pairs:,} pairs{'':<22}" + "".join(f"{n:>12} hosts" for n in HOSTS))
    for name, values in rows.items():
        print(f"{name:<40}" + "".join(f"{value:>18}" for value in values))


def needs(options, plan):
    """Yield the memory and disk space of a host, and the steps of an epoch."""
    pairs = options.pairs
    files = pairs * (TOKENS * ID + LIMITS)
    yield "text, GB", [round(pairs * TEXT / 1e9)] * len(HOSTS)
    yield "folders of ids, GB", [round(files / 1e9)] * len(HOSTS)
    yield "plan in memory of each host, GB", [round(pairs * plan / 1e9)] * len(HOSTS)
    yield (
        "pairs that fit in half of its memory",
        [f"{MEMORY / 2 / plan:,.0f}"] * len(HOSTS),
    )
    sent = [2 * options.weights * 4 * (n - 1) / n for n in HOSTS]  # ring all-reduce
    yield "sent by a host per step, MB", [round(each / 1e6) for each in sent]
    yield "... seconds at 25 Gbit/s", [round(each / NETWORK, 2) for each in sent]
    steps = [pairs * TOKENS / 2 / options.batch_tokens / n for n in HOSTS]
    yield "steps of an epoch", [f"{each:,.0f}" for each in steps]
    batch = options.batch_tokens * 2 * ID
    yield "read from disk per step, KB", [round(batch / 1e3)] * len(HOSTS)
    rows = options.batch_tokens / (TOKENS / 2)
    yield "positions in the files per step", [f"{2 * rows:,.0f}"] * len(HOSTS)


def times(options, rows):
    """Return the times of the corpus, from the seconds that `corpus.py` measured."""
    found = {(row["system"], row["metric"]): row["value"] for row in rows}
    measured = int(rows[0]["case"].removeprefix("corpus_"))
    factor = options.pairs / measured
    encode = found["kseq", "encode_s"] * factor / 3600
    found_times = {
        "learn the vocabularies, s": [found["kseq", "vocabularies_s"]] * len(HOSTS),
        "encode, h, one part on each host": [round(encode / n, 1) for n in HOSTS],
        "plan an epoch, s": [round(found["kseq, again", "first_batch_s"] * factor)]
        * len(HOSTS),
        "a batch of 4,096 tokens, ms": [found["kseq, again", "batch_ms"]] * len(HOSTS),
    }
    if ("step", "step_ms") in found:
        step = found["step", "step_ms"] / 1e3
        hours = options.pairs * TOKENS / 2 / 4096 * step / 3600
        found_times["an epoch of `step` alone, h"] = [round(hours / n) for n in HOSTS]
    return found_times


def bytes_of_plan(pairs):
    """Return the growth of peak memory in bytes per pair, without the ids."""
    import numpy as np

    from kseq.token_rows import TokenRows, limits_of
    from kseq.training import teacher_forcing

    random = np.random.default_rng(0)
    lengths = random.integers(10, 60, pairs).astype("int32")
    # In real use the ids are mapped from a file. Their memory is subtracted below.
    rows = TokenRows(np.full(int(lengths.sum()), 5, "uint16"), limits_of(lengths))
    teacher_forcing(rows, rows, batch_tokens=4096)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    random = np.random.default_rng(0)
    lengths = random.integers(10, 60, 2 * pairs).astype("int32")
    rows = TokenRows(np.full(int(lengths.sum()), 5, "uint16"), limits_of(lengths))
    teacher_forcing(rows, rows, batch_tokens=4096)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    more = (after - before) * 1024 - rows.flat.nbytes / 2
    return more / pairs


if __name__ == "__main__":
    main()
