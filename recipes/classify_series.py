"""Sorts series of numbers into classes: was this day of power demand a winter's?

A network reads each series from both ends, and keeps the strongest signs that it meets.
Without `--train` and `--test` the series are 24 hours of electricity demand in Italy
(ItalyPowerDemand), 67 days to learn from and 1,029 to be tested on.

    python recipes/classify_series.py --output classes
    python recipes/classify_series.py --train my_train.csv --test my_test.csv
    python recipes/classify_series.py --load classes/model.keras --read my_days.csv

So few series cannot spare any to choose by. They are cut into folds instead: a network
that has learned from all folds but one is validated on that one, in turns, and the
number of epochs that is best on average trains the network that is kept, on all series.

A file is a `.ts` of the UCR and UEA archives, or a CSV. A line of a CSV is a series:
first its class, `?` where that is unknown, then the numbers.
"""

import argparse
import math
import pathlib
import sys
import zipfile

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import kseq

MODEL, CURVE, PICTURE = "model.keras", "training.png", "series.png"
RIGHT, WRONG = "0.8", "#f1605d"
console = Console()


def main(argv=None):
    options = parse_arguments(argv)
    if options.load:
        return use(options)
    keras.utils.set_random_seed(options.seed)
    (series, labels), (test_series, test_labels) = load_parts(options)
    classes = sorted(set(labels))
    console.print(
        f"{len(series):,} series to learn from, {len(test_series):,} held out, in "
        f"{len(classes)} classes"
    )
    # The network sees features with mean 0 and variance 1.
    steps = np.concatenate(series)
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    deviation[deviation == 0] = 1.0  # a feature that stands still
    scaled = (padded(series) - mean) / deviation
    numbers = np.array([classes.index(label) for label in labels])

    model = build(options, len(mean), len(classes))
    whole = with_names(model, mean, deviation, classes)
    curves, epochs = choose_epochs(model, options, scaled, numbers)
    best = kseq.training.SaveBest(options.output / MODEL, "loss", saved=whole)
    fit(model, options, scaled, numbers, epochs=epochs, callbacks=[best])

    kseq.plots.training_curve(curves).savefig(options.output / CURVE)
    found = [name for name, _ in classify(whole, test_series)]
    evaluate(series, labels, test_series, test_labels, found)
    draw_classes(test_series, test_labels, found, options.output / PICTURE)
    console.print(f"The model and pictures lie in {options.output}/.")


def build(options, num_features, num_classes):
    """A network that reads from both ends, and keeps the strongest signs it meets."""
    is_transformer = options.encoder == "transformer"
    if is_transformer:
        encoder = kseq.layers.TransformerEncoder(2, num_heads=4, width=options.width)
    else:
        encoder = kseq.layers.RecurrentEncoder(
            options.encoder, options.width, bidirectional=True
        )
    embedding = kseq.layers.FeatureEmbedding(
        num_features,
        options.width,
        mask_value=math.nan,
        positions="sinusoidal" if is_transformer else None,
    )
    return kseq.many_to_one(
        embedding, num_classes, encoder, pooling="max", dropout=options.dropout
    )


def padded(series):
    """One array `(N, S, F)`, in which short series are filled up with NaN."""
    longest = max(len(steps) for steps in series)
    array = np.full((len(series), longest, series[0].shape[1]), math.nan)
    for row, steps in zip(array, series, strict=True):
        row[: len(steps)] = steps
    return array


def with_names(model, mean, deviation, classes):
    """The model for series as they were measured: the probability of each class."""
    values = keras.Input(model.input_shape[1:])
    scale = keras.layers.Normalization(mean=mean.tolist(), variance=deviation**2)
    probabilities = ops.softmax(model(scale(values)))
    return keras.Model(values, {c: probabilities[:, i] for i, c in enumerate(classes)})


def choose_epochs(model, options, scaled, numbers):
    """How many epochs validate best, on average over networks that each lack a fold."""
    model.compile(
        keras.optimizers.Adam(options.learning_rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    untrained = model.get_state_tree("numpy_array")
    folds, histories = folds_of(numbers, options), []
    for fold in range(options.folds):
        model.set_state_tree(untrained)
        rest, held = folds != fold, folds == fold
        history, stopped = fit(
            model,
            options,
            scaled[rest],
            numbers[rest],
            epochs=options.epochs,
            validation_data=(scaled[held], numbers[held]),
            verbose=0,
        )
        histories.append(history)
        console.print(
            f"Fold {fold + 1} of {options.folds}: loss {min(history['val_loss']):.3f}"
        )
        if stopped:
            break
    model.set_state_tree(untrained)
    length = min(len(history["loss"]) for history in histories)
    curves = {
        name: np.mean([history[name][:length] for history in histories], 0).tolist()
        for name in histories[0]
    }
    return curves, int(np.argmin(curves["val_loss"])) + 1


def folds_of(numbers, options):
    """The fold of each series: every class is spread evenly."""
    random, folds = np.random.default_rng(options.seed), np.empty(len(numbers), int)
    for number in np.unique(numbers):
        rows = random.permutation(np.flatnonzero(numbers == number))
        folds[rows] = np.arange(len(rows)) % options.folds
    return folds


def fit(model, options, *data, callbacks=(), **arguments):
    """Trains with Keras' own loop; says too whether Ctrl-C has ended it."""
    stop = kseq.training.StopOnInterrupt()
    history = model.fit(
        *data,
        batch_size=options.batch_size,
        callbacks=[*callbacks, stop],
        **arguments,
    )
    if stop.interrupted:
        console.print("Stopped. Going on with what was learned so far.")
    return history.history, stop.interrupted


def classify(whole, series):
    """The most probable class of each series, and its probability."""
    probabilities = whole.predict(padded(series), verbose=0)
    names, columns = zip(*probabilities.items(), strict=True)
    return [(names[row.argmax()], row.max()) for row in np.stack(columns, axis=1)]


def evaluate(series, labels, test_series, test_labels, found):
    """Prints the accuracy on held-out series, beside that of the nearest neighbour."""
    table = Table("classifier", "accuracy", "wrong")
    answers = {"this model": found}
    if len({len(each) for each in series + test_series}) == 1:
        distances = np.array(
            [[np.sum((one - other) ** 2) for other in series] for one in test_series]
        )
        nearest = [labels[place] for place in distances.argmin(axis=1)]
        answers = {"the nearest neighbour's class": nearest, **answers}
    for name, answer in answers.items():
        right = np.array(answer) == np.array(test_labels)
        table.add_row(name, f"{right.mean():.2%}", f"{np.sum(~right):,}")
    console.print(table)


def draw_classes(series, labels, found, path):
    """Draws held-out series, a panel for each class, and those the model got wrong."""
    classes = sorted(set(labels))[:6]
    figure = Figure(figsize=(4 * len(classes), 3.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(classes), squeeze=False, sharey=True)[0]
    for name, ax in zip(classes, panels, strict=True):
        rows = [row for row, label in enumerate(labels) if label == name]
        wrong = [row for row in rows if found[row] != name]
        for row in rows[:300]:
            ax.plot(series[row][:, 0], color=RIGHT, lw=0.5, alpha=0.5)
        for row in wrong:
            ax.plot(series[row][:, 0], color=WRONG, lw=0.8)
        ax.set_title(
            f"class {name}: {len(rows):,} series, {len(wrong)} taken for another",
            loc="left",
            size=10,
        )
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, labelcolor="0.4", color="0.7")
        ax.set_xlabel("step", size=9, color="0.4")
    figure.savefig(path)


def use(options):
    """Classifies the series of a file with a saved model."""
    try:
        whole = keras.saving.load_model(options.load, compile=False)
        num_features, _ = whole.input_shape[-1], whole.output.keys()
    except (ValueError, AttributeError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"--load must name a model of this recipe: {options.load}: {error}")
    series, labels = read_series(options.read)
    if series[0].shape[1] != num_features:
        sys.exit(
            f"This model reads series of {num_features} features. Received: "
            f"{options.read}, with {series[0].shape[1]}."
        )
    table = Table("series", "in the file", "class", "probability")
    for row, (name, probability) in enumerate(classify(whole, series)):
        table.add_row(str(row + 1), labels[row], name, f"{probability:.3f}")
    console.print(table)


def load_parts(options):
    """Series and their classes, to learn from and to be tested on."""
    if options.train:
        train, test = read_series(options.train), read_series(options.test)
    else:
        try:
            loaded = kseq.datasets.load("italy_power_demand", options.data)
        except (ValueError, OSError) as error:
            sys.exit(str(error))
        train, test = (
            (list(series[..., None]), [str(label + 1) for label in labels])
            for series, labels in loaded.values()
        )
    held_out = {steps.tobytes() for steps in test[0]}
    rows = [
        row for row, steps in enumerate(train[0]) if steps.tobytes() not in held_out
    ]
    if both := len(train[0]) - len(rows):
        console.print(f"Left out of training, for the test has them too: {both} series")
    train = [train[0][row] for row in rows], [train[1][row] for row in rows]
    rare = [name for name in set(train[1]) if train[1].count(name) < options.folds]
    if rare or len(set(train[1])) < 2:
        sys.exit(
            f"There must be two classes with {options.folds} series each, one for each "
            f"fold. Received: too few of {', '.join(sorted(rare)) or 'another class'}. "
            "Choose fewer --folds."
        )
    if unseen := sorted(set(test[1]) - set(train[1])):
        console.print(
            f"Warning: only the test has the classes {', '.join(unseen)}. They count "
            "as errors."
        )
    return train, test


def read_series(path):
    """Series `(S, F)` and their classes, from a `.ts` or a CSV file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"Series must be a text file in UTF-8. Received: {path}: {error}")
    series, labels = [], []
    for line in lines:
        if not line.strip() or line[0] in "#@":
            continue
        if path.suffix == ".ts":
            *features, label = line.split(":")
        else:
            label, features = line.partition(",")[::2]
            features = [features]
        try:
            steps = np.array([x.split(",") for x in features], float).T  # S F
        except ValueError:
            steps = np.array([])
        if not steps.size or not np.isfinite(steps).all() or not label.strip():
            sys.exit(
                "A series must be a line of numbers with a class. Received: series "
                f"{len(series) + 1} of {path}: {line[:60]!r}"
            )
        series.append(steps)
        labels.append(label.strip())
    if len({steps.shape[1] for steps in series}) != 1:
        sys.exit(
            "A file must hold series of one and the same number of features. "
            f"Received: {path}, with {len(series)} series."
        )
    return series, labels


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, path = parser.add_argument, pathlib.Path
    add("--data", type=path, help="directory of data sets; default: $KSEQ_DATA_DIR")
    add("--train", type=path, metavar="FILE", help="series of your own to learn from")
    add("--test", type=path, metavar="FILE", help="... to be tested on")
    add("--load", type=path, metavar="FILE", help="a saved model, for --read")
    add("--read", type=path, metavar="FILE", help="series to sort into classes")
    add("--output", type=path, default=path("classes"), help="directory for results")
    add("--encoder", choices=["gru", "lstm", "rnn", "transformer"], default="gru")
    add("--width", type=int, default=64, help="width of every layer (%(default)s)")
    add("--dropout", type=float, default=0.3)
    add("--folds", type=int, default=5)
    add("--epochs", type=int, default=100, help="at most (%(default)s)")
    add("--batch-size", type=int, default=32)
    add("--learning-rate", type=float, default=5e-3)
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="try it out: few epochs, no good figures")
    options = parser.parse_args(argv)
    if options.quick:
        options.epochs, options.folds, options.width = 2, 2, 8
    if bool(options.train) != bool(options.test):
        parser.error("--train and --test go together")
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    if min(options.epochs, options.width, options.batch_size, options.folds - 1) < 1:
        parser.error(
            "--epochs, --width and --batch-size must be positive, --folds 2 or more"
        )
    return options


if __name__ == "__main__":
    main()
