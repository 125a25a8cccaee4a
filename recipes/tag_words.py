"""Labels each word of a sentence: slots of a request, or parts of speech.

A network that reads sentences from both ends learns the slots of requests about flights
(ATIS), English parts of speech (UD English EWT), or labels of your own.

    python recipes/tag_words.py --task atis
    python recipes/tag_words.py --task ud_english_ewt --output parts_of_speech
    python recipes/tag_words.py --load tag_words/model.keras --read "fly to boston"
    python recipes/tag_words.py --train a.txt --dev b.txt --test c.txt --output mine

A file of your own has a line `word label` for each word and a blank line after each
sentence, or is a `.conllu` of Universal Dependencies. What is read is split at spaces.
Words that are rare or new are read by their form: capitals, digits, how they end; with
--characters every word is read by its characters, in any script, Hangul by its jamo.
With --head crf the labels of a sentence are chosen together. Where published parts
share sentences, those are left out of the earlier part.
"""

import argparse
import collections
import itertools
import math
import pathlib
import sys
import time

import keras
import numpy as np

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed, share

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

STEPS = 1000  # of training at least
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    if options.load:
        return show(load_model(options.load), [text.split() for text in options.read])
    require("matplotlib")  # not only when the training has ended
    train, validation, test = load_parts(options)
    if options.epochs is None:
        num_batches = math.ceil(len(train[0]) / options.batch_size)
        options.epochs = max(20, math.ceil(STEPS / num_batches))
    keras.utils.set_random_seed(options.seed)
    pipeline, began = build(options, train, validation), time.time()
    history = fit(pipeline, options, train, validation)
    minutes, weights = (time.time() - began) / 60, pipeline.model.count_params()
    console.print(f"Trained {weights:,} weights in {minutes:.1f} minutes.")
    evaluate(pipeline, train, validation, "validation")
    found = evaluate(pipeline, train, test, "test")
    show(pipeline, *(column[:: len(test[0]) // 5 + 1] for column in test))
    draw_confusions(test[1], found, options.output / "confusions.png")
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    console.print(f"The best model and pictures lie in {options.output}/.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def build(options, train, validation):
    """A tagger, with the words that it reads and the labels it gives."""
    words = vocabulary(options, train[0])
    labels = sorted({*itertools.chain(*train[1], *validation[1])})
    layers, size = kseq.layers, (options.width, options.layers)
    if options.encoder == "transformer":
        encoder = layers.TransformerEncoder(size[1], 4, rotary=True, dropout=0.1)
    else:
        encoder = layers.RecurrentEncoder(options.encoder, *size, bidirectional=True)
    dropout = {"dropout": options.dropout}
    if options.characters:
        sizes = words.size, words.num_characters, options.width
        units = options.width // 2
        embedding = layers.WordCharacterEmbedding(*sizes, units, **dropout)
    else:
        embedding = layers.TokenEmbedding(words.size, options.width, **dropout)
    head = None
    if options.head == "crf":
        head = layers.CRF(labels=labels, dtype="float32", name="head")
    model = kseq.many_to_many(embedding, len(labels), encoder, head=head, **dropout)
    return kseq.text.TextToLabels(model, words, labels)


def vocabulary(options, sentences):
    """The words that are seen twice, with their characters or with forms of others."""
    if options.characters:
        words = kseq.text.WordCharacterVocabulary(None, min_count=2, spelling="jamo")
        texts = sentences
    else:
        words = kseq.text.Vocabulary(split=None, min_count=2)
        texts = sentences + [forms(word) for row in sentences for word in row]
    try:
        return words.adapt(texts)
    except ValueError as error:
        sys.exit(f"{error} Give more sentences to learn from, by --train.")


def forms(word):
    """What an unknown word tells, most first: capitals, digits, hyphens, its ending."""
    capitals = "XX" if len(word) > 1 and word.isupper() else "X" * word[0].isupper()
    plain = "".join("0" if c.isdigit() else c for c in word.lower())
    marks = f"<{capitals}{'0' * ('0' in plain)}{'-' * ('-' in plain)}"
    return [f"{marks} {plain[-3:]}>", f"{marks} {plain[-2:]}>", f"{marks}>"]


def readable(pipeline, sentences, known=None):
    """The sentences, with the form of each word that the model does not know."""
    if isinstance(pipeline.vocabulary, kseq.text.WordCharacterVocabulary):
        return sentences  # which it reads by its characters
    known = known or set(pipeline.vocabulary.tokens)
    return [
        [next((x for x in [word, *forms(word)] if x in known), word) for word in row]
        for row in sentences
    ]


def fit(pipeline, options, train, validation):
    """Trains with Keras' own loop, and keeps the best epoch."""
    words = pipeline.vocabulary
    batches, watched = (
        kseq.training.batches(
            words.encode(readable(pipeline, sentences)),
            pipeline.label_ids(labels),
            options.batch_size,
            shuffle=is_training,
            seed=options.seed,
            length_multiple=16,  # each length is compiled once, which takes seconds
        )
        for sentences, labels, is_training in ((*train, True), (*validation, False))
    )
    instead = words.unknown_token_id
    if not options.characters:
        known_forms = {token for token in words.tokens if token.startswith("<")}
        [ids] = words.encode(readable(pipeline, [words.tokens], known_forms))
        instead = np.array([0, 1, 2, 3, *ids])
    dropout = options.word_dropout, options.seed, instead
    batches = kseq.training.TokenDropout(batches, *dropout)
    steps = len(batches) * options.epochs
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    loss = None  # a CRF has its own
    if options.head == "softmax":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pipeline.model.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        loss=loss,
        metrics=[kseq.training.TokenAccuracy(-1, "accuracy")],  # no label is padding
    )
    path, stop = options.output / "model.keras", kseq.training.StopOnInterrupt()
    best = kseq.training.SaveBest(path, monitor="val_accuracy", saved=pipeline)
    run = {"epochs": options.epochs, "callbacks": [best, stop]}
    history = pipeline.model.fit(batches, validation_data=watched, **run)
    return history


def evaluate(pipeline, train, part, name):
    """Prints how well a part is labelled, and returns its labels."""
    results = pipeline.label(readable(pipeline, part[0]))
    found = [[label.name for label in row] for row in results]
    words, names, guesses = (np.concatenate(rows) for rows in (*part, found))
    right, new = names == guesses, ~np.isin(words, [*itertools.chain(*train[0])])
    table = Table(name, "share")
    table.add_row("words labelled right", f"{right.mean():.2%}")
    if new.any():
        table.add_row(f"... of {new.sum():,} never seen", f"{right[new].mean():.2%}")
    if any(kseq.training.spans(row) for row in part[1]):
        for key, x in kseq.training.span_scores(part[1], found)._asdict().items():
            table.add_row(f"{key} of spans", f"{x:.2%}")
    console.print(table)
    [(common, number)] = collections.Counter(names).most_common(1)
    if right.sum() <= number < len(right):
        console.print(
            f"Always to answer {common} would be as good: {number / len(names):.2%}. "
            "Learn longer (--epochs), or from more sentences."
        )
    return found


def draw_confusions(labels, found, path):
    """Draws which labels are taken for which, those of the most words."""
    labels, found = np.concatenate(labels), np.concatenate(found)
    counts = collections.Counter(labels)
    pairs = collections.Counter(zip(labels, found, strict=True))
    names = [name for name, _ in counts.most_common(24)]
    shares = [[pairs[true, guess] / counts[true] for guess in names] for true in names]
    axes = kseq.plots.attention_heatmap(
        shares, names, names, f"true (left), given (above): {len(names)} common labels"
    )
    axes.figure.savefig(path)


def show(pipeline, sentences, labels=None):
    """Prints sentences with their labels, and what the model got wrong in red."""
    if [] in sentences:
        sys.exit("A sentence to read must have a word at least. Received: ''.")
    results = pipeline.label(readable(pipeline, sentences))
    table = Table("word", "label", "probability", "")
    for number, (row, guesses) in enumerate(zip(sentences, results, strict=True)):
        names = labels[number] if labels else [guess.name for guess in guesses]
        for word, guess, name in zip(row, guesses, names, strict=True):
            fact = f"in fact {name}" if guess.name != name else ""
            style = "red" if fact else "dim" if name == "O" else None
            cells = word, guess.name, f"{guess.probability:.3f}", fact
            table.add_row(*cells, style=style)
        table.add_section()
    console.print(table)


def load_parts(options):
    """Sentences and labels: to learn from, to watch, and to be tested on."""
    try:
        if options.train:
            paths = options.train, options.dev, options.test
            parts = [kseq.datasets.read_tagged(path) for path in paths]
        else:
            loaded = kseq.datasets.load(options.task, options.data)
            parts = [part[:2] for part in loaded.values()]
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    whole, most = kseq.datasets.disjoint(*parts), 400 if options.quick else None
    shared = sum(len(part[0]) for part in parts) - sum(len(part[0]) for part in whole)
    train, validation, test = [tuple(column[:most] for column in p) for p in whole]
    learned = set(itertools.chain(*train[1]))
    if len(learned) < 2 or not validation[0]:
        sys.exit(
            "--train must have two labels, and --dev sentences that --test lacks. "
            f"Received: {len(learned)} labels, {len(validation[0])} sentences to watch."
        )
    sizes = " + ".join(f"{len(part[0]):,}" for part in (train, validation, test))
    console.print(f"{sizes} sentences to learn from, to watch and to be tested on;")
    console.print(f"{shared} left out, for a later part has them too.")
    for name, part in {"validation": validation, "test": test}.items():
        if new := [x for x in itertools.chain(*part[1]) if x not in learned]:
            console.print(
                f"Warning: {len(new)} words of the {name} part count as errors. "
                f"Only it has their labels: {', '.join(sorted(set(new)))}."
            )
    return train, validation, test


def load_model(path):
    """The model that an earlier run has saved."""
    try:
        pipeline = kseq.text.TextToLabels.load(path)
    except ValueError as error:
        sys.exit(str(error))
    if len(pipeline.model.output_shape) == 3:
        return pipeline
    sys.exit(f"{path} must hold a tagger. Received: a classifier.")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--task", choices=["atis", "ud_english_ewt"], default="atis")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    for part, use in {"train": "learn", "dev": "watch", "test": "be tested on"}.items():
        add(f"--{part}", type=path, help=f"a file of your own, with sentences to {use}")
    add("--output", type=folder, default="tag_words", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="label with a saved model")
    add("--read", nargs="+", metavar="SENTENCE", help="what to label then")
    add("--encoder", choices=["lstm", "gru", "transformer"], default="lstm")
    add("--width", type=count, default=192, help="of each layer")
    add("--layers", type=count, default=1, help="of the encoder")
    add("--head", choices=["softmax", "crf"], default="softmax")
    add("--characters", action="store_true", help="read words by their characters")
    add("--word-dropout", type=share, default=0.05, help="share of words read so alone")
    add("--dropout", type=share, default=0.5)
    add("--epochs", type=count, help="20, or more for few sentences")
    add("--batch-size", type=count, default=16)
    add("--learning-rate", type=positive, default=4e-3)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    if len({bool(path) for path in (options.train, options.dev, options.test)}) > 1:
        parser.error("--train, --dev and --test go together")
    if options.width % 4:
        parser.error("--width must be a multiple of 4, one part for each head")
    if options.quick:
        options.epochs, options.width, options.learning_rate = 4, 64, 0.01
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
