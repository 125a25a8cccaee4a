"""Learns to inflect words: a lemma and what its form is to say in, the form out.

An encoder-decoder reads two sources: the letters of a lemma, and the features of the
form, such as `V;PST`. It is tested on lemmas that it has never seen. Without further
arguments the words are English, of the shared task of SIGMORPHON 2023.

    python recipes/inflect.py --output english
    python recipes/inflect.py --load english/model.keras --inflect sing "V;PST"
    python recipes/inflect.py --language spa --output spanish
    python recipes/inflect.py --train my.trn --dev my.dev --test my.tst --output mine
"""

import argparse
import logging
import math
import pathlib
import re
import sys

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
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def main(argv=None):
    options = parse_arguments(argv)
    if options.inflect:
        return inflect(options)
    require("matplotlib")  # not only when the training has ended
    keras.utils.set_random_seed(options.seed)
    train, dev, test = load_splits(options)
    lemmas, features, forms = train
    letters = kseq.text.Vocabulary("character").adapt(lemmas + forms)
    tags = kseq.text.Vocabulary("word").adapt(list(map(tags_of, features)))
    sizes = "{:,} forms to learn from, {:,} to choose the best epoch by, {:,} held out"
    console.print(sizes.format(len(forms), len(dev[0]), len(test[0])))
    if options.batch_size is None:
        options.batch_size = min(64, max(len(forms) // 20, 8))
    if options.epochs is None:
        num_batches = math.ceil(len(forms) / options.batch_size)
        options.epochs = max(40, math.ceil(STEPS / num_batches))
    model = build(options, letters, tags)
    vocabularies = {"lemma": letters, "tags": tags}
    pipeline = kseq.text.TextToText(model, vocabularies, letters)
    history = fit(pipeline, options, rows(train, pipeline), rows(dev, pipeline))
    evaluate(pipeline, test, options.beams)
    some = [part[:: max(len(part) // 8, 1)] for part in test]
    print_forms(pipeline, some, options.beams)
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    (options.output / "attention.png").unlink(missing_ok=True)  # an earlier model's
    draw_attention(pipeline, some, options.output)
    console.print(f"Model and pictures lie in {options.output}/.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def tags_of(features):
    """The features one by one: `V PRS NOM 3 SG` of `V;PRS;NOM(3,SG)`."""
    return " ".join(re.findall(r"[^;(),\s]+", features))


def build(options, letters, tags):
    """An encoder for the lemma, one for the tags, and a decoder that reads both."""
    layers, units = kseq.layers, options.units
    sizes = {"num_layers": options.layers, "dropout": options.dropout}
    if options.model == "transformer":
        heads = {"num_heads": max(units // 64, 1), "width": units}
        positions = {"positions": "sinusoidal", "scale": True}
        encoders = {
            "lemma": layers.TransformerEncoder(**sizes, **heads),
            "tags": layers.TransformerEncoder(**sizes, **heads),
        }
        decoder = layers.TransformerDecoder(**sizes, **heads)
        width = units
    else:
        positions = {}
        width = (units + 1) // 2  # of each direction
        both = {"bidirectional": True, **sizes}
        encoders = {
            "lemma": layers.RecurrentEncoder(options.model, width, **both),
            "tags": layers.RecurrentEncoder(options.model, width, **both),
        }
        decoder = layers.RecurrentDecoder(
            options.model, units, attention="bahdanau", **sizes
        )
    dropout = {"dropout": options.dropout, **positions}
    return kseq.encoder_decoder(
        source={
            "lemma": layers.TokenEmbedding(letters.size, width, **dropout),
            "tags": layers.TokenEmbedding(tags.size, width, **dropout),
        },
        target=layers.TokenEmbedding(letters.size, width, **dropout),
        encoder=encoders,
        decoder=decoder,
    )


def rows(part, pipeline):
    """The two sources by name, and the forms, as token ids."""
    lemmas, features, forms = part
    vocabularies, letters = pipeline.source_vocabulary, pipeline.target_vocabulary
    source = {
        "lemma": vocabularies["lemma"].encode(lemmas),
        "tags": vocabularies["tags"].encode(list(map(tags_of, features))),
    }
    return source, letters.encode(forms, start=True, end=True)


def fit(pipeline, options, train, dev):
    """Trains with Keras' own loop, and keeps `dev`'s best epoch."""
    batch = kseq.training.teacher_forcing
    batches = batch(*train, options.batch_size, seed=options.seed, length_multiple=8)
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
        metrics=[kseq.training.ExactMatch(name="forms_right")],
    )
    best = kseq.training.SaveBest(
        options.output / "model.keras", "val_forms_right", mode="max", saved=pipeline
    )
    return pipeline.model.fit(
        batches,
        validation_data=batch(*dev, batch_size=256, length_multiple=8),
        epochs=options.epochs,
        callbacks=[swap, best, kseq.training.StopOnInterrupt()],
    )


def texts_of(lemmas, features):
    """What the pipeline takes: texts for each of its sources."""
    return {"lemma": lemmas, "tags": list(map(tags_of, features))}


def evaluate(pipeline, test, num_beams):
    """Prints the share of held-out forms that are right, of greedy and beam search."""
    lemmas, features, forms = test
    table = Table("search", "forms right")
    beams = f"beam, {num_beams} beams", kseq.decoding.BeamSearch(num_beams)
    longest = 10 + 2 * max(map(len, forms))
    for name, search in [("greedy", None), beams]:
        results = pipeline.generate(
            texts_of(lemmas, features), search, max_length=longest
        )
        written = [best.text for best, *_ in results]
        pairs = zip(written, forms, strict=True)
        right = np.mean([text == form for text, form in pairs])
        table.add_row(name, f"{right:.2%}")
    console.print(table)
    if right == 0:
        console.print(
            "Not one form is right. Learn longer (--epochs), or from more forms."
        )


def print_forms(pipeline, part, num_beams):
    """Prints what is written for lemmas and features, beside the true form if known."""
    lemmas, features, forms = part
    table = Table("lemma", "features", "form", "written", "p")
    results = pipeline.generate(
        texts_of(lemmas, features), kseq.decoding.BeamSearch(num_beams), max_length=99
    )
    for *row, hypotheses in zip(lemmas, features, forms, results, strict=True):
        best = hypotheses[0]
        table.add_row(*row, best.text, f"{math.exp(best.log_prob):.3f}")
    console.print(table)


def draw_attention(pipeline, part, output):
    """Writes which letters and which tags were read at each letter, as a picture."""
    lemmas, features, _ = part
    place = len(lemmas) // 2
    texts = texts_of([lemmas[place]], [features[place]])
    [[best]] = pipeline.generate(texts, max_length=99, return_attention_scores=True)
    if not best.tokens:
        return console.print(f"No picture of {lemmas[place]}: nothing was written.")
    weights, sources = [], []
    for name in ("lemma", "tags"):
        attention = best.attention[name]  # ... T S
        while attention.ndim > 2:  # of a Transformer, the mean of layers and heads
            attention = attention.mean(axis=0)
        weights.append(attention)
        sources += best.source_tokens[name]
    shown = np.concatenate(weights, axis=-1), sources, best.tokens
    title = f"{lemmas[place]}, {features[place]}: {best.text}"
    heatmap = kseq.plots.attention_heatmap(*shown, title)
    heatmap.figure.savefig(output / "attention.png")


def inflect(options):
    """Inflects a lemma with a saved model."""
    path = options.load or options.output / "model.keras"
    try:
        pipeline = kseq.text.TextToText.load(path)
    except ValueError as error:
        sys.exit(str(error))
    if not isinstance(pipeline.source_vocabulary, dict):
        sys.exit(f"--load must be a model of this recipe. Received: {path}.")
    lemma, features = options.inflect
    texts = texts_of([lemma], [features])
    for name, vocabulary in pipeline.source_vocabulary.items():
        [text] = texts[name]
        unknown = vocabulary.unknown(text)
        if unknown or not text:
            known = " ".join(sorted(vocabulary.tokens))
            sys.exit(
                f"The {name} must be of {known}. Received: {text!r}, with {unknown}."
            )
    print_forms(pipeline, ([lemma], [features], ["(not asked)"]), options.beams)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--language", choices=["eng", "spa", "tur"], default="eng")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--train", type=path, help="lines of your own, `lemma TAB features TAB form`")
    add("--dev", type=path, help="... to choose the best epoch by")
    add("--test", type=path, help="... to be tested on")
    add(
        "--inflect",
        nargs=2,
        metavar=("LEMMA", "FEATURES"),
        help="write a form with a saved model",
    )
    add("--load", type=path, metavar="FILE", help="... this one; else that in --output")
    add("--output", type=folder, default="forms", help="directory of what is made")
    add("--model", choices=["gru", "lstm", "transformer"], default="lstm")
    add("--units", type=count, default=128, help="width of every layer")
    add("--layers", type=count, default=1, help="of encoders and decoder")
    add("--dropout", type=share, default=0.3)
    add("--epochs", type=count, help="40, or more for few forms")
    add("--batch-size", type=count, help="64, or less for few forms")
    add("--learning-rate", type=positive, default=3e-3)
    add("--beams", type=count, default=5, help="beams of the beam search")
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="try it out: few forms, no good figures")
    options = parser.parse_args(argv)
    splits = [options.train, options.dev, options.test]
    if any(splits) and not all(splits):
        parser.error("--train, --dev and --test go together")
    if options.load and not options.inflect:
        parser.error("--load goes with --inflect")
    if options.quick and options.epochs is None:
        options.epochs = 3
    return options


def load_splits(options):
    """Forms to learn from, to choose the best epoch by, and to be tested on."""
    try:
        if options.train:
            paths = options.train, options.dev, options.test
            splits = [kseq.datasets.read_inflections(path) for path in paths]
        else:
            name, language = "sigmorphon2023_inflection", options.language
            parts = kseq.datasets.load(name, options.data, language=language)
            splits = [parts[part] for part in ("train", "validation", "test")]
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    asked = [set(zip(lemmas, features, strict=True)) for lemmas, features, _ in splits]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        if shared := sorted(asked[first] & asked[second]):
            sys.exit(
                "A form must be in one of --train, --dev and --test only. Received in "
                f"two: {shared[:3]}."
            )
    most = 1000 if options.quick else None
    return [tuple(column[:most] for column in part) for part in splits]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
