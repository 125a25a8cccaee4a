"""Draws digits: a class in, a picture out, written pixel by pixel as a text is.

The pictures are the 1,797 handwritten digits that come with scikit-learn, 8 x 8 pixels
in 17 levels of grey. Each level is a token, and a picture a sequence of 64, row by row.

    python recipes/draw_digits.py --output digits
    python recipes/draw_digits.py --load digits/model.keras --digits 2 0 2 6

A classifier that has seen none of the drawn pictures, a support vector machine trained
on the same real ones, tells whether they can be read.
"""

import argparse
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
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

MODEL, SHEET, CURVE, DRAWN = "model.keras", "sheet.png", "training.png", "drawn.png"
SIDE, LEVELS, CLASSES = 8, 17, 10
UNKNOWN, START, END, BLACK = 1, 2, 3, 4  # token ids; a picture holds BLACK and above
# All pictures have 64 pixels, so there is no end token to learn.
NO_MARKS = kseq.decoding.BannedTokens([UNKNOWN, START, END])
SHADES = " .:-=+*#%@"
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    require("matplotlib")  # not only when the training has ended
    keras.utils.set_random_seed(options.seed)
    if options.load:
        return show(draw(load_model(options.load), options.digits, options), options)
    train, validation, test = load_splits(options)
    console.print(
        f"{len(train[0]):,} digits to learn from, {len(validation[0])} to watch, "
        f"{len(test[0])} held out."
    )
    began = time.time()
    model = build(options)
    history = fit(model, train, validation, options)
    console.print(
        f"Trained {model.count_params():,} weights in {time.time() - began:.0f} s."
    )
    evaluate(model, train, test, options)
    kseq.plots.training_curve(history).savefig(options.output / CURVE)
    console.print(
        f"The best model lies in {options.output / MODEL}, pictures beside it."
    )
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def build(options):
    """A decoder that reads the class at every pixel it writes."""
    layers, width, depth = kseq.layers, options.width, options.layers
    places = {"positions": "learned", "max_length": SIDE * SIDE}
    if options.decoder == "transformer":
        target = layers.TokenEmbedding(BLACK + LEVELS, width, **places)
        decoder = layers.TransformerDecoder(
            depth, num_heads=4, cross_attention=False, dropout=options.dropout
        )
    else:
        size, dropout = BLACK + LEVELS, options.dropout
        target = layers.TokenEmbedding(size, width // 2, dropout, **places)
        decoder = layers.RecurrentDecoder(
            options.decoder, width, depth, attention="bahdanau", dropout=dropout
        )
    return kseq.one_to_many(target, condition=CLASSES, decoder=decoder, width=width)


def fit(model, train, validation, options):
    """Trains with Keras' own loop, and keeps the best epoch."""
    batches, watched = (
        kseq.training.teacher_forcing(
            classes, np.insert(pixels, 0, START, axis=1), options.batch_size
        )
        for pixels, classes in (train, validation)
    )
    warm_up = len(batches)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(len(batches) * options.epochs - warm_up, 1),
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        keras.optimizers.AdamW(learning_rate, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(),
        # A recurrent decoder compiles its loop by itself.
        jit_compile=options.decoder == "transformer",
    )
    return model.fit(
        batches,
        validation_data=watched,
        epochs=options.epochs,
        callbacks=[
            kseq.training.SaveBest(options.output / MODEL),
            kseq.training.StopOnInterrupt(),
        ],
    )


def draw(model, classes, options):
    """Draws a picture of each class: levels of grey, one row for each picture."""
    how = {"top_p": options.top_p, "seed": options.seed, "constraints": [NO_MARKS]}
    search = kseq.decoding.Sampling(options.temperature, **how)
    written = model.generate(np.array(classes, "int32"), search, SIDE * SIDE)
    return written.token_ids[:, 0]


def evaluate(model, train, test, options):
    """Prints whether drawn digits can be read, and whether they are copies."""
    reader = sklearn.svm.SVC(gamma=0.001, C=10).fit(*train)
    wanted = np.repeat(np.arange(CLASSES), options.draws)
    drawn = draw(model, wanted, options)
    loss = -model.score(test[1], test[0].tolist()).mean() / SIDE**2

    table = Table("", "read as meant", "copies of a training digit", "distance to it")
    for name, pictures, classes in (
        ("drawn", drawn, wanted),
        ("real, held out", *test),
    ):
        far = nearest(pictures, train[0])[1]
        share, copies = reader.score(pictures, classes), (far == 0).sum()
        table.add_row(name, f"{share:.1%}", str(copies), f"{far.mean():.1f}")
    console.print(table)
    console.print(f"Loss on real digits held out: {loss:.4f} nats a pixel.")
    some = drawn.reshape(CLASSES, options.draws, -1)[:, :4].swapaxes(0, 1)
    real = [test[0][test[1] == digit][:2] for digit in range(CLASSES)]
    groups = {
        "real": np.concatenate(np.swapaxes(real, 0, 1)),
        "drawn": np.concatenate(some),
        "real and nearest\nto the last drawn": train[0][nearest(some[-1], train[0])[0]],
    }
    picture(groups).savefig(options.output / SHEET)


def nearest(pictures, others):
    """For each picture the most similar of the others, and how far away it is."""
    squares = [(x.astype(float) ** 2).sum(axis=1) for x in (pictures, others)]
    products = pictures.astype(float) @ others.T
    distances = squares[0][:, None] + squares[1] - 2 * products
    return distances.argmin(axis=1), np.sqrt(distances.min(axis=1))


def picture(groups, columns=CLASSES):
    """A sheet of pictures: groups of rows one below the other, each with its name."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=150, figsize=(0.62 * columns + 1.5, 1), layout="constrained")
    heights = [-(-len(rows) // columns) for rows in groups.values()]
    figure.set_figheight(0.66 * sum(heights) + 0.1)
    panels = figure.subplots(len(groups), 1, height_ratios=heights, squeeze=False)
    for ax, (name, rows), height in zip(
        panels[:, 0], groups.items(), heights, strict=True
    ):
        sheet = np.full((height * (SIDE + 1) - 1, columns * (SIDE + 1) - 1), np.nan)
        for place, row in enumerate(rows):
            top, left = (SIDE + 1) * (place // columns), (SIDE + 1) * (place % columns)
            sheet[top : top + SIDE, left : left + SIDE] = row.reshape(SIDE, SIDE)
        ax.imshow(sheet, cmap="gray_r", vmin=BLACK, vmax=BLACK + LEVELS - 1)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", size=9)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    return figure


def show(drawn, options):
    """Prints drawn digits as characters, and writes them as a picture."""
    levels = (drawn - BLACK) * (len(SHADES) - 1) // (LEVELS - 1)
    for row in range(SIDE):
        line = levels.reshape(-1, SIDE, SIDE)[:, row]
        console.print("  ".join("".join(2 * SHADES[i] for i in x) for x in line))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / DRAWN
    picture({"": drawn}, columns=len(drawn)).savefig(path)
    console.print(f"The same as a picture: {path}")


def load_splits(options):
    """Pixels as token ids, and classes, to learn from, to watch and to be tested on."""
    data = sklearn.datasets.load_digits()
    pixels, first = np.unique(data.data.astype("int32"), axis=0, return_index=True)
    classes = data.target[first].astype("int32")  # of pictures that all differ
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, classes = pixels[order] + BLACK, classes[order]
    if options.quick:
        pixels, classes = pixels[:800], classes[:800]
    parts = slice(500, None), slice(300, 500), slice(0, 300)
    return [(pixels[part], classes[part]) for part in parts]


def load_model(path):
    """The model that an earlier run has saved."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    sizes = [getattr(model, name, None) for name in ("source_size", "target_size")]
    if sizes != [CLASSES, BLACK + LEVELS]:
        sys.exit(
            f"{path} must hold a model of this recipe. Received: a "
            f"{type(model).__name__}. Train one with --output DIR."
        )
    return model


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--output", type=folder, default="digits", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="draw with a saved model")
    add("--digits", nargs="+", type=int, choices=range(10), default=list(range(10)))
    add("--temperature", type=positive, default=0.8)
    add("--top-p", type=probability, help="draw from the most probable levels only")
    add("--draws", type=count, default=100, help="of each class")
    add("--decoder", choices=["lstm", "gru", "transformer"], default="lstm")
    add("--width", type=count, default=128)
    add("--layers", type=count, default=1)
    add("--dropout", type=share, default=0.2)
    add("--epochs", type=count, default=30)
    add("--batch-size", type=count, default=32)
    add("--learning-rate", type=positive, default=3e-3)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if options.quick:
        options.epochs, options.draws, options.width = 2, 5, 32
    if options.width % 4:
        parser.error("--width must be a multiple of 4, one part for each head")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
