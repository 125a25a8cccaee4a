"""Label each word of a sentence: slots of a request, or parts of speech.

A network that reads sentences from both ends learns the slots of requests about flights
(ATIS), English parts of speech (UD English EWT), or labels of your own.

    python recipes/tag_words.py --task atis
    python recipes/tag_words.py --task ud_english_ewt --output parts_of_speech
    python recipes/tag_words.py --load tag_words/model.keras --read "fly to boston"
    python recipes/tag_words.py --train a.txt --dev b.txt --test c.txt --output mine

A file of your own has a line `word label` for each word and a blank line after each
sentence, or is a `.conllu` of Universal Dependencies. Text for `--read` is split at
spaces. Rare and new words are read by their form: capitals, digits, endings. With
`--characters` every word is read by its characters, in any script, and Hangul by its
jamo. With `--head crf` the labels of a sentence are predicted jointly. If published
splits share a sentence, it is left out of the earlier one.

The forms of rare words belong to this program, not to the saved model. A program that
loads the model with `kseq.text.load` must first call `replace_unknown` of this one, or
it labels rare words differently. A model trained with `--characters` needs no such
step.
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
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

FEW_SENTENCES = 5  # with fewer, or with long ones, blank lines may be missing
LONG_SENTENCE = 200
MAX_LABELS_SHOWN = 20
MIN_TRAINING_STEPS = 1000  # few sentences are repeated until there are this many steps
NUM_HEADS = 4  # of a Transformer
console = Console(markup=False, emoji=False, highlight=False)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return sentences with their labels, for training, validation and testing.

    A sentence is a list of words, and has a list of as many labels.
    """
    try:
        if options.train:
            paths = [options.train, options.dev, options.test]
            splits = [kseq.datasets.read_tagged(path) for path in paths]
            warn_of_missing_blank_lines(paths, splits)
        else:
            data = kseq.datasets.load(options.task, options.data)
            splits = [split[:2] for split in data.values()]
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    num_sentences = sum(len(sentences) for sentences, _ in splits)
    splits = kseq.datasets.disjoint(*splits)
    num_left = sum(len(sentences) for sentences, _ in splits)
    if options.quick:
        splits = [(sentences[:400], labels[:400]) for sentences, labels in splits]
    train, validation, test = [tuple(split) for split in splits]
    train_sentences, train_labels = train
    validation_sentences, validation_labels = validation
    test_sentences, test_labels = test

    if not train_sentences or not validation_sentences:
        sys.exit(
            "--train must have sentences that --dev and --test do not have, and --dev "
            f"some that --test does not have. Received: {len(train_sentences)} "
            f"sentences for training, {len(validation_sentences)} for validation. "
            "Split your sentences into three different files."
        )
    known_labels = set(itertools.chain(*train_labels))
    if len(known_labels) < 2:
        [label] = known_labels
        word = train_sentences[0][0]
        sys.exit(
            "--train must have at least two different labels. Received: the label "
            f"{label!r} for every word, as for {word!r}. The first column of a line is "
            "the word, and the last is its label: leave out further columns."
        )
    console.print(
        f"{len(train_sentences):,} sentences for training, "
        f"{len(validation_sentences):,} for validation, {len(test_sentences):,} for "
        "testing."
    )
    if num_left < num_sentences:
        console.print(
            f"{num_sentences - num_left:,} sentences were left out because a later "
            "split also contains them."
        )
    for name, labels in (("validation", validation_labels), ("test", test_labels)):
        new = [label for label in itertools.chain(*labels) if label not in known_labels]
        if new:
            console.print(
                f"Warning: {len(new)} words of the {name} split count as errors. "
                f"Only it has their labels: {', '.join(sorted(set(new)))}."
            )
    return train, validation, test


def warn_of_missing_blank_lines(paths, splits):
    """Print a warning for each file with few or very long sentences."""
    for path, (sentences, _) in zip(paths, splits, strict=True):
        num_words = sum(len(sentence) for sentence in sentences)
        mean_length = num_words / len(sentences)
        if len(sentences) < FEW_SENTENCES or mean_length > LONG_SENTENCE:
            console.print(
                f"Warning: {path} has {len(sentences):,} sentences of "
                f"{mean_length:,.0f} words on average. Are the blank lines between "
                "sentences missing?"
            )


def load_model(path):
    """Load a tagger that was saved by an earlier run."""
    try:
        pipeline = kseq.text.TextToLabels.load(path)
    except ValueError as error:
        sys.exit(str(error))
    if len(pipeline.model.output_shape) != 3:
        sys.exit(f"{path} must hold a tagger. Received: a classifier.")
    return pipeline


# Read words ---------------------------------------------------------------------------


def build_vocabulary(options, sentences):
    """Return the vocabulary of the words, or forms, that occur at least twice."""
    if options.characters:
        vocabulary = kseq.text.WordCharacterVocabulary(
            split=None, min_count=2, spelling="jamo"
        )
        texts = sentences
    else:
        vocabulary = kseq.text.Vocabulary(split=None, min_count=2)
        forms = [word_forms(word) for sentence in sentences for word in sentence]
        texts = sentences + forms
    try:
        return vocabulary.adapt(texts)
    except ValueError as error:
        sys.exit(f"{error} Add more sentences to --train.")


def word_forms(word):
    """Return three forms of a word, the most exact one first.

    A form tells capitals, digits and hyphens, and the last letters of the word, three,
    two or none: `["<X lin>", "<X in>", "<X>"]` for `Berlin`.
    """
    marks = ""
    if len(word) > 1 and word.isupper():
        marks += "XX"
    elif word[0].isupper():
        marks += "X"
    letters = ["0" if letter.isdigit() else letter for letter in word.lower()]
    lowercase = "".join(letters)
    if "0" in lowercase:
        marks += "0"
    if "-" in lowercase:
        marks += "-"
    return [f"<{marks} {lowercase[-3:]}>", f"<{marks} {lowercase[-2:]}>", f"<{marks}>"]


def replace_unknown(pipeline, sentences, known=None):
    """Replace each word that the model does not know by its most exact known form."""
    if isinstance(pipeline.vocabulary, kseq.text.WordCharacterVocabulary):
        return sentences  # the model reads every word by its characters
    known = known or set(pipeline.vocabulary.tokens)
    replaced = []
    for sentence in sentences:
        replaced.append([known_form(word, known) for word in sentence])
    return replaced


def known_form(word, known):
    """Return a word, its most exact known form, or the word if no form is known."""
    for candidate in [word, *word_forms(word)]:
        if candidate in known:
            return candidate
    return word


# Build --------------------------------------------------------------------------------


def build(options, train, validation):
    """Build a tagger, with its vocabulary and labels."""
    train_sentences, train_labels = train
    _, validation_labels = validation
    words = build_vocabulary(options, train_sentences)
    labels = sorted({*itertools.chain(*train_labels, *validation_labels)})
    if options.encoder == "transformer":
        encoder = kseq.layers.TransformerEncoder(
            options.layers, NUM_HEADS, rotary=True, dropout=0.1
        )
    else:
        encoder = kseq.layers.RecurrentEncoder(
            options.encoder,
            options.width,
            num_layers=options.layers,
            bidirectional=True,
        )
    if options.characters:
        embedding = kseq.layers.WordCharacterEmbedding(
            words.size,
            words.num_characters,
            options.width,
            character_units=options.width // 2,
            kernel_size=5,
            dropout=options.dropout,
        )
    else:
        embedding = kseq.layers.TokenEmbedding(
            words.size, options.width, dropout=options.dropout
        )
    head = None  # softmax
    if options.head == "crf":
        head = kseq.layers.CRF(labels=labels, dtype="float32", name="head")
    model = kseq.many_to_many(
        embedding, len(labels), encoder, head=head, dropout=options.dropout
    )
    return kseq.text.TextToLabels(model, words, labels)


# Train --------------------------------------------------------------------------------


def fit(pipeline, options, train, validation):
    """Train with `Model.fit` and save the best epoch."""
    train_batches = make_batches(pipeline, options, train, shuffle=True)
    validation_batches = make_batches(pipeline, options, validation, shuffle=False)
    # Word dropout teaches the model to do without some words. By characters, a dropped
    # word is unknown; otherwise its form is left.
    replacement = pipeline.vocabulary.unknown_token_id
    if not options.characters:
        replacement = form_ids(pipeline)
    train_batches = kseq.training.TokenDropout(
        train_batches, options.word_dropout, options.seed, replacement
    )

    learning_rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=len(train_batches) * options.epochs
    )
    loss = None  # a CRF has its own loss
    if options.head == "softmax":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pipeline.model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss=loss,
        # No label is padding, so no label is ignored.
        metrics=[kseq.training.TokenAccuracy(pad_token_id=-1, name="accuracy")],
    )
    callbacks = [
        kseq.training.SaveBest(
            options.output / "model.keras", monitor="val_accuracy", saved=pipeline
        ),
        kseq.training.StopOnInterrupt(),
    ]
    return pipeline.model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        callbacks=callbacks,
    )


def make_batches(pipeline, options, split, shuffle):
    """Return batches of token ids and label ids, sentences of similar length."""
    sentences, labels = split
    return kseq.training.batches(
        pipeline.vocabulary.encode(replace_unknown(pipeline, sentences)),
        pipeline.label_ids(labels),
        options.batch_size,
        shuffle=shuffle,
        seed=options.seed,
        length_multiple=16,  # few lengths, for compiling each takes seconds
    )


def form_ids(pipeline):
    """Return, for each token id, the id of the form of its word."""
    vocabulary = pipeline.vocabulary
    known_forms = {token for token in vocabulary.tokens if token.startswith("<")}
    forms = replace_unknown(pipeline, [vocabulary.tokens], known_forms)
    [ids_of_tokens] = vocabulary.encode(forms)
    special_ids = [0, 1, 2, 3]  # padding, unknown, start and end
    return np.array([*special_ids, *ids_of_tokens])


# Evaluate -----------------------------------------------------------------------------


def evaluate(pipeline, train, split, name):
    """Print how well the words of a split are labelled, and return their labels."""
    train_sentences, _ = train
    sentences, labels = split
    results = pipeline.label(replace_unknown(pipeline, sentences))
    predicted = [[label.name for label in row] for row in results]

    # All words of the split, one after the other.
    all_words = np.concatenate(sentences)
    all_labels = np.concatenate(labels)
    all_predicted = np.concatenate(predicted)
    train_words = list(itertools.chain(*train_sentences))
    is_right = all_predicted == all_labels
    is_new = ~np.isin(all_words, train_words)

    table = Table(name, "share")
    table.add_row("words labelled right", f"{is_right.mean():.2%}")
    if is_new.any():
        new_accuracy = is_right[is_new].mean()
        table.add_row(f"... of {is_new.sum():,} new words", f"{new_accuracy:.2%}")
    has_spans = any(kseq.training.spans(row) for row in labels)
    if has_spans:
        scores = kseq.training.span_scores(labels, predicted)
        table.add_row("precision of spans", f"{scores.precision:.2%}")
        table.add_row("recall of spans", f"{scores.recall:.2%}")
        table.add_row("f1 of spans", f"{scores.f1:.2%}")
    console.print(table)
    if not has_spans:
        print_accuracy_of_labels(all_labels, is_right)

    [(most_common, number)] = collections.Counter(all_labels).most_common(1)
    if is_right.sum() <= number < len(all_labels):
        console.print(
            f"Always answering {most_common} would be as good: "
            f"{number / len(all_labels):.2%}. Train longer (--epochs), or on more "
            "sentences."
        )
    return predicted


def print_accuracy_of_labels(all_labels, is_right):
    """Print the share of right answers for the words of each common label."""
    table = Table("label", "words", "labelled right")
    for label, number in collections.Counter(all_labels).most_common(MAX_LABELS_SHOWN):
        accuracy = is_right[all_labels == label].mean()
        table.add_row(label, f"{number:,}", f"{accuracy:.2%}")
    console.print(table)


# Show ---------------------------------------------------------------------------------


def draw_confusions(labels, predicted, path):
    """Draw how often each common label is predicted as each other one."""
    labels = np.concatenate(labels)
    predicted = np.concatenate(predicted)
    label_counts = collections.Counter(labels)
    pair_counts = collections.Counter(zip(labels, predicted, strict=True))
    names = [name for name, _ in label_counts.most_common(24)]
    shares = []
    for true_name in names:
        total = label_counts[true_name]
        shares.append([pair_counts[true_name, name] / total for name in names])
    axes = kseq.plots.attention_heatmap(
        shares,
        names,
        names,
        f"true (left), predicted (above): {len(names)} common labels",
    )
    axes.figure.savefig(path)


def show(pipeline, sentences, true_labels=None):
    """Print sentences with their labels; what the model got wrong is red."""
    if [] in sentences:
        sys.exit("Each sentence of --read needs at least one word. Received: ''.")
    results = pipeline.label(replace_unknown(pipeline, sentences))
    table = Table("word", "label", "probability", "")
    for index, sentence in enumerate(sentences):
        for position, word in enumerate(sentence):
            answer = results[index][position]
            true_name = answer.name
            if true_labels is not None:
                true_name = true_labels[index][position]
            note = ""
            style = None
            if answer.name != true_name:
                note = f"in fact {true_name}"
                style = "red"
            elif answer.name == "O":  # outside of all spans
                style = "dim"
            table.add_row(
                word, answer.name, f"{answer.probability:.3f}", note, style=style
            )
        table.add_section()
    console.print(table)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a tagger, or label sentences with a saved one."""
    options = parse_arguments(argv)
    if options.load:
        sentences = [text.split() for text in options.read]
        show(load_model(options.load), sentences)
        return
    require("matplotlib")  # fail now, not after the training

    train, validation, test = load_splits(options)
    train_sentences, _ = train
    test_sentences, test_labels = test
    if options.epochs is None:
        num_batches = math.ceil(len(train_sentences) / options.batch_size)
        options.epochs = max(20, math.ceil(MIN_TRAINING_STEPS / num_batches))
    keras.utils.set_random_seed(options.seed)

    pipeline = build(options, train, validation)
    start = time.time()
    history = fit(pipeline, options, train, validation)
    minutes = (time.time() - start) / 60
    num_weights = pipeline.model.count_params()
    console.print(f"Trained {num_weights:,} weights in {minutes:.1f} minutes.")

    evaluate(pipeline, train, validation, "validation")
    predicted = evaluate(pipeline, train, test, "test")

    step = len(test_sentences) // 5 + 1
    show(pipeline, test_sentences[::step], test_labels[::step])
    draw_confusions(test_labels, predicted, options.output / "confusions.png")
    figure = kseq.plots.training_curve(history)
    figure.savefig(options.output / "training.png")
    console.print(f"The best model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")
    if not options.characters:
        console.print(
            "If you load the model with kseq.text.load, first call replace_unknown of "
            "this recipe: rare words are replaced by their forms. A model of "
            "--characters needs no such step."
        )


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--task",
        choices=["atis", "ud_english_ewt"],
        default="atis",
        help="data set: slots of requests (atis) or parts of speech (ud_english_ewt)",
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
        help="your own data: sentences for training",
    )
    parser.add_argument(
        "--dev",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: sentences for validation, which choose the best epoch",
    )
    parser.add_argument(
        "--test",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: sentences for testing",
    )
    parser.add_argument(
        "--output",
        type=folder,
        default="tag_words",
        help="folder for the model and pictures; the model of an earlier run is"
        " renamed, not continued",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="label the sentences of --read with this saved model; do not train",
    )
    parser.add_argument(
        "--read", nargs="+", metavar="SENTENCE", help="sentences to label with --load"
    )
    parser.add_argument(
        "--encoder",
        choices=["lstm", "gru", "transformer"],
        default="lstm",
        help="network that reads a sentence",
    )
    parser.add_argument(
        "--width", type=count, default=192, help="width of the embedding and encoder"
    )
    parser.add_argument("--layers", type=count, default=1, help="layers of the encoder")
    parser.add_argument(
        "--head",
        choices=["softmax", "crf"],
        default="softmax",
        help="predict each label independently (softmax) or all labels of a sentence"
        " jointly (crf)",
    )
    parser.add_argument(
        "--characters",
        action="store_true",
        help="read every word by its characters, too",
    )
    parser.add_argument(
        "--word-dropout",
        type=share,
        default=0.05,
        help="fraction of training words that are read only by their form, or only by"
        " their characters",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.5,
        help="dropout rate",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        help="passes over the training sentences (default: 20, more for few sentences)",
    )
    parser.add_argument(
        "--batch-size", type=count, default=16, help="sentences in a batch"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=4e-3,
        help="learning rate at the start, from which it decays to 0",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on 400 sentences, a small model and 4 epochs;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    if bool(options.load) != bool(options.read):
        parser.error("--load and --read go together")
    splits = [options.train, options.dev, options.test]
    if any(splits) and not all(splits):
        parser.error("--train, --dev and --test go together")
    if options.width % NUM_HEADS != 0:
        parser.error(f"--width must be a multiple of {NUM_HEADS}, the number of heads")
    if options.quick:
        options.epochs = 4
        options.width = 64
        options.learning_rate = 0.01
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
