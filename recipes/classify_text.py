"""Tells what kind of text a sentence is, and shows which words told it so.

A bidirectional network reads the words, and attention pooling chooses those that count.
It learns whether a film review is positive (SST-2), what a question asks for (TREC), or
any labels of your own, from files with a line `label TEXT` for each text.

    python recipes/classify_text.py --task sst2
    python recipes/classify_text.py --task trec --output questions
    python recipes/classify_text.py --load questions/model.keras --read "Who wrote it ?"
    python recipes/classify_text.py --train a.txt --dev b.txt --test c.txt --output mine
    python recipes/classify_text.py --task sst2 --vectors glove.6B.100d.txt

No text held out is learned from: what published parts share is dropped. TREC
has no validation part, so a tenth of its questions is split off, by the seed. SST-2 is
its sentences alone; published figures may come of training on its phrases too.
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
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

SETTINGS = {
    "sst2": {"min_count": 2, "word_dropout": 0.25},
    "trec": {"min_count": 1, "word_dropout": 0.1},
}
EPOCHS = {"sst2": 5, "trec": 6}
STEPS = 600  # of training at least, about what either task takes
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.load:
        return show(load_model(options.load), options.read)
    require("matplotlib")  # not only when the training has ended
    train, validation, test = load_splits(options)
    sizes = [f"{len(texts):,}" for texts, _ in (train, validation, test)]
    console.print("{} texts to learn from, {} to watch, {} held out.".format(*sizes))
    if options.epochs is None:
        num_batches = math.ceil(len(train[0]) / options.batch_size)
        options.epochs = max(EPOCHS[options.task], math.ceil(STEPS / num_batches))
    began = time.time()
    pipeline = build(train, validation, options)
    history = fit(pipeline, train, validation, options)
    evaluate(pipeline, validation, test, (time.time() - began) / 60)
    some = [column[:: len(column) // 8 + 1] for column in test]
    show(pipeline, *some, options.output / "words.png")
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    console.print(f"The best model and pictures lie in {options.output}.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def build(train, validation, options):
    """A model that reads words, with the words and labels of what it learns from."""
    words = kseq.text.Vocabulary("word", lowercase=True, min_count=options.min_count)
    words.adapt(train[0])
    labels = sorted({*train[1], *validation[1]})
    model = kseq.many_to_one(
        embedding_of(words, options),
        len(labels),
        kseq.layers.RecurrentEncoder(
            options.cell, options.width // 2, bidirectional=True
        ),
        pooling="attention",
        dropout=options.dropout,
    )
    return kseq.text.TextToLabels(model, words, labels)


def embedding_of(words, options):
    """Vectors of words that are learned from the start, or go on from a file's."""
    if options.vectors is None:
        return kseq.layers.TokenEmbedding(words.size, options.width, options.dropout)
    try:
        vectors = kseq.text.read_vectors(options.vectors, words, seed=options.seed)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))
    found = f"{vectors.num_found:,} of {len(words.tokens):,} words"
    console.print(f"{found} have a vector in {options.vectors}.")
    embedding = kseq.layers.TokenEmbedding.from_vectors(
        vectors.table, dropout=options.dropout, name="words"
    )
    embedding.trainable = False
    return embedding


def fit(pipeline, train, validation, options):
    """Trains with Keras' own loop, and keeps the best epoch."""
    batches, watched = (
        kseq.training.batches(
            pipeline.vocabulary.encode(texts),
            pipeline.label_ids(labels),
            options.batch_size,
            shuffle=is_training,
            seed=options.seed,
            length_multiple=16,  # each length is compiled once, which takes seconds
        )
        for texts, labels, is_training in ((*train, True), (*validation, False))
    )
    path, steps = options.output / "model.keras", len(batches) * options.epochs
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    pipeline.model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [
        kseq.training.SaveBest(path, "val_accuracy", saved=pipeline),
        kseq.training.StopOnInterrupt(),
    ]
    if options.vectors:
        embedding = pipeline.model.get_layer("words")
        callbacks.append(kseq.training.Unfreeze(embedding, after=options.frozen))
    return pipeline.model.fit(
        kseq.training.TokenDropout(batches, options.word_dropout, options.seed),
        validation_data=watched,
        epochs=options.epochs,
        callbacks=callbacks,
    )


def evaluate(pipeline, validation, test, minutes):
    """Prints how many texts the best epoch tells right."""
    table = Table("weights", "validation accuracy", "test accuracy", "minutes")
    row = [f"{pipeline.model.count_params():,}"]
    for texts, names in (validation, test):
        answers = np.array([label.name for label in pipeline.label(texts)])
        row.append(f"{np.mean(answers == names):.2%}")
    table.add_row(*row, f"{minutes:.1f}")
    console.print(table)
    [(common, number)] = collections.Counter(names).most_common(1)
    if np.sum(answers == names) <= number < len(names):
        console.print(
            f"Always to answer {common} would be as good: {number / len(names):.2%} of "
            "the test. Learn longer (--epochs), or from more texts."
        )


def show(pipeline, texts, names=None, path=None):
    """Prints the labels of texts, their words the redder the more they were read."""
    texts = [" ".join(text.split()) for text in texts]
    weights, rows, titles = what_was_read(pipeline, texts), [], []
    table = Table("label", "probability", "words that were read")
    for i, label in enumerate(pipeline.label(texts)):
        words = texts[i].split()
        row = weights[i][: len(words)]
        shades = (255 - 190 * row / (row.max() or 1)).astype(int)
        line = Text(" ").join(
            Text(word, style=f"black on rgb(255,{shade},{shade})")
            for word, shade in zip(words, shades, strict=True)
        )
        is_right = names is None or names[i] == label.name
        title = label.name if is_right else f"{label.name} (in fact {names[i]})"
        table.add_row(Text(title), f"{label.probability:.3f}", line)
        rows.append((words, row))
        titles.append(f"{title}, {label.probability:.2f}")
    console.print(table)
    if path:
        kseq.plots.highlighted_texts(*zip(*rows, strict=True), titles).savefig(path)


def what_was_read(pipeline, texts):
    """How much the pooling read each word `(B, S)`, zeros if it does not attend."""
    ids, model = pipeline.vocabulary(texts), pipeline.model
    names = [layer.name for layer in model.layers]
    pooling = model.get_layer("pooling") if "pooling" in names else None
    if not isinstance(pooling, kseq.layers.AttentionPooling):  # of tune_classifier.py
        return np.zeros(ids.shape)
    steps, mask = keras.Model(model.input, pooling.input)(ids)  # B S U, B S
    _, weights = pooling(steps, mask, return_attention_scores=True)
    return keras.ops.convert_to_numpy(weights)


def load_splits(options):
    """Texts and labels: to learn from, to watch, and to be tested on."""
    try:
        if options.train:
            paths = options.train, options.dev, options.test
            parts = [kseq.datasets.read_labelled(path) for path in paths]
        else:
            parts = kseq.datasets.load(options.task, options.data).values()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    train, *watched, test = (
        {text.lower(): label for text, label in zip(*part, strict=True)}
        for part in parts
    )
    if watched:
        validation = without(watched[0], test)
    else:
        rows = sorted(without(train, test).items())
        random.Random(options.seed).shuffle(rows)
        validation = dict(rows[: len(rows) // 10])
    parts = [without(without(train, test), validation), validation, test]
    known = set(parts[0].values())
    if len(known) < 2 or not all(parts):
        sys.exit(
            "--train must have two labels at least, and --train, --dev and --test have "
            f"texts that no later one has. Received: {len(known)} labels, "
            f"{[len(part) for part in parts]} texts."
        )
    for name, part in zip(("validation", "test"), parts[1:], strict=True):
        if new := sorted(set(part.values()) - known):
            warning = f"Warning: no text to learn from has the label {', '.join(new)} "
            warning += f"of the {name} part, so each of those counts as an error."
            console.print(warning)
    parts[0] = dict(list(parts[0].items())[: 500 if options.quick else None])
    return [(list(part), list(part.values())) for part in parts]


def without(part, other):
    """The texts of a part that another has not, with their labels."""
    return {text: label for text, label in part.items() if text not in other}


def load_model(path):
    """The model that an earlier run has saved."""
    try:
        pipeline = kseq.text.TextToLabels.load(path)
    except ValueError as error:
        sys.exit(str(error))
    if len(pipeline.model.output_shape) == 2:
        return pipeline
    sys.exit(f"{path} must hold a classifier. Received: a tagger.")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--task", choices=["sst2", "trec"], default="sst2")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    for part in ("train", "dev", "test"):
        add(f"--{part}", type=path, metavar="FILE", help="your lines of `label TEXT`")
    add("--output", type=folder, default="texts", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="read with a saved model")
    add("--read", nargs="+", metavar="TEXT", help="what to read then")
    add("--cell", choices=["lstm", "gru"], default="gru")
    add("--width", type=count, default=128)
    add("--min-count", type=count, help="least of a known word; 2 for sst2, 1 for trec")
    add("--word-dropout", type=share, help="made unknown; 0.25 for sst2, 0.1 for trec")
    add("--dropout", type=share, default=0.5)
    add("--vectors", type=path, metavar="FILE", help="of word2vec, GloVe or fastText")
    add("--frozen", type=count, default=1, help="first epochs that leave them alone")
    add("--epochs", type=count, help="5 for sst2, 6 for trec, more for few texts")
    add("--batch-size", type=count, default=50)
    add("--learning-rate", type=positive, default=2e-3)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    if len({path is None for path in (options.train, options.dev, options.test)}) > 1:
        parser.error("--train, --dev and --test go together")
    if not all(map(str.split, options.read or [])):
        parser.error("--read needs texts of one word at least")
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
