"""Sorts series of numbers into classes: was this day of power demand a winter's?

A network reads each series from both ends, and keeps the strongest signs that it meets.
Without `--train` and `--test` the series are 24 hours of electricity demand in Italy
(ItalyPowerDemand), 67 days to learn from and 1,029 to be tested on.

    python recipes/classify_series.py --output classes
    python recipes/classify_series.py --train my_train.csv --test my_test.csv
    python recipes/classify_series.py --load classes/model.keras --read my_days.csv

`--encoder conv` reads by dilated convolutions, which find a shape wherever it stands;
`lstm-fcn` lets an LSTM and convolutions read side by side (Karim et al., 2018).

Few series are learned by heart at once. So noise is added to each, drawn anew every
time it is read, and the learning rate falls to zero. With series to watch, `--dev`, the
best epoch is kept; 67 days can spare none.

A file is a `.ts` of the UCR and UEA archives, or a CSV. A line of a CSV is a series:
first its class, `?` where that is unknown, then the numbers.
"""

import argparse
import collections
import math
import pathlib
import sys
import zipfile

import keras
import numpy as np
from keras import ops

import kseq
from kseq.training.cli import (
    Help,
    count,
    folder,
    not_negative,
    positive,
    require,
    seed,
    share,
)

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

ENCODERS = ["gru", "lstm", "rnn", "transformer", "conv", "lstm-fcn"]
RIGHT, WRONG = "0.8", "#f1605d"
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    if options.load:
        return use(options)
    require("matplotlib")  # not only when the training has ended
    keras.utils.set_random_seed(options.seed)
    train, *watched, test = load_parts(options)
    classes = sorted(set(train[1]))
    sizes = ", ".join(f"{len(series):,}" for series, _ in (train, *watched, test))
    console.print(f"{sizes} series to learn from, to watch if any, and held out.")
    model, whole = build(options, train[0], classes)
    history = fit(model, whole, options, train, watched)
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    found = [name for name, _ in classify(whole, test[0])]
    evaluate(*train, *test, found)
    draw_classes(*test, found, options.output / "series.png")
    console.print(f"The model and pictures lie in {options.output}/.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def build(options, series, classes):
    """A network that gives logits, to train, and the same one with names for use.

    Both take series as they were measured, and see features of mean 0 and variance 1.
    """
    steps = np.concatenate(series)
    mean = steps.mean(axis=0)
    variance = steps.var(axis=0)
    variance[variance == 0] = 1.0  # a feature that stands still
    reader = build_reader(options, len(mean), len(classes))
    values = keras.Input((None, len(mean)))
    scaled = keras.layers.Normalization(mean=mean.tolist(), variance=variance)(values)
    logits = reader(keras.layers.GaussianNoise(options.noise)(scaled))
    probabilities = ops.softmax(logits)
    named = {name: probabilities[:, i] for i, name in enumerate(classes)}
    return keras.Model(values, logits), keras.Model(values, named)


def build_reader(options, num_features, num_classes):
    """A network from series, filled up with NaN, to logits."""
    width = options.width
    positions = "sinusoidal" if options.encoder == "transformer" else None
    embedding = kseq.layers.FeatureEmbedding(
        num_features, width, mask_value=math.nan, positions=positions
    )
    if options.encoder == "lstm-fcn":
        return build_two_branches(options, embedding, num_classes)
    if options.encoder in ("transformer", "conv"):
        encoder = options.encoder  # which kseq.many_to_one makes of this width
    else:
        encoder = kseq.layers.RecurrentEncoder(
            options.encoder, width, bidirectional=True
        )
    return kseq.many_to_one(
        embedding,
        num_classes,
        encoder,
        pooling="max",
        width=width,
        dropout=options.dropout,
    )


def build_two_branches(options, embedding, num_classes):
    """LSTM-FCN: the last step of an LSTM beside the mean of convolutions."""
    series = embedding.symbolic_input("series")
    vectors = embedding(series)
    lstm = kseq.layers.RecurrentEncoder("lstm", options.width)
    last = kseq.layers.LastStepPooling()(lstm(vectors))
    convolutions = kseq.layers.ConvEncoder(options.width)
    mean = kseq.layers.MeanPooling()(convolutions(vectors))
    both = keras.layers.Concatenate()([last, mean])
    dropped = keras.layers.Dropout(options.dropout)(both)
    logits = keras.layers.Dense(num_classes, name="head")(dropped)
    return keras.Model(series, logits, name="lstm_fcn")


def fit(model, whole, options, train, watched):
    """Trains with Keras' own loop."""
    classes = list(whole.output)

    def arrays(series, labels):
        return padded(series), np.array([classes.index(label) for label in labels])

    steps = math.ceil(len(train[0]) / options.batch_size) * options.epochs
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = "val_loss" if watched else "loss"
    best = kseq.training.SaveBest(options.output / "model.keras", monitor, saved=whole)
    return model.fit(
        *arrays(*train),
        batch_size=options.batch_size,
        epochs=options.epochs,
        validation_data=arrays(*watched[0]) if watched else None,
        callbacks=[best, kseq.training.StopOnInterrupt()],
    )


def padded(series):
    """One array `(N, S, F)`, in which short series are filled up with NaN."""
    longest = max(len(steps) for steps in series)
    array = np.full((len(series), longest, series[0].shape[1]), math.nan)
    for row, steps in zip(array, series, strict=True):
        row[: len(steps)] = steps
    return array


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
    [(common, number)] = collections.Counter(test_labels).most_common(1)
    if right.sum() <= number < len(right):
        console.print(
            f"Always to answer {common} would be as good: {number / len(right):.2%}. "
            "Learn longer (--epochs), or from more series."
        )


def draw_classes(series, labels, found, path):
    """Draws held-out series, a panel for each class, and those the model got wrong."""
    classes = sorted(set(labels))[:6]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(classes), 3.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(classes), squeeze=False, sharey=True)[0]
    figure.suptitle("held-out series: grey as meant, red taken for another", size=10)
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
    kseq.plots.legible(figure).savefig(path)


def use(options):
    """Classifies the series of a file with a saved model."""
    try:
        whole = keras.saving.load_model(options.load, compile=False)
        num_features, _ = whole.input_shape[-1], whole.output.keys()
    except (ValueError, AttributeError, OSError, zipfile.BadZipFile):
        sys.exit(f"--load must name a model of this recipe. Received: {options.load}")
    try:
        series, labels = kseq.datasets.read_series(options.read)
    except ValueError as error:
        sys.exit(str(error))
    if (received := series[0].shape[1]) != num_features:
        sys.exit(f"Needs series of {num_features} features. Received: {received}.")
    table = Table("series", "in the file", "class", "probability")
    for row, (name, probability) in enumerate(classify(whole, series)):
        table.add_row(str(row + 1), labels[row], name, f"{probability:.3f}")
    console.print(table)


def load_parts(options):
    """Series and their classes: to learn from, to watch if given, to be tested on."""
    try:
        if options.train:
            paths = filter(None, (options.train, options.dev, options.test))
            parts = [kseq.datasets.read_series(path) for path in paths]
        else:
            loaded = kseq.datasets.load("italy_power_demand", options.data)
            parts = [
                (list(series[..., None]), [str(number + 1) for number in labels])
                for series, labels in loaded.values()
            ]
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    parts = kseq.datasets.disjoint(*parts)
    features = [series[0].shape[1] for series, _ in parts if series]
    if len(set(features)) > 1 or len(features) < len(parts):
        sys.exit(
            "--train, --dev and --test must each have series that no later one has, "
            "all of as many features. Received: "
            f"{[len(series) for series, _ in parts]} series, of {features}."
        )
    classes = set(parts[0][1])
    *watched, new = (sorted(set(labels) - classes) for _, labels in parts[1:])
    if len(classes) < 2 or any(watched):
        received = f"{sorted(classes)}, and besides in --dev {sum(watched, [])}"
        sys.exit(
            f"--train must have two classes, and all of --dev. Received: {received}"
        )
    if new:
        new = ", ".join(new)
        console.print(f"Warning: no series to learn from has the class {new}")
    return parts


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--train", type=path, metavar="FILE", help="series of your own to learn from")
    add("--dev", type=path, metavar="FILE", help="... to choose the best epoch by")
    add("--test", type=path, metavar="FILE", help="... to be tested on")
    add("--load", type=path, metavar="FILE", help="a saved model, for --read")
    add("--read", type=path, metavar="FILE", help="series to sort into classes")
    add("--output", type=folder, default="classes", help="directory for results")
    add("--encoder", choices=ENCODERS, default="gru", help="what reads")
    add("--width", type=count, default=64, help="width of every layer")
    add("--noise", type=not_negative, default=0.3, help="in standard deviations")
    add("--dropout", type=share, default=0.3)
    add("--epochs", type=count, default=200)
    add("--batch-size", type=count, default=16)
    add("--learning-rate", type=positive, default=3e-3)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="try it out: few epochs, no good figures")
    options = parser.parse_args(argv)
    if options.quick:
        options.epochs, options.width = 2, 8
    if bool(options.train) != bool(options.test) or options.dev and not options.train:
        parser.error("--train and --test go together, and --dev with both")
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    if not 0 <= options.noise < float("inf"):
        parser.error("--noise must be 0 or more")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
