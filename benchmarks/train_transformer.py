"""A training step of a Transformer: kseq, KerasHub and PyTorch.

    python benchmarks/train_transformer.py --json transformer.json

3 + 3 layers, width 256, 8 heads, 1,024 units in the feed-forward networks, post-norm,
dropout 0.1, batches of 32 sources and 32 targets of 50 tokens, vocabularies of 8,000,
Adam, float32. Needs the extra `benchmarks`.
"""

import numpy as np
import side_by_side

BATCH, LENGTH, VOCABULARY = 32, 50, 8_000
WIDTH, NUM_LAYERS, NUM_HEADS, INTERMEDIATE, DROPOUT = 256, 3, 8, 1024, 0.1


def tokens():
    """Return source, target shifted right and labels, `(B, T)` each, unpadded."""
    random = np.random.default_rng(0)
    source, target = random.integers(4, VOCABULARY, (2, BATCH, LENGTH + 1), "int32")
    return source[:, 1:], target[:, :-1], target[:, 1:]


def kseq_step():
    import keras

    import kseq

    options = {
        "num_layers": NUM_LAYERS,
        "num_heads": NUM_HEADS,
        "intermediate_dim": INTERMEDIATE,
        "norm_first": False,
        "dropout": DROPOUT,
        "attention_dropout": DROPOUT,
    }
    embedding = {"positions": "sinusoidal", "scale": True}
    model = kseq.encoder_decoder(
        source=kseq.layers.TokenEmbedding(VOCABULARY, WIDTH, **embedding),
        target=kseq.layers.TokenEmbedding(VOCABULARY, WIDTH, **embedding),
        encoder=kseq.layers.TransformerEncoder(**options),
        decoder=kseq.layers.TransformerDecoder(**options),
    )
    model.compile(
        keras.optimizers.Adam(),
        kseq.training.SequenceCrossentropy(),
        # Not Keras' default on a CPU. PyTorch would compile for minutes.
        jit_compile=keras.backend.backend() != "torch",
    )
    source, target, labels = tokens()
    inputs = {"source": source, "target": target}
    return {"train_ms": lambda: model.train_on_batch(inputs, labels)}


def keras_hub_step():
    import keras
    import keras_hub

    def embed(token_ids):
        layer = keras_hub.layers.TokenAndPositionEmbedding(
            VOCABULARY, LENGTH, WIDTH, mask_zero=True
        )
        return keras.layers.Dropout(DROPOUT)(layer(token_ids))

    source_ids = keras.Input((None,), dtype="int32")
    target_ids = keras.Input((None,), dtype="int32")
    memory, x = embed(source_ids), embed(target_ids)
    for _ in range(NUM_LAYERS):
        block = keras_hub.layers.TransformerEncoder(INTERMEDIATE, NUM_HEADS, DROPOUT)
        memory = block(memory)
    for _ in range(NUM_LAYERS):
        block = keras_hub.layers.TransformerDecoder(INTERMEDIATE, NUM_HEADS, DROPOUT)
        x = block(x, memory)
    logits = keras.layers.Dense(VOCABULARY)(x)
    model = keras.Model([source_ids, target_ids], logits)
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Without `jit_compile=True`, which is slower here.
    )
    source, target, labels = tokens()
    return {"train_ms": lambda: model.train_on_batch([source, target], labels)}


def torch_step():
    import os

    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tables = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(VOCABULARY, WIDTH)
    places = nn.Embedding(LENGTH, WIDTH)
    transformer = nn.Transformer(
        WIDTH, NUM_HEADS, NUM_LAYERS, NUM_LAYERS, INTERMEDIATE, DROPOUT,
        batch_first=True,
    )  # fmt: skip
    head, dropout = nn.Linear(WIDTH, VOCABULARY), nn.Dropout(DROPOUT)
    parts = nn.ModuleList([*tables, places, transformer, head])
    optimizer = torch.optim.Adam(parts.parameters())
    source, target, labels = (torch.tensor(x).long() for x in tokens())
    steps, padding = torch.arange(LENGTH), torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    look_ahead = nn.Transformer.generate_square_subsequent_mask(LENGTH)

    def step():
        optimizer.zero_grad()
        memory, x = (
            dropout(table(ids) + places(steps))
            for table, ids in zip(tables, (source, target), strict=True)
        )
        outputs = transformer(
            memory,
            x,
            tgt_mask=look_ahead,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        logits = head(outputs).reshape(-1, VOCABULARY)
        loss = nn.functional.cross_entropy(logits, labels.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"train_ms": step}


CASES = {
    "transformer_3x256": {
        "kseq": kseq_step,
        "keras_hub": keras_hub_step,
        "torch": torch_step,
    }
}

if __name__ == "__main__":
    side_by_side.main(CASES, description=__doc__)
