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

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

NUM_CLASSES = 10
SETTINGS = {
    "mnist": {"patch": 7, "epochs": 10, "batch_size": 128, "dropout": 0.1, "shift": 1},
    "digits": {"patch": 2, "epochs": 40, "batch_size": 32, "dropout": 0.2, "shift": 0},
}
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        return read(load_model(options.load), options.read)
    require("matplotlib")  # not only when the training has ended
    train, validation, test = load_splits(options)
    sizes = [f"{len(images):,}" for images, _ in (train, validation, test)]
    console.print("{} pictures to learn from, {} to watch, {} held out.".format(*sizes))
    began = time.time()
    shape, sizes = train[0].shape[1:], (options.width, options.layers)
    model = kseq.vision_transformer(
        shape, options.patch, NUM_CLASSES, *sizes, num_heads=4, dropout=options.dropout
    )
    history = fit(model, train, validation, options)
    answers = evaluate(model, validation, test, (time.time() - began) / 60)
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    one_each = np.unique(test[1], return_index=True)[1]
    draw_attention(model, test[0][one_each], options.output / "attention.png")
    draw_mistakes(test, answers, options.output / "mistakes.png")
    console.print(f"The best model and pictures lie in {options.output}.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


class Shifted(kseq.training.LengthBatches):
    """Batches in a new order every epoch, each moved by a few pixels.

    What leaves a picture on one side comes back on the other, where it should be dark.
    """

    def __init__(self, images, labels, options):
        self.images, self.labels, self.shift = images, labels, options.shift
        self.random = np.random.default_rng(options.seed)
        lengths = [np.ones(len(images), int)]  # all are alike
        super().__init__(lengths, options.batch_size, seed=options.seed)

    def make_batch(self, rows, lengths):
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
        jit_compile=not options.quick,  # compiling takes longer than a --quick
    )
    callbacks = [
        kseq.training.SaveBest(options.output / "model.keras", monitor="val_accuracy"),
        kseq.training.StopOnInterrupt(),
    ]
    return model.fit(
        batches, validation_data=validation, epochs=options.epochs, callbacks=callbacks
    )


def evaluate(model, validation, test, minutes):
    """Prints the accuracy on what the model has not seen; returns its test answers."""
    table = Table("weights", "validation accuracy", "test accuracy", "minutes")
    rates = []
    for images, labels in (validation, test):
        answers = probabilities(model, images)  # B classes
        rates.append(f"{(answers.argmax(axis=1) == labels).mean():.2%}")
    table.add_row(f"{model.count_params():,}", *rates, f"{minutes:.1f}")
    console.print(table)
    return answers


def probabilities(model, images):
    return np.array(keras.ops.softmax(model.predict(images, 250, verbose=0)))


def class_token_attention(model, images):
    """How much the class token read of each patch: last block, mean over the heads."""
    encoder = model.get_layer("encoder")
    steps = keras.Model(model.input, encoder.input)(images)  # B 1+P D
    _, weights = encoder(steps, return_attention_scores=True)  # B layers heads S S
    weights = keras.ops.convert_to_numpy(weights)[:, -1, :, 0, 1:].mean(axis=1)  # B P
    return weights.reshape(len(images), round(weights.shape[1] ** 0.5), -1)


def draw_attention(model, images, path):
    """Writes pictures, and below each what the class token looked at, brightly."""
    titles = [*map(str, range(len(images))), *["looked at"] * len(images)]
    weights = class_token_attention(model, images)
    patch = images.shape[1] // weights.shape[1]
    ink = (images[..., 0] + 1) / 2  # B H W
    bright = np.kron(weights / weights.max(), np.ones((1, patch, patch)))  # B H W
    sheet([*ink, *(0.7 * bright + 0.3 * ink)], path, titles, len(images), "magma")


def draw_mistakes(test, answers, path, most=30):
    """Writes a sheet of the pictures that were read wrongly, the surest ones first."""
    images, labels = test
    wrong = np.flatnonzero(answers.argmax(axis=1) != labels)
    wrong = wrong[np.argsort(-answers[wrong].max(axis=1))][:most]
    titles = [f"{labels[i]} read as {answers[i].argmax()}" for i in wrong]
    sheet([images[i, ..., 0] for i in wrong], path, titles)


def sheet(pictures, path, titles=None, columns=10, cmap="gray_r"):
    """Writes pictures side by side, in rows."""
    rows = max(-(-len(pictures) // columns), 1)
    size = (columns, (1.25 if titles else 1) * rows)
    from matplotlib.figure import Figure

    figure = Figure(dpi=150, figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    titles = titles or [""] * len(pictures)
    for ax, picture, title in zip(panels, pictures, titles, strict=False):
        ax.imshow(picture, cmap=cmap)
        ax.set_title(title, size=8)
    for ax in figure.axes:
        ax.set_axis_off()
    figure.savefig(path)


def read(model, paths):
    """Prints what pictures show: dark on light or light on dark, of any size."""
    size = model.input_shape[1:3]
    table = Table("picture", "shows", "probability")
    for path in paths:
        try:
            image = keras.utils.load_img(path, color_mode="grayscale", target_size=size)
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
    random = np.random.default_rng(0)
    if options.task == "mnist":
        try:
            parts = kseq.datasets.load("mnist", options.data)
        except (OSError, ValueError) as error:
            sys.exit(str(error))
        (images, labels), test = parts["train"], parts["test"]
    else:
        data = sklearn.datasets.load_digits()
        _, order = np.unique(data.data, axis=0, return_index=True)  # all differ
        random.shuffle(order)
        images, labels = data.images[order] * (255 / 16), data.target[order]
        images, labels, test = images[400:], labels[400:], (images[:400], labels[:400])
    watched, rest = np.split(random.permutation(len(images)), [len(images) // 12])
    parts = (images[rest], labels[rest]), (images[watched], labels[watched]), test
    step = 10 if options.quick else 1
    return [
        (np.float32(images[::step, :, :, None]) / 127.5 - 1, np.int32(labels[::step]))
        for images, labels in parts
    ]


def load_model(path):
    """The model that an earlier run has saved."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    shapes = getattr(model, "input_shape", ()), getattr(model, "output_shape", ())
    if len(shapes[0]) != 4 or shapes[1] != (None, NUM_CLASSES):
        sys.exit(f"{path} must hold a model of this recipe. Received: {shapes}.")
    return model


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--task", choices=list(SETTINGS), default="mnist")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--output", type=folder, default="images", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="read with a saved model")
    add("--read", type=path, nargs="+", metavar="PICTURE", help="what to read then")
    add("--patch", type=count, help="pixels across; 7 of mnist, 2 of digits")
    add("--width", type=count, default=64)
    add("--layers", type=count, default=4)
    add("--epochs", type=count, help="10 for mnist, 40 for digits")
    add("--batch-size", type=count, help="128 for mnist, 32 for digits")
    add("--learning-rate", type=positive, default=2e-3)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    for name, value in SETTINGS[options.task].items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    if options.quick:
        options.epochs = 2
    if options.width % 4:
        parser.error("--width must be a multiple of 4, one part for each head")
    if options.patch not in ((2, 4, 7) if options.task == "mnist" else (2, 4)):
        parser.error("--patch must be 2, 4, or for MNIST 7")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
