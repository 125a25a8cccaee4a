"""Searches for a better classifier of texts, among recurrent networks and Transformers.

The space is made of kseq's ready ones: networks of both kinds, and how they are
trained. Each trial trains in a process of its own, and several run side by side. The
best few, averaged, are better than the best (Caruana et al., 2004), and one file, with
words and labels: `kseq.text.TextToLabels.load` and `classify_text.py --load` read it.

    python recipes/tune_classifier.py --task trec --workers 2 --output tuned
    python recipes/tune_classifier.py --train train.txt --dev dev.txt --test test.txt

Ctrl-C, or a crash, loses nothing: the same command goes on where it was, in the middle
of a trial too. With more `--trials` a finished search goes on. A line of a file is
`label TEXT`.
"""

import argparse
import pathlib
import random
import sys

import keras
import numpy as np

import kseq
from kseq.training.cli import Help, count, folder, positive, seed
from kseq.tuning import Choice, Float, Int, MedianStopping, Space, spaces

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

KNOWN = {  # to be good, and tried first: what classify_text.py trains
    "model/encoder": "RecurrentEncoder",
    "model/encoder/RecurrentEncoder/cell": "gru",
    "model/encoder/RecurrentEncoder/units": 64,
    "model/encoder/RecurrentEncoder/dropout": 0.0,
    "batch_size": 64,
    "optimizer/learning_rate/warmup_steps/share": 0.0,
}
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    train, validation, test = load_splits(options)
    sizes = "{:,} texts to learn from, {:,} to choose by, {:,} held out."
    console.print(sizes.format(*(len(texts) for texts, _ in (train, validation, test))))
    words = kseq.text.Vocabulary("word", lowercase=True).adapt(train[0])
    labels = sorted({*train[1], *validation[1]})
    space = search_space(words.size, len(labels), len(train[0]), options)
    space.describe()

    results = search(space, words, labels, train, validation, options)
    print(results)
    models = results.best_models(options.average)
    best, averaged = (
        kseq.text.TextToLabels(model, words, labels)
        for model in (models[0], kseq.ensemble(models))
    )
    averaged.save(options.output / "model.keras")
    evaluate({"the best": best, f"{len(models)}, averaged": averaged}, validation, test)
    results.report(options.output / "report.html")
    console.print(f"The model and a report lie in {options.output}/.")


def search_space(vocabulary_size, num_labels, num_rows, options):
    """Networks of both kinds, or one, and their training; small, for few texts."""
    width = Int(128, 256, step=2, scale="log")
    dropout = [Float(0.4, 0.6, step=0.1, default=0.5) for _ in range(2)]
    words = Space(
        kseq.layers.TokenEmbedding, vocabulary_size, width, dropout=dropout[0]
    )
    units = Int(64, 256, step=2, scale="log", default=128)
    encoders = {
        "recurrent": spaces.recurrent_encoder(units=units, num_layers=Int(1, 2)),
        "transformer": spaces.transformer_encoder(num_layers=Int(1, 2)),
    }
    encoder = encoders.get(options.network) or Choice(*encoders.values())
    model = spaces.many_to_one(
        words, num_labels, encoder=encoder, width=width, dropout=dropout[1]
    )
    return spaces.training(
        model,
        num_rows,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batches=hidden,
        epochs=options.epochs,
        learning_rate=Float(1e-3, 5e-3, scale="log", default=2e-3),
        metrics=["accuracy"],
    )


def hidden(ids, labels, batch_size, shuffle=True):
    """Batches of texts of like length, a tenth of the words to learn from hidden."""
    batches = kseq.training.batches(
        ids, labels, batch_size, shuffle=shuffle, length_multiple=16
    )
    return kseq.training.TokenDropout(batches, 0.1) if shuffle else batches


def search(space, words, labels, train, validation, options):
    """Runs the trials, or goes on with those of an earlier call."""

    def rows(part):
        return words.encode(part[0]), [labels.index(label) for label in part[1]]

    try:
        results = kseq.tuning.search(
            space,
            rows(train),
            validation_data=rows(validation),
            objective="val_accuracy",
            tuner=options.tuner,
            first=[KNOWN] if options.network == "both" else [],
            max_trials=options.trials,
            workers=options.workers,
            directory=options.output / "search",
            stopping=MedianStopping(warmup_epochs=3),
            timeout=60 * options.minutes,
            seed=options.seed,
            executor=cluster(options.dask),
        )
        console.print(f"The best of them: {results.best_values()}")
        return results
    except (ValueError, OSError, kseq.tuning.SearchFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on where it was.")


def cluster(address):
    """The Dask cluster that runs the trials, or None for this host."""
    if address is None:
        return None
    from distributed import Client

    return Client(address)


def evaluate(models, validation, test):
    """Prints how many texts each model tells right."""
    table = Table("model", "weights", "validation accuracy", "test accuracy")
    for title, model in models.items():
        row = [title, f"{model.model.count_params():,}"]
        for texts, names in (validation, test):
            answers = np.array([label.name for label in model.label(texts)])
            row.append(f"{np.mean(answers == names):.2%}")
        table.add_row(*row)
    console.print(table)


def load_splits(options):
    """Texts and labels: to learn from, to choose by, and to be tested on."""
    try:
        if options.train:
            paths = options.train, options.dev, options.test
            parts = [kseq.datasets.read_labelled(path) for path in paths]
        else:
            parts = kseq.datasets.load(options.task, options.data).values()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    train, *watched, test = ([[t.lower() for t in x], y] for x, y in parts)
    [train, test] = kseq.datasets.disjoint(train, test)
    if not watched:  # none was published
        rows = sorted(set(zip(*train, strict=True)))
        random.Random(0).shuffle(rows)
        validation, train = rows[: len(rows) // 10], rows[len(rows) // 10 :]
        watched = [tuple(map(list, zip(*validation, strict=True)))]
        train = tuple(map(list, zip(*train, strict=True)))
    parts = kseq.datasets.disjoint(train, *watched, test)
    if len(set(parts[0][1])) < 2 or not all(texts for texts, _ in parts):
        sys.exit(
            "--train must have two labels at least, and --train, --dev and --test have "
            "texts that no later one has. Received: "
            f"{[len(texts) for texts, _ in parts]} texts."
        )
    most = 300 if options.quick else None
    return [(texts[:most], labels[:most]) for texts, labels in parts]


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--task", choices=["sst2", "trec"], default="trec")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    for part in ("train", "dev", "test"):
        add(f"--{part}", type=path, metavar="FILE", help="your lines of `label TEXT`")
    add("--output", type=folder, default="tuned", help="folder of what is made")
    add("--network", choices=["recurrent", "transformer", "both"], default="both")
    add("--average", type=count, default=5, help="the best so many")
    add("--tuner", choices=["random", "bayesian", "hyperband"], default="random")
    add("--trials", type=count, default=24, help="at most")
    add("--minutes", type=positive, default=12, help="... and so long")
    add("--workers", type=count, default=2, help="trials at a time")
    add("--dask", metavar="ADDRESS", help="run them on a Dask cluster (kseq[dask])")
    add("--epochs", type=count, default=6, help="of a trial")
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if len({path is None for path in (options.train, options.dev, options.test)}) > 1:
        parser.error("--train, --dev and --test go together")
    if options.quick:
        options.trials, options.epochs = 2, 1
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
