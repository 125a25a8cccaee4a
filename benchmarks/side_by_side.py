"""Times several systems at the same work, in turn, and prints them side by side.

A benchmark is a table of cases, and for each case a table of systems: functions that
prepare the work and return a function that does it once. Each system has a process of
its own; they take turns round by round, so that whatever else the machine does hits all
alike.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

SECONDS_OF_A_TURN = 2.0


def main(cases, metric="train_ms", description=None):
    """Runs a benchmark from the command line.

    Args:
        cases: `{case: {system: function}}`; a function of no arguments that returns a
            function of no arguments, which does the work once.
        metric: Name of what is measured, in milliseconds.
        description: What `--help` says.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--case", choices=list(cases), help="run one case alone")
    add("--systems", nargs="+", metavar="NAME", help="run these systems alone")
    add("--rounds", type=int, default=8, help="turns of each system (%(default)s)")
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", nargs=2, metavar=("CASE", "SYSTEM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        case, system = options.worker
        return work(cases[case][system])
    rows = []
    for case in [options.case] if options.case else cases:
        systems = [s for s in cases[case] if s in (options.systems or cases[case])]
        figures = measure(case, systems, options.rounds, metric)
        rows += figures
        print_table(case, systems, figures, metric)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def measure(case, systems, rounds, metric):
    """The figures of each system, as rows of the JSON file."""
    workers = {}
    for system in systems:
        workers[system] = subprocess.Popen(
            [sys.executable, sys.argv[0], "--worker", case, system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            text=True,
        )
        ready = workers[system].stdout.readline()  # one prepares at a time
        if not ready:
            print(f"{case}: {system} cannot run here, is it installed?")
            del workers[system]
    times = {system: [] for system in workers}
    for _ in range(rounds):
        for system, worker in workers.items():
            times[system] += ask(worker, "time")
    rows = []
    for system, worker in workers.items():
        extra = ask(worker, "stop")
        worker.wait()
        for name, value, unit in [
            (metric, statistics.median(times[system]), "ms"),
            ("compile_s", extra["compile_s"], "s"),
            ("peak_mb", extra["peak_mb"], "MB"),
        ]:
            row = {"case": case, "system": system, "metric": name}
            rows.append({**row, "value": round(value, 3), "unit": unit})
    return rows


def ask(worker, command):
    print(command, file=worker.stdin, flush=True)
    return json.loads(worker.stdout.readline())


def work(prepare):
    """What the process of a system does: prepares, and works when it is told to."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may speak there

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    run = prepare()
    began = time.perf_counter()
    run()
    compile_s = time.perf_counter() - began
    run()
    answer("ready")
    for command in sys.stdin:
        if command.strip() == "stop":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            return answer({"compile_s": compile_s, "peak_mb": peak})
        times, end = [], time.perf_counter() + SECONDS_OF_A_TURN
        while time.perf_counter() < end:
            began = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - began))
        answer(times)


def print_table(case, systems, rows, metric):
    """Medians, and how many times as long as the first system each takes."""
    values = {(row["system"], row["metric"]): row["value"] for row in rows}
    first = values.get((systems[0], metric))
    print(f"\n{case:<20}{metric:>12}{'x ' + systems[0]:>12}", end="")
    print(f"{'compile_s':>12}{'peak_mb':>12}")
    for system in systems:
        if (system, metric) in values:
            value = values[system, metric]
            ratio = value / first if first else float("nan")
            print(f"{system:<20}{value:>12.1f}{ratio:>12.2f}", end="")
            for extra in ("compile_s", "peak_mb"):
                print(f"{values[system, extra]:>12.1f}", end="")
            print()
