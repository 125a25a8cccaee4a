"""Train a model that draws pictures: a caption in, a picture out. A small DALL-E.

It is trained in three stages. A tokenizer learns to turn a picture into 64 integers,
and these into the picture again. A Transformer learns to generate the integers for a
caption. A matcher learns which caption belongs to which picture, to choose the best of
several drawings.

    python recipes/draw_pictures.py --output pictures
    python recipes/draw_pictures.py --language ko --output korean
    python recipes/draw_pictures.py --load pictures/drawer.keras --captions "cat"

By default the pictures are emoji with their names, in English, Korean or French. Their
files cannot be downloaded and are read from `$KSEQ_DATA_DIR/emoji`. With `--mnist` the
pictures are handwritten digits. With `--folder` they are your own: a file
`captions.tsv` with lines of `file TAB caption`, and the pictures beside it.

    python recipes/draw_pictures.py --folder my_pictures --output mine

158 emoji are for testing: one skin tone of every second emoji that has five. A drawing
is judged without a model: by the real picture that is nearest to it.
"""

import argparse
import math
import pathlib
import sys
import textwrap
import time

import keras
import numpy as np

import kseq
from kseq.training.cli import (
    Help,
    count,
    folder,
    not_negative,
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

SIDE = 32  # pixels of a picture
PATCH = 4  # pixels of a patch, which becomes one token
LEVELS = (7, 5, 5, 5, 5)  # of the quantizer: 7 * 5 * 5 * 5 * 5 = 4,375 codes
DIGIT_NAMES = {
    "en": "zero one two three four five six seven eight nine".split(),
    "ko": "영 일 이 삼 사 오 육 칠 팔 구".split(),
    "fr": "zéro un deux trois quatre cinq six sept huit neuf".split(),
}
QUICK = {  # defaults with --quick
    "epochs": 1,
    "tokenizer_epochs": 1,
    "matcher_epochs": 1,
    "width": 32,
    "tokenizer_width": 16,
    "layers": 1,
    "candidates": 2,
}
# The options that need --load, and those that go with --load and with training.
ONLY_WITH_LOAD = ("captions", "draws")
WITH_BOTH = ("load", "output", "temperature", "top_p", "guidance", "seed")
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_data(options):
    """Return training and test data, each a dictionary of four columns.

    `pictures` are from 0 to 1, (N, height, width, channels), and `captions` strings.
    For emoji `bases` are the emoji without their skin tones, and `tones` those.
    """
    try:
        if options.folder:
            splits = load_folder(options)
        elif options.mnist:
            splits = load_digits(options)
        else:
            data = kseq.datasets.load("emoji", language=options.language)
            splits = [data["train"], data["test"]]
    except ValueError as error:
        sys.exit(str(error))
    names = ["pictures", "captions", "bases", "tones"]
    train, test = [dict(zip(names, split, strict=True)) for split in splits]
    if options.quick:
        train, test = take_few(train, test)
    for split in (train, test):
        split["pictures"] = split["pictures"].astype("float32") / 255
    return train, test


def take_few(train, test):
    """Return 12 test pictures and 200 for training, other tones of the 12 first."""
    test = {name: values[:12] for name, values in test.items()}
    train_bases = np.array(train["bases"], str)
    test_bases = np.array(test["bases"], str)
    is_other_tone = np.isin(train_bases, test_bases)
    rows = np.argsort(~is_other_tone, kind="stable")[:200]
    few = {"pictures": train["pictures"][rows]}
    for name in ("captions", "bases", "tones"):
        few[name] = [train[name][row] for row in rows]
    return few, test


def load_folder(options):
    """Load pictures of your own; a tenth, in no training pair, is for testing."""
    pictures, captions = kseq.datasets.read_pictures(options.folder, SIDE, at_least=20)
    flat = pictures.reshape(len(pictures), -1)
    different, index_of_different = np.unique(flat, axis=0, return_inverse=True)
    if len(different) < 2:
        raise ValueError(f"{options.folder} must hold pictures that differ.")
    num_test = max(len(different) // 10, 1)
    places = np.random.default_rng(0).permutation(len(different))
    is_test = places[index_of_different.ravel()] < num_test
    splits = []
    for rows in (np.flatnonzero(~is_test), np.flatnonzero(is_test)):
        split_captions = [captions[row] for row in rows]
        bases = [None] * len(rows)
        tones = [""] * len(rows)
        splits.append((pictures[rows], split_captions, bases, tones))
    return splits


def load_digits(options):
    """Load 2,000 handwritten digits, on 32 x 32 pixels; 200 are for testing."""
    pictures, labels = kseq.datasets.load("mnist")["train"]
    chosen = np.random.default_rng(0).permutation(len(labels))[:2000]
    pictures = np.pad(pictures[chosen], [(0, 0), (2, 2), (2, 2)])[..., None]
    captions = [DIGIT_NAMES[options.language][label] for label in labels[chosen]]
    nothing = [""] * 2000  # digits have neither bases nor tones
    columns = [pictures, captions, nothing, nothing]
    train = [column[200:] for column in columns]
    test = [column[:200] for column in columns]
    return [train, test]


def load_tokenizer(path, train):
    """Load a tokenizer that was saved by an earlier run, for pictures of this size."""
    advice = "Leave out --tokenizer to train one."
    if not path.is_file():
        sys.exit(f"There is no file {path}. {advice}")
    try:
        tokenizer = keras.saving.load_model(path)
    except (ValueError, TypeError, KeyError, OSError):
        sys.exit(f"{path} is not a complete model that Keras has saved. {advice}")
    shape = train["pictures"].shape[1:]
    if not hasattr(tokenizer, "encode") or tokenizer.input.shape[1:] != shape:
        sys.exit(f"{path} is not an image tokenizer for pictures {shape}. {advice}")
    return tokenizer


def load_drawer(path):
    """Load a drawer that was saved by an earlier run."""
    try:
        return kseq.text.TextToImage.load(path)
    except ValueError as error:
        sys.exit(f"{error} Train one with --output FOLDER.")


# Stage 1: the tokenizer ---------------------------------------------------------------


def build_tokenizer(train, options):
    """Build an autoencoder of convolutions whose code is a grid of integers.

    The encoder sees one patch at a time, so that equal patches have equal tokens and
    there are fewer tokens to learn. The decoder sees the patches around, too.
    """
    quantizer = kseq.layers.FiniteScalarQuantizer(LEVELS)
    encoder = kseq.layers.ImageEncoder(
        PATCH, options.tokenizer_width, kernel_size=1, name="encoder"
    )
    return kseq.image_tokenizer(
        image_shape=train["pictures"].shape[1:],
        quantizer=quantizer,
        patch_size=PATCH,
        width=options.tokenizer_width,
        encoder=encoder,
        num_blocks=3,
    )


def fit_tokenizer(tokenizer, train, options):
    """Train the tokenizer to draw each picture again."""
    pictures = train["pictures"]
    batch_size = 16
    num_batches = math.ceil(len(pictures) / batch_size)
    warmup_steps = num_batches // 2
    num_steps = num_batches * options.tokenizer_epochs
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(num_steps - warmup_steps, 1),
        warmup_target=4e-3,
        warmup_steps=warmup_steps,
    )
    tokenizer.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=1e-4, global_clipnorm=1.0),
        loss="mse",
    )
    start = time.time()
    stop = kseq.training.StopOnInterrupt()
    tokenizer.fit(
        pictures,
        pictures,
        batch_size=batch_size,
        epochs=options.tokenizer_epochs,
        callbacks=[stop],
    )
    explain_interrupt(stop)
    console.print(f"Trained the tokenizer in {time.time() - start:.0f} s.")


def explain_interrupt(stop):
    """Tell the user after Ctrl-C that only this stage has ended."""
    if stop.interrupted:
        console.print("The next stage follows. To end all, press Ctrl-C twice.")


def evaluate_tokenizer(tokenizer, train, test, options):
    """Print how well pictures are drawn from their tokens, show some, and save."""
    table = Table("pictures", "signal to noise, dB")
    for name, split in (("training", train), ("test", test)):
        decoded = tokenizer.decode(tokenizer.encode(split["pictures"]))
        ratio = decibels(decoded, split["pictures"]).mean()
        table.add_row(name, f"{ratio:.2f}")
    console.print(table)
    num_used = len(np.unique(tokenizer.encode(train["pictures"])))
    console.print(f"{num_used:,} of {tokenizer.num_codes:,} codes are used.")
    tokenizer.save(options.output / "tokenizer.keras")

    real = test["pictures"][:12]
    decoded = tokenizer.decode(tokenizer.encode(real))
    figure = draw_sheet([("real", real), ("from tokens", decoded)])
    figure.savefig(options.output / "reconstructed.png", bbox_inches="tight")


def decibels(pictures, originals):
    """Return the peak signal-to-noise ratio of each picture."""
    errors = np.square(pictures - originals).reshape(len(pictures), -1).mean(axis=1)
    return -10 * np.log10(np.maximum(errors, 1e-10))


# Stage 2: the drawer ------------------------------------------------------------------


def build_drawer(vocabulary_size, tokenizer, options):
    """Build a Transformer that reads a caption and generates tokens of a picture."""
    num_heads = options.width // 32
    if options.stream:
        encoder = None
        decoder = kseq.layers.TransformerDecoder(
            options.layers,
            num_heads,
            cross_attention=False,
            causal_prefix=True,
            dropout=options.dropout,
            activation="gelu",
        )
    else:
        encoder = kseq.layers.TransformerEncoder(
            2, num_heads, dropout=options.dropout, activation="gelu"
        )
        decoder = kseq.layers.TransformerDecoder(
            options.layers, num_heads, dropout=options.dropout, activation="gelu"
        )
    return kseq.text_to_image(
        vocabulary_size,
        tokenizer,
        encoder=encoder,
        decoder=decoder,
        width=options.width,
        caption_dropout=options.caption_dropout,
    )


def fit_drawer(model, vocabulary, train, options):
    """Train with `Model.fit`, with some tokens of the pictures made unknown."""
    batches = kseq.training.teacher_forcing(
        vocabulary.encode(train["captions"]),
        model.image_tokens(train["pictures"]),
        options.batch_size,
        seed=options.seed,
        length_multiple=16,  # few lengths of captions, for each is compiled
    )
    batches = kseq.training.TokenDropout(
        batches, options.token_dropout, seed=options.seed, name="target"
    )
    warmup_steps = len(batches)  # the first epoch
    num_steps = len(batches) * options.epochs
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(num_steps - warmup_steps, 1),
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    # Compiling is not Keras' default on a CPU. For few steps it takes longer than it
    # saves.
    is_compiled = keras.backend.backend() != "torch" and not options.quick
    if is_compiled:
        console.print("Compiling: the first step takes about a minute.")
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.01, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(),
        jit_compile=is_compiled,
    )
    stop = kseq.training.StopOnInterrupt()
    history = model.fit(batches, epochs=options.epochs, callbacks=[stop])
    explain_interrupt(stop)
    return history


def count_trainable(model):
    """Return the number of weights that are trained; the tokenizer's are not."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


# Stage 3: the matcher -----------------------------------------------------------------


def build_matcher(vocabulary_size, train):
    """Build a small CLIP: one network reads captions, and another sees pictures."""
    image_tower = kseq.vision_transformer(
        image_shape=train["pictures"].shape[1:],
        patch_size=PATCH,
        num_outputs=64,
        width=64,
        num_layers=2,
        pooling="mean",
    )
    return kseq.text_image_matcher(vocabulary_size, image_tower, width=64)


def fit_matcher(matcher, vocabulary, train, options):
    """Train the matcher to find the caption of each picture among those of a batch."""
    captions = pad(vocabulary.encode(train["captions"]))
    matcher.compile(
        keras.optimizers.AdamW(1e-3, global_clipnorm=1.0),
        loss=kseq.training.ContrastiveLoss(),
    )
    matcher.fit(
        {"text": captions, "image": center(train["pictures"])},
        captions,  # equal captions are equally right
        batch_size=128,  # large, for the other pictures of a batch are wrong answers
        epochs=options.matcher_epochs,
        callbacks=[kseq.training.StopOnInterrupt()],
    )


def pad(token_ids):
    """Return rows of token ids as one array, padded with 0."""
    return keras.utils.pad_sequences(token_ids, padding="post")


def center(pictures):
    """Return pictures from -1 to 1, the range that suits a Vision Transformer."""
    return 2 * pictures - 1


# Evaluate -----------------------------------------------------------------------------


def evaluate(drawer, matcher, train, test, options):
    """Print how often drawings are right, and draw sheets of them."""
    model = drawer.model
    captions = drawer.vocabulary.encode(test["captions"])
    from_tokens = model.tokenizer.decode(model.tokenizer.encode(test["pictures"]))
    # For each row of the table one picture of each test caption.
    rows = {"tokens of the true picture": from_tokens}
    if has_tones(test):
        rows["the emoji in another tone"] = in_another_tone(train, test)

    start = time.time()
    greedy = model.draw(captions).images[:, 0]
    seconds = time.time() - start
    rows["greedy"] = greedy
    if options.guidance:
        search = kseq.decoding.GreedySearch(guidance=options.guidance)
        guided = model.draw(captions, search).images[:, 0]
        rows[f"greedy, guidance {options.guidance:g}"] = guided

    search = sampling(options, options.candidates)
    samples = model.draw(captions, search)
    scores = matcher.score(pad(captions), center(samples.images))
    best = kseq.decoding.best_of(samples, scores)
    rows[f"most probable of {options.candidates} samples"] = samples.images[:, 0]
    rows[f"best of {options.candidates} samples, by matcher"] = best.images[:, 0]

    print_scores(rows, train, test)
    console.print(
        f"{len(captions)} pictures were drawn in {seconds:.1f} s, at the first call."
    )

    figure = draw_sheet(
        [
            ("real", test["pictures"][:12]),
            ("from its tokens", from_tokens[:12]),
            ("drawn, greedy", greedy[:12]),
            (f"best of {options.candidates}", best.images[:12, 0]),
        ],
        titles=test["captions"][:12],
    )
    figure.savefig(options.output / "sheet.png", bbox_inches="tight")
    drawn = model.draw(captions[:1], return_attention_scores=True)
    draw_filling(model.tokenizer, drawn.ids[0, 0], options.output / "filling.gif")
    words = drawer.vocabulary.spell(captions[0])
    figure = draw_attention(drawn, words)
    figure.savefig(options.output / "attention.png", bbox_inches="tight")


def sampling(options, num_draws):
    """Return the search that draws several samples of each caption."""
    return kseq.decoding.Sampling(
        options.temperature,
        top_p=options.top_p,
        num_draws=num_draws,
        seed=options.seed,
        guidance=options.guidance or None,
    )


def print_scores(rows, train, test):
    """Print how often pictures are right, and their distance from the true ones.

    `rows` maps a name to one picture of each test caption.
    """
    real = np.concatenate([train["pictures"], test["pictures"]])
    table = Table("test pictures")
    for name, pictures in rows.items():
        shares = right_shares(nearest(pictures, real), train, test)
        if len(table.columns) == 1:
            for column in [*shares, "dB"]:
                table.add_column(column)
        cells = [f"{value:.1%}" for value in shares.values()]
        ratio = decibels(pictures, test["pictures"]).mean()
        table.add_row(name, *cells, f"{ratio:.2f}")
    console.print(table)


def has_tones(test):
    """Return whether the pictures are emoji with skin tones."""
    return bool(test["tones"][0])


def right_shares(nearest_rows, train, test):
    """Return how often the nearest real picture is the right one, by name.

    `nearest_rows` are rows of the training and then the test pictures. If several
    pictures have the same caption, such as digits, each of them is right.
    """
    first_test = len(train["captions"])
    if not has_tones(test):
        captions = np.array([*train["captions"], *test["captions"]])
        is_same = captions[nearest_rows] == captions[first_test:]
        return {"same caption": is_same.mean()}
    bases = np.array([*train["bases"], *test["bases"]])
    tones = np.array([*train["tones"], *test["tones"]])
    is_exact = nearest_rows == first_test + np.arange(len(nearest_rows))
    is_base = bases[nearest_rows] == bases[first_test:]
    is_tone = tones[nearest_rows] == tones[first_test:]
    return {"exact": is_exact.mean(), "base": is_base.mean(), "tone": is_tone.mean()}


def nearest(pictures, real):
    """Return the row of the most similar real picture of each picture."""
    pictures = pictures.reshape(len(pictures), -1)
    real = real.reshape(len(real), -1)
    # |a - b|^2 = |a|^2 - 2 a . b + |b|^2, where |a|^2 is the same for all b.
    distances = np.square(real).sum(axis=1) - 2 * pictures @ real.T
    return distances.argmin(axis=1)


def in_another_tone(train, test):
    """Return the same emoji as each test picture, in the first tone of training."""
    first_rows = {}
    for row, base in enumerate(train["bases"]):
        if train["tones"][row]:
            first_rows.setdefault(base, row)
    rows = [first_rows[base] for base in test["bases"]]
    return train["pictures"][rows]


# Show ---------------------------------------------------------------------------------


def show(drawer, options):
    """Draw captions with a saved drawer, and write them as a sheet."""
    captions = options.captions or ["red heart"]
    try:
        drawn = drawer.draw(captions, sampling(options, options.draws))
    except ValueError as error:  # a caption without a word, or guidance not trained
        sys.exit(str(error))
    rows = []
    for caption, pictures in zip(captions, drawn, strict=True):
        pixels = np.array([np.asarray(picture) for picture in pictures])
        pixels = pixels.reshape(*pixels.shape[:3], -1)  # grey has one channel, too
        rows.append((caption, pixels / 255))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "drawn.png"
    draw_sheet(rows).savefig(path, bbox_inches="tight")
    console.print(f"The pictures are in {path}.")


def draw_sheet(rows, titles=()):
    """Draw rows of pictures, each with its name on the left; titles are of columns.

    `rows` are pairs of a name and pictures.
    """
    from matplotlib.figure import Figure

    num_columns = max(len(pictures) for _, pictures in rows)
    width = 0.7 * num_columns + 2
    height = 0.75 * len(rows) + 0.2
    figure = Figure(dpi=150, figsize=(width, height))
    panels = figure.subplots(len(rows), num_columns, squeeze=False)
    for panel in panels.ravel():
        panel.axis("off")
    for panel, title in zip(panels[0], titles, strict=False):
        text = panel.set_title(textwrap.fill(title, 14), size=5)
        kseq.plots.legible(text)
    for row, (name, pictures) in enumerate(rows):
        for panel, picture in zip(panels[row], pictures, strict=False):
            panel.imshow(for_imshow(picture), cmap="gray")
        lines = textwrap.shorten(name, 120, placeholder=" ...")
        lines = textwrap.fill(lines, 30)
        size = 10
        if lines.count("\n") >= 2:
            size = 6
        first_panel = panels[row, 0]
        text = first_panel.text(
            -0.2,
            0.5,
            lines,
            ha="right",
            va="center",
            size=size,
            transform=first_panel.transAxes,
        )
        kseq.plots.legible(text)
    return figure


def for_imshow(picture):
    """Return a picture of three channels as it is, and a grey one without channels."""
    if picture.shape[-1] == 3:
        return picture
    return picture[..., 0]


def draw_filling(tokenizer, token_ids, path):
    """Write a moving picture that fills up row by row."""
    from PIL import Image

    white = np.ones((1, *tokenizer.input.shape[1:]))
    blank_ids = tokenizer.encode(white)[0]
    _, num_columns = tokenizer.grid
    grids = []
    for num_drawn in range(0, len(token_ids) + 1, num_columns):
        is_drawn = np.arange(len(token_ids)) < num_drawn
        grids.append(np.where(is_drawn, token_ids, blank_ids))
    pictures = np.rint(255 * tokenizer.decode(np.array(grids))).astype("uint8")
    frames = []
    for picture in pictures:
        image = Image.fromarray(for_imshow(picture))
        frames.append(image.resize((256, 256), Image.NEAREST))
    milliseconds = [300] * (len(frames) - 1) + [1500]
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        loop=0,
        duration=milliseconds,
    )


def draw_attention(drawn, words):
    """Draw a picture, and where each word of its caption was attended to."""
    from matplotlib.figure import Figure

    picture = drawn.images[0, 0]
    attention = drawn.attention[0, 0]  # layers heads tokens words
    while attention.ndim > 2:  # average over layers and heads
        attention = attention.mean(axis=0)
    side = int(len(attention) ** 0.5)
    figure = Figure(dpi=150, figsize=(1.3 * (len(words) + 1), 1.7))
    panels = figure.subplots(1, len(words) + 1)
    for panel in panels:
        panel.axis("off")
    panels[0].imshow(for_imshow(picture), cmap="gray")
    for index, word in enumerate(words):
        panel = panels[index + 1]
        panel.imshow(attention[:, index].reshape(side, side), cmap="viridis")
        kseq.plots.legible(panel.set_title(word, size=9))
    figure.text(0.5, 0.08, "Each word has its own scale.", ha="center", size=7)
    return figure


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate all three models, or draw captions with a saved drawer."""
    options = parse_arguments(argv)
    require("matplotlib", "PIL")  # fail now, not after the training
    keras.utils.set_random_seed(options.seed)
    if options.load:
        show(load_drawer(options.load), options)
        return

    train, test = load_data(options)
    console.print(
        f"{len(train['captions']):,} pictures for training, "
        f"{len(test['captions']):,} for testing, {train['pictures'].shape[1:]}."
    )
    options.output.mkdir(parents=True, exist_ok=True)

    console.print("Stage 1: pictures to tokens, and back")
    if options.tokenizer:
        tokenizer = load_tokenizer(options.tokenizer, train)
    else:
        tokenizer = build_tokenizer(train, options)
        fit_tokenizer(tokenizer, train, options)
    evaluate_tokenizer(tokenizer, train, test, options)
    tokenizer_path = options.output / "tokenizer.keras"
    console.print(f"Saved. --tokenizer {tokenizer_path} uses it again.")

    console.print("Stage 2: captions to tokens")
    start = time.time()
    vocabulary = kseq.text.Vocabulary("word_and_mark", lowercase=True)
    vocabulary.adapt(train["captions"])
    model = build_drawer(vocabulary.size, tokenizer, options)
    history = fit_drawer(model, vocabulary, train, options)
    seconds = time.time() - start
    console.print(f"Trained {count_trainable(model):,} weights in {seconds:.0f} s.")
    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    drawer = kseq.text.TextToImage(model, vocabulary)
    drawer_path = options.output / "drawer.keras"
    drawer.save(drawer_path)
    console.print(f"Saved. --load {drawer_path} draws with it.")

    console.print("Stage 3: which caption belongs to which picture")
    matcher = build_matcher(vocabulary.size, train)
    fit_matcher(matcher, vocabulary, train, options)
    matcher.save(options.output / "matcher.keras")

    evaluate(drawer, matcher, train, test, options)
    console.print(f"The drawer is {drawer_path}, with pictures beside it.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--output",
        type=folder,
        default="pictures",
        help="folder for the models and pictures",
    )
    parser.add_argument(
        "--language",
        choices=sorted(DIGIT_NAMES),
        default="en",
        help="language of the captions",
    )
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument(
        "--folder",
        type=pathlib.Path,
        metavar="FOLDER",
        help="your own data: a folder of pictures with a file captions.tsv",
    )
    pictures.add_argument(
        "--mnist", action="store_true", help="train on handwritten digits"
    )
    pictures.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="draw with this saved drawer; do not train",
    )
    parser.add_argument(
        "--captions",
        nargs="+",
        metavar="TEXT",
        help="captions to draw with --load (default: 'red heart')",
    )
    parser.add_argument(
        "--draws",
        type=count,
        default=4,
        help="pictures of each caption that a saved drawer draws",
    )
    parser.add_argument(
        "--temperature",
        type=positive,
        default=0.7,
        help="temperature of sampling: lower is more cautious, higher more varied",
    )
    parser.add_argument(
        "--top-p",
        type=probability,
        help="sample only from the most probable tokens that have this probability"
        " together (default: 1, from all)",
    )
    parser.add_argument(
        "--guidance",
        type=not_negative,
        default=0.0,
        help="scale of classifier-free guidance; 0 for none (%(default)s)",
    )
    parser.add_argument(
        "--tokenizer",
        type=pathlib.Path,
        metavar="FILE",
        help="tokenizer of an earlier run, in place of training one in stage 1",
    )
    parser.add_argument(
        "--tokenizer-epochs",
        type=count,
        default=20,
        help="passes over the training pictures in stage 1",
    )
    parser.add_argument(
        "--tokenizer-width", type=count, default=128, help="width of the tokenizer"
    )
    parser.add_argument(
        "--matcher-epochs",
        type=count,
        default=30,
        help="passes over the training pictures in stage 3",
    )
    parser.add_argument(
        "--candidates",
        type=count,
        default=8,
        help="samples of each caption from which the matcher chooses",
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="one decoder for caption and picture as in DALL-E, without an encoder",
    )
    parser.add_argument(
        "--width", type=count, default=128, help="width of the drawer's Transformer"
    )
    parser.add_argument("--layers", type=count, default=3, help="layers of its decoder")
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.0,
        help="dropout rate of the drawer (%(default)s)",
    )
    parser.add_argument(
        "--token-dropout",
        type=share,
        default=0.3,
        help="fraction of picture tokens that become unknown in training the drawer",
    )
    parser.add_argument(
        "--caption-dropout",
        type=share,
        default=0.1,
        help="fraction of captions that are left out in training, for guidance",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        default=64,
        help="passes over the training pictures in stage 2",
    )
    parser.add_argument(
        "--batch-size", type=count, default=16, help="pictures in a batch of stage 2"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=3e-3,
        help="highest learning rate of stage 2, after the first epoch",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on little data with small models; its results are meaningless",
    )

    # --quick changes defaults only: options that are given stay as they are.
    if parser.parse_args(argv).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(argv)
    refuse_unused(parser, options)
    if options.guidance and not options.load and not options.caption_dropout:
        parser.error("--guidance needs a --caption-dropout above 0, such as 0.1")
    if options.width % 32 != 0:
        parser.error("--width must be a multiple of 32, the width of a head")
    if options.tokenizer_width % PATCH != 0:
        parser.error(f"--tokenizer-width must be a multiple of {PATCH}")
    return options


def refuse_unused(parser, options):
    """End the program if an option is given that would change nothing."""
    given = []
    for name, value in vars(options).items():
        if name != "output" and value != parser.get_default(name):
            given.append(name)
    for name in given:
        flag = "--" + name.replace("_", "-")
        if options.load and name not in ONLY_WITH_LOAD + WITH_BOTH:
            parser.error(f"{flag} is for training; leave it out with --load")
        if not options.load and name in ONLY_WITH_LOAD:
            parser.error(f"{flag} needs --load FILE, a saved drawer")
        if options.tokenizer and name in ("tokenizer_epochs", "tokenizer_width"):
            parser.error(f"{flag} is for a new tokenizer; leave it or --tokenizer out")
    if options.folder and "language" in given:
        parser.error("--language is not for --folder, whose captions are your own")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
