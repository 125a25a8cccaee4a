"""Answers in Korean: a remark or a question in, one short answer out.

An encoder-decoder learns from 11,823 questions with answers, the data of the well-known
Korean Transformer tutorial. The same model reads and writes syllables, jamo or word
pieces, and answers by greedy search, beam search and sampling, side by side.

    python recipes/chat_korean.py --output chat
    python recipes/chat_korean.py --model gru --tokens word_piece --output chat-gru
    python recipes/chat_korean.py --load chat/model.keras --say "오늘 너무 피곤해"

Perplexity is that of a syllable, space or mark of an answer, its end counted as one, so
that vocabularies compare.
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
    from rich.table import Column, Table
except ImportError as error:
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

MAX_LENGTH = 80  # tokens of an answer, at most
LOOK_AT = [
    "안녕",
    "오늘 너무 피곤해",
    "여자친구랑 헤어졌어",
    "뭐 먹을까?",
    "주말에 뭐 하지?",
]
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    if options.say:
        return say(load_model(options.load), options.say, options)
    require("matplotlib")  # not only when the training has ended
    train, validation, test = load_splits(options)
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.time()
    if options.load:
        chatbot = load_model(options.load)
    else:
        chatbot = build(options, train)
        history = fit(chatbot, options, train, validation)
        kseq.plots.training_curve(history).savefig(options.output / "training.png")
    evaluate(chatbot, {"validation": validation, "test": test})
    print_answers(chatbot, LOOK_AT, options)
    print_answers(chatbot, test[0][:5], options, test[1][:5])
    console.print(
        f"What was made lies in {options.output}/. "
        f"{(time.time() - began) / 60:.1f} minutes in all."
    )
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def build(options, train):
    """An untrained chatbot, which reads and writes with one vocabulary."""
    kinds = {
        "character": ("character", "NFC"),
        "jamo": ("character", "NFD"),
        "word_piece": ("word_piece", "NFC", False, options.pieces),
        "sentence_piece": ("sentence_piece", "NFC", False, options.pieces),
    }
    vocabulary = kseq.text.Vocabulary(*kinds[options.tokens]).adapt(train[0] + train[1])
    console.print(f"{vocabulary.size:,} tokens: {' '.join(vocabulary.tokens[-12:])}")
    layers, width, dropout = kseq.layers, options.width, options.dropout
    if options.model == "transformer":
        sizes = {"num_layers": 2, "num_heads": max(width // 32, 1), "width": width}
        sizes |= {"intermediate_dim": 2 * width, "dropout": dropout}
        encoder = layers.TransformerEncoder(**sizes)
        decoder = layers.TransformerDecoder(**sizes)
        embedding = layers.TokenEmbedding(
            vocabulary.size, width, positions="sinusoidal", scale=True
        )
    else:
        encoder = layers.RecurrentEncoder(
            "gru", width // 2, bidirectional=True, dropout=dropout
        )
        attention = layers.BahdanauAttention(width)
        decoder = layers.RecurrentDecoder(
            "gru", width, attention=attention, dropout=dropout
        )
        embedding = layers.TokenEmbedding(vocabulary.size, width, dropout)
    model = kseq.encoder_decoder(
        embedding, embedding, encoder, decoder, tie_embeddings="all"
    )
    return kseq.text.TextToText(model, vocabulary, vocabulary)


def fit(chatbot, options, train, validation):
    """Trains with Keras' own loop, and keeps the best epoch."""

    def batches(pairs, size, **choices):
        question = chatbot.source_vocabulary.encode(pairs[0])
        answer = chatbot.target_vocabulary.encode(pairs[1], start=True, end=True)
        return kseq.training.teacher_forcing(question, answer, size, **choices)

    learned = batches(train, options.batch_size, seed=options.seed)
    warm_up, decay = len(learned), max(len(learned) * (options.epochs - 1), 1)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay, warmup_target=options.learning_rate, warmup_steps=warm_up
    )
    chatbot.model.compile(
        keras.optimizers.Adam(rate, beta_2=0.98, global_clipnorm=1.0),
        loss=kseq.training.SequenceCrossentropy(),
        metrics=[kseq.training.TokenAccuracy(name="accuracy")],
    )
    console.print(f"{chatbot.model.count_params():,} weights to train.")
    best = kseq.training.SaveBest(options.output / "model.keras", saved=chatbot)
    return chatbot.model.fit(
        learned,
        validation_data=batches(validation, 128, shuffle=False),
        epochs=options.epochs,
        callbacks=[best, kseq.training.StopOnInterrupt()],
    )


def evaluate(chatbot, parts):
    """Prints how well the model foresees the answers that people gave."""
    table = Table("answers to questions of", "loss a token", "perplexity a syllable")
    for name, (questions, answers) in parts.items():
        question_ids = chatbot.source_vocabulary.encode(questions)
        answer_ids = chatbot.target_vocabulary.encode(answers, end=True)
        loss = -chatbot.model.score(question_ids, answer_ids).sum()
        num_tokens = sum(map(len, answer_ids))
        num_syllables = sum(len(answer) + 1 for answer in answers)
        perplexity = math.exp(loss / num_syllables)
        table.add_row(name, f"{loss / num_tokens:.3f}", f"{perplexity:.2f}")
    console.print(table)


def print_answers(chatbot, questions, options, given=None):
    """Prints what each search answers, side by side."""
    searches = {
        "greedy": kseq.decoding.GreedySearch(),
        f"{options.beams} beams": kseq.decoding.BeamSearch(
            options.beams, length_penalty=1.0, num_results=1
        ),
        f"drawn, temperature {options.temperature}": kseq.decoding.Sampling(
            options.temperature, top_p=0.9, seed=options.seed
        ),
    }
    answers = {"question": questions}
    if given:
        answers["a person's answer"] = given
    for name, search in searches.items():
        results = chatbot.generate(questions, search, MAX_LENGTH)
        answers[name] = [best.text for best, *_ in results]
    table = Table(*(Column(name, overflow="fold") for name in answers))
    for row in zip(*answers.values(), strict=True):
        table.add_row(*row)
    console.print(table)


def say(chatbot, texts, options):
    """Answers texts with a saved model."""
    texts = [plain(text) for text in texts]
    if "" in texts:
        sys.exit("A text must have a word at least. Received: an empty one.")
    if unknown := chatbot.source_vocabulary.unknown(" ".join(texts)):
        console.print(f"Not known to the model: {' '.join(unknown)}")
    print_answers(chatbot, texts, options)


def plain(text):
    return " ".join(text.split())


def load_splits(options):
    """Questions with answers: to learn from, to watch, to be tested on.

    A question is in one part only; answers such as "I am sorry" are given to many.
    Held out are only answers of letters that are learned.
    """
    try:
        pairs = kseq.datasets.load("korean_chatbot", options.data)["train"]
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    number = 50 if options.quick else 500
    pairs = sorted({(plain(q), plain(a)) for q, a in zip(*pairs, strict=True)})
    parts = kseq.datasets.hold_out(*zip(*pairs, strict=True), number)
    parts = [list(zip(*part, strict=True)) for part in parts.values()]
    parts[0] = parts[0][::10] if options.quick else parts[0]
    letters = {letter for pair in parts[0] for text in pair for letter in text}
    parts[1:] = [[p for p in part if letters.issuperset(p[1])] for part in parts[1:]]
    sizes = [f"{len(part):,}" for part in parts]
    console.print("{} pairs to learn from, {} to watch, {} held out.".format(*sizes))
    return [tuple(map(list, zip(*part, strict=True))) for part in parts]


def load_model(path):
    """The chatbot that an earlier run has saved."""
    try:
        return kseq.text.TextToText.load(path)
    except ValueError as error:
        sys.exit(str(error))


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--model", choices=["transformer", "gru"], default="transformer")
    kinds = ["character", "jamo", "word_piece", "sentence_piece"]
    add("--tokens", choices=kinds, default="character")
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--output", type=folder, default="chat", help="folder of what is made")
    add("--load", type=path, metavar="FILE", help="use a saved model, do not train")
    add("--say", nargs="+", metavar="TEXT", help='what to answer: "뭐 먹을까?"')
    add("--pieces", type=count, default=8000, help="how many pieces of either kind")
    add("--width", type=count, default=256)
    add("--dropout", type=share, default=0.3)
    add("--epochs", type=count, default=15)
    add("--batch-size", type=count, default=128)
    add("--learning-rate", type=positive, default=1e-3)
    add("--beams", type=count, default=5)
    add("--temperature", type=positive, default=0.8)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="see all of it work, on little data")
    options = parser.parse_args(argv)
    if options.say and not options.load:
        parser.error("--say needs --load FILE")
    if options.width % min(32, options.width):
        parser.error("--width must be a multiple of 32, one part for each head")
    if options.quick:
        options.epochs, options.width = 1, min(options.width, 64)
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
