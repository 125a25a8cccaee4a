"""Searches for a better network that pronounces words, and for how to decode with it.

Encoders and decoders are recurrent or Transformers, each for itself. A trial trains in
a process of its own; what counts is how many words are written without any error on the
words to choose by. The best network is then decoded in all the ways of a small grid,
without training, and the best way is measured once on the words held out.

    python recipes/tune_grapheme_to_phoneme.py --language fre --workers 2 --output tuned
    python recipes/grapheme_to_phoneme.py --load tuned/model.keras --say bonjour

Ctrl-C, or a crash, loses nothing: the same command goes on where it was. Words come
from SIGMORPHON's shared task of 2021, or from files with a line `word TAB phonemes`.
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
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

SCORE = "val_written_exact_match"
KNOWN = {  # to be good, and tried first: about what grapheme_to_phoneme.py trains
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


def main(argv=None):
    options = parse_arguments(argv)
    train, validation, test = load_splits(options)
    sizes = "{:,} words to learn from, {:,} to choose by, {:,} held out."
    console.print(sizes.format(*(len(words) for words, _ in (train, validation, test))))
    letters = kseq.text.Vocabulary("character").adapt(train[0])
    phonemes = kseq.text.Vocabulary("word").adapt(train[1])

    def ids(part):
        return letters.encode(part[0]), phonemes.encode(part[1], start=True, end=True)

    space = search_space(letters.size, phonemes.size, len(train[0]), options)
    space.describe()
    results = search(space, ids(train), ids(validation), options)
    print(results)
    pipeline = kseq.text.TextToText(results.best_model(), letters, phonemes)
    pipeline.save(options.output / "model.keras")
    results.report(options.output / "report.html")
    best = tune_decoding(pipeline.model, *ids(validation), options)
    evaluate(pipeline, best, validation, test)
    console.print(f"The best model and a report lie in {options.output}/.")


def search_space(num_letters, num_phonemes, num_rows, options):
    """Networks of both kinds, or one, and their training."""
    return spaces.training(
        spaces.encoder_decoder(num_letters, num_phonemes, options.network),
        num_rows,
        batches=kseq.training.teacher_forcing,
        epochs=options.epochs,
    )


def search(space, train, validation, options):
    """Runs the trials, or goes on with those of an earlier call."""
    # What a network writes counts, not how it goes on from what is true.
    scores = kseq.training.GenerationScores(*validation, ["exact_match"])
    try:
        results = kseq.tuning.search(
            space,
            train,
            validation_data=validation,
            callbacks=[scores],
            objective=objective(SCORE),
            tuner=options.tuner,
            first=[KNOWN] if options.network == "both" else [],
            max_trials=options.trials,
            workers=options.workers,
            directory=options.output / "search",
            stopping=MedianStopping(),
            timeout=60 * options.minutes,
            seed=options.seed,
            executor=cluster(options.dask),
        )
        console.print(f"The best of them: {results.best_values()}")
        return results
    except (ValueError, OSError, kseq.tuning.SearchFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on where it was.")


def cluster(address):
    """The Dask cluster that runs the trials, or None for this host."""
    if address is None:
        return None
    from distributed import Client

    return Client(address)


def tune_decoding(model, source, target, options):
    """The best of a grid of beam searches, on the words to choose by."""
    beams = Space(
        kseq.decoding.BeamSearch,
        num_beams=Choice(1, 5),
        length_penalty=Float(0.0, 1.0, step=0.5),
    )
    space = kseq.tuning.Decoding(model, beams, source, target)
    tuner = keras_tuner.GridSearch(
        space,
        objective("exact_match"),
        directory=options.output / "decoding",
        overwrite=True,
    )
    tuner.search(verbose=0)
    [values] = tuner.get_best_hyperparameters()
    console.print(f"Decoded best with {values.values}.")
    return space.best_search(values)


def evaluate(pipeline, search, validation, test):
    """Prints the share of words with an error, by the best way of decoding."""
    table = Table("weights", "validation word errors", "test word errors")
    row = [f"{pipeline.model.count_params():,}"]
    for words, spoken in (validation, test):
        answers = {}
        for word, line in zip(words, spoken, strict=True):
            answers.setdefault(word, []).append(line)
        results = pipeline.generate(list(answers), search)
        texts = [best.text for best, *_ in results]
        scores = kseq.training.text_scores(texts, answers.values(), "exact_match")
        row.append(f"{1 - scores['exact_match']:.2%}")
    table.add_row(*row)
    console.print(table)


def load_splits(options):
    """Words and their phonemes: to learn from, to choose by, and to be tested on."""
    try:
        if options.train:
            paths = options.train, options.dev, options.test
            parts = [kseq.datasets.read_pairs(path) for path in paths]
        else:
            name, language = "sigmorphon2021_g2p", options.language
            parts = kseq.datasets.load(name, options.data, language=language).values()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    parts = kseq.datasets.disjoint(*parts)
    if not all(words for words, _ in parts):
        sizes = [len(words) for words, _ in parts]
        sys.exit(
            "--train, --dev and --test must each have words that no later one has. "
            f"Received: {sizes} words."
        )
    most = 200 if options.quick else None
    return [(words[:most], spoken[:most]) for words, spoken in parts]


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--language", choices=["fre", "ice", "eng_us"], default="fre")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    for part in ("train", "dev", "test"):
        add(f"--{part}", type=path, metavar="FILE", help="your `word TAB phonemes`")
    add("--output", type=folder, default="tuned", help="folder of what is made")
    add("--network", choices=["recurrent", "transformer", "both"], default="both")
    add("--tuner", choices=["random", "bayesian", "hyperband"], default="random")
    add("--trials", type=count, default=16, help="at most")
    add("--minutes", type=positive, default=14, help="... and so long")
    add("--workers", type=count, default=2, help="trials at a time")
    add("--dask", metavar="ADDRESS", help="run them on a Dask cluster (kseq[dask])")
    add("--epochs", type=count, default=12, help="of a trial")
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if len({path is None for path in (options.train, options.dev, options.test)}) > 1:
        parser.error("--train, --dev and --test go together")
    if options.quick:
        options.trials, options.epochs = 1, 1
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
