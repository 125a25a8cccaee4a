"""Train a language model that writes text, one character after the other.

A decoder-only Transformer, an LSTM or a GRU learns to predict the next character of a
long text, by default 1 MB of Shakespeare's plays.

    python recipes/write_text.py --output shakespeare
    python recipes/write_text.py --load shakespeare/model.keras --prompt "ROMEO:"
    python recipes/write_text.py --text my_novel.txt --decoder lstm --output mine

The model learns from windows that start anywhere in the text. Each window begins with
the start token, which means that what came before is unknown. So does each text that
the model writes. A text longer than a window is written piece by piece: the model then
sees the last half of a window.
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
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

# Token ids of every vocabulary. None of these tokens is ever written.
UNKNOWN = 1
START = 2
END = 3
CHARACTERS_ONLY = kseq.decoding.BannedTokens([UNKNOWN, START, END])
# Defaults of each decoder: the lowest validation loss on Shakespeare in three minutes.
SETTINGS = {
    "transformer": {"width": 128, "layers": 4, "batch_size": 12, "learning_rate": 1e-3},
    "lstm": {"width": 256, "layers": 1, "batch_size": 16, "learning_rate": 4e-3},
    "gru": {"width": 256, "layers": 1, "batch_size": 16, "learning_rate": 4e-3},
}
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_texts(options):
    """Return the training text and the validation text, the last tenth."""
    try:
        if options.text:
            text = kseq.datasets.read_text(options.text)
            num_train = len(text) * 9 // 10
            train = text[:num_train]
            validation = text[num_train:]
        else:
            data = kseq.datasets.load("tiny_shakespeare", options.data)
            train = data["train"]
            validation = data["validation"]
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    if len(validation) < options.window:
        sys.exit(
            f"A text needs at least {10 * options.window} characters: a tenth of it, "
            "for validation, must fill a window. "
            f"Received: {len(train) + len(validation)} characters. "
            "Use a smaller --window."
        )
    lacking = sorted(set(validation) - set(train))
    if lacking:
        examples = " ".join(repr(character) for character in lacking[:20])
        console.print(
            f"{len(lacking)} characters of the validation text are not in the training "
            f"text, so they cannot be predicted: {examples}.",
            style="yellow",
        )
    if options.quick:
        train = train[:20_000]
        validation = validation[:20_000]
    return train, validation


def load_writer(path):
    """Load a model that was saved by an earlier run, with its vocabulary."""
    try:
        return kseq.text.TextWriter.load(path)
    except ValueError as error:
        sys.exit(str(error))


def check_prompts(prompts, vocabulary):
    """Raise unless the model knows all characters of the prompts."""
    for prompt in prompts:
        unknown = vocabulary.unknown(prompt)
        if unknown:
            characters = " ".join(repr(character) for character in unknown)
            sys.exit(
                "A prompt must consist of characters that the model knows. "
                f"Received: {prompt!r}, with {characters}."
            )


# Build --------------------------------------------------------------------------------


def build(options, vocabulary_size):
    """Build a language model, which predicts each next character of a window."""
    if options.decoder == "transformer":
        return build_transformer(options, vocabulary_size)
    return build_recurrent(options, vocabulary_size)


def build_transformer(options, vocabulary_size):
    """Build a decoder-only Transformer."""
    # The head shares the table of the embedding. Small values make small first logits.
    initializer = keras.initializers.RandomNormal(stddev=0.05)
    embedding = kseq.layers.TokenEmbedding(
        vocabulary_size, options.width, embeddings_initializer=initializer
    )
    decoder = kseq.layers.TransformerDecoder(
        options.layers,
        num_heads=4,
        cross_attention=False,
        activation="gelu",
        dropout=options.dropout,
        rotary=True,
    )
    return kseq.one_to_many(embedding, decoder=decoder, tie_embeddings="target")


def build_recurrent(options, vocabulary_size):
    """Build an LSTM or a GRU language model."""
    embedding = kseq.layers.TokenEmbedding(
        vocabulary_size, options.width // 2, options.dropout
    )
    decoder = kseq.layers.RecurrentDecoder(
        options.decoder,
        options.width,
        num_layers=options.layers,
        attention=None,
        dropout=options.dropout,
    )
    return kseq.one_to_many(embedding, decoder=decoder)


# Train --------------------------------------------------------------------------------


def fit(writer, train, validation, options):
    """Train with `Model.fit` and save the best epoch."""
    # An epoch is not the whole text, but so many batches of random windows.
    train_windows = kseq.training.windows(
        train,
        options.window,
        options.batch_size,
        steps=options.steps,
        seed=options.seed,
    )
    validation_windows = kseq.training.windows(
        validation, options.window, batch_size=256, shuffle=False
    )

    num_steps = options.steps * options.epochs
    warmup_steps = min(100, num_steps // 4)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=num_steps - warmup_steps,
        alpha=0.1,  # a tenth of the highest learning rate remains at the end
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    writer.model.compile(
        keras.optimizers.AdamW(
            learning_rate, weight_decay=0.1, beta_2=0.99, global_clipnorm=1.0
        ),
        loss=kseq.training.SequenceCrossentropy(),
        # A recurrent decoder compiles its own loop.
        jit_compile=options.decoder == "transformer",
    )
    callbacks = [
        kseq.training.SaveBest(options.output / "model.keras", saved=writer),
        kseq.training.StopOnInterrupt(),
    ]
    return writer.model.fit(
        train_windows,
        validation_data=validation_windows,
        epochs=options.epochs,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def evaluate(model, validation, options, minutes):
    """Print how well each character is predicted from those before it in its window.

    The first character of a window has none before it; the average is half a window.
    """
    windows = []
    for start in range(0, len(validation), options.window):
        window = validation[start : start + options.window]
        windows.append(window.tolist())
    log_probs = model.score(len(windows), windows)
    loss = -log_probs.sum() / len(validation)
    num_weights = model.count_params()
    table = Table("decoder", "weights", "validation loss", "perplexity", "minutes")
    table.add_row(
        options.decoder,
        f"{num_weights:,}",
        f"{loss:.4f} nats per character",
        f"{np.exp(loss):.3f}",
        f"{minutes:.1f}",
    )
    console.print(table)


# Show ---------------------------------------------------------------------------------


def write(writer, options):
    """Print texts that begin with the prompts."""
    search = kseq.decoding.Sampling(
        options.temperature, top_p=options.top_p, constraints=[CHARACTERS_ONLY]
    )
    try:
        texts = writer.generate(options.prompt, search, max_length=options.length)
    except ValueError as error:
        sys.exit(f"{error} Or use a larger --length, or a shorter --prompt.")
    for text in texts:
        console.rule(f"temperature {options.temperature}")
        console.print(text, soft_wrap=True)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a language model, or write texts with a saved one."""
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        writer = load_writer(options.load)
        check_prompts(options.prompt, writer.vocabulary)
        write(writer, options)
        return
    require("matplotlib")  # fail now, not after the training

    train_text, validation_text = load_texts(options)
    normalization = None
    if options.jamo:
        normalization = "NFD"
    vocabulary = kseq.text.Vocabulary("character", normalization)
    vocabulary.adapt([train_text])
    check_prompts(options.prompt, vocabulary)
    train_ids, validation_ids = vocabulary.encode([train_text, validation_text])
    train = np.array(train_ids, "int32")
    validation = np.array(validation_ids, "int32")
    console.print(
        f"{len(train):,} characters for training, {len(validation):,} for validation; "
        f"{len(vocabulary.tokens)} different ones."
    )

    start = time.time()
    model = build(options, vocabulary.size)
    writer = kseq.text.TextWriter(model, vocabulary, options.window)
    history = fit(writer, train, validation, options)
    minutes = (time.time() - start) / 60

    evaluate(model, validation, options, minutes)

    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    write(writer, options)
    console.print(f"The best model is in {options.output / 'model.keras'}.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--text",
        type=pathlib.Path,
        metavar="FILE",
        help="your own text, in UTF-8; its last tenth is for validation",
    )
    parser.add_argument(
        "--jamo", action="store_true", help="split Hangul into jamo (Unicode's NFD)"
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of the data sets (default: $KSEQ_DATA_DIR)",
    )
    parser.add_argument(
        "--output", type=folder, default="text", help="folder for the model and picture"
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="write with this saved model; do not train",
    )
    parser.add_argument(
        "--prompt",
        nargs="+",
        default=["\n"],
        metavar="TEXT",
        help="beginnings of the texts to write",
    )
    parser.add_argument(
        "--length",
        type=count,
        default=400,
        help="length of a written text in characters, with its prompt",
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
        help="sample only from the most probable characters that have this probability"
        " together (default: 1, from all)",
    )
    parser.add_argument(
        "--decoder",
        choices=list(SETTINGS),
        default="transformer",
        help="network of the language model",
    )
    parser.add_argument(
        "--width",
        type=count,
        help="width of the layers (default: 128, or 256 for lstm and gru)",
    )
    parser.add_argument(
        "--layers",
        type=count,
        help="number of layers (default: 4, or 1 for lstm and gru)",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.0,
        help="dropout rate (%(default)s)",
    )
    parser.add_argument(
        "--window", type=count, default=64, help="characters that the model reads"
    )
    parser.add_argument("--epochs", type=count, default=8, help="number of epochs")
    parser.add_argument("--steps", type=count, default=250, help="batches of an epoch")
    parser.add_argument(
        "--batch-size",
        type=count,
        help="windows in a batch (default: 12, or 16 for lstm and gru)",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        help="highest learning rate, after the warm-up"
        " (default: 0.001, or 0.004 for lstm and gru)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on 20,000 characters, a small model and 2 epochs;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    settings = SETTINGS[options.decoder]
    if options.quick:
        settings = {**settings, "width": 32, "layers": 1}
        options.epochs = 2
        options.steps = 20
    for name, value in settings.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.window < 2 or options.width % 4 != 0:
        parser.error("--window must be 2 or more, --width a multiple of 4")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
