import keras
import pytest

import kseq
from kseq.layers import FeatureEmbedding, TokenEmbedding
from kseq.tuning import Choice, Decoding, Int, Space, spaces

SMALL = {"width": 64}


def corners(space):
    """Yield values with each option of each choice once, and defaults otherwise."""
    yield {}
    for name, dimension in space.hyperparameters().items():
        if not isinstance(dimension, Choice):
            continue
        for label in dimension.labels:
            values = {name: label}
            parts = name.split("/")
            for end in range(2, len(parts), 2):  # parents, whose labels are in the name
                values["/".join(parts[: end - 1])] = parts[end - 1]
            yield values


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: spaces.many_to_one(11, 3, **SMALL), (None, 3)),
        (lambda: spaces.many_to_many(11, 3, **SMALL), (None, None, 3)),
        (lambda: spaces.encoder_decoder(11, 13, **SMALL), (None, None, 13)),
        (lambda: spaces.many_to_one(11, 3, "conv", **SMALL), (None, 3)),
        (lambda: spaces.encoder_decoder(11, 13, "conv", **SMALL), (None, None, 13)),
        (lambda: spaces.one_to_many(13, 5, **SMALL), (None, None, 13)),
        (lambda: spaces.one_to_many(13, None, **SMALL), (None, None, 13)),
    ],
)
def test_ready_spaces_build_with_every_option(make, shape):
    space = make()
    for values in corners(space):
        assert space.build(values).output_shape == shape


def test_copy_can_be_searched():
    options = {"encoder": "gru", "decoder": "gru", **SMALL}
    space = spaces.encoder_decoder(13, 13, copy=Choice(False, True), **options)
    assert list(space.hyperparameters()) == ["copy"]
    models = [space.build({"copy": label}) for label in ("False", "True")]
    copies = [model.pointer_generator for model in models]
    assert copies[0] is None and copies[1] is not None


def test_vision_transformer_space_builds_with_every_option():
    space = spaces.vision_transformer(
        (4, 4, 1), Choice(2, 4), 3, width=64, num_layers=1
    )
    for values in corners(space):
        assert space.build(values).output_shape == (None, 3)


def test_given_arguments_are_not_searched():
    space = spaces.many_to_one(
        11, 2, pooling="max", encoder="gru", dropout=Choice(0, 1)
    )
    assert list(space.hyperparameters()) == ["width", "dropout"]
    recurrent = spaces.many_to_one(11, 2, "recurrent").hyperparameters()
    assert "encoder/cell" in recurrent and "encoder/num_heads" not in recurrent
    transformer = spaces.encoder_decoder(11, 13, "transformer").hyperparameters()
    assert {"encoder/num_heads", "decoder/num_heads"} < set(transformer)
    with pytest.raises(ValueError, match="`network` must be one of"):
        spaces.many_to_one(11, 2, "cnn")
    with pytest.raises(ValueError, match="fit its function: many_to_one"):
        spaces.many_to_one(11, 2, depth=3)


def test_network_selects_convolutions_alone_or_with_others():
    def kinds(space, name):
        return space.hyperparameters()[name].labels

    three = ["RecurrentEncoder", "TransformerEncoder", "ConvEncoder"]
    assert kinds(spaces.many_to_many(11, 3, "all"), "encoder") == three
    assert kinds(spaces.many_to_many(11, 3), "encoder") == three[:2]
    translating = spaces.encoder_decoder(11, 13, "conv")
    assert "encoder/kernel_size" in translating.hyperparameters()
    decoders = ["RecurrentDecoder", "TransformerDecoder"]
    assert kinds(translating, "decoder") == decoders
    assert kinds(spaces.encoder_decoder(11, 13, "all"), "encoder") == three
    with pytest.raises(ValueError, match='"both". Received: network=.conv'):
        spaces.one_to_many(13, 5, "conv")


def test_components_of_ready_spaces_can_be_replaced_by_dimensions():
    encoder = Choice(
        spaces.recurrent_encoder(cell="gru", units=8, num_layers=Int(1, 2)),
        spaces.transformer_encoder(num_layers=1),
    )
    decoder = Choice(
        spaces.recurrent_decoder(cell="gru", units=Int(4, 8), num_layers=1),
        spaces.transformer_decoder(num_layers=1),
    )
    space = spaces.encoder_decoder(11, 13, encoder=encoder, decoder=decoder, width=64)
    for encoder, decoder in (
        ("Recurrent", "Transformer"),
        ("Transformer", "Recurrent"),
    ):
        kinds = {"encoder": f"{encoder}Encoder", "decoder": f"{decoder}Decoder"}
        model = space.build(kinds)
        assert model.output_shape == (None, None, 13)
        components = {"encoder": model.encoder, "decoder": model.decoder}
        found = {name: type(layer).__name__ for name, layer in components.items()}
        assert found == kinds
    names = set(space.hyperparameters())
    assert "encoder/RecurrentEncoder/units" not in names
    assert "encoder/RecurrentEncoder/num_layers" in names
    assert "encoder/TransformerEncoder/num_layers" not in names
    values = {"decoder": "RecurrentDecoder", "decoder/RecurrentDecoder/units": 5}
    layer = space.build(values).decoder
    assert (layer.units, layer.attention.units) == (5, 5)


def test_ready_training_space_trains():
    model = spaces.many_to_one(11, 2, encoder="gru", width=8, dropout=0.0)
    space = spaces.training(
        model,
        num_rows=5,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        epochs=1,
    )
    values = {"batch_size": 16, "optimizer/learning_rate/warmup_target": 0.01}
    data = [[1, 2], [3], [4, 5], [6], [7]], [0, 1, 0, 1, 1]
    history = space.fit(values, space.build(values), *data, verbose=0)
    assert history.history["loss"][0] > 0


def test_ready_training_of_an_encoder_decoder_smooths_labels():
    model = spaces.encoder_decoder(11, 13, encoder="gru", decoder="gru", width=8)
    space = spaces.training(model, 5, batches=kseq.training.teacher_forcing)
    loss = space.build({"loss/label_smoothing": 0.2}).loss
    assert loss.label_smoothing == 0.2


def test_ready_training_of_a_tagger_learns_label_0_and_searches_its_head():
    model = spaces.many_to_many(11, 3, encoder="gru", width=8, head=Choice(None, "crf"))
    space = spaces.training(model, num_rows=2)
    assert space.build({}).loss.pad_token_id == -1
    assert space.build({"model/head": "crf"}).loss is None
    names = [name for name in space.hyperparameters() if name.startswith("loss")]
    assert names == ["loss/label_smoothing"]


def test_ready_beam_search_space_gives_a_beam_search():
    model = kseq.one_to_many(7, condition=3, width=8)
    space = Decoding(model, spaces.beam_search(), [0, 1], [[5, 3], [4, 3]])
    search = space.best_search({"search/num_beams": 2, "search/length_penalty": 0.6})
    assert search == kseq.decoding.BeamSearch(2, 0.6)


def test_heads_of_forecasters_can_be_searched():
    space = spaces.encoder_decoder(
        Space(FeatureEmbedding, 3, 8),
        Space(FeatureEmbedding, 1, 8),
        "recurrent",
        head=Choice("gaussian", "student_t"),
        **SMALL,
    )
    heads = ("gaussian", "student_t")
    shapes = [space.build({"head": head}).output_shape for head in heads]
    assert shapes == [(None, None, 1, 2), (None, None, 1, 3)]
    assert "head" in space.hyperparameters()


def test_encoder_of_each_source_is_searched():
    space = spaces.encoder_decoder({"lemma": 11, "tags": 7}, 13, "recurrent")
    names = list(space.hyperparameters())
    assert {"encoder/lemma/units", "encoder/tags/units"} <= set(names)
    model = space.build({"encoder/lemma/units": 32, "encoder/tags/units": 64})
    units = {name: x.units for name, x in model.encoder.encoders.items()}
    assert units == {"lemma": 32, "tags": 64}


def test_embedding_of_each_source_can_be_searched():
    source = {
        "lemma": Space(TokenEmbedding, 11, Int(4, 8, step=4)),
        "tags": Space(TokenEmbedding, 7, 4),
    }
    space = Space(kseq.encoder_decoder, source, 13, width=4)
    [name] = space.hyperparameters()
    model = space.build({name: 8})
    assert model.source.width == {"lemma": 8, "tags": 4}
