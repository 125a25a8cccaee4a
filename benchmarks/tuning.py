"""Trials per hour of a search: kseq, and plain KerasTuner on the same space.

The space is the width, depth and learning rate of an LSTM classifier. Each system
searches it in its own process. The systems run one after another, because two at once
would share the cores. The time is from the call of the search to its end, so it
includes the start of every process. `overhead_s` is the time of a trial beyond building
and fitting a model: the wall time of the search times the number of workers, minus the
time in `build` and `fit`, divided by the number of trials. Plain KerasTuner starts no
processes, which saves time and costs memory: `peak_mb` is the largest memory of one
process, and `growth_mb` is how much the searching process gained from the third trial
to the last.

In `tune_one_thread` every trial has one thread, so two workers may be twice as fast as
one. `dask` runs the trials as tasks of a Dask cluster on this host.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import keras_tuner  # noqa: E402
import machine  # noqa: E402
import numpy as np  # noqa: E402

import kseq  # noqa: E402
from kseq.tuning.search import search  # noqa: E402
from kseq.tuning.trials.table import LiveTable  # noqa: E402

CASES = {  # trials, epochs, rows
    "tune_lstm": (8, 3, 2_000),
    "tune_nothing": (12, 0, 32),
    "tune_one_thread": (20, 3, 2_000),
}
SYSTEMS = {  # workers
    "kseq": 1,
    "kseq_2_workers": 2,
    "dask": 1,
    "dask_2_workers": 2,
    "keras_tuner": 1,
}
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
)
UNITS = {"trials_per_hour": "trials/h", "overhead_s": "s"}


class Classifiers(keras_tuner.HyperModel):
    """LSTM classifiers; records in a file how long each was built and fitted."""

    def __init__(self, times, epochs):
        super().__init__()
        self.times = times
        self.epochs = epochs

    def build(self, hp):
        self.began = time.perf_counter()
        units = hp.Int("units", 16, 48, step=16)
        layers = hp.Int("num_layers", 1, 2)
        encoder = kseq.layers.RecurrentEncoder("lstm", units, num_layers=layers)
        model = kseq.many_to_one(300, num_outputs=3, encoder=encoder, width=32)
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss)
        return model

    def fit(self, hp, model, *args, **kwargs):
        result = {"val_loss": hp.get("learning_rate")}
        if self.epochs:
            result = super().fit(hp, model, *args, **kwargs)
        with open(self.times, "a") as file:
            file.write(f"{time.perf_counter() - self.began}\n")
        return result


def run(case, system, trials):
    """Run one search, and print its figures as JSON."""
    trials, (_, epochs, rows) = int(trials), CASES[case]
    random = np.random.default_rng(0)
    x = random.integers(1, 300, size=(rows, 30))
    y = x.sum(axis=1) % 3
    sizes = []

    def note_size(*args):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * resource.getpagesize() / 2**20)

    workers = SYSTEMS[system]
    with tempfile.TemporaryDirectory() as directory, cluster(system) as executor:
        space = Classifiers(f"{directory}/times", epochs)
        data = {"epochs": max(1, epochs), "validation_data": (x[:200], y[:200])}
        began = time.perf_counter()
        if system == "keras_tuner":
            tuner = keras_tuner.RandomSearch(
                space, "val_loss", trials, seed=7, directory=f"{directory}/search"
            )
            tuner.on_trial_end = ending(tuner.on_trial_end, note_size)
            tuner.search(x, y, verbose=0, **data)
        else:
            LiveTable.show_end = note_size
            search(
                space,
                (x, y),
                directory=f"{directory}/search",
                max_trials=trials,
                workers=workers,
                executor=executor,
                seed=7,
                verbose=False,
                **data,
            )
        took = time.perf_counter() - began
        inside = [float(line) for line in open(f"{directory}/times")]
    assert len(inside) == trials
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (0, -1)]
    figures = {
        "trials_per_hour": trials / took * 3600,
        "overhead_s": (took * workers - sum(inside)) / trials,
        "peak_mb": max(peaks),
        "growth_mb": sizes[-1] - sizes[2],
    }
    print("\n" + json.dumps(figures))


def cluster(system):
    """Return a Dask cluster with the workers of the system, or no executor."""
    if not system.startswith("dask"):
        return contextlib.nullcontext()
    import distributed

    return distributed.Client(
        n_workers=SYSTEMS[system],
        threads_per_worker=1,
        processes=False,  # each trial runs in its own process anyway
        dashboard_address=":0",
    )


def ending(method, more):
    def on_trial_end(trial):
        method(trial)
        more()

    return on_trial_end


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--case", choices=CASES, help="run only this case")
    add(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        default=list(SYSTEMS),
        help="run only these systems",
    )
    add("--trials", type=int, help="trials of each search, 3 or more (by case)")
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return run(*options.worker)
    machine.print_description(machine.describe())
    rows = []
    for case in [options.case] if options.case else CASES:
        columns = "".join(f"{name:>17}" for name in (*UNITS, "peak_mb", "growth_mb"))
        print(f"\n{case:<24}{columns}")
        for system in options.systems:
            trials = str(options.trials or CASES[case][0])
            command = [sys.executable, __file__, "--worker", case, system, trials]
            threads = ONE_THREAD if case == "tune_one_thread" else {}
            done = subprocess.run(
                command,
                env=os.environ | threads,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            figures = json.loads(done.stdout.splitlines()[-1])
            cells = "".join(f"{value:>17.2f}" for value in figures.values())
            print(f"{system:<24}{cells}", flush=True)
            for metric, value in figures.items():
                row = {"case": case, "system": system, "metric": metric}
                unit = UNITS.get(metric, "MB")
                rows.append({**row, "value": round(value, 3), "unit": unit})
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
