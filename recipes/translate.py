"""Train a translator: a sentence in one language in, the same in another out.

A Transformer, or a recurrent network with Bahdanau's attention, learns German to
English from the captions of Multi30k, English to French from the sentences of Tatoeba,
or what is in a file of your own. Text is in lower case and split into word pieces.

    python recipes/translate.py --output multi30k
    python recipes/translate.py --pairs my_lines_of_source_TAB_target.tsv --model gru
    python recipes/translate.py --load multi30k/model.keras --translate "Ein Hund."

BLEU is sacrebleu's (13a), of the translations as plain text, against the lower-cased
references. `--load FILE` without `--translate` evaluates a saved model again.
"""

import argparse
import logging
import math
import pathlib
import sys

import keras

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed, share

try:
    from rich.console import Console
    from rich.table import Column, Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

MAX_LENGTH = 80  # maximum number of pieces in a translation
MIN_TRAINING_STEPS = 1000  # few pairs are repeated until there are this many steps
SETTINGS = {  # defaults of each model
    "transformer": {"layers": 3, "dropout": 0.2, "learning_rate": 1e-3},
    "gru": {"layers": 1, "dropout": 0.3, "learning_rate": 2e-3},
}
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return sentences with translations, for training, validation and testing.

    A pair is left out if a later split has one of its two sentences, too.
    """
    try:
        if options.pairs:
            data = {"train": kseq.datasets.read_pairs(options.pairs)}
        else:
            data = kseq.datasets.load(options.task, options.data)
        if "test" not in data:  # published, or given, in one piece
            sources, targets = data["train"]
            sources = [clean(source) for source in sources]
            targets = [clean(target) for target in targets]
            num_test = min(1000, max(len(set(sources)) // 10, 1))
            data = kseq.datasets.hold_out(sources, targets, num_test)
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    splits = []
    for sources, targets in data.values():
        sources = [clean(source) for source in sources]
        targets = [clean(target) for target in targets]
        splits.append((sources, targets))
    splits = kseq.datasets.disjoint(*splits, columns=(0, 1))
    sizes = [len(sources) for sources, _ in splits]
    if 0 in sizes:
        sys.exit(
            "--pairs must have pairs for training, validation and testing that share "
            f"no sentence. Received: {sizes} pairs."
        )
    if options.quick:
        limits = [2000, 50, 50]
        splits = [
            (sources[:limit], targets[:limit])
            for (sources, targets), limit in zip(splits, limits, strict=True)
        ]
    train, validation, test = splits
    console.print(
        f"{len(train[0]):,} pairs for training, {len(validation[0]):,} for validation, "
        f"{len(test[0]):,} for testing."
    )
    return train, validation, test


def clean(text):
    """Return a text in lower case, with single spaces."""
    return " ".join(text.lower().split())


def load_model(path):
    """Load a translator that was saved by an earlier run."""
    try:
        return kseq.text.TextToText.load(path)
    except ValueError as error:
        sys.exit(str(error))


# Build --------------------------------------------------------------------------------


def build(options, sources, targets):
    """Build a translator, with a vocabulary for each language."""
    source_pieces = kseq.text.Vocabulary(
        options.split, "NFC", max_tokens=options.pieces
    )
    source_pieces.adapt(sources)
    target_pieces = kseq.text.Vocabulary(
        options.split, "NFC", max_tokens=options.pieces
    )
    target_pieces.adapt(targets)
    if options.model == "transformer":
        model = build_transformer(options, source_pieces.size, target_pieces.size)
    else:
        model = build_recurrent(options, source_pieces.size, target_pieces.size)
    return kseq.text.TextToText(model, source_pieces, target_pieces)


def build_transformer(options, source_size, target_size):
    """Build a Transformer encoder and decoder."""
    width = options.width
    num_heads = max(width // 32, 1)
    initializer = keras.initializers.RandomNormal(stddev=width**-0.5, seed=options.seed)
    encoder = kseq.layers.TransformerEncoder(
        num_layers=options.layers,
        num_heads=num_heads,
        width=width,
        intermediate_dim=2 * width,
        dropout=options.dropout,
    )
    decoder = kseq.layers.TransformerDecoder(
        num_layers=options.layers,
        num_heads=num_heads,
        width=width,
        intermediate_dim=2 * width,
        dropout=options.dropout,
    )
    source_embedding = kseq.layers.TokenEmbedding(
        source_size,
        width,
        embeddings_initializer=initializer,
        positions="sinusoidal",
        scale=True,
    )
    target_embedding = kseq.layers.TokenEmbedding(
        target_size,
        width,
        embeddings_initializer=initializer,
        positions="sinusoidal",
        scale=True,
    )
    return kseq.encoder_decoder(
        source=source_embedding,
        encoder=encoder,
        target=target_embedding,
        decoder=decoder,
        tie_embeddings="target",
    )


def build_recurrent(options, source_size, target_size):
    """Build a bidirectional encoder, and a decoder with Bahdanau's attention."""
    width = options.width
    attention = kseq.layers.BahdanauAttention(width)
    encoder = kseq.layers.RecurrentEncoder(
        options.model,
        width // 2,  # in each direction
        num_layers=options.layers,
        bidirectional=True,
        dropout=options.dropout,
    )
    decoder = kseq.layers.RecurrentDecoder(
        options.model,
        width,
        num_layers=options.layers,
        attention=attention,
        dropout=options.dropout,
    )
    return kseq.encoder_decoder(
        source=kseq.layers.TokenEmbedding(source_size, width, options.dropout),
        encoder=encoder,
        target=kseq.layers.TokenEmbedding(target_size, width, options.dropout),
        decoder=decoder,
        tie_embeddings="target",
    )


# Train --------------------------------------------------------------------------------


def encode_split(translator, split):
    """Return sources and targets as token ids."""
    sources, targets = split
    source_ids = translator.source_vocabulary.encode(sources)
    target_ids = translator.target_vocabulary.encode(targets, start=True, end=True)
    return source_ids, target_ids


def fit(translator, options, train, validation):
    """Train with `Model.fit` and save the best epoch."""
    train_source, train_target = encode_split(translator, train)
    train_batches = kseq.training.teacher_forcing(
        train_source, train_target, options.batch_size, seed=options.seed
    )
    validation_source, validation_target = encode_split(translator, validation)
    validation_batches = kseq.training.teacher_forcing(
        validation_source, validation_target, batch_size=128, shuffle=False
    )

    warmup_steps = len(train_batches)  # the first epoch
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(len(train_batches) * (options.epochs - 1), 1),
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    translator.model.compile(
        keras.optimizers.Adam(learning_rate, beta_2=0.98, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(label_smoothing=0.1),
        metrics=[kseq.training.TokenAccuracy(name="accuracy")],
        jit_compile=False,  # XLA would compile again for each of the many lengths
    )
    console.print(f"{translator.model.count_params():,} weights.")
    callbacks = [
        kseq.training.SaveBest(options.output / "model.keras", saved=translator),
        kseq.training.StopOnInterrupt(),
    ]
    return translator.model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def evaluate(translator, validation, test, options):
    """Print the BLEU of greedy search and of beam search."""
    searches = {"greedy": None, f"{options.beams} beams": options.search}
    table = Table("search", "validation BLEU", "test BLEU")
    for name, search in searches.items():
        validation_bleu = bleu(translator, validation, search)
        test_bleu = bleu(translator, test, search)
        table.add_row(name, f"{validation_bleu:.2f}", f"{test_bleu:.2f}")
    console.print(table)
    if test_bleu < 1:
        console.print(
            "Next to nothing is translated right. Train longer (--epochs), or on more "
            "pairs."
        )


def bleu(translator, split, search):
    """Return the BLEU against all translations of each sentence; most have one."""
    references = {}
    for source, target in zip(*split, strict=True):
        references.setdefault(source, []).append(target)
    sentences = list(references)
    results = translator.generate(sentences, search, max_length=MAX_LENGTH)
    translations = [hypotheses[0].text for hypotheses in results]
    scores = kseq.training.text_scores(translations, references.values(), "bleu")
    return scores["bleu"]


# Show ---------------------------------------------------------------------------------


def print_translations(translator, sentences, references, options):
    """Print the best translations of each sentence, with their probabilities."""
    results = translator.generate(sentences, options.search, max_length=MAX_LENGTH)
    table = Table(
        Column("sentence", overflow="fold"),
        Column("reference", overflow="fold"),
        Column("translations, best first", overflow="fold"),
        "probability",
    )
    for sentence, reference, hypotheses in zip(
        sentences, references, results, strict=True
    ):
        for hypothesis in hypotheses[:3]:
            probability = math.exp(hypothesis.log_prob)
            table.add_row(sentence, reference, hypothesis.text, f"{probability:.3f}")
            sentence = ""  # printed only once
            reference = ""
        table.add_section()
    console.print(table)


def draw_attention(translator, sentence, output):
    """Draw what each head of the last layer attended to at each piece."""
    results = translator.generate(
        [sentence], max_length=MAX_LENGTH, return_attention_scores=True
    )
    best = results[0][0]
    if not best.tokens:
        console.print("No picture of attention: the translation is empty.")
        return
    if best.attention.ndim == 2:  # T S: of a recurrent decoder, as one head
        heads = best.attention[None]
    else:  # layers heads T S: of a Transformer, the last layer
        heads = best.attention[-1]
    figure = kseq.plots.attention_heads(heads, best.source_tokens, best.tokens)
    figure.savefig(output / "attention.png")


def translate(translator, texts, options):
    """Translate sentences with a saved model."""
    sentences = [clean(text) for text in texts]
    unknown = translator.source_vocabulary.unknown(" ".join(sentences))
    if unknown:
        console.print(f"Unknown to the model: {' '.join(unknown)}")
    references = ["(none)"] * len(sentences)
    print_translations(translator, sentences, references, options)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a translator, or translate sentences with a saved one."""
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.translate:
        translate(load_model(options.load), options.translate, options)
        return
    require("matplotlib", "sacrebleu")  # fail now, not after the training

    train, validation, test = load_splits(options)
    train_sources, train_targets = train
    options.output.mkdir(parents=True, exist_ok=True)
    if options.epochs is None:
        num_batches = math.ceil(len(train_sources) / options.batch_size)
        options.epochs = max(10, math.ceil(MIN_TRAINING_STEPS / num_batches))

    if options.load:
        translator = load_model(options.load)
    else:
        translator = build(options, train_sources, train_targets)
        history = fit(translator, options, train, validation)
        figure = kseq.plots.training_curve(history)
        figure.savefig(options.output / "training.png")

    evaluate(translator, validation, test, options)

    pairs = sorted(zip(*test, strict=True), key=lambda pair: len(pair[0]))
    shown = pairs[:: len(pairs) // 6 + 1]
    sentences = [sentence for sentence, _ in shown]
    references = [reference for _, reference in shown]
    print_translations(translator, sentences, references, options)
    middle_sentence, _ = pairs[len(pairs) // 2]
    draw_attention(translator, middle_sentence, options.output)
    console.print(f"The model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--task",
        choices=["multi30k", "tatoeba_fra_eng"],
        default="multi30k",
        help="data set: multi30k (German to English) or tatoeba_fra_eng (to French)",
    )
    parser.add_argument(
        "--model",
        choices=list(SETTINGS),
        default="transformer",
        help="a Transformer, or a GRU with Bahdanau's attention",
    )
    parser.add_argument(
        "--pairs",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: lines of `source TAB target`",
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
        default="translate",
        help="folder for the model and pictures",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="evaluate this saved model, or translate with it; do not train",
    )
    parser.add_argument(
        "--translate",
        nargs="+",
        metavar="TEXT",
        help="sentences to translate with --load",
    )
    parser.add_argument(
        "--pieces",
        type=count,
        default=5000,
        help="maximum vocabulary size per language",
    )
    parser.add_argument(
        "--split",
        choices=["word_piece", "sentence_piece"],
        default="word_piece",
        help="kind of pieces",
    )
    parser.add_argument(
        "--width", type=count, default=256, help="width of embeddings and layers"
    )
    parser.add_argument(
        "--layers",
        type=count,
        help="layers of the encoder, and of the decoder"
        " (default: 3 for a transformer, 1 for a gru)",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        help="dropout rate (default: 0.2 for a transformer, 0.3 for a gru)",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        help="passes over the training pairs (default: 10, more for few pairs)",
    )
    parser.add_argument(
        "--batch-size", type=count, default=128, help="pairs in a batch"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        help="highest learning rate, after the first epoch"
        " (default: 0.001 for a transformer, 0.002 for a gru)",
    )
    parser.add_argument("--beams", type=count, default=5, help="number of beams")
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on 2,000 pairs, a small model and 1 epoch;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    for text in options.translate or []:
        if not options.load or not clean(text):
            parser.error("--translate needs --load FILE, and a word in each sentence")
    for name, value in SETTINGS[options.model].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.width > 32 and options.width % 32 != 0:
        parser.error("--width above 32 must be a multiple of 32, the width of a head")
    if options.quick:
        options.epochs = 1
        options.pieces = 1000
        options.width = 64
    options.search = kseq.decoding.BeamSearch(
        options.beams, length_penalty=1.0, early_stopping=True
    )
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
