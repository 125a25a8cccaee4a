"""Search for a better text classifier, among recurrent networks and Transformers.

The search space is made of kseq's ready ones: networks of both kinds, and how they are
trained. Every trial trains in its own process, and several run at the same time. An
ensemble of the best models is usually better than the best one alone (Caruana et al.,
2004). It is saved in one file with words and labels, which
`kseq.text.TextToLabels.load` and `classify_text.py --load` read.

    python recipes/tune_classifier.py --task trec --workers 2 --output tuned
    python recipes/tune_classifier.py --train train.txt --dev dev.txt --test test.txt

Nothing is lost after Ctrl-C or a crash: the same command resumes the search, even in
the middle of a trial. With more `--trials` a finished search continues. Each line of a
file of your own is `label TEXT`.
"""

import argparse
import pathlib
import random
import sys

import keras
import numpy as np

import kseq
from kseq.training.cli import Help, count, folder, positive, seed
from kseq.tuning import Choice, Float, Int, MedianStopping, Space, spaces

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

# The first trial: known to be good, about what classify_text.py trains.
FIRST_TRIAL = {
    "model/encoder": "RecurrentEncoder",
    "model/encoder/RecurrentEncoder/cell": "gru",
    "model/encoder/RecurrentEncoder/units": 64,
    "model/encoder/RecurrentEncoder/dropout": 0.0,
    "batch_size": 64,
    "optimizer/learning_rate/warmup_steps/share": 0.0,
}
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

    splits = [([text.lower() for text in texts], labels) for texts, labels in splits]
    train = splits[0]
    test = splits[-1]
    train, test = kseq.datasets.disjoint(train, test)
    if len(splits) == 3:
        validation = splits[1]
    else:  # no validation split was published
        train, validation = split_validation(train)

    splits = kseq.datasets.disjoint(train, validation, test)
    num_labels = len(set(splits[0][1]))
    sizes = [len(texts) for texts, _ in splits]
    if num_labels < 2 or 0 in sizes:
        sys.exit(
            "--train must have at least two labels, and --train, --dev and --test must "
            "each have texts that no later one has. "
            f"Received: {num_labels} labels, {sizes} texts."
        )
    if options.quick:
        return [(texts[:300], labels[:300]) for texts, labels in splits]
    return splits


def split_validation(train):
    """Split a tenth of the training texts off, for validation."""
    texts, labels = train
    pairs = sorted(set(zip(texts, labels, strict=True)))
    random.Random(0).shuffle(pairs)
    num_validation = len(pairs) // 10
    validation_pairs = pairs[:num_validation]
    train_pairs = pairs[num_validation:]

    train_texts = [text for text, _ in train_pairs]
    train_labels = [label for _, label in train_pairs]
    validation_texts = [text for text, _ in validation_pairs]
    validation_labels = [label for _, label in validation_pairs]
    return (train_texts, train_labels), (validation_texts, validation_labels)


def encode_split(split, words, labels):
    """Return texts as token ids, and labels as integers."""
    texts, names = split
    token_ids = words.encode(texts)
    label_ids = [labels.index(name) for name in names]
    return token_ids, label_ids


# Search -------------------------------------------------------------------------------


def search_space(vocabulary_size, num_labels, num_examples, options):
    """Return the space of networks, small ones for few texts, and of their training."""
    width = Int(128, 256, step=2, scale="log")
    embedding_dropout = Float(0.4, 0.6, step=0.1, default=0.5)
    head_dropout = Float(0.4, 0.6, step=0.1, default=0.5)
    embedding = Space(
        kseq.layers.TokenEmbedding, vocabulary_size, width, dropout=embedding_dropout
    )
    recurrent = spaces.recurrent_encoder(
        units=Int(64, 256, step=2, scale="log", default=128), num_layers=Int(1, 2)
    )
    transformer = spaces.transformer_encoder(num_layers=Int(1, 2))
    if options.network == "recurrent":
        encoder = recurrent
    elif options.network == "transformer":
        encoder = transformer
    else:
        encoder = Choice(recurrent, transformer)
    model = spaces.many_to_one(
        embedding, num_labels, encoder=encoder, width=width, dropout=head_dropout
    )
    return spaces.training(
        model,
        num_examples,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batches=batches_with_word_dropout,
        epochs=options.epochs,
        learning_rate=Float(1e-3, 5e-3, scale="log", default=2e-3),
        metrics=["accuracy"],
    )


def batches_with_word_dropout(ids, labels, batch_size, shuffle=True):
    """Return batches of similar lengths; a tenth of the training words is hidden."""
    batches = kseq.training.batches(
        ids, labels, batch_size, shuffle=shuffle, length_multiple=16
    )
    is_training = shuffle
    if is_training:
        return kseq.training.TokenDropout(batches, 0.1)
    return batches


def search(space, train, validation, options):
    """Run the trials, or resume those of an earlier run."""
    first_trials = []
    if options.network == "both":
        first_trials = [FIRST_TRIAL]
    try:
        results = kseq.tuning.search(
            space,
            train,
            validation_data=validation,
            objective="val_accuracy",
            tuner=options.tuner,
            first=first_trials,
            max_trials=options.trials,
            workers=options.workers,
            directory=options.output / "search",
            stopping=MedianStopping(warmup_epochs=3),
            timeout=60 * options.minutes,
            seed=options.seed,
            executor=connect(options.dask),
        )
        console.print(f"Best trial: {results.best_values()}")
        return results
    except (ValueError, OSError, kseq.tuning.SearchFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command resumes the search.")


def connect(address):
    """Connect to the Dask cluster that runs the trials; None runs them here."""
    if address is None:
        return None
    from distributed import Client

    return Client(address)


# Evaluate -----------------------------------------------------------------------------


def accuracy(pipeline, split):
    """Return the share of texts that are labelled right."""
    texts, names = split
    answers = np.array([label.name for label in pipeline.label(texts)])
    return np.mean(answers == names)


def evaluate(pipelines, validation, test):
    """Print the accuracy of each model; `pipelines` maps a title to a model."""
    table = Table("model", "weights", "validation accuracy", "test accuracy")
    for title, pipeline in pipelines.items():
        num_weights = pipeline.model.count_params()
        validation_accuracy = accuracy(pipeline, validation)
        test_accuracy = accuracy(pipeline, test)
        table.add_row(
            title,
            f"{num_weights:,}",
            f"{validation_accuracy:.2%}",
            f"{test_accuracy:.2%}",
        )
    console.print(table)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Search for classifiers, save an ensemble of the best, and evaluate it."""
    options = parse_arguments(argv)
    train, validation, test = load_splits(options)
    train_texts, train_labels = train
    validation_texts, validation_labels = validation
    num_test = len(test[0])
    console.print(
        f"{len(train_texts):,} texts for training, {len(validation_texts):,} for "
        f"validation, {num_test:,} for testing."
    )
    words = kseq.text.Vocabulary("word", lowercase=True).adapt(train_texts)
    labels = sorted({*train_labels, *validation_labels})
    train_ids = encode_split(train, words, labels)
    validation_ids = encode_split(validation, words, labels)

    space = search_space(words.size, len(labels), len(train_texts), options)
    space.describe()
    results = search(space, train_ids, validation_ids, options)
    print(results)
    models = results.best_models(options.average)
    best = kseq.text.TextToLabels(models[0], words, labels)
    ensemble = kseq.text.TextToLabels(kseq.ensemble(models), words, labels)
    ensemble.save(options.output / "model.keras")

    pipelines = {"best": best, f"ensemble of {len(models)}": ensemble}
    evaluate(pipelines, validation, test)
    results.report(options.output / "report.html")
    console.print(f"The ensemble and a report are in {options.output}/.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--task",
        choices=["sst2", "trec"],
        default="trec",
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
        help="your own data: lines for validation, which choose the best trials",
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
        default="tuned",
        help="folder for the trials, the ensemble and the report",
    )
    parser.add_argument(
        "--network",
        choices=["recurrent", "transformer", "both"],
        default="both",
        help="kind of networks to try",
    )
    parser.add_argument(
        "--average", type=count, default=5, help="number of models in the ensemble"
    )
    parser.add_argument(
        "--tuner",
        choices=["random", "bayesian", "hyperband"],
        default="random",
        help="search algorithm",
    )
    parser.add_argument(
        "--trials", type=count, default=24, help="maximum number of trials"
    )
    parser.add_argument(
        "--minutes",
        type=positive,
        default=12,
        help="minutes after which the search ends",
    )
    parser.add_argument(
        "--workers", type=count, default=2, help="trials that run at the same time"
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run the trials on the Dask cluster at this address (needs kseq[dask])",
    )
    parser.add_argument(
        "--epochs", type=count, default=6, help="maximum epochs per trial"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the search (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test: 2 trials of 1 epoch on 300 texts",
    )
    options = parser.parse_args(argv)

    splits = [options.train, options.dev, options.test]
    if any(splits) and not all(splits):
        parser.error("--train, --dev and --test go together")
    if options.quick:
        options.trials = 2
        options.epochs = 1
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
