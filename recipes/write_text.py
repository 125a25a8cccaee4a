"""Writes text, one character after the other.

A decoder-only Transformer, an LSTM or a GRU learns to predict the next character of a
long text; without further arguments, of 1 MB of Shakespeare's plays.

    python recipes/write_text.py --output shakespeare
    python recipes/write_text.py --load shakespeare/model.keras --prompt "ROMEO:"
    python recipes/write_text.py --text my_novel.txt --decoder lstm --output mine

The model learns from windows that begin anywhere in the text. In front of each stands
the start token, which says: what came before is not known. In front of what the model
writes it stands as well. Longer texts are written piece by piece, half a window of what
was written last in view.
"""

import argparse
import pathlib
import sys
import time

import keras
import numpy as np

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

MODEL, CURVE = "model.keras", "training.png"
UNKNOWN, START, END = 1, 2, 3  # token ids of every vocabulary
NO_MARKS = kseq.decoding.BannedTokens([UNKNOWN, START, END])
# What reached the lowest validation loss on Shakespeare within three minutes.
SETTINGS = {
    "transformer": {"width": 128, "layers": 4, "batch_size": 12, "learning_rate": 1e-3},
    "lstm": {"width": 256, "layers": 1, "batch_size": 16, "learning_rate": 4e-3},
    "gru": {"width": 256, "layers": 1, "batch_size": 16, "learning_rate": 4e-3},
}
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        writer = load_writer(options.load)
        check(options.prompt, writer.vocabulary)
        return write(writer, options)
    require("matplotlib")  # not only when the training has ended
    texts = load_texts(options)
    form = "NFD" if options.jamo else None
    vocabulary = kseq.text.Vocabulary("character", form).adapt(texts[:1])
    check(options.prompt, vocabulary)
    train, validation = (np.array(ids, "int32") for ids in vocabulary.encode(texts))
    console.print(
        f"{len(train):,} characters to learn from, {len(validation):,} held out; "
        f"{len(vocabulary.tokens)} different ones."
    )
    began = time.time()
    model = build(options, vocabulary.size)
    writer = kseq.text.TextWriter(model, vocabulary, options.window)
    history = fit(writer, train, validation, options)
    minutes = (time.time() - began) / 60
    evaluate(model, validation, options, minutes)
    kseq.plots.training_curve(history).savefig(options.output / CURVE)
    write(writer, options)
    console.print(f"The best model lies in {options.output / MODEL}.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def build(options, vocabulary_size):
    """A language model: it reads a window, and predicts each next character."""
    layers, depth = kseq.layers, options.layers
    width, dropout = options.width, options.dropout
    if options.decoder == "transformer":
        # The head shares the table, and small numbers in it make small first logits.
        small = keras.initializers.RandomNormal(stddev=0.05)
        return kseq.one_to_many(
            layers.TokenEmbedding(vocabulary_size, width, embeddings_initializer=small),
            decoder=layers.TransformerDecoder(
                depth,
                num_heads=4,
                cross_attention=False,
                activation="gelu",
                dropout=dropout,
                rotary=True,
            ),
            tie_embeddings="target",
        )
    return kseq.one_to_many(
        layers.TokenEmbedding(vocabulary_size, width // 2, dropout),
        decoder=layers.RecurrentDecoder(
            options.decoder, width, num_layers=depth, attention=None, dropout=dropout
        ),
    )


def fit(writer, train, validation, options):
    """Trains with Keras' own loop, and keeps the best epoch."""
    steps = options.steps * options.epochs
    warm_up = min(100, steps // 4)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps - warm_up,
        alpha=0.1,
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    writer.model.compile(
        keras.optimizers.AdamW(
            learning_rate, weight_decay=0.1, beta_2=0.99, global_clipnorm=1.0
        ),
        loss=kseq.training.SequenceCrossentropy(),
        # A recurrent decoder compiles its loop by itself.
        jit_compile=options.decoder == "transformer",
    )
    cut = kseq.training.windows
    draw = {"steps": options.steps, "seed": options.seed}
    return writer.model.fit(
        cut(train, options.window, options.batch_size, **draw),
        validation_data=cut(validation, options.window, 256, shuffle=False),
        epochs=options.epochs,
        callbacks=[
            kseq.training.SaveBest(options.output / MODEL, saved=writer),
            kseq.training.StopOnInterrupt(),
        ],
    )


def evaluate(model, validation, options, minutes):
    """Prints how well each character of the held-out text is predicted, from those
    before it in its window: none for the first, and half a window on average."""
    places = range(0, len(validation), options.window)
    rows = [validation[first : first + options.window].tolist() for first in places]
    loss = -model.score(len(rows), rows).sum() / len(validation)
    table = Table("decoder", "weights", "validation loss", "perplexity", "minutes")
    weights, perplexity = f"{model.count_params():,}", f"{np.exp(loss):.3f}"
    nats = f"{loss:.4f} nats a character"
    table.add_row(options.decoder, weights, nats, perplexity, f"{minutes:.1f}")
    console.print(table)


def check(prompts, vocabulary):
    """Refuses prompts that nobody can go on from."""
    for prompt in prompts:
        if unknown := vocabulary.unknown(prompt):
            sys.exit(
                "A prompt must be written with characters that the model has seen. "
                f"Received: {prompt!r}, with {' '.join(map(repr, unknown))}."
            )


def write(writer, options):
    """Prints texts that begin with the prompts."""
    search = kseq.decoding.Sampling(
        options.temperature, top_p=options.top_p, constraints=[NO_MARKS]
    )
    try:
        texts = writer.generate(options.prompt, search, options.length)
    except ValueError as error:
        sys.exit(f"{error} Or choose another --length or --prompt.")
    for text in texts:
        console.rule(f"temperature {options.temperature}")
        console.print(text, soft_wrap=True)


def load_writer(path):
    """The model and the vocabulary that an earlier run has saved."""
    try:
        return kseq.text.TextWriter.load(path)
    except ValueError as error:
        sys.exit(str(error))


def load_texts(options):
    """What to learn from, and what to be tested on: the last tenth."""
    try:
        if options.text:
            text = kseq.datasets.read_text(options.text)
            texts = [text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]]
        else:
            parts = kseq.datasets.load("tiny_shakespeare", options.data)
            texts = [parts["train"], parts["validation"]]
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if len(texts[1]) < options.window:
        sys.exit(
            f"A text needs {10 * options.window} characters at least: a tenth, which "
            f"is held out, must fill a window. Received: {sum(map(len, texts))} "
            "characters. Make --window smaller."
        )
    if lacking := sorted(set(texts[1]) - set(texts[0])):
        console.print(
            f"The part held out has {len(lacking)} characters that the rest lacks and "
            f"that cannot be predicted: {' '.join(map(repr, lacking[:20]))}.",
            style="yellow",
        )
    return [text[:20_000] for text in texts] if options.quick else texts


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--text", type=path, help="any text in UTF-8, of which a tenth is held out")
    add("--jamo", action="store_true", help="take Hangul apart (Unicode's NFD)")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--output", type=folder, default="text", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="write with a saved model")
    add("--prompt", nargs="+", default=["\n"], metavar="TEXT", help="how texts begin")
    add("--length", type=count, default=400, help="of a text")
    add("--temperature", type=positive, default=0.8)
    add("--top-p", type=probability, help="draw from the most probable characters only")
    add("--decoder", choices=list(SETTINGS), default="transformer")
    add("--width", type=count, help="128, or 256 for lstm and gru")
    add("--layers", type=count, help="4, or 1 for lstm and gru")
    add("--dropout", type=share, default=0.0)
    add("--window", type=count, default=64, help="characters to read")
    add("--epochs", type=count, default=8)
    add("--steps", type=count, default=250, help="batches of an epoch")
    add("--batch-size", type=count, help="12, or 16 for lstm and gru")
    add("--learning-rate", type=positive, help="0.001, or 0.004 for those")
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    settings = SETTINGS[options.decoder]
    if options.quick:
        settings = {**settings, "width": 32, "layers": 1}
        options.epochs, options.steps = 2, 20
    for name, value in settings.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.window < 2 or options.width % 4:
        parser.error("--window must be 2 or more, --width a multiple of 4")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
