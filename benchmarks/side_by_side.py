"""Times several systems at the same work, in turn, and prints them side by side.

A benchmark is a table of cases, and for each case a table of systems: functions that
prepare the work and return a function that does it once. Each system has a process of
its own; they take turns round by round, so that whatever else the machine does hits all
alike.
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
    """Runs a benchmark from the command line.

    Args:
        cases: `{case: {system: function}}`; a function of no arguments that returns
            `{metric: function}`, functions of no arguments that do the work once. Of
            each the milliseconds are measured; under the metric `tokens_per_s` they
            become a speed.
        description: What `--help` says.
        gigaflops: `{case: {metric: number}}`, the matrix products of the work, to say
            how much of the machine's speed is reached.
        tokens: `{case: number}`, how many tokens a run under `tokens_per_s` writes.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--case", choices=list(cases), help="run one case alone")
    add("--systems", nargs="+", metavar="NAME", help="run these systems alone")
    add("--rounds", type=int, default=8, help="turns of each system (%(default)s)")
    add("--threads", type=int, help="cores to use (all that there are)")
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", nargs=2, metavar=("CASE", "SYSTEM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        cores = sorted(os.sched_getaffinity(0))[: options.threads]
        for thread in os.listdir("/proc/self/task"):  # NumPy's have begun already
            os.sched_setaffinity(int(thread), cores)  # which workers inherit
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
        f"\nCores that others kept busy: {here['busy_before']} before and "
        f"{here['busy_after']} after; below {machine.QUIET} the machine was quiet."
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": here, "rows": rows}, file, indent=1)


def measure(case, systems, rounds, tokens):
    """The figures of each system, as rows of the JSON file; its error if it has one."""
    workers, failures = {}, {}
    for system in systems:
        worker = Worker(case, system)
        try:
            worker.read()  # one prepares at a time
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
    """A system that ended before it answered; the message is its last words."""


class Worker:
    """The process of one system, which speaks JSON, a line at a time."""

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
            pass  # `read` says why
        return self.read()

    def read(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.errors.seek(0)
        if code == -9:
            raise Failed("it was killed; perhaps there was not enough memory")
        raise Failed(last_words(self.errors.read()) or f"ended with code {code}")


def last_words(errors):
    """The line of a traceback that names the error; else the last one."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines or [""])[-1]


def work(prepare):
    """What the process of a system does: prepares, and works when it is told to."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may speak there

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
    """The milliseconds of each run, for two seconds."""
    times, end = [], time.perf_counter() + SECONDS_OF_A_TURN
    while time.perf_counter() < end:
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return times


def print_table(case, systems, rows, gigaflops):
    """Medians, and how many times that of the first system each is."""
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
        print(f"(the peak, a large product of matrices: {peak:.0f} GFLOP/s)")
