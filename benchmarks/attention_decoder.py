"""Training steps of encoder-decoders with attention: kseq, Keras and PyTorch.

    python benchmarks/attention_decoder.py --json attention_decoder.json

The model has a GRU encoder and a GRU decoder of 256 units and vocabularies of 8,000. A
batch has 64 pairs of 30 source and 30 target tokens. The loss is cross-entropy, the
optimizer Adam, all in float32. `bahdanau_gru256` is Bahdanau's attention, with the
query from the state before the step; `luong_gru256` is Luong's general score with input
feeding. For Keras the decoder is a cell in `keras.layers.RNN`, for PyTorch a loop over
the steps. Both project the keys once, before the loop. Needs the extra `benchmarks`.
"""

import functools
import os

import numpy as np
import side_by_side

BATCH, LENGTH, UNITS, VOCABULARY = 64, 30, 256, 8_000


def tokens():
    """Return source, target shifted right and labels, `(B, T)` each, unpadded."""
    random = np.random.default_rng(0)
    source, target = random.integers(4, VOCABULARY, (2, BATCH, LENGTH + 1), "int32")
    return source[:, 1:], target[:, :-1], target[:, 1:]


def kseq_runs(attention):
    import kseq

    layers = kseq.layers
    model = kseq.encoder_decoder(
        VOCABULARY,
        VOCABULARY,
        encoder="gru",
        decoder=layers.RecurrentDecoder("gru", UNITS, attention=attention),
        width=UNITS,
    )
    model.compile("adam", kseq.training.SequenceCrossentropy())
    source, target, labels = tokens()
    inputs = {"source": source, "target": target}
    return {"train_ms": lambda: model.train_on_batch(inputs, labels)}


def keras_runs(attention):
    import keras
    from keras import layers, ops

    class Cell(layers.Layer):
        """A cell with memory and keys as states, the only way that `RNN` offers."""

        def __init__(self):
            super().__init__()
            self.cell = layers.GRUCell(UNITS)
            self.query = layers.Dense(UNITS, use_bias=False)
            self.score = layers.Dense(1, use_bias=False)
            self.readout = layers.Dense(UNITS, activation="tanh")
            self.state_size = [UNITS, UNITS, (LENGTH, UNITS), (LENGTH, UNITS)]
            self.output_size = UNITS

        def build(self, shape):
            self.cell.build((None, shape[-1] + UNITS))
            self.query.build((None, UNITS))
            self.score.build((None, UNITS))
            self.readout.build((None, UNITS * (3 if attention == "bahdanau" else 2)))

        def attend(self, query, keys, memory):
            if attention == "bahdanau":
                hidden = ops.tanh(self.query(query)[:, None] + keys)  # B S U
                scores = self.score(hidden)[..., 0]  # B S
            else:
                scores = ops.matmul(keys, query[..., None])[..., 0]
            weights = ops.softmax(scores)[:, None]  # B 1 S
            return ops.matmul(weights, memory)[:, 0]  # B U

        def call(self, inputs, states):
            hidden, fed, keys, memory = states
            if attention == "bahdanau":
                context = self.attend(hidden, keys, memory)
                x = ops.concatenate([inputs, context], axis=-1)
                output, [hidden] = self.cell(x, [hidden])
                x = ops.concatenate([output, context, inputs], axis=-1)
                return self.readout(x), [hidden, fed, keys, memory]
            x = ops.concatenate([inputs, fed], axis=-1)
            output, [hidden] = self.cell(x, [hidden])
            context = self.attend(output, keys, memory)
            output = self.readout(ops.concatenate([output, context], axis=-1))
            return output, [hidden, output, keys, memory]

    source, target = (keras.Input((LENGTH,), dtype="int32") for _ in range(2))
    x = layers.Embedding(VOCABULARY, UNITS)(source)
    memory, last = layers.GRU(UNITS, return_sequences=True, return_state=True)(x)
    keys = layers.Dense(UNITS, use_bias=False)(memory)
    first = layers.Dense(UNITS, activation="tanh")(last)
    x = layers.Embedding(VOCABULARY, UNITS)(target)
    states = [first, ops.zeros_like(first), keys, memory]
    x = layers.RNN(Cell(), return_sequences=True)(x, initial_state=states)
    model = keras.Model([source, target], layers.Dense(VOCABULARY)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    source, target, labels = tokens()
    return {"train_ms": lambda: model.train_on_batch([source, target], labels)}


def torch_runs(attention):
    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    is_bahdanau = attention == "bahdanau"
    source_table, target_table = (nn.Embedding(VOCABULARY, UNITS) for _ in range(2))
    encoder = nn.GRU(UNITS, UNITS, batch_first=True)
    bridge, cell = nn.Linear(UNITS, UNITS), nn.GRUCell(2 * UNITS, UNITS)
    key, query = (nn.Linear(UNITS, UNITS, bias=False) for _ in range(2))
    score = nn.Linear(UNITS, 1, bias=False)
    readout = nn.Linear((3 if is_bahdanau else 2) * UNITS, UNITS)
    head = nn.Linear(UNITS, VOCABULARY)
    parts = [source_table, target_table, encoder, bridge, cell, key, query, score]
    parts = nn.ModuleList([*parts, readout, head])
    optimizer = torch.optim.Adam(parts.parameters())
    source, target, labels = (torch.tensor(x).long() for x in tokens())

    def attend(hidden, keys, memory):
        if is_bahdanau:
            scores = score(torch.tanh(query(hidden)[:, None] + keys))  # B S 1
        else:
            scores = torch.bmm(keys, hidden[..., None])
        return torch.bmm(scores.softmax(1).transpose(1, 2), memory)[:, 0]

    def train():
        optimizer.zero_grad()
        memory, last = encoder(source_table(source))
        keys, hidden = key(memory), torch.tanh(bridge(last[0]))
        inputs, fed, outputs = target_table(target), torch.zeros_like(hidden), []
        for t in range(LENGTH):
            if is_bahdanau:
                fed = attend(hidden, keys, memory)
            hidden = cell(torch.cat([inputs[:, t], fed], -1), hidden)
            if is_bahdanau:
                outputs.append(torch.cat([hidden, fed, inputs[:, t]], -1))
            else:
                context = attend(hidden, keys, memory)
                fed = torch.tanh(readout(torch.cat([hidden, context], -1)))
                outputs.append(fed)
        outputs = torch.stack(outputs, 1)
        if is_bahdanau:
            outputs = torch.tanh(readout(outputs))
        logits = head(outputs).flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, labels.flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"train_ms": train}


SYSTEMS = {"kseq": kseq_runs, "keras": keras_runs, "torch": torch_runs}
CASES = {
    f"{attention}_gru256": {
        system: functools.partial(runs, attention) for system, runs in SYSTEMS.items()
    }
    for attention in ("bahdanau", "luong")
}

if __name__ == "__main__":
    side_by_side.main(CASES, description=__doc__)
