"""Train a Korean chatbot: a remark or a question in, one short answer out.

An encoder-decoder learns from 11,823 questions with answers, the data of the well-known
Korean Transformer tutorial. The model reads and writes syllables, jamo or word pieces.
Its answers by greedy search, beam search and sampling are printed side by side.

    python recipes/chat_korean.py --output chat
    python recipes/chat_korean.py --model gru --tokens word_piece --output chat-gru
    python recipes/chat_korean.py --load chat/model.keras --say "오늘 너무 피곤해"

Perplexity is per character of an answer (a syllable, a space or a mark; the end counts
as one), so that it can be compared between vocabularies.
"""

import argparse
import logging
import math
import pathlib
import sys
import time

import keras

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed, share

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

MAX_LENGTH = 80  # maximum number of tokens in an answer
EXAMPLE_QUESTIONS = [
    "안녕",
    "오늘 너무 피곤해",
    "여자친구랑 헤어졌어",
    "뭐 먹을까?",
    "주말에 뭐 하지?",
]
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return questions with answers, for training, validation and testing.

    A question is in one split only. An answer such as "I am sorry" may be in several.
    Validation and test answers have only characters that training texts have.
    """
    try:
        data = kseq.datasets.load("korean_chatbot", options.data)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    unique_pairs = set()
    for question, answer in zip(*data["train"], strict=True):
        unique_pairs.add((clean(question), clean(answer)))
    pairs = sorted(unique_pairs)
    questions = [question for question, _ in pairs]
    answers = [answer for _, answer in pairs]

    num_test = 500
    if options.quick:
        num_test = 50
    splits = kseq.datasets.hold_out(questions, answers, num_test)
    train_questions, train_answers = splits["train"]
    if options.quick:
        train_questions = train_questions[::10]
        train_answers = train_answers[::10]
    characters = set("".join(train_questions) + "".join(train_answers))
    train = (list(train_questions), list(train_answers))
    validation = with_known_answers(splits["validation"], characters)
    test = with_known_answers(splits["test"], characters)
    console.print(
        f"{len(train[0]):,} pairs for training, {len(validation[0]):,} for validation, "
        f"{len(test[0]):,} for testing."
    )
    return train, validation, test


def with_known_answers(split, characters):
    """Return the pairs of a split whose answers have only the given characters."""
    known_questions = []
    known_answers = []
    for question, answer in zip(*split, strict=True):
        if characters.issuperset(answer):
            known_questions.append(question)
            known_answers.append(answer)
    return known_questions, known_answers


def clean(text):
    """Return a text with single spaces."""
    return " ".join(text.split())


def load_model(path):
    """Load a chatbot that was saved by an earlier run."""
    try:
        return kseq.text.TextToText.load(path)
    except ValueError as error:
        sys.exit(str(error))


# Build --------------------------------------------------------------------------------


def build(options, train):
    """Build a chatbot that reads and writes with one vocabulary."""
    vocabulary = build_vocabulary(options, train)
    last_tokens = " ".join(vocabulary.tokens[-12:])
    console.print(f"{vocabulary.size:,} tokens. The last ones: {last_tokens}")
    if options.model == "transformer":
        model = build_transformer(options, vocabulary.size)
    else:
        model = build_recurrent(options, vocabulary.size)
    return kseq.text.TextToText(model, vocabulary, vocabulary)


def build_vocabulary(options, train):
    """Return the vocabulary of syllables, jamo or pieces of the training texts."""
    questions, answers = train
    if options.tokens == "character":
        vocabulary = kseq.text.Vocabulary("character", normalization="NFC")
    elif options.tokens == "jamo":
        vocabulary = kseq.text.Vocabulary("character", normalization="NFD")
    else:
        vocabulary = kseq.text.Vocabulary(
            options.tokens, normalization="NFC", max_tokens=options.pieces
        )
    return vocabulary.adapt(questions + answers)


def build_transformer(options, vocabulary_size):
    """Build a Transformer encoder and decoder that share one embedding."""
    width = options.width
    num_heads = max(width // 32, 1)
    encoder = kseq.layers.TransformerEncoder(
        num_layers=2,
        num_heads=num_heads,
        width=width,
        intermediate_dim=2 * width,
        dropout=options.dropout,
    )
    decoder = kseq.layers.TransformerDecoder(
        num_layers=2,
        num_heads=num_heads,
        width=width,
        intermediate_dim=2 * width,
        dropout=options.dropout,
    )
    embedding = kseq.layers.TokenEmbedding(
        vocabulary_size, width, positions="sinusoidal", scale=True
    )
    return kseq.encoder_decoder(
        embedding, embedding, encoder, decoder, tie_embeddings="all"
    )


def build_recurrent(options, vocabulary_size):
    """Build a bidirectional GRU and a GRU with attention that share one embedding."""
    width = options.width
    encoder = kseq.layers.RecurrentEncoder(
        "gru",
        width // 2,  # in each direction
        bidirectional=True,
        dropout=options.dropout,
    )
    attention = kseq.layers.BahdanauAttention(width)
    decoder = kseq.layers.RecurrentDecoder(
        "gru", width, attention=attention, dropout=options.dropout
    )
    embedding = kseq.layers.TokenEmbedding(vocabulary_size, width, options.dropout)
    return kseq.encoder_decoder(
        embedding, embedding, encoder, decoder, tie_embeddings="all"
    )


# Train --------------------------------------------------------------------------------


def encode_split(chatbot, split):
    """Return questions and answers as token ids."""
    questions, answers = split
    question_ids = chatbot.source_vocabulary.encode(questions)
    answer_ids = chatbot.target_vocabulary.encode(answers, start=True, end=True)
    return question_ids, answer_ids


def fit(chatbot, options, train, validation):
    """Train with `Model.fit` and save the best epoch."""
    train_questions, train_answers = encode_split(chatbot, train)
    train_batches = kseq.training.teacher_forcing(
        train_questions, train_answers, options.batch_size, seed=options.seed
    )
    validation_questions, validation_answers = encode_split(chatbot, validation)
    validation_batches = kseq.training.teacher_forcing(
        validation_questions, validation_answers, batch_size=128, shuffle=False
    )

    warmup_steps = len(train_batches)  # the first epoch
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(len(train_batches) * (options.epochs - 1), 1),
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    chatbot.model.compile(
        keras.optimizers.Adam(learning_rate, beta_2=0.98, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(),
        metrics=[kseq.training.TokenAccuracy(name="accuracy")],
    )
    console.print(f"{chatbot.model.count_params():,} weights.")
    callbacks = [
        kseq.training.SaveBest(options.output / "model.keras", saved=chatbot),
        kseq.training.StopOnInterrupt(),
    ]
    return chatbot.model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        callbacks=callbacks,
    )


# Evaluate -----------------------------------------------------------------------------


def evaluate(chatbot, splits):
    """Print how well the model predicts the answers that people gave.

    `splits` maps a name to questions with answers.
    """
    table = Table("answers", "loss per token", "perplexity per character")
    for name, (questions, answers) in splits.items():
        question_ids = chatbot.source_vocabulary.encode(questions)
        answer_ids = chatbot.target_vocabulary.encode(answers, end=True)
        log_probs = chatbot.model.score(question_ids, answer_ids)
        loss = -log_probs.sum()
        num_tokens = sum(len(ids) for ids in answer_ids)
        num_characters = sum(len(answer) + 1 for answer in answers)  # with the end
        perplexity = math.exp(loss / num_characters)
        table.add_row(name, f"{loss / num_tokens:.3f}", f"{perplexity:.2f}")
    console.print(table)


# Show ---------------------------------------------------------------------------------


def print_answers(chatbot, questions, options, references=None):
    """Print the answers of each search side by side."""
    searches = {
        "greedy": kseq.decoding.GreedySearch(),
        f"{options.beams} beams": kseq.decoding.BeamSearch(
            options.beams, length_penalty=1.0, num_results=1
        ),
        f"sampled, temperature {options.temperature}": kseq.decoding.Sampling(
            options.temperature, top_p=0.9, seed=options.seed
        ),
    }
    columns = {"question": questions}
    if references:
        columns["answer of a person"] = references
    for name, search in searches.items():
        results = chatbot.generate(questions, search, max_length=MAX_LENGTH)
        columns[name] = [hypotheses[0].text for hypotheses in results]

    table = Table()
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console.print(table)


def say(chatbot, texts, options):
    """Answer texts with a saved model."""
    questions = [clean(text) for text in texts]
    if "" in questions:
        sys.exit("Each text of --say needs at least one word. Received: an empty text.")
    unknown = chatbot.source_vocabulary.unknown(" ".join(questions))
    if unknown:
        console.print(f"Unknown to the model: {' '.join(unknown)}")
    print_answers(chatbot, questions, options)


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a chatbot, or answer texts with a saved one."""
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.say:
        say(load_model(options.load), options.say, options)
        return
    require("matplotlib")  # fail now, not after the training

    train, validation, test = load_splits(options)
    options.output.mkdir(parents=True, exist_ok=True)
    start = time.time()
    if options.load:
        chatbot = load_model(options.load)
    else:
        chatbot = build(options, train)
        history = fit(chatbot, options, train, validation)
        figure = kseq.plots.training_curve(history)
        figure.savefig(options.output / "training.png")

    evaluate(chatbot, {"validation": validation, "test": test})

    print_answers(chatbot, EXAMPLE_QUESTIONS, options)
    test_questions, test_answers = test
    print_answers(chatbot, test_questions[:5], options, test_answers[:5])
    minutes = (time.time() - start) / 60
    console.print(
        f"The model and pictures are in {options.output}/. It took {minutes:.1f} "
        "minutes."
    )
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--model",
        choices=["transformer", "gru"],
        default="transformer",
        help="a Transformer, or a GRU with Bahdanau's attention",
    )
    parser.add_argument(
        "--tokens",
        choices=["character", "jamo", "word_piece", "sentence_piece"],
        default="character",
        help="what a token is; a character of Hangul is a syllable",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of the data sets (default: $KSEQ_DATA_DIR)",
    )
    parser.add_argument(
        "--output",
        type=folder,
        default="chat",
        help="folder for the model and pictures",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="evaluate this saved model, or answer with it; do not train",
    )
    parser.add_argument(
        "--say",
        nargs="+",
        metavar="TEXT",
        help='texts to answer with --load, such as "뭐 먹을까?"',
    )
    parser.add_argument(
        "--pieces",
        type=count,
        default=8000,
        help="maximum vocabulary size of word_piece and sentence_piece",
    )
    parser.add_argument(
        "--width", type=count, default=256, help="width of embeddings and layers"
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.3,
        help="dropout rate",
    )
    parser.add_argument(
        "--epochs", type=count, default=15, help="passes over the training pairs"
    )
    parser.add_argument(
        "--batch-size", type=count, default=128, help="pairs in a batch"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=1e-3,
        help="highest learning rate, after the first epoch",
    )
    parser.add_argument("--beams", type=count, default=5, help="number of beams")
    parser.add_argument(
        "--temperature",
        type=positive,
        default=0.8,
        help="temperature of sampling: lower is more cautious, higher more varied",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on a tenth of the data, a small model and 1 epoch;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    if options.say and not options.load:
        parser.error("--say needs --load FILE")
    if options.width > 32 and options.width % 32 != 0:
        parser.error("--width above 32 must be a multiple of 32, the width of a head")
    if options.quick:
        options.epochs = 1
        options.width = min(options.width, 64)
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
