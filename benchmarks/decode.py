"""Generation speed of kseq, KerasHub, HF transformers, CTranslate2 and PyTorch.

    python benchmarks/decode.py --json decode.json

- `greedy`, `beam4`: a Transformer of 3 + 3 layers, width 256, 4 heads, 1,024 units in
  the feed-forward networks, a vocabulary of 8,000, and random weights. Each of 32
  sources of 30 tokens gets exactly 40 new tokens, in float32. CTranslate2 runs the
  model that kseq exports, also in int8.
- `length_64`, `length_256`: kseq alone, with that many new tokens.
- `stream_1`, `stream_32`: kseq's `generate_stream` and `generate`, with that many
  sources, not compiled by XLA.
- `attention_lstm`: an LSTM of 256 units with Bahdanau's attention, greedy, compared
  with a handwritten loop in PyTorch.

Needs the extra `benchmarks`.
"""

import os
import tempfile

import numpy as np
import side_by_side

BATCH, SOURCE, TARGET, VOCABULARY = 32, 30, 40, 8_000
WIDTH, NUM_LAYERS, NUM_HEADS, INTERMEDIATE = 256, 3, 4, 1024
END = 3  # never generated, so each model generates all tokens


def sources():
    """Return token ids `(B, S)` without padding."""
    return np.random.default_rng(0).integers(4, VOCABULARY, (BATCH, SOURCE), "int32")


def never_end(model):
    """Make the end token so improbable that it is never generated."""
    [bias] = [w for w in model.weights if w.shape == (VOCABULARY,)]
    bias.assign(np.where(np.arange(VOCABULARY) == END, -1e9, 0.0))


def our_transformer():
    import kseq

    options = {
        "num_layers": NUM_LAYERS,
        "num_heads": NUM_HEADS,
        "intermediate_dim": INTERMEDIATE,
    }
    embedding = {"positions": "sinusoidal", "scale": True}
    return kseq.encoder_decoder(
        source=kseq.layers.TokenEmbedding(VOCABULARY, WIDTH, **embedding),
        target=kseq.layers.TokenEmbedding(VOCABULARY, WIDTH, **embedding),
        encoder=kseq.layers.TransformerEncoder(**options),
        decoder=kseq.layers.TransformerDecoder(**options),
    )


def kseq_transformer(num_beams, length=TARGET):
    def prepare():
        model = our_transformer()
        return {"tokens_per_s": kseq_writes(model, num_beams, length)}

    return prepare


def kseq_streams(num_rows):
    def prepare():
        model = our_transformer()
        never_end(model)
        rows = sources()[:num_rows]

        def whole():
            return model.generate(rows, max_length=TARGET)

        def stream():
            assert len(list(model.generate_stream(rows, max_length=TARGET))) == TARGET

        return {"generate_ms": whole, "stream_ms": stream}

    return prepare


def kseq_writes(model, num_beams, length):
    import keras

    from kseq.decoding import BeamSearch, GreedySearch

    never_end(model)
    search = GreedySearch() if num_beams == 1 else BeamSearch(num_beams)
    compiles = None if keras.backend.backend() == "torch" else True

    def run():
        result = model.generate(sources(), search, length, jit_compile=compiles)
        assert (result.lengths == length).all()

    return run


def keras_hub_transformer(num_beams):
    def prepare():
        import keras_hub

        backbone = keras_hub.models.BartBackbone(
            VOCABULARY, NUM_LAYERS, NUM_HEADS, WIDTH, INTERMEDIATE,
            max_sequence_length=TARGET + 1,
        )  # fmt: skip
        model = keras_hub.models.BartSeq2SeqLM(backbone)
        sampler = "greedy"
        if num_beams > 1:
            sampler = keras_hub.samplers.BeamSampler(num_beams)
        model.compile(sampler=sampler)
        target = np.zeros((BATCH, TARGET + 1), "int32")
        target[:, 0] = 2
        inputs = {
            "encoder_token_ids": sources(),
            "encoder_padding_mask": np.ones((BATCH, SOURCE), bool),
            "decoder_token_ids": target,
            "decoder_padding_mask": np.arange(TARGET + 1) + 0 * target < 1,
        }
        return {"tokens_per_s": lambda: model.generate(inputs, stop_token_ids=None)}

    return prepare


def transformers_transformer(num_beams):
    def prepare():
        import torch
        import transformers

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        config = transformers.MarianConfig(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            encoder_layers=NUM_LAYERS,
            decoder_layers=NUM_LAYERS,
            encoder_attention_heads=NUM_HEADS,
            decoder_attention_heads=NUM_HEADS,
            encoder_ffn_dim=INTERMEDIATE,
            decoder_ffn_dim=INTERMEDIATE,
            pad_token_id=0,
            decoder_start_token_id=2,
            eos_token_id=END,
            forced_eos_token_id=None,
            max_position_embeddings=512,
        )
        model = transformers.MarianMTModel(config).eval()
        source = torch.tensor(sources()).long()

        @torch.inference_mode()
        def run():
            ids = model.generate(
                source,
                attention_mask=torch.ones_like(source),
                num_beams=num_beams,
                do_sample=False,
                max_new_tokens=TARGET,
                min_new_tokens=TARGET,
            )
            assert ids.shape == (BATCH, TARGET + 1)

        return {"tokens_per_s": run}

    return prepare


def ctranslate2_transformer(num_beams, quantization=None):
    def prepare():
        import json
        import pathlib

        import ctranslate2

        from kseq.decoding import BeamSearch, GreedySearch

        model = our_transformer()
        never_end(model)
        search = GreedySearch() if num_beams == 1 else BeamSearch(num_beams)
        with tempfile.TemporaryDirectory() as folder:
            form = {"format": "ctranslate2", "quantization": quantization}
            model.export_generation(folder, search, TARGET, **form)
            options = json.loads(pathlib.Path(folder, "generation.json").read_text())
            translator = ctranslate2.Translator(
                folder, intra_threads=len(os.sched_getaffinity(0))
            )
        tokens = [[str(i) for i in row] for row in sources()]

        def run():
            results = translator.translate_batch(tokens, **options)
            assert all(len(result.hypotheses[0]) == TARGET for result in results)

        return {"tokens_per_s": run}

    return prepare


def kseq_lstm():
    import kseq

    model = kseq.encoder_decoder(
        VOCABULARY,
        VOCABULARY,
        encoder=kseq.layers.RecurrentEncoder("lstm", WIDTH),
        decoder=kseq.layers.RecurrentDecoder(
            "lstm", WIDTH, attention=kseq.layers.BahdanauAttention(WIDTH)
        ),
        width=WIDTH,
    )
    return {"tokens_per_s": kseq_writes(model, 1, TARGET)}


def torch_lstm():
    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tables = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(VOCABULARY, WIDTH)
    encoder = nn.LSTM(WIDTH, WIDTH, batch_first=True)
    cell = nn.LSTMCell(2 * WIDTH, WIDTH)  # input: the last token and attention
    queries, keys = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
    score = nn.Linear(WIDTH, 1, bias=False)
    output, head = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, VOCABULARY)
    source = torch.tensor(sources()).long()

    @torch.inference_mode()
    def run():
        memory, (h, c) = encoder(tables[0](source))
        h, c, projected = h[0], c[0], keys(memory)
        tokens, read = torch.full((BATCH,), 2), torch.zeros(BATCH, WIDTH)
        written = []
        for _ in range(TARGET):
            h, c = cell(torch.cat([tables[1](tokens), read], -1), (h, c))
            hidden = torch.tanh(queries(h)[:, None] + projected)
            weights = torch.softmax(score(hidden)[..., 0], -1)
            context = (weights[:, None] @ memory)[:, 0]
            read = torch.tanh(output(torch.cat([h, context], -1)))
            logits = head(read)
            logits[:, END] = -1e9
            tokens = logits.argmax(-1)
            written.append(tokens)
        return torch.stack(written, 1)

    return {"tokens_per_s": run}


def transformers_of(num_beams):
    return {
        "kseq": kseq_transformer(num_beams),
        "keras_hub": keras_hub_transformer(num_beams),
        "transformers": transformers_transformer(num_beams),
        "ctranslate2": ctranslate2_transformer(num_beams),
        "ctranslate2_int8": ctranslate2_transformer(num_beams, "int8"),
    }


CASES = {
    "greedy": transformers_of(1),
    "beam4": transformers_of(4),
    "length_64": {"kseq": kseq_transformer(1, 64)},
    "length_256": {"kseq": kseq_transformer(1, 256)},
    "stream_1": {"kseq": kseq_streams(1)},
    "stream_32": {"kseq": kseq_streams(32)},
    "attention_lstm": {"kseq": kseq_lstm, "torch": torch_lstm},
}
TOKENS = {case: BATCH * TARGET for case in CASES}
TOKENS |= {"length_64": BATCH * 64, "length_256": BATCH * 256}

if __name__ == "__main__":
    side_by_side.main(CASES, description=__doc__, tokens=TOKENS)
