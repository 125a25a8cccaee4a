"""Classify pictures with a Vision Transformer.

A picture is cut into patches, and a Transformer reads these as it reads words. It
learns the handwritten digits of MNIST (28 x 28 pixels), or the small ones that come
with scikit-learn (8 x 8).

    python recipes/classify_images.py --output mnist
    python recipes/classify_images.py --load mnist/model.keras --read my_four.png
    python recipes/classify_images.py --task digits --output digits
"""

import argparse
import math
import pathlib
import sys
import time
import zipfile

import keras
import numpy as np
import sklearn.datasets

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

NUM_CLASSES = 10
NUM_HEADS = 4
SETTINGS = {  # defaults of each data set
    "mnist": {"patch": 7, "epochs": 10, "batch_size": 128, "dropout": 0.1, "shift": 1},
    "digits": {"patch": 2, "epochs": 40, "batch_size": 32, "dropout": 0.2, "shift": 0},
}
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return pictures from -1 to 1 with labels: for training, validation, testing."""
    random = np.random.default_rng(0)
    if options.task == "mnist":
        try:
            data = kseq.datasets.load("mnist", options.data)
        except (OSError, ValueError) as error:
            sys.exit(str(error))
        images, labels = data["train"]
        test_images, test_labels = data["test"]
    else:
        data = sklearn.datasets.load_digits()
        _, order = np.unique(data.data, axis=0, return_index=True)  # all are different
        random.shuffle(order)
        all_images = data.images[order] * (255 / 16)
        all_labels = data.target[order]
        test_images = all_images[:400]
        test_labels = all_labels[:400]
        images = all_images[400:]
        labels = all_labels[400:]

    order = random.permutation(len(images))
    num_validation = len(images) // 12
    validation_rows = order[:num_validation]
    train_rows = order[num_validation:]
    splits = [
        (images[train_rows], labels[train_rows]),
        (images[validation_rows], labels[validation_rows]),
        (test_images, test_labels),
    ]
    if options.quick:
        splits = [(images[::10], labels[::10]) for images, labels in splits]
    return [(scale(images), np.int32(labels)) for images, labels in splits]


def scale(images):
    """Return grey values of 0 to 255 as -1 to 1, with one channel."""
    return np.float32(images[..., None]) / 127.5 - 1  # B H W 1


def load_model(path):
    """Load a model that was saved by an earlier run."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    input_shape = getattr(model, "input_shape", ())
    output_shape = getattr(model, "output_shape", ())
    if len(input_shape) != 4 or output_shape != (None, NUM_CLASSES):
        sys.exit(
            f"{path} must hold a model of this recipe. Received: a model from "
            f"{input_shape} to {output_shape}."
        )
    return model


class ShiftedBatches(kseq.training.LengthBatches):
    """Batches in a new order every epoch, each shifted by a few pixels.

    What leaves a picture on one side returns on the other, where it should be dark.
    """

    def __init__(self, images, labels, options):
        self.images = images
        self.labels = labels
        self.shift = options.shift
        self.random = np.random.default_rng(options.seed)
        lengths = [np.ones(len(images), int)]  # all pictures have the same size
        super().__init__(lengths, options.batch_size, seed=options.seed)

    def make_batch(self, rows, lengths):
        """Return the pictures of some rows, shifted, and their labels."""
        shift = self.random.integers(-self.shift, self.shift + 1, size=2)
        shifted = np.roll(self.images[rows], shift, axis=(1, 2))
        return shifted, self.labels[rows]


# Build --------------------------------------------------------------------------------


def build(image_shape, options):
    """Build a Vision Transformer that returns logits."""
    return kseq.vision_transformer(
        image_shape,
        options.patch,
        NUM_CLASSES,
        width=options.width,
        num_layers=options.layers,
        num_heads=NUM_HEADS,
        dropout=options.dropout,
    )


# Train --------------------------------------------------------------------------------


def fit(model, train, validation, options):
    """Train with `Model.fit` and save the best epoch."""
    train_images, train_labels = train
    train_batches = ShiftedBatches(train_images, train_labels, options)
    num_steps = len(train_batches) * options.epochs
    warmup_steps = len(train_batches) // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=num_steps - warmup_steps,
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.05, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=not options.quick,  # compiling takes longer than a --quick run
    )
    callbacks = [
        kseq.training.SaveBest(options.output / "model.keras", monitor="val_accuracy"),
        kseq.training.StopOnInterrupt(),
    ]
    return model.fit(
        train_batches,
        validation_data=validation,
        epochs=options.epochs,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def predict_probabilities(model, images):
    """Return the probability of each class for each picture, (B, classes)."""
    logits = model.predict(images, batch_size=250, verbose=0)
    return np.array(keras.ops.softmax(logits))


def accuracy(probabilities, labels):
    """Return the share of pictures whose most probable class is right."""
    return np.mean(probabilities.argmax(axis=1) == labels)


def evaluate(model, validation, test, minutes):
    """Print the accuracy, and return the probabilities for the test pictures."""
    validation_images, validation_labels = validation
    test_images, test_labels = test
    validation_probabilities = predict_probabilities(model, validation_images)
    test_probabilities = predict_probabilities(model, test_images)
    validation_accuracy = accuracy(validation_probabilities, validation_labels)
    test_accuracy = accuracy(test_probabilities, test_labels)
    table = Table("weights", "validation accuracy", "test accuracy", "minutes")
    table.add_row(
        f"{model.count_params():,}",
        f"{validation_accuracy:.2%}",
        f"{test_accuracy:.2%}",
        f"{minutes:.1f}",
    )
    console.print(table)
    return test_probabilities


# Show ---------------------------------------------------------------------------------


def class_token_attention(model, images):
    """Return how much the class token attended to each patch, (B, rows, columns).

    The weights are those of the last block, averaged over its heads.
    """
    encoder = model.get_layer("encoder")
    embed = keras.Model(model.input, encoder.input)
    steps = embed(images)  # B 1+P D
    _, weights = encoder(steps, return_attention_scores=True)  # B layers heads S S
    weights = keras.ops.convert_to_numpy(weights)
    last_block = weights[:, -1]  # B heads S S
    class_token = last_block[:, :, 0, 1:].mean(axis=1)  # B P
    side = round(class_token.shape[1] ** 0.5)
    return class_token.reshape(len(images), side, side)


def draw_attention(model, images, path):
    """Draw a picture of each digit, and below what the class token attended to."""
    weights = class_token_attention(model, images)
    patch = images.shape[1] // weights.shape[1]  # pixels
    ink = (images[..., 0] + 1) / 2  # B H W
    bright = np.kron(weights / weights.max(), np.ones((1, patch, patch)))  # B H W
    attended = 0.7 * bright + 0.3 * ink
    pictures = [*ink, *attended]
    titles = [str(digit) for digit in range(len(images))]
    titles += ["attention"] * len(images)
    draw_sheet(pictures, path, titles, columns=len(images), colors="magma")


def draw_mistakes(test, probabilities, path, most=30):
    """Draw the test pictures that were classified wrong, the surest ones first."""
    images, labels = test
    answers = probabilities.argmax(axis=1)
    confidences = probabilities.max(axis=1)
    wrong = np.flatnonzero(answers != labels)
    wrong = wrong[np.argsort(-confidences[wrong])][:most]
    pictures = [images[row, ..., 0] for row in wrong]
    titles = [f"{labels[row]} read as {answers[row]}" for row in wrong]
    draw_sheet(pictures, path, titles)


def draw_sheet(pictures, path, titles, columns=10, colors="gray_r"):
    """Draw pictures side by side, in rows, each with its title."""
    from matplotlib.figure import Figure

    rows = max(math.ceil(len(pictures) / columns), 1)
    height = rows
    if titles:
        height = 1.25 * rows
    figure = Figure(dpi=150, figsize=(columns, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, picture, title in zip(panels, pictures, titles, strict=False):
        panel.imshow(picture, cmap=colors)
        panel.set_title(title, size=8)
    figure.savefig(path)


def classify_files(model, paths):
    """Print what pictures show: dark on light or light on dark, of any size."""
    size = model.input_shape[1:3]
    table = Table("picture", "shows", "probability")
    for path in paths:
        try:
            image = keras.utils.load_img(path, color_mode="grayscale", target_size=size)
        except OSError as error:
            sys.exit(f"--read needs picture files. Received: {path}: {error}")
        pixels = scale(np.array(image, "float32"))  # H W 1
        is_dark_on_light = np.median(pixels) > 0
        if is_dark_on_light:
            pixels = -pixels
        probabilities = predict_probabilities(model, pixels[None])[0]
        answer = probabilities.argmax()
        table.add_row(str(path), str(answer), f"{probabilities[answer]:.3f}")
    console.print(table)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a classifier, or classify pictures with a saved one."""
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        classify_files(load_model(options.load), options.read)
        return
    require("matplotlib")  # fail now, not after the training

    train, validation, test = load_splits(options)
    train_images, _ = train
    validation_images, _ = validation
    test_images, test_labels = test
    console.print(
        f"{len(train_images):,} pictures for training, {len(validation_images):,} for "
        f"validation, {len(test_images):,} for testing."
    )

    start = time.time()
    model = build(train_images.shape[1:], options)
    history = fit(model, train, validation, options)
    minutes = (time.time() - start) / 60

    test_probabilities = evaluate(model, validation, test, minutes)

    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    _, first_of_each_digit = np.unique(test_labels, return_index=True)
    draw_attention(
        model, test_images[first_of_each_digit], options.output / "attention.png"
    )
    draw_mistakes(test, test_probabilities, options.output / "mistakes.png")
    console.print(f"The best model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--task",
        choices=list(SETTINGS),
        default="mnist",
        help="data set: MNIST, or the small digits of scikit-learn",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of the data sets (default: $KSEQ_DATA_DIR)",
    )
    parser.add_argument(
        "--output",
        type=folder,
        default="images",
        help="folder for the model and pictures",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="classify the pictures of --read with this saved model; do not train",
    )
    parser.add_argument(
        "--read",
        type=pathlib.Path,
        nargs="+",
        metavar="PICTURE",
        help="pictures to classify with --load",
    )
    parser.add_argument(
        "--patch",
        type=count,
        help="width and height of a patch in pixels (default: 7 for mnist, 2 for"
        " digits)",
    )
    parser.add_argument(
        "--width", type=count, default=64, help="width of the Transformer"
    )
    parser.add_argument(
        "--layers", type=count, default=4, help="layers of the Transformer"
    )
    parser.add_argument(
        "--epochs",
        type=count,
        help="passes over the training pictures (default: 10 for mnist, 40 for digits)",
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        help="pictures in a batch (default: 128 for mnist, 32 for digits)",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=2e-3,
        help="highest learning rate, after the warm-up",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on a tenth of the pictures for 2 epochs;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    for name, value in SETTINGS[options.task].items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    if options.quick:
        options.epochs = 2
    if options.width % NUM_HEADS != 0:
        parser.error(f"--width must be a multiple of {NUM_HEADS}, the number of heads")
    allowed_patches = [2, 4]
    if options.task == "mnist":
        allowed_patches = [2, 4, 7]
    if options.patch not in allowed_patches:
        parser.error("--patch must be 2 or 4, or 7 for MNIST")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
