"""Train a model that inflects words: a lemma and features in, the inflected form out.

An encoder-decoder reads two sources: the letters of a lemma, and the features of the
form, such as `V;PST`. It is tested on lemmas that it has never seen. By default the
words are English, from the shared task of SIGMORPHON 2023.

    python recipes/inflect.py --output english
    python recipes/inflect.py --load english/model.keras --inflect sing "V;PST"
    python recipes/inflect.py --language spa --output spanish
    python recipes/inflect.py --train my.trn --dev my.dev --test my.tst --output mine
"""

import argparse
import difflib
import itertools
import logging
import math
import pathlib
import re
import sys

import keras
import numpy as np

import kseq
from kseq.training.cli import (
    Help,
    count,
    folder,
    not_negative,
    positive,
    require,
    seed,
    share,
)

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

MIN_TRAINING_STEPS = 1000  # few forms are repeated until there are this many steps
KEPT_LETTERS = 3  # at the end of an invented stem, because endings depend on them
MAX_INVENTED_LETTERS = 8
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return the training, validation and test forms.

    Each split is a tuple of three lists: lemmas, features and forms.
    """
    try:
        if options.train:
            paths = [options.train, options.dev, options.test]
            splits = [kseq.datasets.read_inflections(path) for path in paths]
        else:
            data = kseq.datasets.load(
                "sigmorphon2023_inflection", options.data, language=options.language
            )
            splits = [data["train"], data["validation"], data["test"]]
    except (ValueError, OSError) as error:
        sys.exit(str(error))

    for first, second in itertools.combinations(splits, 2):
        first_lemmas, first_features, _ = first
        second_lemmas, second_features, _ = second
        first_cells = set(zip(first_lemmas, first_features, strict=True))
        second_cells = set(zip(second_lemmas, second_features, strict=True))
        shared = sorted(first_cells & second_cells)
        if shared:
            sys.exit(
                "A form must be in only one of --train, --dev and --test. "
                f"Received in two: {shared[:3]}."
            )
    if options.quick:
        return [tuple(column[:1000] for column in split) for split in splits]
    return splits


def split_features(features):
    """Return features separated by spaces: `V PRS NOM 3 SG` for `V;PRS;NOM(3,SG)`."""
    return " ".join(re.findall(r"[^;(),\s]+", features))


def invent_forms(split, number, random):
    """Return forms of invented stems, from which a model learns to copy new stems.

    The stem is the longest text that a lemma and its form share. Its beginning becomes
    random letters, rare ones as often as others, and its last letters stay. This is the
    data hallucination of [Anastasopoulos and Neubig,
    2019](https://arxiv.org/abs/1908.05838), which also replaces the last letters.
    """
    lemmas, _, forms = split
    letters = sorted(set("".join(lemmas)) - {" "})

    stems = {}
    for index, (lemma, form) in enumerate(zip(lemmas, forms, strict=True)):
        matcher = difflib.SequenceMatcher(None, lemma, form, autojunk=False)
        stem = matcher.find_longest_match()
        if stem.a == 0 and stem.size >= KEPT_LETTERS:
            stems[index] = stem
    if not stems:
        return [], [], []

    invented = []
    for index in random.choice(list(stems), number):
        lemma, feature, form = (column[index] for column in split)
        stem = stems[index]
        num_letters = random.integers(1, MAX_INVENTED_LETTERS + 1)
        beginning = "".join(random.choice(letters, num_letters))
        kept = stem.size - KEPT_LETTERS
        new_lemma = beginning + lemma[kept:]
        new_form = form[: stem.b] + beginning + form[stem.b + kept :]
        invented.append((new_lemma, feature, new_form))
    return [list(column) for column in zip(*invented, strict=True)]


def source_texts(lemmas, features):
    """Return the texts of both sources, by the name of the source."""
    tags = [split_features(each) for each in features]
    return {"lemma": lemmas, "tags": tags}


def encode_split(split, pipeline):
    """Return the two sources, by name, and the forms, as token ids."""
    lemmas, features, forms = split
    texts = source_texts(lemmas, features)
    source_ids = {}
    for name, vocabulary in pipeline.source_vocabulary.items():
        source_ids[name] = vocabulary.encode(texts[name])
    target_ids = pipeline.target_vocabulary.encode(forms, start=True, end=True)
    return source_ids, target_ids


# Build --------------------------------------------------------------------------------


def build(options, letters, tags):
    """Build an encoder for the lemma, one for the tags, and a decoder for both."""
    if options.model == "transformer":
        return build_transformer(options, letters, tags)
    return build_recurrent(options, letters, tags)


def build_recurrent(options, letters, tags):
    """Build recurrent encoders, and a recurrent decoder with Bahdanau's attention."""
    # The encoders read in two directions, so each direction has half of the units.
    half = (options.units + 1) // 2
    lemma_encoder = kseq.layers.RecurrentEncoder(
        options.model,
        half,
        num_layers=options.layers,
        bidirectional=True,
        dropout=options.dropout,
    )
    tag_encoder = kseq.layers.RecurrentEncoder(
        options.model,
        half,
        num_layers=options.layers,
        bidirectional=True,
        dropout=options.dropout,
    )
    decoder = kseq.layers.RecurrentDecoder(
        options.model,
        options.units,
        num_layers=options.layers,
        attention="bahdanau",
        dropout=options.dropout,
    )
    return kseq.encoder_decoder(
        source={
            "lemma": kseq.layers.TokenEmbedding(letters.size, half, options.dropout),
            "tags": kseq.layers.TokenEmbedding(tags.size, half, options.dropout),
        },
        target=kseq.layers.TokenEmbedding(letters.size, half, options.dropout),
        encoder={"lemma": lemma_encoder, "tags": tag_encoder},
        decoder=decoder,
    )


def build_transformer(options, letters, tags):
    """Build Transformer encoders and a Transformer decoder."""
    width = options.units
    num_heads = max(width // 64, 1)
    lemma_encoder = kseq.layers.TransformerEncoder(
        options.layers, num_heads, width=width, dropout=options.dropout
    )
    tag_encoder = kseq.layers.TransformerEncoder(
        options.layers, num_heads, width=width, dropout=options.dropout
    )
    decoder = kseq.layers.TransformerDecoder(
        options.layers, num_heads, width=width, dropout=options.dropout
    )

    def embedding(vocabulary):
        """Build a new embedding of a vocabulary."""
        return kseq.layers.TokenEmbedding(
            vocabulary.size,
            width,
            dropout=options.dropout,
            positions="sinusoidal",
            scale=True,
        )

    return kseq.encoder_decoder(
        source={"lemma": embedding(letters), "tags": embedding(tags)},
        target=embedding(letters),
        encoder={"lemma": lemma_encoder, "tags": tag_encoder},
        decoder=decoder,
    )


# Train --------------------------------------------------------------------------------


def fit(pipeline, options, train, validation):
    """Train with `Model.fit` and save the best epoch."""
    train_source, train_target = train
    validation_source, validation_target = validation
    train_batches = kseq.training.teacher_forcing(
        train_source,
        train_target,
        options.batch_size,
        seed=options.seed,
        length_multiple=8,
    )
    validation_batches = kseq.training.teacher_forcing(
        validation_source, validation_target, batch_size=256, length_multiple=8
    )

    num_steps = len(train_batches) * options.epochs
    warmup_steps = len(train_batches) // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=num_steps - warmup_steps,
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    # The weights are averaged over about the last tenth of the training (EMA). The
    # averaged weights are what is validated and saved.
    optimizer = keras.optimizers.Adam(
        learning_rate,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=max(0.0, 1 - 10 / num_steps),
    )
    pipeline.model.compile(
        optimizer,
        loss=kseq.training.SequenceCrossentropy(label_smoothing=0.1),
        # Under teacher forcing a form counts as right if every letter is the most
        # probable one. Greedy search gets exactly these forms right.
        metrics=[kseq.training.ExactMatch(name="forms_right")],
    )
    save_best = kseq.training.SaveBest(
        options.output / "model.keras",
        monitor="val_forms_right",
        mode="max",
        saved=pipeline,
    )
    callbacks = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        save_best,
        kseq.training.StopOnInterrupt(),
    ]
    return pipeline.model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def evaluate(pipeline, test, num_beams):
    """Print the share of test forms that are right, of greedy and of beam search."""
    lemmas, features, forms = test
    texts = source_texts(lemmas, features)
    longest_form = max(len(form) for form in forms)
    max_length = 10 + 2 * longest_form
    searches = {
        "greedy": None,
        f"beam, {num_beams} beams": kseq.decoding.BeamSearch(num_beams),
    }
    table = Table("search", "forms right")
    for name, search in searches.items():
        results = pipeline.generate(texts, search, max_length=max_length)
        generated = [hypotheses[0].text for hypotheses in results]
        is_right = [text == form for text, form in zip(generated, forms, strict=True)]
        accuracy = np.mean(is_right)
        table.add_row(name, f"{accuracy:.2%}")
    console.print(table)
    if accuracy == 0:
        console.print(
            "Not one form is right. Train longer (--epochs), or on more forms."
        )


# Show ---------------------------------------------------------------------------------


def print_forms(pipeline, split, num_beams):
    """Print the generated form of each lemma beside the true form, if it is known."""
    lemmas, features, forms = split
    texts = source_texts(lemmas, features)
    search = kseq.decoding.BeamSearch(num_beams)
    results = pipeline.generate(texts, search, max_length=99)
    table = Table("lemma", "features", "true form", "generated", "probability")
    for lemma, feature, form, hypotheses in zip(
        lemmas, features, forms, results, strict=True
    ):
        best = hypotheses[0]
        probability = math.exp(best.log_prob)
        table.add_row(lemma, feature, form, best.text, f"{probability:.3f}")
    console.print(table)


def draw_attention(pipeline, split, output):
    """Draw which letters and tags the decoder attended to, for each letter."""
    lemmas, features, _ = split
    index = len(lemmas) // 2
    lemma = lemmas[index]
    feature = features[index]
    results = pipeline.generate(
        source_texts([lemma], [feature]), max_length=99, return_attention_scores=True
    )
    best = results[0][0]
    if not best.tokens:
        console.print(f"No picture of {lemma}: the model generated no letters.")
        return

    weights = []
    source_tokens = []
    for name in ("lemma", "tags"):
        attention = best.attention[name]  # ... T S
        while attention.ndim > 2:  # a Transformer: average over layers and heads
            attention = attention.mean(axis=0)
        weights.append(attention)
        source_tokens += best.source_tokens[name]
    axes = kseq.plots.attention_heatmap(
        np.concatenate(weights, axis=-1),
        source_tokens,
        best.tokens,
        f"{lemma}, {feature}: {best.text}",
    )
    axes.figure.savefig(output / "attention.png")


def inflect(options):
    """Inflect a lemma with a saved model."""
    path = options.load or options.output / "model.keras"
    try:
        pipeline = kseq.text.TextToText.load(path)
    except ValueError as error:
        sys.exit(str(error))
    if not isinstance(pipeline.source_vocabulary, dict):
        sys.exit(f"--load must be a model of this recipe. Received: {path}.")

    lemma, features = options.inflect
    texts = source_texts([lemma], [features])
    for name, vocabulary in pipeline.source_vocabulary.items():
        text = texts[name][0]
        unknown = vocabulary.unknown(text)
        if unknown or not text:
            known = " ".join(sorted(vocabulary.tokens))
            sys.exit(
                f"The {name} must consist of these: {known}. "
                f"Received: {text!r}, with {unknown}."
            )
    print_forms(pipeline, ([lemma], [features], ["(unknown)"]), options.beams)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a model, or inflect a lemma with a saved one."""
    options = parse_arguments(argv)
    if options.inflect:
        inflect(options)
        return
    require("matplotlib")  # fail now, not after the training
    keras.utils.set_random_seed(options.seed)

    train, validation, test = load_splits(options)
    lemmas, features, forms = train
    num_validation = len(validation[0])
    num_test = len(test[0])
    letters = kseq.text.Vocabulary("character").adapt(lemmas + forms)
    tags = kseq.text.Vocabulary("word")
    tags.adapt([split_features(each) for each in features])
    console.print(
        f"{len(forms):,} forms for training, {num_validation:,} for validation, "
        f"{num_test:,} for testing."
    )
    num_invented = round(options.invented * len(forms))
    if num_invented:
        random = np.random.default_rng(options.seed)
        invented = invent_forms(train, num_invented, random)
        train = [old + new for old, new in zip(train, invented, strict=True)]
        _, _, forms = train
    if options.batch_size is None:
        options.batch_size = min(64, max(len(forms) // 20, 8))
    if options.epochs is None:
        num_batches = math.ceil(len(forms) / options.batch_size)
        options.epochs = max(25, math.ceil(MIN_TRAINING_STEPS / num_batches))

    model = build(options, letters, tags)
    source_vocabularies = {"lemma": letters, "tags": tags}
    pipeline = kseq.text.TextToText(model, source_vocabularies, letters)

    train_ids = encode_split(train, pipeline)
    validation_ids = encode_split(validation, pipeline)
    history = fit(pipeline, options, train_ids, validation_ids)

    evaluate(pipeline, test, options.beams)

    step = max(num_test // 8, 1)
    shown = [column[::step] for column in test]
    print_forms(pipeline, shown, options.beams)
    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    (options.output / "attention.png").unlink(missing_ok=True)  # of an earlier model
    draw_attention(pipeline, shown, options.output)
    console.print(f"The best model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--language",
        choices=["eng", "spa", "tur"],
        default="eng",
        help="language of SIGMORPHON 2023: English, Spanish or Turkish",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of the data sets (default: $KSEQ_DATA_DIR)",
    )
    parser.add_argument(
        "--train",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: lines of `lemma TAB features TAB form` for training",
    )
    parser.add_argument(
        "--dev",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: lines for validation, which choose the best epoch",
    )
    parser.add_argument(
        "--test",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: lines for testing",
    )
    parser.add_argument(
        "--inflect",
        nargs=2,
        metavar=("LEMMA", "FEATURES"),
        help="inflect a lemma with a saved model",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="saved model for --inflect (default: model.keras in --output)",
    )
    parser.add_argument(
        "--output",
        type=folder,
        default="forms",
        help="folder for the model and pictures",
    )
    parser.add_argument(
        "--model",
        choices=["gru", "lstm", "transformer"],
        default="lstm",
        help="network of encoders and decoder",
    )
    parser.add_argument(
        "--units", type=count, default=128, help="units, or width, of every layer"
    )
    parser.add_argument(
        "--layers",
        type=count,
        default=1,
        help="layers of each encoder, and of the decoder",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.3,
        help="dropout rate",
    )
    parser.add_argument(
        "--invented",
        type=not_negative,
        default=1,
        metavar="NUMBER",
        help="forms of invented stems to train on, for each training form",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        help="passes over the training forms (default: 25, more for few forms)",
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        help="forms in a batch (default: 64, less for few forms)",
    )
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
        help="smoke test on 1,000 forms for 3 epochs; its results are meaningless",
    )
    options = parser.parse_args(argv)

    splits = [options.train, options.dev, options.test]
    if any(splits) and not all(splits):
        parser.error("--train, --dev and --test go together")
    if options.load and not options.inflect:
        parser.error("--load goes with --inflect")
    if options.quick and options.epochs is None:
        options.epochs = 3
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
