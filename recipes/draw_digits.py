"""Train a model that draws digits: a class in, a picture out, pixel by pixel.

The pictures are the 1,797 handwritten digits that come with scikit-learn, 8 x 8 pixels
in 17 levels of grey. Each level is a token, so a picture is a sequence of 64 tokens,
row by row.

    python recipes/draw_digits.py --output digits
    python recipes/draw_digits.py --load digits/model.keras --digits 2 0 2 6

A classifier that was trained on the same real pictures, a support vector machine, tells
whether the drawn digits can be recognized.
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
import sklearn.svm

import kseq
from kseq.training.cli import (
    Help,
    count,
    folder,
    positive,
    probability,
    require,
    seed,
    share,
)

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

NUM_CLASSES = 10
SIDE = 8  # pixels
NUM_PIXELS = SIDE * SIDE
NUM_LEVELS = 17  # of grey

# Token ids. A picture has only levels of grey: BLACK and the ids that follow.
UNKNOWN = 1
START = 2
END = 3
BLACK = 4
VOCABULARY_SIZE = BLACK + NUM_LEVELS
# All pictures have 64 pixels, so there is no end token to learn.
PIXELS_ONLY = kseq.decoding.BannedTokens([UNKNOWN, START, END])

SHADES = " .:-=+*#%@"  # to print a picture, from black to white
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return pixels as token ids with classes, for training, validation and testing."""
    data = sklearn.datasets.load_digits()
    pixels, first_rows = np.unique(
        data.data.astype("int32"), axis=0, return_index=True
    )  # without pictures that occur twice
    classes = data.target[first_rows].astype("int32")
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels = pixels[order] + BLACK
    classes = classes[order]
    if options.quick:
        pixels = pixels[:800]
        classes = classes[:800]
    test = (pixels[:300], classes[:300])
    validation = (pixels[300:500], classes[300:500])
    train = (pixels[500:], classes[500:])
    return train, validation, test


def load_model(path):
    """Load a model that was saved by an earlier run."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    source_size = getattr(model, "source_size", None)
    target_size = getattr(model, "target_size", None)
    if source_size != NUM_CLASSES or target_size != VOCABULARY_SIZE:
        sys.exit(
            f"{path} must hold a model of this recipe. Received: a "
            f"{type(model).__name__}. Train one with --output FOLDER."
        )
    return model


# Build --------------------------------------------------------------------------------


def build(options):
    """Build a decoder that sees the class at every pixel it generates."""
    if options.decoder == "transformer":
        embedding = kseq.layers.TokenEmbedding(
            VOCABULARY_SIZE,
            options.width,
            positions="learned",
            max_length=NUM_PIXELS,
        )
        decoder = kseq.layers.TransformerDecoder(
            options.layers,
            num_heads=4,
            cross_attention=False,
            dropout=options.dropout,
        )
    else:
        embedding = kseq.layers.TokenEmbedding(
            VOCABULARY_SIZE,
            options.width // 2,
            options.dropout,
            positions="learned",
            max_length=NUM_PIXELS,
        )
        decoder = kseq.layers.RecurrentDecoder(
            options.decoder,
            options.width,
            num_layers=options.layers,
            attention="bahdanau",
            dropout=options.dropout,
        )
    return kseq.one_to_many(
        embedding, condition=NUM_CLASSES, decoder=decoder, width=options.width
    )


# Train --------------------------------------------------------------------------------


def fit(model, train, validation, options):
    """Train with `Model.fit` and save the best epoch."""
    train_pixels, train_classes = train
    validation_pixels, validation_classes = validation
    train_batches = kseq.training.teacher_forcing(
        train_classes,
        np.insert(train_pixels, 0, START, axis=1),
        options.batch_size,
    )
    validation_batches = kseq.training.teacher_forcing(
        validation_classes,
        np.insert(validation_pixels, 0, START, axis=1),
        options.batch_size,
    )

    warmup_steps = len(train_batches)  # the first epoch
    num_steps = len(train_batches) * options.epochs
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(num_steps - warmup_steps, 1),
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    model.compile(
        keras.optimizers.AdamW(learning_rate, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(),
        # A recurrent decoder compiles its own loop.
        jit_compile=options.decoder == "transformer",
    )
    callbacks = [
        kseq.training.SaveBest(options.output / "model.keras"),
        kseq.training.StopOnInterrupt(),
    ]
    return model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        callbacks=callbacks,
    )


def draw(model, classes, options):
    """Generate a picture of each class: one row of 64 token ids for each."""
    search = kseq.decoding.Sampling(
        options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        constraints=[PIXELS_ONLY],
    )
    result = model.generate(np.array(classes, "int32"), search, max_length=NUM_PIXELS)
    return result.token_ids[:, 0]


# Evaluate -----------------------------------------------------------------------------


def evaluate(model, train, test, options):
    """Print how many drawn digits are recognized, and how many are copies.

    Draws a sheet of real digits, drawn digits, and the real ones nearest to those.
    """
    train_pixels, train_classes = train
    test_pixels, test_classes = test
    classifier = sklearn.svm.SVC(gamma=0.001, C=10)
    classifier.fit(train_pixels, train_classes)
    drawn_classes = np.repeat(np.arange(NUM_CLASSES), options.draws)
    drawn_pixels = draw(model, drawn_classes, options)
    log_probs = model.score(test_classes, test_pixels.tolist())
    loss = -log_probs.mean() / NUM_PIXELS

    table = Table(
        "digits", "recognized", "copies of a training digit", "distance to it"
    )
    for name, pixels, classes in (
        ("drawn", drawn_pixels, drawn_classes),
        ("real, test", test_pixels, test_classes),
    ):
        accuracy = classifier.score(pixels, classes)
        _, distances = nearest(pixels, train_pixels)
        num_copies = np.sum(distances == 0)
        table.add_row(
            name, f"{accuracy:.1%}", str(num_copies), f"{distances.mean():.1f}"
        )
    console.print(table)
    console.print(f"Loss on real test digits: {loss:.4f} nats per pixel.")

    real_rows = []
    for index in range(2):
        for digit in range(NUM_CLASSES):
            real_rows.append(test_pixels[test_classes == digit][index])
    drawn_by_class = drawn_pixels.reshape(NUM_CLASSES, options.draws, NUM_PIXELS)
    shown_draws = drawn_by_class[:, :4].swapaxes(0, 1)  # draws classes pixels
    last_draws = shown_draws[-1]
    nearest_rows, _ = nearest(last_draws, train_pixels)
    groups = {
        "real": real_rows,
        "drawn": np.concatenate(shown_draws),
        "real and nearest\nto the last drawn": train_pixels[nearest_rows],
    }
    draw_sheet(groups).savefig(options.output / "sheet.png")


def nearest(pictures, others):
    """Return the index of the most similar other of each picture, and its distance."""
    pictures = pictures.astype(float)
    others = others.astype(float)
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a . b
    picture_norms = (pictures**2).sum(axis=1)
    other_norms = (others**2).sum(axis=1)
    products = pictures @ others.T
    distances = picture_norms[:, None] + other_norms - 2 * products
    return distances.argmin(axis=1), np.sqrt(distances.min(axis=1))


# Show ---------------------------------------------------------------------------------


def draw_sheet(groups, columns=NUM_CLASSES):
    """Draw a dictionary of named groups of pictures, one below the other."""
    from matplotlib.figure import Figure

    heights = [math.ceil(len(pictures) / columns) for pictures in groups.values()]
    width = 0.62 * columns + 1.5
    height = 0.66 * sum(heights) + 0.1
    figure = Figure(dpi=150, figsize=(width, height), layout="constrained")
    panels = figure.subplots(len(groups), 1, height_ratios=heights, squeeze=False)
    step = SIDE + 1  # with a gap of one pixel
    for index, (name, pictures) in enumerate(groups.items()):
        sheet = np.full((heights[index] * step - 1, columns * step - 1), np.nan)
        for place, pixels in enumerate(pictures):
            top = place // columns * step
            left = place % columns * step
            sheet[top : top + SIDE, left : left + SIDE] = pixels.reshape(SIDE, SIDE)
        panel = panels[index, 0]
        panel.imshow(sheet, cmap="gray_r", vmin=BLACK, vmax=VOCABULARY_SIZE - 1)
        panel.set_ylabel(name, rotation=0, ha="right", va="center", size=9)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    return figure


def show(drawn, options):
    """Print drawn digits as characters, and write them as a picture."""
    levels = drawn.reshape(-1, SIDE, SIDE) - BLACK  # digits rows columns
    shades = levels * (len(SHADES) - 1) // (NUM_LEVELS - 1)
    for row in range(SIDE):
        parts = []
        for digit in shades:
            # Each pixel is printed twice, for a character is taller than wide.
            parts.append("".join(2 * SHADES[shade] for shade in digit[row]))
        console.print("  ".join(parts))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "drawn.png"
    draw_sheet({"": drawn}, columns=len(drawn)).savefig(path)
    console.print(f"The same as a picture: {path}")


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a model, or draw digits with a saved one."""
    options = parse_arguments(argv)
    require("matplotlib")  # fail now, not after the training
    keras.utils.set_random_seed(options.seed)
    if options.load:
        model = load_model(options.load)
        drawn = draw(model, options.digits, options)
        show(drawn, options)
        return

    train, validation, test = load_splits(options)
    console.print(
        f"{len(train[0]):,} digits for training, {len(validation[0])} for validation, "
        f"{len(test[0])} for testing."
    )
    start = time.time()
    model = build(options)
    history = fit(model, train, validation, options)
    seconds = time.time() - start
    console.print(f"Trained {model.count_params():,} weights in {seconds:.0f} s.")

    evaluate(model, train, test, options)

    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    console.print(f"The best model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--output",
        type=folder,
        default="digits",
        help="folder for the model and pictures",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="draw with this saved model; do not train",
    )
    parser.add_argument(
        "--digits",
        nargs="+",
        type=int,
        choices=range(NUM_CLASSES),
        default=list(range(NUM_CLASSES)),
        help="digits to draw with a saved model",
    )
    parser.add_argument(
        "--temperature",
        type=positive,
        default=0.8,
        help="temperature of sampling: lower is more cautious, higher more varied",
    )
    parser.add_argument(
        "--top-p",
        type=probability,
        help="sample only from the most probable levels that have this probability"
        " together (default: 1, from all)",
    )
    parser.add_argument(
        "--draws",
        type=count,
        default=100,
        help="pictures of each digit to draw in the evaluation",
    )
    parser.add_argument(
        "--decoder",
        choices=["lstm", "gru", "transformer"],
        default="lstm",
        help="network that generates the pixels",
    )
    parser.add_argument("--width", type=count, default=128, help="width of the layers")
    parser.add_argument("--layers", type=count, default=1, help="layers of the decoder")
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.2,
        help="dropout rate",
    )
    parser.add_argument(
        "--epochs", type=count, default=30, help="passes over the training digits"
    )
    parser.add_argument(
        "--batch-size", type=count, default=32, help="digits in a batch"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=3e-3,
        help="highest learning rate, after the first epoch",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on 300 digits, a small model and 2 epochs;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    if options.quick:
        options.epochs = 2
        options.draws = 5
        options.width = 32
    if options.width % 4 != 0:
        parser.error("--width must be a multiple of 4, the number of heads")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
