"""Draws pictures: a caption in, a picture out. A small DALL-E.

It learns in three stages. A tokenizer learns to say a picture by 64 integers, and to
draw it from these. A Transformer learns to write the integers that belong to a caption.
And a matcher learns which caption belongs to which picture, to choose among drawings.

    python recipes/draw_pictures.py --output pictures
    python recipes/draw_pictures.py --language ko --output korean
    python recipes/draw_pictures.py --load pictures/drawer.keras --captions "cat"

It learns from emoji and their names, in English, Korean or French; from handwritten
digits with `--mnist`; or from a folder of your own: a file `captions.tsv` of lines
`file TAB caption`, and the pictures beside it.

    python recipes/draw_pictures.py --folder my_pictures --output mine

Of the emoji 158 are held out: a skin tone of each second one that has five. Whether a
drawing is right is judged without a model, by which of all real pictures is nearest.
"""

import argparse
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
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

TOKENIZER, DRAWER, MATCHER = "tokenizer.keras", "drawer.keras", "matcher.keras"
RECONSTRUCTED, SHEET, FILLING = "reconstructed.png", "sheet.png", "filling.gif"
ATTENTION, CURVE, DRAWN = "attention.png", "training.png", "drawn.png"
SIDE, PATCH = 32, 4
LEVELS = (7, 5, 5, 5, 5)  # 4,375 codes
DIGITS = {
    "en": "zero one two three four five six seven eight nine".split(),
    "ko": "영 일 이 삼 사 오 육 칠 팔 구".split(),
    "fr": "zéro un deux trois quatre cinq six sept huit neuf".split(),
}
QUICK = {
    "epochs": 1,
    "tokenizer_epochs": 1,
    "matcher_epochs": 1,
    "width": 32,
    "tokenizer_width": 16,
    "layers": 1,
    "candidates": 2,
}
# What only drawing reads, and what drawing reads too.
FOR_LOAD = ("captions", "draws")
FOR_BOTH = ("load", "output", "temperature", "top_p", "guidance", "seed")
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    require("matplotlib", "PIL")  # not only when the training has ended
    keras.utils.set_random_seed(options.seed)
    if options.load:
        drawer = load_drawer(options.load)
        return show(drawer, options)
    train, test = load_data(options)
    console.print(
        f"{len(train['captions']):,} pictures to learn from, "
        f"{len(test['captions']):,} held out, {train['pictures'].shape[1:]}."
    )

    options.output.mkdir(parents=True, exist_ok=True)
    console.print("Stage 1: pictures to tokens, and back")
    if options.tokenizer:
        tokenizer = load_tokenizer(options.tokenizer, train)
    else:
        tokenizer = build_tokenizer(train, options)
        fit_tokenizer(tokenizer, train, options)
    report_tokenizer(tokenizer, train, test, options)
    console.print(
        f"Kept: --tokenizer {options.output / TOKENIZER} takes it another time."
    )

    console.print("Stage 2: captions to tokens")
    began = time.time()
    vocabulary = kseq.text.Vocabulary("word_and_mark", lowercase=True)
    vocabulary.adapt(train["captions"])
    model = build_model(vocabulary, tokenizer, options)
    history = fit_model(model, vocabulary, train, options)
    console.print(
        f"Trained {count_trained(model):,} weights in {time.time() - began:.0f} s."
    )
    kseq.plots.training_curve(history).savefig(options.output / CURVE)
    drawer = kseq.text.TextToImage(model, vocabulary)
    drawer.save(options.output / DRAWER)
    console.print(f"Kept: --load {options.output / DRAWER} draws with it.")

    console.print("Stage 3: which caption belongs to which picture")
    matcher = build_matcher(vocabulary, train)
    fit_matcher(matcher, vocabulary, train, options)
    matcher.save(options.output / MATCHER)

    evaluate(drawer, matcher, train, test, options)
    console.print(f"The drawer lies in {options.output / DRAWER}, pictures beside it.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


# Stage 1 ----------------------------------------------------------------------------


def build_tokenizer(train, options):
    """An autoencoder of convolutions whose inside is a grid of integers.

    The encoder sees one patch at a time, so equal patches have equal tokens, of which
    fewer are to be learned; the decoder sees the patches around.
    """
    return kseq.image_tokenizer(
        image_shape=train["pictures"].shape[1:],
        quantizer=kseq.layers.FiniteScalarQuantizer(LEVELS),
        patch_size=PATCH,
        width=options.tokenizer_width,
        encoder=kseq.layers.ImageEncoder(
            PATCH, options.tokenizer_width, kernel_size=1, name="encoder"
        ),
        num_blocks=3,
    )


def fit_tokenizer(tokenizer, train, options):
    pictures = train["pictures"]
    steps = -(-len(pictures) // 16)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(steps * options.tokenizer_epochs - steps // 2, 1),
        warmup_target=4e-3,
        warmup_steps=steps // 2,
    )
    optimizer = keras.optimizers.AdamW(
        learning_rate, weight_decay=1e-4, global_clipnorm=1.0
    )
    tokenizer.compile(optimizer, loss="mse")
    began = time.time()
    stop = kseq.training.StopOnInterrupt()
    tokenizer.fit(
        pictures,
        pictures,
        batch_size=16,
        epochs=options.tokenizer_epochs,
        callbacks=[stop],
    )
    say_what_follows(stop)
    console.print(f"Trained the tokenizer in {time.time() - began:.0f} s.")


def say_what_follows(stop):
    """Tells whoever has pressed Ctrl-C that only a stage has ended."""
    if stop.interrupted:
        console.print("The next stage follows. To end all, press Ctrl-C twice.")


def report_tokenizer(tokenizer, train, test, options):
    """Prints how much of a picture its tokens tell, and shows it."""
    ids = tokenizer.encode(train["pictures"])
    used = len(np.unique(ids))
    table = Table("", "signal to noise, dB")
    for name, part in (("learned", train), ("held out", test)):
        again = tokenizer.decode(tokenizer.encode(part["pictures"]))
        table.add_row(name, f"{decibels(again, part['pictures']).mean():.2f}")
    console.print(table)
    console.print(f"{used:,} of {tokenizer.num_codes:,} codes are used.")
    tokenizer.save(options.output / TOKENIZER)
    some = test["pictures"][:12]
    again = tokenizer.decode(tokenizer.encode(some))
    rows = [("real", some), ("from tokens", again)]
    sheet(rows).savefig(options.output / RECONSTRUCTED, bbox_inches="tight")


def decibels(pictures, originals):
    """The peak signal-to-noise ratio of each picture."""
    errors = np.square(pictures - originals).reshape(len(pictures), -1).mean(axis=1)
    return -10 * np.log10(np.maximum(errors, 1e-10))


# Stage 2 ----------------------------------------------------------------------------


def build_model(vocabulary, tokenizer, options):
    """A Transformer that reads the caption and writes the tokens of a picture."""
    layers = kseq.layers
    common = {
        "num_heads": options.width // 32,
        "dropout": options.dropout,
        "activation": "gelu",
    }
    if options.stream:
        encoder = None
        decoder = layers.TransformerDecoder(
            options.layers, cross_attention=False, causal_prefix=True, **common
        )
    else:
        encoder = layers.TransformerEncoder(2, **common)
        decoder = layers.TransformerDecoder(options.layers, **common)
    return kseq.text_to_image(
        vocabulary.size,
        tokenizer,
        encoder=encoder,
        decoder=decoder,
        width=options.width,
        caption_dropout=options.caption_dropout,
    )


def fit_model(model, vocabulary, train, options):
    """Trains with Keras' own loop, on pictures some tokens of which are unknown."""
    captions = vocabulary.encode(train["captions"])
    tokens = model.image_tokens(train["pictures"])
    data = kseq.training.teacher_forcing(
        captions,
        tokens,
        options.batch_size,
        seed=options.seed,
        length_multiple=16,  # few lengths of captions, as each is compiled anew
    )
    data = kseq.training.TokenDropout(
        data, options.token_dropout, seed=options.seed, name="target"
    )
    steps = len(data)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(steps * options.epochs - steps, 1),
        warmup_target=options.learning_rate,
        warmup_steps=steps,
    )
    # On a CPU not Keras' default; for few steps it takes longer than it saves.
    is_compiled = keras.backend.backend() != "torch" and not options.quick
    if is_compiled:
        console.print("Compiling: the first step takes a minute or so.")
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.01, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(),
        jit_compile=is_compiled,
    )
    stop = kseq.training.StopOnInterrupt()
    history = model.fit(data, epochs=options.epochs, callbacks=[stop])
    say_what_follows(stop)
    return history


def count_trained(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


# Stage 3 ----------------------------------------------------------------------------


def build_matcher(vocabulary, train):
    """A small CLIP: a tower that reads captions, and one that looks at pictures."""
    pictures = kseq.vision_transformer(
        image_shape=train["pictures"].shape[1:],
        patch_size=PATCH,
        num_outputs=64,
        width=64,
        num_layers=2,
        pooling="mean",
    )
    return kseq.text_image_matcher(vocabulary.size, pictures, width=64)


def fit_matcher(matcher, vocabulary, train, options):
    """The other pictures of a batch are wrong answers, so a batch is large."""
    captions = padded(vocabulary.encode(train["captions"]))
    matcher.compile(
        keras.optimizers.AdamW(1e-3, global_clipnorm=1.0),
        loss=kseq.training.ContrastiveLoss(),
    )
    matcher.fit(
        {"text": captions, "image": centred(train["pictures"])},
        captions,  # equal captions are equally right
        batch_size=128,
        epochs=options.matcher_epochs,
        callbacks=[kseq.training.StopOnInterrupt()],
    )


def padded(rows):
    return keras.utils.pad_sequences(rows, padding="post")


def centred(pictures):
    """From -1 to 1, as a Vision Transformer takes pictures best."""
    return 2 * pictures - 1


# What comes of it -------------------------------------------------------------------


def evaluate(drawer, matcher, train, test, options):
    """Prints whether drawn pictures are the right ones, beside what can be had."""
    model = drawer.model
    captions = drawer.vocabulary.encode(test["captions"])
    real = np.concatenate([train["pictures"], test["pictures"]])
    again = model.tokenizer.decode(model.tokenizer.encode(test["pictures"]))
    rows = {"tokens of the true picture": again}
    if has_tones(test):
        rows["the base in another tone"] = others(train, test)
    began = time.time()
    greedy = model.draw(captions).images[:, 0]
    seconds = time.time() - began
    rows["greedy"] = greedy
    if options.guidance:
        search = kseq.decoding.GreedySearch(guidance=options.guidance)
        rows[f"greedy, guidance {options.guidance:g}"] = model.draw(
            captions, search
        ).images[:, 0]
    search = kseq.decoding.Sampling(
        options.temperature,
        top_p=options.top_p,
        num_draws=options.candidates,
        seed=options.seed,
        guidance=options.guidance or None,
    )
    drawn = model.draw(captions, search)
    scores = matcher.score(padded(captions), centred(drawn.images))
    best = kseq.decoding.best_of(drawn, scores)
    rows[f"most probable of {options.candidates} draws"] = drawn.images[:, 0]
    rows[f"best of {options.candidates} draws, says the matcher"] = best.images[:, 0]
    table = None
    for name, pictures in rows.items():
        shares = right_shares(nearest(pictures, real), train, test)
        if table is None:
            table = Table("held out", *shares, "dB")
        cells = [f"{value:.1%}" for value in shares.values()]
        table.add_row(
            name, *cells, f"{decibels(pictures, test['pictures']).mean():.2f}"
        )
    console.print(table)
    console.print(
        f"{len(captions)} pictures were drawn in {seconds:.1f} s, first call."
    )

    some = slice(0, 12)
    rows = [
        ("real", test["pictures"][some]),
        ("from its tokens", again[some]),
        ("drawn, greedy", greedy[some]),
        (f"best of {options.candidates}", best.images[some, 0]),
    ]
    figure = sheet(rows, titles=test["captions"][some])
    figure.savefig(options.output / SHEET, bbox_inches="tight")
    one = model.draw(captions[:1], return_attention_scores=True)
    filling(model.tokenizer, one.ids[0, 0], options.output / FILLING)
    words = drawer.vocabulary.spell(captions[0])
    figure = over_picture(one, words)
    figure.savefig(options.output / ATTENTION, bbox_inches="tight")


def has_tones(test):
    return bool(test["tones"][0])


def right_shares(near, train, test):
    """By name, how often the nearest real picture is the one that was asked for.

    Of several pictures with one caption, such as digits, any is.
    """
    first = len(train["captions"])  # of the pictures that are held out
    if not has_tones(test):
        captions = np.array([*train["captions"], *test["captions"]])
        is_same = captions[near] == captions[first:]
        return {"same caption": is_same.mean()}
    bases = np.array([*train["bases"], *test["bases"]])
    tones = np.array([*train["tones"], *test["tones"]])
    is_exact = near == first + np.arange(len(near))
    return {
        "exact": is_exact.mean(),
        "base": (bases[near] == bases[first:]).mean(),
        "tone": (tones[near] == tones[first:]).mean(),
    }


def nearest(pictures, real):
    """For each picture the number of the most similar real one."""
    flat, others = (x.reshape(len(x), -1) for x in (pictures, real))
    return (np.square(others).sum(axis=1) - 2 * flat @ others.T).argmin(axis=1)


def others(train, test):
    """For each held-out picture the same emoji in the tone that was learned first."""
    places = {}
    for place, (base, tone) in enumerate(
        zip(train["bases"], train["tones"], strict=True)
    ):
        if tone:
            places.setdefault(base, place)
    return train["pictures"][[places[base] for base in test["bases"]]]


def show(drawer, options):
    """Draws captions of one's own, and writes them as a sheet."""
    captions = options.captions or ["red heart"]
    search = kseq.decoding.Sampling(
        options.temperature,
        top_p=options.top_p,
        num_draws=options.draws,
        seed=options.seed,
        guidance=options.guidance or None,
    )
    try:
        drawn = drawer.draw(captions, search)
    except ValueError as error:  # a caption without a word, or guidance not learned
        sys.exit(str(error))
    rows = []
    for caption, pictures in zip(captions, drawn, strict=True):
        pixels = np.array([np.asarray(picture) for picture in pictures])
        pixels = pixels.reshape(*pixels.shape[:3], -1)  # in grey there is one channel
        rows.append((caption, pixels / 255))
    options.output.mkdir(parents=True, exist_ok=True)
    sheet(rows).savefig(options.output / DRAWN, bbox_inches="tight")
    console.print(f"The pictures lie in {options.output / DRAWN}.")


def sheet(rows, titles=()):
    """Rows of pictures, each with its name on the left, titles above the columns."""
    from matplotlib.figure import Figure

    columns = max(len(pictures) for _, pictures in rows)
    figure = Figure(dpi=150, figsize=(0.7 * columns + 2, 0.75 * len(rows) + 0.2))
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for ax, title in zip(panels[0], titles, strict=False):
        lines = textwrap.fill(title, 14)
        kseq.plots.legible(ax.set_title(lines, size=5))
    for axes, (name, pictures) in zip(panels, rows, strict=True):
        for ax in axes:
            ax.axis("off")
        for ax, picture in zip(axes, pictures, strict=False):
            ax.imshow(
                picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray"
            )
        lines = textwrap.shorten(name, 120, placeholder=" ...")
        lines = textwrap.fill(lines, 30)
        size = 10 if lines.count("\n") < 2 else 6
        label = axes[0].text(
            -0.2,
            0.5,
            lines,
            ha="right",
            va="center",
            size=size,
            transform=axes[0].transAxes,
        )
        kseq.plots.legible(label)
    return figure


def filling(tokenizer, ids, path):
    """A moving picture of one that fills up row by row."""
    from PIL import Image

    blank = tokenizer.encode(np.ones((1, *tokenizer.input.shape[1:])))[0]
    steps = range(0, len(ids) + 1, tokenizer.grid[1])
    grids = np.array([np.where(np.arange(len(ids)) < n, ids, blank) for n in steps])
    frames = []
    for picture in np.rint(255 * tokenizer.decode(grids)).astype("uint8"):
        picture = picture if picture.shape[-1] == 3 else picture[..., 0]
        frames.append(Image.fromarray(picture).resize((256, 256), Image.NEAREST))
    options = {"save_all": True, "append_images": frames[1:], "loop": 0}
    frames[0].save(path, duration=[300] * (len(frames) - 1) + [1500], **options)


def over_picture(drawn, words):
    """What each word of the caption has told, over the picture."""
    from matplotlib.figure import Figure

    picture, attention = drawn.images[0, 0], drawn.attention[0, 0]
    while attention.ndim > 2:  # over layers and heads
        attention = attention.mean(axis=0)
    side = int(len(attention) ** 0.5)
    figure = Figure(dpi=150, figsize=(1.3 * (len(words) + 1), 1.7))
    first, *panels = figure.subplots(1, len(words) + 1)
    first.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray")
    first.axis("off")
    for place, (ax, word) in enumerate(zip(panels, words, strict=True)):
        ax.imshow(attention[:, place].reshape(side, side), cmap="viridis")
        ax.axis("off")
        kseq.plots.legible(ax.set_title(word, size=9))
    figure.text(0.5, 0.08, "Each word has a scale of its own.", ha="center", size=7)
    return figure


# Data -------------------------------------------------------------------------------


def load_data(options):
    """Pictures from 0 to 1 and what goes with them, to learn from and held out."""
    try:
        if options.folder:
            parts = load_folder(options)
        elif options.mnist:
            parts = load_digits(options)
        else:
            data = kseq.datasets.load("emoji", language=options.language)
            parts = data["train"], data["test"]
    except ValueError as error:
        sys.exit(str(error))
    names = ("pictures", "captions", "bases", "tones")
    train, test = (dict(zip(names, part, strict=True)) for part in parts)
    if options.quick:
        train, test = few(train, test)
    for part in (train, test):
        part["pictures"] = part["pictures"].astype("float32") / 255
    return train, test


def few(train, test):
    """A few pictures of both, with other tones of those that are held out first."""
    test = {name: values[:12] for name, values in test.items()}
    is_other = np.isin(np.array(train["bases"], str), np.array(test["bases"], str))
    chosen = np.argsort(~is_other, kind="stable")[:200]
    train = {
        name: values[chosen]
        if name == "pictures"
        else [values[place] for place in chosen]
        for name, values in train.items()
    }
    return train, test


def load_folder(options):
    """A folder of one's own, of which a tenth is held out, no picture of it seen."""
    pictures, captions = kseq.datasets.read_pictures(options.folder, SIDE, at_least=20)
    flat = pictures.reshape(len(pictures), -1)
    different, same = np.unique(flat, axis=0, return_inverse=True)
    if len(different) < 2:
        raise ValueError(f"{options.folder} must hold pictures that differ.")
    places = np.random.default_rng(0).permutation(len(different))
    is_held_out = places[same.ravel()] < max(len(different) // 10, 1)
    return [
        (
            pictures[part],
            [captions[i] for i in part],
            [None] * len(part),
            [""] * len(part),
        )
        for part in (np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    ]


def load_digits(options):
    """Handwritten digits, 2,000 of which 200 are held out, on 32 x 32 pixels."""
    pictures, labels = kseq.datasets.load("mnist")["train"]
    chosen = np.random.default_rng(0).permutation(len(labels))[:2000]
    pictures = np.pad(pictures[chosen], [(0, 0), (2, 2), (2, 2)])[..., None]
    captions = [DIGITS[options.language][label] for label in labels[chosen]]
    rows = [pictures, captions, [""] * 2000, [""] * 2000]
    return [[values[200:] for values in rows], [values[:200] for values in rows]]


def load_tokenizer(path, train):
    """The image tokenizer that an earlier run has saved, for pictures of this size."""
    advice = "Leave out --tokenizer, and one is trained."
    if not path.is_file():
        sys.exit(f"There is no file {path}. {advice}")
    try:
        tokenizer = keras.saving.load_model(path)
    except (ValueError, TypeError, KeyError, OSError):
        sys.exit(
            f"{path} is no model that Keras has saved, or not a whole one. {advice}"
        )
    shape = train["pictures"].shape[1:]
    if not hasattr(tokenizer, "encode") or tokenizer.input.shape[1:] != shape:
        sys.exit(f"{path} is not an image tokenizer for pictures {shape}. {advice}")
    return tokenizer


def load_drawer(path):
    """The drawer that an earlier run has saved."""
    try:
        return kseq.text.TextToImage.load(path)
    except ValueError as error:
        sys.exit(f"{error} Train one with --output DIR.")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--output", type=folder, default="pictures", help="folder of what is made")
    add("--language", choices=sorted(DIGITS), default="en", help="of the captions")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument(
        "--folder", type=path, metavar="DIR", help="pictures of your own"
    )
    pictures.add_argument(
        "--mnist", action="store_true", help="learn from handwritten digits"
    )
    pictures.add_argument(
        "--load", type=path, metavar="FILE", help="draw with a saved drawer"
    )
    add(
        "--captions",
        nargs="+",
        help="what to draw with --load ('red heart')",
    )
    add("--draws", type=count, default=4, help="of each caption, by a saved drawer")
    add("--temperature", type=positive, default=0.7, help="of what is drawn")
    add("--top-p", type=probability, help="draw from the most probable tokens only")
    add("--guidance", type=not_negative, default=0.0, help="scale, 0 for none")
    add("--tokenizer", type=path, metavar="FILE", help="that of an earlier run")
    add("--tokenizer-epochs", type=count, default=20, help="of stage 1")
    add("--tokenizer-width", type=count, default=128, help="features inside of it")
    add("--matcher-epochs", type=count, default=30, help="of stage 3")
    add("--candidates", type=count, default=8, help="draws that the matcher chooses of")
    add("--stream", action="store_true", help="DALL-E's own form, without an encoder")
    add("--width", type=count, default=128, help="features inside the drawer")
    add("--layers", type=count, default=3, help="of the decoder")
    add("--dropout", type=share, default=0.0, help="of numbers inside the drawer")
    add("--token-dropout", type=share, default=0.3, help="of tokens that are drawn")
    add(
        "--caption-dropout",
        type=share,
        default=0.1,
        help="share taken away in training, for guidance",
    )
    add("--epochs", type=count, default=40, help="of stage 2")
    add("--batch-size", type=count, default=16, help="pictures a step, in stage 2")
    add("--learning-rate", type=positive, default=3e-3, help="highest, in stage 2")
    add("--seed", type=seed, default=0, help="of all that is drawn at random")
    add("--quick", action="store_true", help="see all of it work, on little data")
    if parser.parse_args(argv).quick:
        parser.set_defaults(**QUICK)  # what is given stays as it is
    options = parser.parse_args(argv)
    refuse_what_is_not_read(parser, options)
    if options.guidance and not options.load and not options.caption_dropout:
        parser.error("--guidance needs a --caption-dropout above 0, such as 0.1")
    if options.width % 32:
        parser.error("--width must be a multiple of 32, one part for each head")
    if options.tokenizer_width % PATCH:
        parser.error(f"--tokenizer-width must be a multiple of {PATCH}")
    return options


def refuse_what_is_not_read(parser, options):
    """Ends the program for an option that would change nothing."""
    given = [
        name
        for name, value in vars(options).items()
        if name != "output" and value != parser.get_default(name)
    ]
    for name in given:
        flag = "--" + name.replace("_", "-")
        if options.load and name not in FOR_LOAD + FOR_BOTH:
            parser.error(f"{flag} is for training; leave it out with --load")
        if not options.load and name in FOR_LOAD:
            parser.error(f"{flag} needs --load FILE, a drawer that is trained")
        if options.tokenizer and name in ("tokenizer_epochs", "tokenizer_width"):
            parser.error(f"{flag} is for a new tokenizer; leave it or --tokenizer out")
    if options.folder and "language" in given:
        parser.error("--language is not for --folder, whose captions are your own")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
