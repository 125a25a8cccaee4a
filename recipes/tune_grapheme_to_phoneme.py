"""Search for a better network that pronounces words, and for the best decoding.

The encoder and the decoder are each recurrent or a Transformer. Every trial trains in
its own process. The score is the share of validation words that are generated without
any error. The best network is then decoded with every setting of a small grid, without
further training, and the best setting is measured once on the test words.

    python recipes/tune_grapheme_to_phoneme.py --language fre --workers 2 --output tuned
    python recipes/grapheme_to_phoneme.py --load tuned/model.keras --say bonjour

Nothing is lost after Ctrl-C or a crash: the same command resumes the search. The words
are from SIGMORPHON's shared task of 2021, or from files with lines of
`word TAB phonemes`.
"""

import argparse
import logging
import pathlib
import sys

import keras_tuner

import kseq
from kseq.training.cli import Help, count, folder, positive, seed
from kseq.tuning import Choice, Float, MedianStopping, Space, objective, spaces

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

SCORE = "val_written_exact_match"
# The first trial: known to be good, about what grapheme_to_phoneme.py trains.
FIRST_TRIAL = {
    "model/encoder": "RecurrentEncoder",
    "model/encoder/RecurrentEncoder/cell": "gru",
    "model/encoder/RecurrentEncoder/dropout": 0.3,
    "model/decoder/RecurrentDecoder/cell": "gru",
    "model/decoder/RecurrentDecoder/dropout": 0.3,
    "batch_size": 64,
    "optimizer/learning_rate/warmup_target": 4e-3,
}
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return words with their pronunciations, for training, validation and testing."""
    try:
        if options.train:
            paths = [options.train, options.dev, options.test]
            splits = [kseq.datasets.read_pairs(path) for path in paths]
        else:
            data = kseq.datasets.load(
                "sigmorphon2021_g2p", options.data, language=options.language
            )
            splits = list(data.values())
    except (ValueError, OSError) as error:
        sys.exit(str(error))

    splits = kseq.datasets.disjoint(*splits)
    sizes = [len(words) for words, _ in splits]
    if 0 in sizes:
        sys.exit(
            "--train, --dev and --test must each have words that no later one has. "
            f"Received: {sizes} words."
        )
    if options.quick:
        return [(words[:200], phonemes[:200]) for words, phonemes in splits]
    return splits


def encode_split(split, letters, phonemes):
    """Return words and pronunciations as token ids."""
    words, pronunciations = split
    source_ids = letters.encode(words)
    target_ids = phonemes.encode(pronunciations, start=True, end=True)
    return source_ids, target_ids


# Search -------------------------------------------------------------------------------


def search_space(num_letters, num_phonemes, num_examples, options):
    """Return the space of networks, and of how they are trained."""
    return spaces.training(
        spaces.encoder_decoder(num_letters, num_phonemes, options.network),
        num_examples,
        batches=kseq.training.teacher_forcing,
        epochs=options.epochs,
    )


def search(space, train, validation, options):
    """Run the trials, or resume those of an earlier run."""
    source_ids, target_ids = validation
    # Score the words that are generated, not the predictions under teacher forcing.
    scores = kseq.training.GenerationScores(source_ids, target_ids, ["exact_match"])
    first_trials = []
    if options.network == "both":
        first_trials = [FIRST_TRIAL]
    try:
        results = kseq.tuning.search(
            space,
            train,
            validation_data=validation,
            callbacks=[scores],
            objective=objective(SCORE),
            tuner=options.tuner,
            first=first_trials,
            max_trials=options.trials,
            workers=options.workers,
            directory=options.output / "search",
            stopping=MedianStopping(),
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


def tune_decoding(model, source, target, options):
    """Return the best beam search of a grid, by its score on the validation words."""
    beam_searches = Space(
        kseq.decoding.BeamSearch,
        num_beams=Choice(1, 5),
        length_penalty=Float(0.0, 1.0, step=0.5),
    )
    space = kseq.tuning.Decoding(model, beam_searches, source, target)
    tuner = keras_tuner.GridSearch(
        space,
        objective("exact_match"),
        directory=options.output / "decoding",
        overwrite=True,
    )
    tuner.search(verbose=0)
    best = tuner.get_best_hyperparameters()[0]
    console.print(f"Best decoding: {best.values}.")
    return space.best_search(best)


# Evaluate -----------------------------------------------------------------------------


def word_error_rate(pipeline, search, split):
    """Return the share of words that are generated with an error."""
    references = {}
    for word, pronunciation in zip(*split, strict=True):
        references.setdefault(word, []).append(pronunciation)
    results = pipeline.generate(list(references), search)
    spoken = [hypotheses[0].text for hypotheses in results]
    scores = kseq.training.text_scores(spoken, references.values(), "exact_match")
    return 1 - scores["exact_match"]


def evaluate(pipeline, search, validation, test):
    """Print the word error rates of the best network with the best decoding."""
    num_weights = pipeline.model.count_params()
    validation_errors = word_error_rate(pipeline, search, validation)
    test_errors = word_error_rate(pipeline, search, test)
    table = Table("weights", "validation word errors", "test word errors")
    table.add_row(f"{num_weights:,}", f"{validation_errors:.2%}", f"{test_errors:.2%}")
    console.print(table)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Search for a network, save it with a report, and evaluate it."""
    options = parse_arguments(argv)
    train, validation, test = load_splits(options)
    train_words, train_pronunciations = train
    num_validation = len(validation[0])
    num_test = len(test[0])
    console.print(
        f"{len(train_words):,} words for training, {num_validation:,} for validation, "
        f"{num_test:,} for testing."
    )
    letters = kseq.text.Vocabulary("character").adapt(train_words)
    phonemes = kseq.text.Vocabulary("word").adapt(train_pronunciations)
    train_ids = encode_split(train, letters, phonemes)
    validation_ids = encode_split(validation, letters, phonemes)

    space = search_space(letters.size, phonemes.size, len(train_words), options)
    space.describe()
    results = search(space, train_ids, validation_ids, options)
    print(results)
    pipeline = kseq.text.TextToText(results.best_model(), letters, phonemes)
    pipeline.save(options.output / "model.keras")
    results.report(options.output / "report.html")

    source_ids, target_ids = validation_ids
    best_search = tune_decoding(pipeline.model, source_ids, target_ids, options)
    evaluate(pipeline, best_search, validation, test)
    console.print(f"The best model and a report are in {options.output}/.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--language",
        choices=["fre", "ice", "eng_us"],
        default="fre",
        help="language of SIGMORPHON 2021: French, Icelandic or American English",
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
        help="your own data: lines of `word TAB phonemes` for training",
    )
    parser.add_argument(
        "--dev",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: lines for validation, which choose the best trial",
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
        help="folder for the trials, the best model and the report",
    )
    parser.add_argument(
        "--network",
        choices=["recurrent", "transformer", "both"],
        default="both",
        help="kind of encoders and decoders to try",
    )
    parser.add_argument(
        "--tuner",
        choices=["random", "bayesian", "hyperband"],
        default="random",
        help="search algorithm",
    )
    parser.add_argument(
        "--trials", type=count, default=16, help="maximum number of trials"
    )
    parser.add_argument(
        "--minutes",
        type=positive,
        default=14,
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
        "--epochs", type=count, default=12, help="maximum epochs per trial"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the search (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test: 1 trial of 1 epoch on 200 words",
    )
    options = parser.parse_args(argv)

    splits = [options.train, options.dev, options.test]
    if any(splits) and not all(splits):
        parser.error("--train, --dev and --test go together")
    if options.quick:
        options.trials = 1
        options.epochs = 1
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
