"""Classify series of numbers: was this day of power demand in winter?

A network reads each series, and the largest values over all steps decide. By default
the series are 24 hours of electricity demand in Italy (ItalyPowerDemand), 67 days for
training and 1,029 for testing.

    python recipes/classify_series.py --output classes
    python recipes/classify_series.py --train my_train.csv --test my_test.csv
    python recipes/classify_series.py --load classes/model.keras --read my_days.csv

`--encoder conv` reads by dilated convolutions, which find a shape anywhere in a series.
`--encoder mingru` is a recurrent network that trains fast on hundreds of steps.
`--encoder lstm-fcn` is an LSTM beside convolutions (Karim et al., 2018).

A network soon learns few series by heart. So new noise is added to a series each time
it is read, and the learning rate falls to zero. With `--dev`, series for validation,
the best epoch is kept; 67 days are too few for a validation split.

A file is a `.ts` of the UCR and UEA archives, or a CSV. Each line of a CSV is a series:
first its class, `?` if it is unknown, then the numbers.
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
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

RIGHT_COLOR = "0.8"  # grey
WRONG_COLOR = "#f1605d"  # red
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return series with their classes: for training, validation if given, testing."""
    try:
        if options.train:
            splits = [kseq.datasets.read_series(options.train)]
            if options.dev:
                splits.append(kseq.datasets.read_series(options.dev))
            splits.append(kseq.datasets.read_series(options.test))
        else:
            data = kseq.datasets.load("italy_power_demand", options.data)
            splits = []
            for series, class_numbers in data.values():
                series = list(series[..., None])  # each S F, with one feature
                names = [str(number + 1) for number in class_numbers]
                splits.append((series, names))
    except (ValueError, OSError) as error:
        sys.exit(str(error))

    splits = kseq.datasets.disjoint(*splits)
    sizes = [len(series) for series, _ in splits]
    num_features = [series[0].shape[1] for series, _ in splits if series]
    if 0 in sizes or len(set(num_features)) > 1:
        sys.exit(
            "--train, --dev and --test must each have series that no later one has, "
            "all with the same number of features. "
            f"Received: {sizes} series, with {num_features} features."
        )
    check_classes(splits)
    return splits


def check_classes(splits):
    """Exit if training lacks classes of validation, warn if it lacks those of testing.

    Also exits if training has only one class.
    """
    _, train_labels = splits[0]
    _, test_labels = splits[-1]
    classes = set(train_labels)
    new_in_validation = []
    if len(splits) == 3:
        _, validation_labels = splits[1]
        new_in_validation = sorted(set(validation_labels) - classes)
    if len(classes) < 2 or new_in_validation:
        sys.exit(
            "--train must have at least two classes, and all classes of --dev. "
            f"Received: {sorted(classes)}, and only in --dev {new_in_validation}."
        )
    new_in_test = sorted(set(test_labels) - classes)
    if new_in_test:
        console.print(
            f"Warning: no training series has the class {', '.join(new_in_test)}"
        )


def pad(series):
    """Return series as one array (N, S, F); short series are filled up with NaN."""
    longest = max(len(steps) for steps in series)
    num_features = series[0].shape[1]
    padded = np.full((len(series), longest, num_features), math.nan)
    for index, steps in enumerate(series):
        padded[index, : len(steps)] = steps
    return padded


# Build --------------------------------------------------------------------------------


def build(options, series, classes):
    """Build a model that returns logits, for training, and one for use.

    The model for use returns a dictionary from class to probability. Both share their
    weights, take series as they were measured, and normalize each feature.
    """
    steps = np.concatenate(series)
    mean = steps.mean(axis=0)
    variance = steps.var(axis=0)
    variance[variance == 0] = 1.0  # a constant feature
    num_features = len(mean)
    classifier = build_classifier(options, num_features, len(classes))

    inputs = keras.Input((None, num_features))
    normalize = keras.layers.Normalization(mean=mean.tolist(), variance=variance)
    normalized = normalize(inputs)
    noisy = keras.layers.GaussianNoise(options.noise)(normalized)
    logits = classifier(noisy)
    probabilities = ops.softmax(logits)
    named = {name: probabilities[:, index] for index, name in enumerate(classes)}
    training_model = keras.Model(inputs, logits)
    saved_model = keras.Model(inputs, named)
    return training_model, saved_model


def build_classifier(options, num_features, num_classes):
    """Build a network that maps normalized series, padded with NaN, to logits."""
    positions = None
    if options.encoder == "transformer":
        positions = "sinusoidal"
    embedding = kseq.layers.FeatureEmbedding(
        num_features, options.width, mask_value=math.nan, positions=positions
    )
    if options.encoder == "lstm-fcn":
        return build_lstm_fcn(options, embedding, num_classes)
    if options.encoder in ("transformer", "conv"):
        encoder = options.encoder  # built by kseq.many_to_one
    else:
        num_layers = 1
        if options.encoder == "mingru":
            num_layers = 2  # the gates of a single layer do not see its state
        encoder = kseq.layers.RecurrentEncoder(
            options.encoder, options.width, num_layers, bidirectional=True
        )
    return kseq.many_to_one(
        embedding,
        num_classes,
        encoder,
        pooling="max",
        width=options.width,
        dropout=options.dropout,
    )


def build_lstm_fcn(options, embedding, num_classes):
    """Build an LSTM-FCN: the last step of an LSTM beside the mean of convolutions."""
    series = embedding.symbolic_input("series")
    vectors = embedding(series)
    lstm = kseq.layers.RecurrentEncoder("lstm", options.width)
    last_step = kseq.layers.LastStepPooling()(lstm(vectors))
    convolutions = kseq.layers.ConvEncoder(options.width)
    mean = kseq.layers.MeanPooling()(convolutions(vectors))
    both = keras.layers.Concatenate()([last_step, mean])
    dropped = keras.layers.Dropout(options.dropout)(both)
    logits = keras.layers.Dense(num_classes, name="head")(dropped)
    return keras.Model(series, logits, name="lstm_fcn")


# Train --------------------------------------------------------------------------------


def fit(training_model, saved_model, options, train, validation=None):
    """Train with `Model.fit` and save the best epoch.

    The best epoch has the lowest validation loss, or the lowest training loss if there
    are no series for validation.
    """
    classes = list(saved_model.output)
    train_series, train_labels = train
    inputs = pad(train_series)
    class_ids = np.array([classes.index(label) for label in train_labels])
    monitor = "loss"
    validation_data = None
    if validation:
        validation_series, validation_labels = validation
        monitor = "val_loss"
        validation_data = (
            pad(validation_series),
            np.array([classes.index(label) for label in validation_labels]),
        )

    num_batches = math.ceil(len(train_series) / options.batch_size)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=num_batches * options.epochs
    )
    training_model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [
        kseq.training.SaveBest(
            options.output / "model.keras", monitor=monitor, saved=saved_model
        ),
        kseq.training.StopOnInterrupt(),
    ]
    return training_model.fit(
        inputs,
        class_ids,
        batch_size=options.batch_size,
        epochs=options.epochs,
        validation_data=validation_data,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def classify(saved_model, series):
    """Return the most probable class of each series, and its probability."""
    outputs = saved_model.predict(pad(series), verbose=0)
    classes = list(outputs)
    probabilities = np.stack(list(outputs.values()), axis=1)  # series classes
    answers = []
    for row in probabilities:
        answers.append((classes[row.argmax()], row.max()))
    return answers


def evaluate(train, test, predicted):
    """Print the accuracy on test series, beside that of the nearest neighbour."""
    train_series, _ = train
    test_series, test_labels = test
    table = Table("classifier", "accuracy", "wrong")
    answers = {}
    lengths = {len(steps) for steps in train_series + test_series}
    if len(lengths) == 1:  # only series of the same length have a distance
        answers["nearest neighbour"] = nearest_classes(train, test_series)
    answers["this model"] = predicted
    for name, labels in answers.items():
        is_right = np.array(labels) == np.array(test_labels)
        table.add_row(name, f"{is_right.mean():.2%}", f"{np.sum(~is_right):,}")
    console.print(table)

    num_right = is_right.sum()  # of this model, the last one
    [(most_common, number)] = collections.Counter(test_labels).most_common(1)
    if num_right <= number < len(test_labels):
        console.print(
            f"Always answering {most_common} would be as good: "
            f"{number / len(test_labels):.2%}. Train longer (--epochs), or on more "
            "series."
        )


def nearest_classes(train, test_series):
    """Return the class of the nearest training series of each test series."""
    train_series, train_labels = train
    classes = []
    for test_steps in test_series:
        distances = [np.sum((test_steps - steps) ** 2) for steps in train_series]
        classes.append(train_labels[np.argmin(distances)])
    return classes


# Show ---------------------------------------------------------------------------------


def draw_classes(test, predicted, path):
    """Draw test series, a panel for each class; what the model got wrong is red."""
    from matplotlib.figure import Figure

    series, labels = test
    classes = sorted(set(labels))[:6]
    figure = Figure(figsize=(4 * len(classes), 3.2), dpi=150, layout="constrained")
    figure.suptitle("test series: classified right in grey, wrong in red", size=10)
    panels = figure.subplots(1, len(classes), squeeze=False, sharey=True)[0]
    for name, panel in zip(classes, panels, strict=True):
        rows = [row for row, label in enumerate(labels) if label == name]
        wrong_rows = [row for row in rows if predicted[row] != name]
        for row in rows[:300]:
            first_feature = series[row][:, 0]
            panel.plot(first_feature, color=RIGHT_COLOR, lw=0.5, alpha=0.5)
        for row in wrong_rows:
            first_feature = series[row][:, 0]
            panel.plot(first_feature, color=WRONG_COLOR, lw=0.8)
        panel.set_title(
            f"class {name}: {len(rows):,} series, {len(wrong_rows)} wrong",
            loc="left",
            size=10,
        )
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, labelcolor="0.4", color="0.7")
        panel.set_xlabel("step", size=9, color="0.4")
    kseq.plots.legible(figure).savefig(path)


def classify_file(options):
    """Classify the series of a file with a saved model."""
    try:
        model = keras.saving.load_model(options.load, compile=False)
        num_features = model.input_shape[-1]
        model.output.keys()  # the classes
    except (ValueError, AttributeError, OSError, zipfile.BadZipFile):
        sys.exit(f"--load must be a model of this recipe. Received: {options.load}")
    try:
        series, labels = kseq.datasets.read_series(options.read)
    except ValueError as error:
        sys.exit(str(error))
    received = series[0].shape[1]
    if received != num_features:
        sys.exit(
            f"--read must have series with {num_features} features, as in training. "
            f"Received: {received} features."
        )
    table = Table("series", "in the file", "class", "probability")
    for index, (name, probability) in enumerate(classify(model, series)):
        table.add_row(str(index + 1), labels[index], name, f"{probability:.3f}")
    console.print(table)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a classifier, or classify series with a saved one."""
    options = parse_arguments(argv)
    if options.load:
        classify_file(options)
        return
    require("matplotlib")  # fail now, not after the training
    keras.utils.set_random_seed(options.seed)

    splits = load_splits(options)
    train = splits[0]
    test = splits[-1]
    validation = None
    num_validation = 0
    if len(splits) == 3:
        validation = splits[1]
        num_validation = len(validation[0])
    train_series, train_labels = train
    test_series, _ = test
    console.print(
        f"{len(train_series):,} series for training, {num_validation:,} for "
        f"validation, {len(test_series):,} for testing."
    )

    classes = sorted(set(train_labels))
    training_model, saved_model = build(options, train_series, classes)
    history = fit(training_model, saved_model, options, train, validation)

    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    predicted = [name for name, _ in classify(saved_model, test_series)]
    evaluate(train, test, predicted)
    draw_classes(test, predicted, options.output / "series.png")
    console.print(f"The model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of the data sets (default: $KSEQ_DATA_DIR)",
    )
    parser.add_argument(
        "--train",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: series with their classes for training",
    )
    parser.add_argument(
        "--dev",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: series for validation, which choose the best epoch",
    )
    parser.add_argument(
        "--test",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: series for testing",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="classify the series of --read with this saved model; do not train",
    )
    parser.add_argument(
        "--read",
        type=pathlib.Path,
        metavar="FILE",
        help="file of series to classify with --load",
    )
    parser.add_argument(
        "--output",
        type=folder,
        default="classes",
        help="folder for the model and pictures",
    )
    parser.add_argument(
        "--encoder",
        choices=["gru", "lstm", "mingru", "rnn", "transformer", "conv", "lstm-fcn"],
        default="gru",
        help="network that reads the series",
    )
    parser.add_argument("--width", type=count, default=64, help="width of every layer")
    parser.add_argument(
        "--noise",
        type=not_negative,
        default=0.3,
        help="noise that is added in training, in standard deviations of a feature",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.3,
        help="dropout rate",
    )
    parser.add_argument(
        "--epochs", type=count, default=200, help="passes over the training series"
    )
    parser.add_argument(
        "--batch-size", type=count, default=16, help="series in a batch"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=3e-3,
        help="learning rate at the start, from which it decays to 0",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test with a small model for 2 epochs; its results are meaningless",
    )
    options = parser.parse_args(argv)

    if options.quick:
        options.epochs = 2
        options.width = 8
    if bool(options.train) != bool(options.test):
        parser.error("--train and --test go together, and --dev with both")
    if options.dev and not options.train:
        parser.error("--train and --test go together, and --dev with both")
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
