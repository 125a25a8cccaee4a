"""Translates: a sentence in one language in, the same in another out.

A Transformer, or a recurrent network with Bahdanau's attention, learns German to
English from the captions of Multi30k, English to French from the sentences of Tatoeba,
or what is in a file of yours, in lower case and word pieces.

    python recipes/translate.py --output multi30k
    python recipes/translate.py --pairs my_lines_of_source_TAB_target.tsv --model gru
    python recipes/translate.py --load multi30k/model.keras --translate "Ein Hund."

BLEU is sacrebleu's (13a), of the translations as plain text, against the lower-cased
references as they are; `--load FILE` alone reports it once more.
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
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

MAX_LENGTH = 80  # pieces of a translation, at most
STEPS = 1000  # of training at least
SETTINGS = {  # where not told otherwise
    "transformer": {"layers": 3, "dropout": 0.2, "learning_rate": 1e-3},
    "gru": {"layers": 1, "dropout": 0.3, "learning_rate": 2e-3},
}
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.translate:
        return translate(load_model(options.load), options.translate, options)
    require("matplotlib", "sacrebleu")  # not only when the training has ended
    train, validation, test = load_splits(options)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.epochs is None:
        num_batches = math.ceil(len(train[0]) / options.batch_size)
        options.epochs = max(10, math.ceil(STEPS / num_batches))
    if options.load:
        translator = load_model(options.load)
    else:
        translator = build(options, *train)
        history = fit(translator, options, train, validation)
        kseq.plots.training_curve(history).savefig(options.output / "training.png")
    evaluate(translator, validation, test, options)
    pairs = sorted(zip(*test, strict=True), key=lambda pair: len(pair[0]))
    print_translations(translator, pairs[:: len(pairs) // 6 + 1], options)
    draw_attention(translator, pairs[len(pairs) // 2][0], options.output)
    console.print(f"What was made lies in {options.output}/.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def build(options, sources, targets):
    """An untrained translator, with the pieces of its two languages."""
    source, target = (
        kseq.text.Vocabulary(options.split, "NFC", max_tokens=options.pieces).adapt(x)
        for x in (sources, targets)
    )
    layers, width, dropout = kseq.layers, options.width, options.dropout
    sizes = {"num_layers": options.layers, "dropout": dropout}
    if options.model == "transformer":
        embedding = {"positions": "sinusoidal", "scale": True}
        normal = keras.initializers.RandomNormal(stddev=width**-0.5, seed=options.seed)
        embedding["embeddings_initializer"] = normal
        sizes |= {"num_heads": max(width // 32, 1), "intermediate_dim": 2 * width}
        encoder = layers.TransformerEncoder(width=width, **sizes)
        decoder = layers.TransformerDecoder(width=width, **sizes)
    else:
        embedding, attention = {"dropout": dropout}, layers.BahdanauAttention(width)
        sizes["cell"] = options.model
        encoder = layers.RecurrentEncoder(units=width // 2, bidirectional=True, **sizes)
        decoder = layers.RecurrentDecoder(units=width, attention=attention, **sizes)
    model = kseq.encoder_decoder(
        source=layers.TokenEmbedding(source.size, width, **embedding),
        encoder=encoder,
        target=layers.TokenEmbedding(target.size, width, **embedding),
        decoder=decoder,
        tie_embeddings="target",
    )
    return kseq.text.TextToText(model, source, target)


def fit(translator, options, train, validation):
    """Trains with Keras' own loop, and keeps the best epoch."""

    def batches(pairs, size, **choices):
        source = translator.source_vocabulary.encode(pairs[0])
        target = translator.target_vocabulary.encode(pairs[1], start=True, end=True)
        return kseq.training.teacher_forcing(source, target, size, **choices)

    learned = batches(train, options.batch_size, seed=options.seed)
    warm_up, decay = len(learned), max(len(learned) * (options.epochs - 1), 1)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay, warmup_target=options.learning_rate, warmup_steps=warm_up
    )
    translator.model.compile(
        keras.optimizers.Adam(rate, beta_2=0.98, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(label_smoothing=0.1),
        metrics=[kseq.training.TokenAccuracy(name="accuracy")],
        jit_compile=False,  # XLA compiles anew for each of the many lengths
    )
    console.print(f"{translator.model.count_params():,} weights to train.")
    best = kseq.training.SaveBest(options.output / "model.keras", saved=translator)
    return translator.model.fit(
        learned,
        validation_data=batches(validation, 128, shuffle=False),
        epochs=options.epochs,
        callbacks=[best, kseq.training.StopOnInterrupt()],
    )


def evaluate(translator, validation, test, options):
    """Prints the BLEU of greedy and of beam search on what the model has not seen."""
    table = Table("search", "validation BLEU", "test BLEU")
    searches = {"greedy": None, f"{options.beams} beams": options.search}
    for name, search in searches.items():
        scores = [bleu(translator, part, search) for part in (validation, test)]
        table.add_row(name, *(f"{score:.2f}" for score in scores))
    console.print(table)
    if scores[1] < 1:
        console.print(
            "Next to nothing is translated right. Learn longer (--epochs), or from "
            "more pairs."
        )


def bleu(translator, pairs, search):
    """BLEU against all translations that a sentence has, of which most have one."""
    references = {}
    for source, target in zip(*pairs, strict=True):
        references.setdefault(source, []).append(target)
    results = translator.generate(list(references), search, MAX_LENGTH)
    texts = [best.text for best, *_ in results]
    return kseq.training.text_scores(texts, references.values(), "bleu")["bleu"]


def print_translations(translator, pairs, options):
    """Prints the best translations of sentences, with their probabilities."""
    names = "sentence", "a person's", "the model's, best first", "p"
    table = Table(*(Column(name, overflow="fold") for name in names))
    results = translator.generate([x for x, _ in pairs], options.search, MAX_LENGTH)
    for pair, best in zip(pairs, results, strict=True):
        for about, each in zip([pair, *[("", "")] * 2], best, strict=False):
            table.add_row(*about, each.text, f"{math.exp(each.log_prob):.3f}")
        table.add_section()
    console.print(table)


def draw_attention(translator, sentence, output):
    """Writes what each head of the last layer, or the only one, read at each piece."""
    [[best]] = translator.generate(
        [sentence], max_length=MAX_LENGTH, return_attention_scores=True
    )
    if not best.tokens:
        return console.print("No picture: the model has nothing to say yet.")
    heads = best.attention[None] if best.attention.ndim == 2 else best.attention[-1]
    figure = kseq.plots.attention_heads(heads, best.source_tokens, best.tokens)
    figure.savefig(output / "attention.png")


def translate(translator, texts, options):
    """Translates sentences with a saved model."""
    texts = [plain(text) for text in texts]
    if unknown := translator.source_vocabulary.unknown(" ".join(texts)):
        console.print(f"Not known to the model: {' '.join(unknown)}")
    print_translations(translator, [(text, "(not asked)") for text in texts], options)


def plain(text):
    return " ".join(text.lower().split())


def load_splits(options):
    """Sentences with translations: to learn from, to watch, to be tested on.

    A pair of which either sentence stands in a later part, too, is left out.
    """
    try:
        if options.pairs:
            parts = {"train": kseq.datasets.read_pairs(options.pairs)}
        else:
            parts = kseq.datasets.load(options.task, options.data)
        if "test" not in parts:
            texts = [list(map(plain, column)) for column in parts["train"]]
            number = min(1000, max(len(set(texts[0])) // 10, 1))
            parts = kseq.datasets.hold_out(*texts, number)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    parts = [tuple(list(map(plain, x)) for x in part) for part in parts.values()]
    parts = kseq.datasets.disjoint(*parts, columns=(0, 1))
    if not all(sources for sources, _ in parts):
        sizes = [len(sources) for sources, _ in parts]
        sys.exit(
            "--pairs must have pairs to learn from, to watch and to hold out, which "
            f"share no sentence. Received: {sizes} pairs."
        )
    if options.quick:
        few = zip(parts, (2000, 50, 50), strict=True)
        parts = [(x[:number], y[:number]) for (x, y), number in few]
    sizes = "{:,} pairs to learn from, {:,} to watch, {:,} held out."
    console.print(sizes.format(*(len(sources) for sources, _ in parts)))
    return parts


def load_model(path):
    """The translator that an earlier run has saved."""
    try:
        return kseq.text.TextToText.load(path)
    except ValueError as error:
        sys.exit(str(error))


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--task", choices=["multi30k", "tatoeba_fra_eng"], default="multi30k")
    add("--model", choices=list(SETTINGS), default="transformer")
    add("--pairs", type=path, metavar="FILE", help="lines of `source TAB target`")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--output", type=folder, default="translate", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="use a saved model, do not train")
    add("--translate", nargs="+", metavar="TEXT", help="what to translate with --load")
    add("--pieces", type=count, default=5000, help="pieces of each language")
    add("--split", choices=["word_piece", "sentence_piece"], default="word_piece")
    add("--width", type=count, default=256)
    add("--layers", type=count, help="3 of a transformer, 1 of a gru")
    add("--dropout", type=share, help="0.2 for a transformer, 0.3 for a gru")
    add("--epochs", type=count, help="10, or more for few pairs")
    add("--batch-size", type=count, default=128)
    add("--learning-rate", type=positive, help="0.001, or 0.002 for a gru")
    add("--beams", type=count, default=5)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if options.translate and ("" in map(plain, options.translate) or not options.load):
        parser.error("--translate needs --load FILE, and a word in each sentence")
    for name, value in SETTINGS[options.model].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.width % min(32, options.width):
        parser.error("--width must be a multiple of 32, one part for each head")
    if options.quick:
        options.epochs, options.pieces, options.width = 1, 1000, 64
    options.search = kseq.decoding.BeamSearch(
        options.beams, length_penalty=1.0, early_stopping=True
    )
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
