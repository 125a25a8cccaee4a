"""Read lines of digits: a picture in, digits out, without cutting the digits apart.

A line has 3 to 8 handwritten digits of MNIST, with gaps or overlaps between them. Lines
are composed anew for every batch, and the test lines from other digits. Two models
learn to read them. With CTC each piece of the picture predicts a digit or nothing, and
the probabilities of all ways to read the same number are summed. With attention a
decoder generates the number digit by digit, and attends to the piece of each.

    python recipes/read_lines.py --output lines
    python recipes/read_lines.py --model ctc --encoder conv --output lines
    python recipes/read_lines.py --load lines/ctc.keras --read my_number.png
"""

import argparse
import math
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
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

HEIGHT = 28  # pixels of a line
WIDTH = 192
PIECE = 4  # columns of pixels that one vector stands for
INK_HEIGHT = 24  # to which the digits of a picture of your own are scaled

FEWEST_DIGITS = 3  # of a line
MOST_DIGITS = 8
SMALLEST_GAP = -3  # columns of pixels; below 0 digits overlap
LARGEST_GAP = 8

# Token ids. The digit d is FIRST_DIGIT + d.
START = 2
END = 3
FIRST_DIGIT = 4
VOCABULARY_SIZE = FIRST_DIGIT + 10

TITLES = {"ctc": "CTC", "attention": "attention"}
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_digits(options):
    """Return digits cut to their ink, and labels: training, validation and test."""
    try:
        data = kseq.datasets.load("mnist", options.data)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    images, labels = data["train"]
    test_images, test_labels = data["test"]
    order = np.random.default_rng(0).permutation(len(images))
    images = images[order]
    labels = labels[order]
    if options.quick:
        images = images[:2000]
        labels = labels[:2000]
    num_validation = len(images) // 12
    train = (cut(images[num_validation:]), labels[num_validation:])
    validation = (cut(images[:num_validation]), labels[:num_validation])
    test = (cut(test_images), test_labels)
    return train, validation, test


def cut(images):
    """Return pictures from 0 to 1, without the empty columns beside their ink."""
    digits = []
    for image in images:
        columns = np.flatnonzero(image.any(axis=0))
        image = image[:, columns[0] : columns[-1] + 1]
        digits.append(np.float32(image) / 255)
    return digits


def load_model(path):
    """Load a model that was saved by an earlier run."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    source = getattr(model, "source", None)
    if type(source).__name__ != "Pieces" or not hasattr(model, "generate"):
        sys.exit(
            f"{path} must hold a model of this recipe. Received: a "
            f"{type(model).__name__}. Train one with --output FOLDER."
        )
    return model


# Compose lines ------------------------------------------------------------------------


def compose_lines(digits, number, random):
    """Return pictures of lines, (B, HEIGHT, WIDTH, 1), and token ids, (B, MOST_DIGITS).

    `digits` are pictures and labels, and `random` a generator of NumPy.
    """
    images, labels = digits
    pictures = np.zeros((number, HEIGHT, WIDTH, 1), "float32")
    token_ids = np.zeros((number, MOST_DIGITS), "int32")
    for row in range(number):
        num_digits = random.integers(FEWEST_DIGITS, MOST_DIGITS + 1)
        chosen = random.integers(len(images), size=num_digits)
        chosen_images = [images[index] for index in chosen]
        draw_line(pictures[row, ..., 0], chosen_images, random)
        token_ids[row, :num_digits] = FIRST_DIGIT + labels[chosen]
    return pictures, token_ids


def draw_line(page, digits, random):
    """Draw digits on a page, from left to right; where two overlap, the darker stays.

    Each is moved up or down a little, and stands nearer to the one before or farther.
    """
    widths = np.array([digit.shape[1] for digit in digits])
    gaps = random.integers(SMALLEST_GAP, LARGEST_GAP + 1, size=len(digits))
    gaps[0] = 0
    gaps[1:] = np.maximum(gaps[1:], 4 - widths[:-1])  # a thin digit stays visible
    while (widths + gaps).sum() > WIDTH:
        gaps[1:] -= 1
    lefts = np.cumsum(gaps) + np.cumsum(widths) - widths
    lefts += random.integers(WIDTH - (widths + gaps).sum() + 1)
    for digit, left, width in zip(digits, lefts, widths, strict=True):
        ink_rows = np.flatnonzero(digit.any(axis=1))
        most_up = min(ink_rows[0], 3)
        most_down = min(HEIGHT - 1 - ink_rows[-1], 3)
        moved = np.roll(digit, random.integers(-most_up, most_down + 1), axis=0)
        part = page[:, left : left + width]
        np.maximum(part, moved, out=part)


class LineBatches(kseq.training.LengthBatches):
    """Batches of lines that are composed when they are needed, always new ones."""

    def __init__(self, digits, to_examples, options):
        self.digits = digits
        self.to_examples = to_examples
        self.random = np.random.default_rng(options.seed)
        lengths = [np.ones(options.lines, int)]  # all pictures have the same size
        super().__init__(lengths, options.batch_size, seed=options.seed)

    def make_batch(self, rows, lengths):
        """Return as many new lines as there are rows, as examples of the model."""
        pictures, token_ids = compose_lines(self.digits, len(rows), self.random)
        return self.to_examples(pictures, token_ids)


def ctc_examples(pictures, token_ids):
    """Return pictures and their digits; CTC learns where each digit stands."""
    return pictures, token_ids


def attention_examples(pictures, token_ids):
    """Return pictures with all tokens before each token, and the tokens to predict."""
    target = np.pad(token_ids, ((0, 0), (1, 1)))
    target[:, 0] = START
    ends = (target != 0).sum(axis=1)
    target[np.arange(len(target)), ends] = END
    inputs = {"source": pictures, "target": target[:, :-1]}
    labels = target[:, 1:]
    return inputs, labels


# Build --------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="read_lines")
class Pieces(kseq.layers.SequenceEmbedding):
    """Convolutions that turn the picture of a line into a sequence of vectors.

    Each vector stands for `PIECE` columns of pixels, and sees some beside them.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.stack = [
            *self.make_stage("first", width // 2, size=5, strides=2),
            *self.make_stage("second", width, size=3, strides=2),
            *self.make_stage("third", width, size=3, strides=1),
            layers.Conv2D(width, (HEIGHT // PIECE, 1), name="rows"),  # B 1 S D
        ]

    def make_stage(self, name, filters, size, strides):
        """Return a convolution with its normalization and activation."""
        return [
            layers.Conv2D(
                filters, size, strides, padding="same", use_bias=False, name=name
            ),
            layers.BatchNormalization(name=f"{name}_norm"),
            layers.Activation("relu", name=f"{name}_relu"),
        ]

    def symbolic_input(self, name):
        """Return the input of the model that has this layer."""
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
    """Build a model that reads lines, by "ctc" or by "attention"."""
    width = options.width
    if options.encoder == "conv":
        encoder = kseq.layers.ConvEncoder(width, num_layers=3, dropout=options.dropout)
    else:
        encoder = kseq.layers.RecurrentEncoder(
            options.encoder, width, bidirectional=True, dropout=options.dropout
        )
    if name == "ctc":
        return kseq.many_to_many(Pieces(width), VOCABULARY_SIZE, encoder, head="ctc")
    return kseq.encoder_decoder(
        source=Pieces(width),
        target=VOCABULARY_SIZE,
        encoder=encoder,
        decoder=kseq.layers.RecurrentDecoder("gru", width, attention="bahdanau"),
        width=width // 2,
    )


# Train --------------------------------------------------------------------------------


def fit(name, model, train_digits, validation_lines, options):
    """Train with `Model.fit` and save the best epoch."""
    if name == "ctc":
        to_examples = ctc_examples
        loss = None  # CTC has its own loss
    else:
        to_examples = attention_examples
        loss = kseq.training.SequenceCrossentropy()
    train_batches = LineBatches(train_digits, to_examples, options)
    validation_pictures, validation_ids = validation_lines
    validation_data = to_examples(validation_pictures, validation_ids)

    num_steps = len(train_batches) * options.epochs
    warmup_steps = len(train_batches) // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(num_steps - warmup_steps, 1),
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    model.compile(keras.optimizers.AdamW(learning_rate, global_clipnorm=5.0), loss=loss)
    callbacks = [
        kseq.training.SaveBest(options.output / f"{name}.keras"),
        kseq.training.StopOnInterrupt(),
    ]
    return model.fit(
        train_batches,
        validation_data=validation_data,
        epochs=options.epochs,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def read(model, pictures, search=None):
    """Return the digits of each line as token ids, padded with 0."""
    result = model.generate(pictures, search, max_length=MOST_DIGITS + 1)
    token_ids = result.token_ids[:, 0]  # the best hypothesis of each line
    token_ids = np.where(token_ids >= FIRST_DIGIT, token_ids, 0)  # without the end
    # At least MOST_DIGITS columns, as the true digits have.
    num_missing = max(MOST_DIGITS - token_ids.shape[1], 0)
    return np.pad(token_ids, ((0, 0), (0, num_missing)))


def to_text(token_ids):
    """Return token ids as a string of digits."""
    digits = [str(token - FIRST_DIGIT) for token in token_ids if token >= FIRST_DIGIT]
    return "".join(digits)


def evaluate(name, model, test_lines, minutes, table, options):
    """Add the error rates of a model to a table; return what beam search reads."""
    pictures, true_ids = test_lines
    true_texts = [to_text(row) for row in true_ids]
    simple_search = "greedy"
    if name == "ctc":
        simple_search = "best path"
    searches = {
        simple_search: None,
        f"{options.beams} beams": kseq.decoding.BeamSearch(options.beams),
    }
    for search_name, search in searches.items():
        token_ids = read(model, pictures, search)
        texts = [to_text(row) for row in token_ids]
        is_wrong = [text != true for text, true in zip(texts, true_texts, strict=True)]
        digit_error_rate = float(kseq.training.EditDistanceRate()(true_ids, token_ids))
        table.add_row(
            TITLES[name],
            f"{model.count_params():,}",
            search_name,
            f"{np.mean(is_wrong):.1%}",
            f"{digit_error_rate:.2%}",
            f"{minutes:.1f}",
        )
    return texts


# Show ---------------------------------------------------------------------------------


def draw_sheet(test_lines, readings, path, most=20):
    """Draw lines with what each model read: ten with errors, and others.

    `readings` maps the title of a model to its texts.
    """
    from matplotlib.figure import Figure

    pictures, true_ids = test_lines
    true_texts = np.array([to_text(row) for row in true_ids])
    is_wrong = np.zeros(len(true_texts), bool)
    for texts in readings.values():
        is_wrong |= np.array(texts) != true_texts
    wrong = np.flatnonzero(is_wrong)[: most // 2]
    right = np.flatnonzero(~is_wrong)
    shown = [*wrong, *right][:most]

    num_rows = math.ceil(len(shown) / 2)
    figure = Figure(dpi=150, figsize=(10, 0.95 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, 2, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, index in zip(panels, shown, strict=False):
        title = str(true_texts[index])
        for name, texts in readings.items():
            title += f"   {name}: {texts[index]}"
        color = "black"
        if is_wrong[index]:
            color = "tab:red"
        panel.imshow(pictures[index, ..., 0], cmap="gray_r")
        panel.set_title(title, size=8, color=color)
    figure.savefig(path)


def draw_alignment(model, pictures, path):
    """Draw lines with the place where CTC predicts each digit, and its probability."""
    from matplotlib.figure import Figure

    logits = model.predict(pictures, verbose=0)  # B S V
    labels = model.ctc.best_path(logits)
    steps, _ = model.ctc.align(labels, logits)
    labels = keras.ops.convert_to_numpy(labels)
    steps = keras.ops.convert_to_numpy(steps)
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    figure = Figure(dpi=150, figsize=(8, 1.9 * len(pictures)), layout="constrained")
    panels = figure.subplots(2 * len(pictures), 1, sharex=True)
    num_pieces = logits.shape[1]
    middles = PIECE * np.arange(num_pieces) + PIECE / 2  # columns of pixels
    for index, picture in enumerate(pictures):
        line_panel = panels[2 * index]
        line_panel.imshow(picture[..., 0], cmap="gray_r", aspect="auto")
        line_panel.set_axis_off()
        chart = panels[2 * index + 1]
        blank = probabilities[index, :, 0]
        chart.plot(middles, blank, color="lightgray")
        chart.plot(middles, 1 - blank, color="tab:blue")
        chart.set_ylim(0, 1.35)
        chart.set_yticks([0, 1])
        for label, step in zip(labels[index], steps[index], strict=True):
            if step >= 0:
                middle = middles[step]
                line_panel.axvline(middle, color="tab:red", linewidth=0.8)
                chart.text(middle, 1.05, str(label - FIRST_DIGIT), ha="center")
    panels[-1].set_xlabel("columns of pixels; blue: a digit, gray: the blank")
    figure.savefig(path)


def read_files(model, options):
    """Print the digits of pictures: dark on light or light on dark, of any size."""
    pages = np.stack([load_page(path) for path in options.read])
    search = kseq.decoding.BeamSearch(options.beams)
    result = model.generate(pages, search, max_length=MOST_DIGITS + 1)
    table = Table("picture", "digits", "probability")
    for index, path in enumerate(options.read):
        text = to_text(result.token_ids[index, 0])
        probability = np.exp(result.log_probs[index, 0])
        table.add_row(str(path), text, f"{probability:.3f}")
    console.print(table)


def load_page(path):
    """Load a picture as a page, (HEIGHT, WIDTH, 1), with ink as high as MNIST's."""
    try:
        image = keras.utils.load_img(path, color_mode="grayscale")
    except OSError as error:
        sys.exit(f"--read needs picture files. Received: {path}: {error}")
    pixels = np.array(image, "float32") / 255
    is_dark_on_light = np.median(pixels) > 0.5
    if is_dark_on_light:
        pixels = 1 - pixels
    is_ink = pixels > 0.3
    ink_rows = np.flatnonzero(is_ink.any(axis=1))
    ink_columns = np.flatnonzero(is_ink.any(axis=0))
    if len(ink_rows) == 0:
        sys.exit(f"--read needs digits in each picture. Received: {path}, without ink.")
    ink = pixels[ink_rows[0] : ink_rows[-1] + 1, ink_columns[0] : ink_columns[-1] + 1]
    ink_height, ink_width = ink.shape
    new_width = max(round(INK_HEIGHT * ink_width / ink_height), 1)
    if new_width > WIDTH:
        sys.exit(
            f"--read needs lines of up to {WIDTH / INK_HEIGHT:.0f} times their height. "
            f"Received: {path}, with ink of {ink_width} x {ink_height} pixels."
        )
    resized = keras.ops.image.resize(
        ink[..., None], (INK_HEIGHT, new_width), antialias=True
    )
    top = (HEIGHT - INK_HEIGHT) // 2
    left = (WIDTH - new_width) // 2
    page = np.zeros((HEIGHT, WIDTH, 1), "float32")
    page[top : top + INK_HEIGHT, left : left + new_width] = keras.ops.convert_to_numpy(
        resized
    )
    return page


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate models, or read pictures with a saved one."""
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        read_files(load_model(options.load), options)
        return
    require("matplotlib")  # fail now, not after the training

    train_digits, validation_digits, test_digits = load_digits(options)
    validation_lines = compose_lines(
        validation_digits, options.validation_lines, np.random.default_rng(1)
    )
    test_lines = compose_lines(
        test_digits, options.test_lines, np.random.default_rng(2)
    )
    test_pictures, _ = test_lines
    num_train_digits = len(train_digits[0])
    num_test_digits = len(test_digits[0])
    console.print(
        f"{options.lines:,} new lines in each epoch, of {num_train_digits:,} digits; "
        f"{options.validation_lines:,} lines for validation; {options.test_lines:,} "
        f"lines of {num_test_digits:,} other digits for testing."
    )

    names = [options.model]
    if options.model == "both":
        names = ["ctc", "attention"]
    table = Table(
        "model", "weights", "search", "lines wrong", "digits wrong", "minutes"
    )
    readings = {}
    for name in names:
        start = time.time()
        model = build(name, options)
        history = fit(name, model, train_digits, validation_lines, options)
        minutes = (time.time() - start) / 60
        figure = kseq.plots.training_curve(history)
        figure.savefig(options.output / f"{name}_training.png")
        texts = evaluate(name, model, test_lines, minutes, table, options)
        readings[TITLES[name]] = texts
        if name == "ctc":
            draw_alignment(model, test_pictures[:6], options.output / "alignment.png")
    console.print(table)
    draw_sheet(test_lines, readings, options.output / "sheet.png")
    console.print(f"The best models and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--model",
        choices=["ctc", "attention", "both"],
        default="both",
        help="model to train",
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
        default="lines",
        help="folder for the models and pictures",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="read the pictures of --read with this saved model; do not train",
    )
    parser.add_argument(
        "--read",
        type=pathlib.Path,
        nargs="+",
        metavar="PICTURE",
        help="pictures to read with --load",
    )
    parser.add_argument(
        "--encoder",
        choices=["gru", "lstm", "conv"],
        default="gru",
        help="network that reads the vectors of a line",
    )
    parser.add_argument("--width", type=count, default=96, help="width of the layers")
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.2,
        help="dropout rate",
    )
    parser.add_argument(
        "--lines", type=count, default=8000, help="training lines in an epoch"
    )
    parser.add_argument("--epochs", type=count, default=14, help="number of epochs")
    parser.add_argument("--batch-size", type=count, default=32, help="lines in a batch")
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=3e-3,
        help="highest learning rate, after the warm-up",
    )
    parser.add_argument("--beams", type=count, default=5, help="number of beams")
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on 128 lines with small models for 1 epoch;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    options.validation_lines = 500
    options.test_lines = 2000
    if options.quick:
        options.lines = 128
        options.epochs = 1
        options.width = 16
        options.validation_lines = 40
        options.test_lines = 60
    if options.width % 4 != 0:
        parser.error("--width must be a multiple of 4")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
