"""Classify sentences, and show which words decided.

A bidirectional network reads the words, and attention pooling weighs them. It learns
whether a film review is positive (SST-2), what a question asks for (TREC), or labels of
your own, from files with lines of `label TEXT`.

    python recipes/classify_text.py --task sst2
    python recipes/classify_text.py --task trec --output questions
    python recipes/classify_text.py --load questions/model.keras --read "Who wrote it ?"
    python recipes/classify_text.py --train a.txt --dev b.txt --test c.txt --output mine
    python recipes/classify_text.py --task sst2 --vectors glove.6B.100d.txt

No validation or test text is trained on: texts that published splits share are dropped.
TREC has no validation split, so a tenth of its training questions, chosen by the seed,
is split off. Of SST-2 only whole sentences are used; published figures may come from
training on its phrases, too.
"""

import argparse
import collections
import math
import pathlib
import random
import sys
import time

import keras
import numpy as np

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed, share

try:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

SETTINGS = {
    "sst2": {"min_count": 2, "word_dropout": 0.25},
    "trec": {"min_count": 1, "word_dropout": 0.1},
}
EPOCHS = {"sst2": 5, "trec": 6}
MIN_TRAINING_STEPS = 600  # few texts are repeated until there are this many steps
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return texts with their labels, for training, validation and testing."""
    try:
        if options.train:
            paths = [options.train, options.dev, options.test]
            splits = [kseq.datasets.read_labelled(path) for path in paths]
        else:
            data = kseq.datasets.load(options.task, options.data)
            splits = list(data.values())
    except (ValueError, OSError) as error:
        sys.exit(str(error))

    # Each split becomes a dictionary from text to label, without repeated texts.
    labels_of_texts = []
    for texts, labels in splits:
        lowercase_texts = [text.lower() for text in texts]
        labels_of_texts.append(dict(zip(lowercase_texts, labels, strict=True)))
    train = labels_of_texts[0]
    test = labels_of_texts[-1]
    train = without(train, test)
    if len(labels_of_texts) == 3:
        validation = without(labels_of_texts[1], test)
    else:  # no validation split was published
        rows = sorted(train.items())
        random.Random(options.seed).shuffle(rows)
        validation = dict(rows[: len(rows) // 10])
    train = without(train, validation)

    known_labels = set(train.values())
    sizes = [len(train), len(validation), len(test)]
    if len(known_labels) < 2 or 0 in sizes:
        sys.exit(
            "--train must have at least two labels, and --train, --dev and --test must "
            "each have texts that no later one has. "
            f"Received: {len(known_labels)} labels, {sizes} texts."
        )
    for name, split in (("validation", validation), ("test", test)):
        new_labels = sorted(set(split.values()) - known_labels)
        if new_labels:
            console.print(
                f"Warning: labels of the {name} texts that no training text has: "
                f"{', '.join(new_labels)}. Each such text counts as an error."
            )
    if options.quick:
        train = dict(list(train.items())[:500])
    return [(list(split), list(split.values())) for split in (train, validation, test)]


def without(split, other):
    """Return the texts of a split that another does not have, with their labels."""
    return {text: label for text, label in split.items() if text not in other}


def load_model(path):
    """Load a classifier that was saved by an earlier run."""
    try:
        pipeline = kseq.text.TextToLabels.load(path)
    except ValueError as error:
        sys.exit(str(error))
    if len(pipeline.model.output_shape) != 2:
        sys.exit(f"{path} must hold a classifier. Received: a tagger.")
    return pipeline


# Build --------------------------------------------------------------------------------


def build(train, validation, options):
    """Build a classifier, with its vocabulary and labels."""
    train_texts, train_labels = train
    _, validation_labels = validation
    words = kseq.text.Vocabulary("word", lowercase=True, min_count=options.min_count)
    words.adapt(train_texts)
    labels = sorted({*train_labels, *validation_labels})
    if options.vectors:
        embedding = pretrained_embedding(words, options)
    else:
        embedding = kseq.layers.TokenEmbedding(
            words.size, options.width, options.dropout
        )
    # The encoder reads in two directions, so each direction has half of the width.
    encoder = kseq.layers.RecurrentEncoder(
        options.cell, options.width // 2, bidirectional=True
    )
    model = kseq.many_to_one(
        embedding, len(labels), encoder, pooling="attention", dropout=options.dropout
    )
    return kseq.text.TextToLabels(model, words, labels)


def pretrained_embedding(words, options):
    """Return a frozen embedding that starts from the vectors of a file."""
    try:
        vectors = kseq.text.read_vectors(options.vectors, words, seed=options.seed)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))
    num_words = len(words.tokens)
    console.print(
        f"{vectors.num_found:,} of {num_words:,} words have a vector in "
        f"{options.vectors}."
    )
    embedding = kseq.layers.TokenEmbedding.from_vectors(
        vectors.table, dropout=options.dropout, name="words"
    )
    embedding.trainable = False
    return embedding


# Train --------------------------------------------------------------------------------


def fit(pipeline, train, validation, options):
    """Train with `Model.fit` and save the best epoch."""
    train_texts, train_labels = train
    validation_texts, validation_labels = validation
    train_batches = kseq.training.batches(
        pipeline.vocabulary.encode(train_texts),
        pipeline.label_ids(train_labels),
        options.batch_size,
        seed=options.seed,
        length_multiple=16,  # few lengths, for compiling each takes seconds
    )
    train_batches = kseq.training.TokenDropout(
        train_batches, options.word_dropout, options.seed
    )
    validation_batches = kseq.training.batches(
        pipeline.vocabulary.encode(validation_texts),
        pipeline.label_ids(validation_labels),
        options.batch_size,
        shuffle=False,
        seed=options.seed,
        length_multiple=16,
    )

    learning_rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=len(train_batches) * options.epochs
    )
    pipeline.model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.01, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [
        kseq.training.SaveBest(
            options.output / "model.keras", monitor="val_accuracy", saved=pipeline
        ),
        kseq.training.StopOnInterrupt(),
    ]
    if options.vectors:
        embedding = pipeline.model.get_layer("words")
        callbacks.append(kseq.training.Unfreeze(embedding, after=options.frozen))
    return pipeline.model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def evaluate(pipeline, validation, test, minutes):
    """Print the share of texts that the best epoch labels right."""
    num_weights = pipeline.model.count_params()
    accuracies = []
    for texts, labels in (validation, test):
        answers = np.array([label.name for label in pipeline.label(texts)])
        num_right = np.sum(answers == labels)
        accuracies.append(num_right / len(labels))
    validation_accuracy, test_accuracy = accuracies
    table = Table("weights", "validation accuracy", "test accuracy", "minutes")
    table.add_row(
        f"{num_weights:,}",
        f"{validation_accuracy:.2%}",
        f"{test_accuracy:.2%}",
        f"{minutes:.1f}",
    )
    console.print(table)

    # `labels` and `num_right` are those of the test texts, which came last.
    [(most_common, num_most_common)] = collections.Counter(labels).most_common(1)
    if num_right <= num_most_common < len(labels):
        share_of_labels = num_most_common / len(labels)
        console.print(
            f"Always answering {most_common} would be as good: {share_of_labels:.2%} "
            "of the test texts. Train longer (--epochs), or on more texts."
        )


# Show ---------------------------------------------------------------------------------


def show(pipeline, texts, true_labels=None, path=None):
    """Print the labels of texts; the more a word was attended to, the redder it is."""
    texts = [" ".join(text.split()) for text in texts]
    weights = attention_weights(pipeline, texts)
    answers = pipeline.label(texts)
    table = Table("label", "probability", "words, by attention")
    words_of_texts = []
    weights_of_texts = []
    titles = []
    for index, text in enumerate(texts):
        words = text.split()
        word_weights = weights[index, : len(words)]
        answer = answers[index]
        title = answer.name
        if true_labels is not None and true_labels[index] != answer.name:
            title = f"{answer.name} (in fact {true_labels[index]})"
        table.add_row(
            Text(title), f"{answer.probability:.3f}", color_words(words, word_weights)
        )
        words_of_texts.append(words)
        weights_of_texts.append(word_weights)
        titles.append(f"{title}, {answer.probability:.2f}")
    console.print(table)
    if path:
        figure = kseq.plots.highlighted_texts(words_of_texts, weights_of_texts, titles)
        figure.savefig(path)


def color_words(words, weights):
    """Return words on a red background, the redder the larger their weight is."""
    largest = weights.max()
    if largest == 0:
        largest = 1
    colored = []
    for word, weight in zip(words, weights, strict=True):
        shade = int(255 - 190 * weight / largest)
        colored.append(Text(word, style=f"black on rgb(255,{shade},{shade})"))
    return Text(" ").join(colored)


def attention_weights(pipeline, texts):
    """Return the weight of each word in the pooling, (B, S), or zeros without one."""
    token_ids = pipeline.vocabulary(texts)
    model = pipeline.model
    pooling = None
    if "pooling" in [layer.name for layer in model.layers]:
        pooling = model.get_layer("pooling")
    if not isinstance(pooling, kseq.layers.AttentionPooling):
        return np.zeros(token_ids.shape)  # another model, such as tune_classifier.py's
    encoder = keras.Model(model.input, pooling.input)
    steps, mask = encoder(token_ids)  # B S U, B S
    _, weights = pooling(steps, mask, return_attention_scores=True)
    return keras.ops.convert_to_numpy(weights)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a classifier, or classify texts with a saved one."""
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        show(load_model(options.load), options.read)
        return
    require("matplotlib")  # fail now, not after the training

    train, validation, test = load_splits(options)
    train_texts, _ = train
    validation_texts, _ = validation
    test_texts, test_labels = test
    console.print(
        f"{len(train_texts):,} texts for training, {len(validation_texts):,} for "
        f"validation, {len(test_texts):,} for testing."
    )
    if options.epochs is None:
        num_batches = math.ceil(len(train_texts) / options.batch_size)
        enough_epochs = math.ceil(MIN_TRAINING_STEPS / num_batches)
        options.epochs = max(EPOCHS[options.task], enough_epochs)

    start = time.time()
    pipeline = build(train, validation, options)
    history = fit(pipeline, train, validation, options)
    minutes = (time.time() - start) / 60

    evaluate(pipeline, validation, test, minutes)

    step = len(test_texts) // 8 + 1
    show(
        pipeline,
        test_texts[::step],
        test_labels[::step],
        options.output / "words.png",
    )
    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    console.print(f"The best model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--task",
        choices=["sst2", "trec"],
        default="sst2",
        help="data set: film reviews (sst2) or questions (trec)",
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
        help="your own data: lines of `label TEXT` for training",
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
        "--output",
        type=folder,
        default="texts",
        help="folder for the model and pictures",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="classify the texts of --read with this saved model; do not train",
    )
    parser.add_argument(
        "--read", nargs="+", metavar="TEXT", help="texts to classify with --load"
    )
    parser.add_argument(
        "--cell",
        choices=["lstm", "gru"],
        default="gru",
        help="recurrent cell of the encoder",
    )
    parser.add_argument(
        "--width",
        type=count,
        default=128,
        help="width of the embedding and of the encoder; each direction has half",
    )
    parser.add_argument(
        "--min-count",
        type=count,
        help="words that occur less often become unknown"
        " (default: 2 for sst2, 1 for trec)",
    )
    parser.add_argument(
        "--word-dropout",
        type=share,
        help="fraction of training words that become unknown"
        " (default: 0.25 for sst2, 0.1 for trec)",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.5,
        help="dropout rate",
    )
    parser.add_argument(
        "--vectors",
        type=pathlib.Path,
        metavar="FILE",
        help="word vectors to start from, of word2vec, GloVe or fastText",
    )
    parser.add_argument(
        "--frozen",
        type=count,
        default=1,
        help="epochs during which pretrained vectors stay frozen",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        help="passes over the training texts"
        " (default: 5 for sst2, 6 for trec, more for few texts)",
    )
    parser.add_argument("--batch-size", type=count, default=50, help="texts in a batch")
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=2e-3,
        help="learning rate at the start, from which it decays to 0",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on 500 texts for 2 epochs; its results are meaningless",
    )
    options = parser.parse_args(argv)

    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    splits = [options.train, options.dev, options.test]
    if any(splits) and not all(splits):
        parser.error("--train, --dev and --test go together")
    for text in options.read or []:
        if not text.split():
            parser.error("each text of --read needs at least one word")
    for name, value in SETTINGS[options.task].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.quick:
        options.epochs = 2
    if options.width < 8:
        parser.error("--width must be 8 or more")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
