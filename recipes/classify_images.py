"""Tells what a picture shows, with a Vision Transformer.

The picture is cut into patches, which a Transformer reads as it would read words. It
learns the handwritten digits of MNIST (28 x 28 pixels), or the small ones (8 x 8) that
come with scikit-learn.

    python recipes/classify_images.py --output mnist
    python recipes/classify_images.py --load mnist/model.keras --read my_four.png
    python recipes/classify_images.py --task digits --output digits
"""

import argparse
import pathlib
import sys
import time
import zipfile

import keras
import numpy as np
import sklearn.datasets
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import kseq

MODEL, CURVE = "model.keras", "training.png"
ATTENTION, MISTAKES = "attention.png", "mistakes.png"
NUM_CLASSES = 10
SETTINGS = {
    "mnist": {"patch": 7, "epochs": 10, "batch_size": 128, "dropout": 0.1, "shift": 1},
    "digits": {"patch": 2, "epochs": 40, "batch_size": 32, "dropout": 0.2, "shift": 0},
}
console = Console()


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        return read(load_model(options.load), options.read)
    train, validation, test = load_splits(options)
    console.print(
        f"{len(train[0]):,} pictures to learn from, {len(validation[0]):,} to watch, "
        f"{len(test[0]):,} held out."
    )
    began = time.time()
    model = kseq.vision_transformer(
        train[0].shape[1:],
        options.patch,
        NUM_CLASSES,
        width=options.width,
        num_layers=options.layers,
        num_heads=4,
        dropout=options.dropout,
    )
    history = fit(model, train, validation, options)
    minutes = (time.time() - began) / 60
    answers = evaluate(model, validation, test, minutes)
    kseq.plots.training_curve(history).savefig(options.output / CURVE)
    draw_attention(model, test[0][:10], options.output / ATTENTION)
    draw_mistakes(test, answers, options.output / MISTAKES)
    console.print(
        f"The best model lies in {options.output / MODEL}, pictures beside it."
    )
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


class Shifted(keras.utils.PyDataset):
    """Batches in a new order every epoch, each moved by a few pixels.

    What leaves a picture on one side comes back on the other, where it should be dark.
    """

    def __init__(self, images, labels, options):
        super().__init__()
        self.images, self.labels = images, labels
        self.batch_size, self.shift = options.batch_size, options.shift
        self.random = np.random.default_rng(options.seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def on_epoch_end(self):
        self.order = self.random.permutation(len(self.images))

    def __getitem__(self, step):
        rows = self.order[step * self.batch_size :][: self.batch_size]
        shift = self.random.integers(-self.shift, self.shift + 1, size=2)
        return np.roll(self.images[rows], shift, axis=(1, 2)), self.labels[rows]


def fit(model, train, validation, options):
    """Trains with Keras' own loop, and keeps the best epoch."""
    batches = Shifted(*train, options)
    warm_up = len(batches) // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=len(batches) * options.epochs - warm_up,
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.05, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    return model.fit(
        batches,
        validation_data=validation,
        epochs=options.epochs,
        callbacks=[
            kseq.training.SaveBest(options.output / MODEL, monitor="val_accuracy"),
            kseq.training.StopOnInterrupt(),
        ],
    )


def evaluate(model, validation, test, minutes):
    """Prints the accuracy on what the model has not seen; returns its test answers."""
    table = Table("weights", "validation accuracy", "test accuracy", "minutes")
    answers = [probabilities(model, images) for images, _ in (validation, test)]
    rates = [
        f"{(given.argmax(axis=1) == labels).mean():.2%}"
        for given, (_, labels) in zip(answers, (validation, test), strict=True)
    ]
    table.add_row(f"{model.count_params():,}", *rates, f"{minutes:.1f}")
    console.print(table)
    return answers[1]


def probabilities(model, images):
    logits = model.predict(images, batch_size=250, verbose=0)
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))  # B classes


def class_token_attention(model, images):
    """How much of each patch the class token read in the last block, (B, down, across).

    The mean over the heads.
    """
    encoder = model.get_layer("encoder")
    steps = keras.Model(model.input, encoder.input)(images)  # B 1+P D
    _, weights = encoder(steps, return_attention_scores=True)  # B layers heads S S
    weights = keras.ops.convert_to_numpy(weights)[:, -1, :, 0, 1:].mean(axis=1)  # B P
    height, width = images.shape[1:3]
    down = round((weights.shape[1] * height / width) ** 0.5)
    return weights.reshape(len(images), down, -1)


def draw_attention(model, images, path):
    """Writes what the class token looked at: bright patches, over dark ones."""
    weights = class_token_attention(model, images)
    figure = Figure(dpi=150, figsize=(len(images), 2), layout="constrained")
    panels = figure.subplots(2, len(images), squeeze=False)
    extent = (0, images.shape[2], images.shape[1], 0)
    for (above, below), image, weight in zip(panels.T, images, weights, strict=True):
        above.imshow(image[..., 0], cmap="gray_r", extent=extent)
        below.imshow(weight, cmap="magma", vmin=0, vmax=weights.max(), extent=extent)
        below.imshow(image[..., 0], cmap="gray", alpha=0.3, extent=extent)
    finish(panels)
    figure.savefig(path)


def draw_mistakes(test, answers, path, most=30, columns=10):
    """Writes a sheet of the pictures that were read wrongly, the surest ones first."""
    images, labels = test
    wrong = np.flatnonzero(answers.argmax(axis=1) != labels)
    wrong = wrong[np.argsort(-answers[wrong].max(axis=1))][:most]
    if not len(wrong):
        console.print("No picture was read wrongly, so there is no sheet of mistakes.")
        return
    rows = -(-len(wrong) // columns)
    figure = Figure(dpi=150, figsize=(columns, 1.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for ax, i in zip(panels.flat, wrong, strict=False):
        ax.imshow(images[i, ..., 0], cmap="gray_r")
        ax.set_title(f"{labels[i]} read as {answers[i].argmax()}", size=8)
    finish(panels)
    figure.savefig(path)


def finish(panels):
    for ax in panels.flat:
        ax.set_axis_off()


def read(model, paths):
    """Prints what pictures show: dark on light or light on dark, of any size."""
    _, height, width, _ = model.input_shape
    table = Table("picture", "shows", "probability")
    for path in paths:
        try:
            image = keras.utils.load_img(
                path, color_mode="grayscale", target_size=(height, width)
            )
        except OSError as error:
            sys.exit(f"--read needs files of pictures. Received: {path}: {error}")
        pixels = np.array(image, "float32")[..., None] / 127.5 - 1
        if np.median(pixels) > 0:  # dark on light
            pixels = -pixels
        answer = probabilities(model, pixels[None])[0]
        table.add_row(str(path), str(answer.argmax()), f"{answer.max():.3f}")
    console.print(table)


def load_splits(options):
    """Pictures from -1 to 1 and labels: to learn from, to watch, to be tested on."""
    if options.task == "mnist":
        parts = kseq.datasets.load("mnist", options.data)
        (images, labels), test = parts["train"], parts["test"]
        greatest, watched = 255, 5_000
    else:
        data = sklearn.datasets.load_digits()
        images, first = np.unique(data.images, axis=0, return_index=True)  # all differ
        labels, test, greatest, watched = data.target[first], None, 16, 200
    order = np.random.default_rng(0).permutation(len(images))  # they come by class
    if test is None:
        held_out, order = order[:400], order[400:]
        test = images[held_out], labels[held_out]
    rows = order[watched:], order[:watched]
    parts = [*((images[chosen], labels[chosen]) for chosen in rows), test]
    most = 500 if options.quick else None
    return [
        (
            np.array(x[:most], "float32")[..., None] * 2 / greatest - 1,
            np.array(y[:most], "int32"),
        )
        for x, y in parts
    ]


def load_model(path):
    """The model that an earlier run has saved."""
    if not path.exists():
        sys.exit(
            f"There is no model at {path}. Train one first: --output {path.parent}"
        )
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    shapes = getattr(model, "input_shape", ()), getattr(model, "output_shape", ())
    if len(shapes[0]) != 4 or shapes[1] != (None, NUM_CLASSES):
        sys.exit(
            f"{path} must hold a model of this recipe. Received: a "
            f"{type(model).__name__} from {shapes[0]} to {shapes[1]}. Train one with "
            "--output DIR."
        )
    return model


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, path = parser.add_argument, pathlib.Path
    add("--task", choices=list(SETTINGS), default="mnist")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--output", type=path, default=path("images"), help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="read with a saved model")
    add("--read", type=path, nargs="+", metavar="PICTURE", help="what to read then")
    add("--patch", type=int, help="height and width of a patch")
    add("--width", type=int, default=64)
    add("--layers", type=int, default=4)
    add("--dropout", type=float)
    add("--shift", type=int, help="pixels to move pictures by, at most")
    add("--epochs", type=int)
    add("--batch-size", type=int)
    add("--learning-rate", type=float, default=2e-3)
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    for name, value in SETTINGS[options.task].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.quick:
        options.epochs = 2
    return options


if __name__ == "__main__":
    main()
