"""Reads lines of digits: a picture in, digits out, which nobody has cut apart.

A line has 3 to 8 handwritten digits of MNIST, with gaps between them, or overlaps; each
is written anew from digits that were held out or not. Two models learn to read it. With
CTC each piece of the picture says a digit, or nothing, and all ways to say the same
number count together. With attention a decoder writes digit after digit, and looks for
each at the piece where it stands.

    python recipes/read_lines.py --output lines
    python recipes/read_lines.py --model ctc --encoder conv --output lines
    python recipes/read_lines.py --load lines/ctc.keras --read my_number.png
"""

import argparse
import pathlib
import sys
import time
import zipfile

import keras
import numpy as np
from keras import layers

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed, share

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

HEIGHT, WIDTH = 28, 192  # pixels of a line
PIECE = 4  # columns of pixels that a vector stands for
FEWEST, MOST = 3, 8  # digits of a line
GAPS = -3, 9  # from overlaps of three columns to gaps of eight
START, END, FIRST = 2, 3, 4  # token ids: a digit d is FIRST + d
VOCABULARY = FIRST + 10
MODELS = {"ctc": "CTC", "attention": "attention"}
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        return read_files(load_model(options.load), options)
    require("matplotlib")  # not only when the training has ended
    digits, watched, held_out = load_digits(options)
    validation = write_lines(watched, options.validation_lines, seed=1)
    test = write_lines(held_out, options.test_lines, seed=2)
    console.print(
        f"{options.lines:,} new lines an epoch of {len(digits[0]):,} digits to learn "
        f"from, {len(validation[0]):,} lines to watch, {len(test[0]):,} lines of "
        f"{len(held_out[0]):,} other digits held out."
    )
    names = list(MODELS) if options.model == "both" else [options.model]
    table = Table("model", "weights", "search", "lines wrong", "digits wrong", "min")
    readings = {}
    for name in names:
        began = time.time()
        model = build(name, options)
        history = fit(name, model, digits, validation, options)
        minutes = (time.time() - began) / 60
        curve = options.output / f"{name}_training.png"
        kseq.plots.training_curve(history).savefig(curve)
        readings[MODELS[name]] = evaluate(name, model, test, minutes, table, options)
        if name == "ctc":
            draw_alignment(model, test[0][:6], options.output / "alignment.png")
    console.print(table)
    draw_sheet(test, readings, options.output / "sheet.png")
    console.print(f"The best models and pictures lie in {options.output}.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


@keras.saving.register_keras_serializable(package="read_lines")
class Pieces(kseq.layers.SequenceEmbedding):
    """Convolutions that read the picture of a line as a row of vectors.

    Each stands for `PIECE` columns of pixels, and has seen some to its left and right.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.stack = [
            *self.stage("first", width // 2, size=5, strides=2),
            *self.stage("second", width, strides=2),
            *self.stage("third", width),
            layers.Conv2D(width, (HEIGHT // PIECE, 1), name="rows"),  # B 1 S D
        ]

    def stage(self, name, filters, size=3, strides=1):
        options = {"padding": "same", "use_bias": False, "name": name}
        return [
            layers.Conv2D(filters, size, strides, **options),
            layers.BatchNormalization(name=f"{name}_norm"),
            layers.Activation("relu", name=f"{name}_relu"),
        ]

    def symbolic_input(self, name):
        return keras.Input((HEIGHT, WIDTH, 1), name=name)

    def build(self, shape):
        for layer in self.stack:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, pictures):
        x = pictures  # B H W 1
        for layer in self.stack:
            x = layer(x)
        return keras.ops.squeeze(x, axis=1)  # B S D

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def build(name, options):
    """Both read by the same kinds of layers; they differ in how digits come of it."""
    width = options.width
    if options.encoder == "conv":
        encoder = kseq.layers.ConvEncoder(width, num_layers=3, dropout=options.dropout)
    else:
        encoder = kseq.layers.RecurrentEncoder(
            options.encoder, width, bidirectional=True, dropout=options.dropout
        )
    if name == "ctc":
        return kseq.many_to_many(Pieces(width), VOCABULARY, encoder, head="ctc")
    return kseq.encoder_decoder(
        source=Pieces(width),
        target=VOCABULARY,
        encoder=encoder,
        decoder=kseq.layers.RecurrentDecoder("gru", width, attention="bahdanau"),
        width=width // 2,
    )


class Lines(kseq.training.LengthBatches):
    """Batches of lines that are written when they are asked for, never twice alike."""

    def __init__(self, digits, examples_of, options):
        self.digits, self.examples_of = digits, examples_of
        self.random = np.random.default_rng(options.seed)
        lengths = [np.ones(options.lines, int)]  # all pictures have one size
        super().__init__(lengths, options.batch_size, seed=options.seed)

    def make_batch(self, rows, lengths):
        return self.examples_of(*write_some(self.digits, len(rows), self.random))


def for_ctc(pictures, ids):
    """A picture, and its digits as ids: CTC finds where they stand."""
    return pictures, ids


def for_attention(pictures, ids):
    """A picture with the digits before each, and each, up to the end token."""
    rows = np.pad(ids, ((0, 0), (1, 1)))
    rows[:, 0] = START
    rows[np.arange(len(rows)), (rows != 0).sum(axis=1)] = END
    return {"source": pictures, "target": rows[:, :-1]}, rows[:, 1:]


def fit(name, model, digits, validation, options):
    """Trains with Keras' own loop, and keeps the best epoch."""
    examples_of = for_ctc if name == "ctc" else for_attention
    batches = Lines(digits, examples_of, options)
    warm_up = len(batches) // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(len(batches) * options.epochs - warm_up, 1),
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    loss = None  # CTC has its own
    if name == "attention":
        loss = kseq.training.SequenceCrossentropy()
    model.compile(keras.optimizers.AdamW(learning_rate, global_clipnorm=5.0), loss)
    return model.fit(
        batches,
        validation_data=examples_of(*validation),
        epochs=options.epochs,
        callbacks=[
            kseq.training.SaveBest(options.output / f"{name}.keras"),
            kseq.training.StopOnInterrupt(),
        ],
    )


def read(model, pictures, search=None):
    """The digits of each line, as ids that are padded with 0: integers (B, MOST)."""
    written = model.generate(pictures, search, max_length=MOST + 1)
    ids = written.token_ids[:, 0]
    ids = np.where(ids >= FIRST, ids, 0)  # without the end token
    return np.pad(ids, ((0, 0), (0, MOST)))[:, : max(ids.shape[1], MOST)]


def as_text(ids):
    return "".join(str(token_id - FIRST) for token_id in ids if token_id >= FIRST)


def evaluate(name, model, test, minutes, table, options):
    """Adds what is read wrongly to the table; returns what a beam search reads."""
    pictures, truth = test
    searches = {
        "best path" if name == "ctc" else "greedy": None,
        f"{options.beams} beams": kseq.decoding.BeamSearch(options.beams),
    }
    for label, search in searches.items():
        ids = read(model, pictures, search)
        pairs = zip(map(as_text, ids), map(as_text, truth), strict=True)
        wrong = np.mean([found != wanted for found, wanted in pairs])
        rate = float(kseq.training.EditDistanceRate()(truth, ids))
        weights, spent = f"{model.count_params():,}", f"{minutes:.1f}"
        row = MODELS[name], weights, label, f"{wrong:.1%}", f"{rate:.2%}", spent
        table.add_row(*row)
    return [as_text(row) for row in ids]


def draw_sheet(test, readings, path, most=20):
    """Writes a sheet of lines, and what was read: some that are wrong, and others."""
    pictures, truth = test
    truth = np.array([as_text(row) for row in truth])
    is_wrong = np.zeros(len(truth), bool)
    for texts in readings.values():
        is_wrong |= np.array(texts) != truth
    shown = [*np.flatnonzero(is_wrong)[: most // 2], *np.flatnonzero(~is_wrong)][:most]
    from matplotlib.figure import Figure

    rows = -(-len(shown) // 2)
    figure = Figure(dpi=150, figsize=(10, 0.95 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False)
    for ax, index in zip(panels.flat, shown, strict=False):
        ax.imshow(pictures[index, ..., 0], cmap="gray_r")
        said = [f"{name}: {texts[index]}" for name, texts in readings.items()]
        is_right = not is_wrong[index]
        title = f"{truth[index]}   " + "   ".join(said)
        ax.set_title(title, size=8, color="black" if is_right else "tab:red")
    for ax in panels.flat:
        ax.set_axis_off()
    figure.savefig(path)


def draw_alignment(model, pictures, path):
    """Writes lines, each with the place where CTC says each digit, and how surely."""
    logits = model.predict(pictures, verbose=0)  # B S V
    labels = model.ctc.best_path(logits)
    steps, _ = model.ctc.align(labels, logits)
    labels, steps, probabilities = (
        keras.ops.convert_to_numpy(x)
        for x in (labels, steps, keras.ops.softmax(logits))
    )
    from matplotlib.figure import Figure

    size = (8, 1.9 * len(pictures))
    figure = Figure(dpi=150, figsize=size, layout="constrained")
    panels = figure.subplots(2 * len(pictures), 1, sharex=True)
    middles = PIECE * np.arange(logits.shape[1]) + PIECE / 2  # of the pieces
    for index, picture in enumerate(pictures):
        line, chart = panels[2 * index : 2 * index + 2]
        line.imshow(picture[..., 0], cmap="gray_r", aspect="auto")
        line.set_axis_off()
        blank = probabilities[index, :, 0]
        chart.plot(middles, blank, color="lightgray")
        chart.plot(middles, 1 - blank, color="tab:blue")
        chart.set_ylim(0, 1.35)
        chart.set_yticks([0, 1])
        for label, step in zip(labels[index], steps[index], strict=True):
            if step >= 0:
                line.axvline(middles[step], color="tab:red", linewidth=0.8)
                chart.text(middles[step], 1.05, str(label - FIRST), ha="center")
    panels[-1].set_xlabel("columns of pixels; blue: a digit, gray: the blank")
    figure.savefig(path)


# Lines --------------------------------------------------------------------------------


def load_digits(options):
    """Digits cut to their ink, and labels: to learn from, to watch, held out."""
    try:
        parts = kseq.datasets.load("mnist", options.data)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    (images, labels), test = parts["train"], parts["test"]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    if options.quick:
        images, labels = images[:2000], labels[:2000]
    watched = len(images) // 12
    return [
        (cut(images[watched:]), labels[watched:]),
        (cut(images[:watched]), labels[:watched]),
        (cut(test[0]), test[1]),
    ]


def cut(images):
    """Pictures as floats from 0 to 1, without the columns beside their ink."""
    digits = []
    for image in images:
        columns = np.flatnonzero(image.any(axis=0))
        image = image[:, columns[0] : columns[-1] + 1]
        digits.append(np.float32(image) / 255)
    return digits


def write_lines(digits, number, seed):
    """Pictures of so many lines, (B, HEIGHT, WIDTH, 1), and their ids, (B, MOST)."""
    return write_some(digits, number, np.random.default_rng(seed))


def write_some(digits, number, random):
    images, labels = digits
    pictures = np.zeros((number, HEIGHT, WIDTH, 1), "float32")
    ids = np.zeros((number, MOST), "int32")
    for row in range(number):
        chosen = random.integers(len(images), size=random.integers(FEWEST, MOST + 1))
        write_line(pictures[row, ..., 0], [images[i] for i in chosen], random)
        ids[row, : len(chosen)] = FIRST + labels[chosen]
    return pictures, ids


def write_line(page, digits, random):
    """Writes digits from left to right onto a page; where two meet, the darker stays.

    Each stands a little higher or lower, and nearer to the one before or farther.
    """
    widths = np.array([digit.shape[1] for digit in digits])
    gaps = random.integers(*GAPS, size=len(digits))
    gaps[0] = 0
    gaps[1:] = np.maximum(gaps[1:], 4 - widths[:-1])  # a thin one is not hidden
    while (widths + gaps).sum() > WIDTH:
        gaps[1:] -= 1
    lefts = np.cumsum(gaps) + np.cumsum(widths) - widths
    lefts += random.integers(WIDTH - (widths + gaps).sum() + 1)
    for digit, left, width in zip(digits, lefts, widths, strict=True):
        rows = np.flatnonzero(digit.any(axis=1))
        up, down = min(rows[0], 3), min(HEIGHT - 1 - rows[-1], 3)
        moved = np.roll(digit, random.integers(-up, down + 1), axis=0)
        part = page[:, left : left + width]
        np.maximum(part, moved, out=part)


# Saved models and own pictures --------------------------------------------------------


def load_model(path):
    """The model that an earlier run has saved."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    source = getattr(model, "source", None)
    if type(source).__name__ != "Pieces" or not hasattr(model, "generate"):
        sys.exit(
            f"{path} must hold a model of this recipe. Received: a "
            f"{type(model).__name__}. Train one with --output DIR."
        )
    return model


def read_files(model, options):
    """Prints the digits of pictures: dark on light or light on dark, of any size."""
    table = Table("picture", "reads", "probability")
    pages = [page_of(path) for path in options.read]
    search = kseq.decoding.BeamSearch(options.beams)
    written = model.generate(np.stack(pages), search, max_length=MOST + 1)
    for path, ids, log_prob in zip(
        options.read, written.token_ids[:, 0], written.log_probs[:, 0], strict=True
    ):
        table.add_row(str(path), as_text(ids), f"{np.exp(log_prob):.3f}")
    console.print(table)


def page_of(path):
    """A picture as a page, its ink as high as that of MNIST."""
    try:
        image = keras.utils.load_img(path, color_mode="grayscale")
    except OSError as error:
        sys.exit(f"--read needs files of pictures. Received: {path}: {error}")
    pixels = np.array(image, "float32") / 255
    if np.median(pixels) > 0.5:  # dark on light
        pixels = 1 - pixels
    is_ink = pixels > 0.3
    rows, columns = (np.flatnonzero(is_ink.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        sys.exit(f"--read needs digits in each picture. Received: {path}, without ink.")
    ink = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = 24, max(round(24 * ink.shape[1] / ink.shape[0]), 1)
    if width > WIDTH:
        sys.exit(
            f"--read needs lines of up to {WIDTH / height:.0f} times their height. "
            f"Received: {path}, with ink of {ink.shape[1]} x {ink.shape[0]} pixels."
        )
    ink = keras.ops.convert_to_numpy(
        keras.ops.image.resize(ink[..., None], (height, width), antialias=True)
    )
    top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
    page = np.zeros((HEIGHT, WIDTH, 1), "float32")
    page[top : top + height, left : left + width] = ink
    return page


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--model", choices=[*MODELS, "both"], default="both")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--output", type=folder, default="lines", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="read with a saved model")
    add("--read", type=path, nargs="+", metavar="PICTURE", help="what to read then")
    add("--encoder", choices=["gru", "lstm", "conv"], default="gru")
    add("--width", type=count, default=96)
    add("--dropout", type=share, default=0.2)
    add("--lines", type=count, default=8000, help="to learn from in an epoch")
    add("--epochs", type=count, default=14)
    add("--batch-size", type=count, default=32)
    add("--learning-rate", type=positive, default=3e-3)
    add("--beams", type=count, default=5)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    options.validation_lines, options.test_lines = 500, 2000
    if options.quick:
        options.lines, options.epochs, options.width = 128, 1, 16
        options.validation_lines, options.test_lines = 40, 60
    if options.width % 4:
        parser.error("--width must be a multiple of 4, as there are three stages")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
