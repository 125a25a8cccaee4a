"""Time several systems at the same work, and print the figures in one table.

A benchmark is a table of cases. Each case is a table of systems: functions that prepare
the work and return a function that does it once. Each system runs in its own process.
The systems take turns, so other load on the machine affects all of them alike.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import machine

SECONDS_OF_A_TURN = 2.0
UNITS = {"compile_s": "s", "peak_mb": "MB", "tokens_per_s": "tokens/s"}


def main(cases, description=None, gigaflops=None, tokens=None):
    """Run a benchmark from the command line.

    Args:
        cases: `{case: {system: function}}`; a function of no arguments that returns
            `{metric: function}`, functions of no arguments that do the work once.
            Each is measured in milliseconds; the metric `tokens_per_s` is converted
            to a speed.
        description: The description in `--help`.
        gigaflops: `{case: {metric: number}}`, the matrix products of the work, to
            compare the speed with the peak of the machine.
        tokens: `{case: number}`, the tokens that a run under `tokens_per_s` generates.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--case", choices=list(cases), help="run only this case")
    add("--systems", nargs="+", metavar="NAME", help="run only these systems")
    add("--rounds", type=int, default=8, help="turns of each system (%(default)s)")
    add("--threads", type=int, help="number of cores to use (all)")
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", nargs=2, metavar=("CASE", "SYSTEM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        cores = sorted(os.sched_getaffinity(0))[: options.threads]
        for thread in os.listdir("/proc/self/task"):  # NumPy's have started
            os.sched_setaffinity(int(thread), cores)  # inherited by the workers
    if options.worker:
        case, system = options.worker
        return work(cases[case][system])
    here = {**machine.describe(), "busy_before": machine.busy_beside()}
    machine.print_description(here)
    rows = []
    for case in [options.case] if options.case else cases:
        systems = [s for s in cases[case] if s in (options.systems or cases[case])]
        figures = measure(case, systems, options.rounds, (tokens or {}).get(case))
        rows += figures
        print_table(case, systems, figures, (gigaflops or {}).get(case, {}))
    here["busy_after"] = machine.busy_beside()
    print(
        f"\nCores kept busy by other processes: {here['busy_before']} before and "
        f"{here['busy_after']} after (idle: below {machine.QUIET})."
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": here, "rows": rows}, file, indent=1)


def measure(case, systems, rounds, tokens):
    """Return the figures, or the error, of each system as rows of the JSON file."""
    workers, failures = {}, {}
    for system in systems:
        worker = Worker(case, system)
        try:
            worker.read()  # prepares; only one system at a time
            workers[system] = worker
        except Failed as failure:
            failures[system] = failure
    times = {system: {} for system in workers}
    for _ in range(rounds):
        for system, worker in list(workers.items()):
            try:
                figures = worker.ask("time")
            except Failed as failure:
                failures[system] = failure
                del workers[system]
                continue
            for metric, values in figures.items():
                times[system].setdefault(metric, []).extend(values)
    rows = []
    for system, worker in workers.items():
        extra = worker.ask("stop")
        worker.process.wait()
        medians = {name: statistics.median(v) for name, v in times[system].items()}
        if "tokens_per_s" in medians:
            medians["tokens_per_s"] = tokens / medians["tokens_per_s"] * 1e3
        for name, value in {**medians, **extra}.items():
            row = {"case": case, "system": system, "metric": name}
            unit = UNITS.get(name, "ms")
            rows.append({**row, "value": round(value, 3), "unit": unit})
    for system, failure in failures.items():
        rows.append({"case": case, "system": system, "error": str(failure)})
    return rows


class Failed(Exception):
    """A system ended without an answer; the message is its last error line."""


class Worker:
    """The process of one system, which answers in JSON, one value per line."""

    def __init__(self, case, system):
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], "--worker", case, system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            text=True,
        )

    def ask(self, command):
        try:
            print(command, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # `read` raises with the reason
        return self.read()

    def read(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.errors.seek(0)
        if code == -9:
            raise Failed("it was killed, perhaps because memory ran out")
        raise Failed(last_words(self.errors.read()) or f"ended with code {code}")


def last_words(errors):
    """Return the line of a traceback that names the error, or the last line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines or [""])[-1]


def work(prepare):
    """Run the process of a system: prepare, then work on each command from stdin."""
    answers, sys.stdout = sys.stdout, sys.stderr  # stdout is for answers only

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    runs = prepare()
    began = time.perf_counter()
    for run in runs.values():
        run()
    compile_s = time.perf_counter() - began
    for run in runs.values():
        run()
    answer("ready")
    for command in sys.stdin:
        if command.strip() == "stop":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            return answer({"compile_s": compile_s, "peak_mb": peak})
        answer({metric: turn(run) for metric, run in runs.items()})


def turn(run):
    """Run for two seconds, and return the milliseconds of each run."""
    times, end = [], time.perf_counter() + SECONDS_OF_A_TURN
    while time.perf_counter() < end:
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return times


def print_table(case, systems, rows, gigaflops):
    """Print the medians, and their ratios to those of the first system."""
    errors = {row["system"]: row["error"] for row in rows if "error" in row}
    rows = [row for row in rows if "error" not in row]
    values = {(row["system"], row["metric"]): row["value"] for row in rows}
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    metrics = [m for m in metrics if m not in ("compile_s", "peak_mb")]
    first, peak = systems[0], machine.matrix_speed() if gigaflops else None
    print(f"\n{case:<24}", end="")
    for metric in metrics:
        print(f"{metric:>14}{'x ' + first:>9}", end="")
        if metric in gigaflops:
            print(f"{'of peak':>9}", end="")
    print(f"{'compile_s':>11}{'peak_mb':>9}")
    for system in systems:
        print(f"{system:<24}", end="")
        if system in errors:
            print(f"  failed: {errors[system]}")
            continue
        for metric in metrics:
            value = values[system, metric]
            ratio = value / values.get((first, metric), float("nan"))
            print(f"{value:>14.1f}{ratio:>9.2f}", end="")
            if metric in gigaflops:
                print(f"{gigaflops[metric] / value * 1e3 / peak:>9.0%}", end="")
        print(f"{values[system, 'compile_s']:>11.1f}{values[system, 'peak_mb']:>9.0f}")
    if gigaflops:
        print(f"(peak, of a large matrix product: {peak:.0f} GFLOP/s)")
