"""Text to image: images generated as codes, one for each position.

Axes in shape comments: B batch, N pictures, T tokens, S words.
"""

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, GreedySearch, Sampling
from kseq.layers import TransformerDecoder
from tests.helpers import array, assert_close, randomize

SHAPE = 4, 6, 3
POSITIONS, CODES = 6, 12
PICTURES = np.random.default_rng(5).random((5, *SHAPE), "float32")
CAPTIONS = [[4, 5, 6], [7], [8, 9, 4, 5], [5, 5], [6]]
FORMS = {
    "encoder": {},
    "one stream": {"encoder": None},
    "recurrent": {"encoder": "gru", "decoder": "gru"},
}


def make_tokenizer():
    tokenizer = kseq.image_tokenizer(SHAPE, (3, 4), 2, width=4, num_blocks=1)
    randomize(tokenizer)
    return tokenizer


def make_model(form="encoder", **options):
    keras.utils.set_random_seed(1)
    model = kseq.text_to_image(11, make_tokenizer(), width=8, **FORMS[form], **options)
    tokenizer = model.tokenizer.get_weights()
    randomize(model)
    model.tokenizer.set_weights(tokenizer)
    return model


def batches(model, **options):
    tokens = model.image_tokens(PICTURES)
    return kseq.training.teacher_forcing(CAPTIONS, tokens, batch_size=2, **options)


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "search", [GreedySearch(), BeamSearch(3), Sampling(num_draws=2, seed=3)]
)
def test_generates_only_image_codes(form, search):
    model = make_model(form)
    result = model.generate(CAPTIONS, search)
    assert (
        result.token_ids.shape[2] == POSITIONS and (result.lengths == POSITIONS).all()
    )
    assert result.token_ids.min() >= 4
    assert_close(model.score(CAPTIONS, result), result.log_probs, atol=1e-4)
    probabilities = np.exp(model.score([CAPTIONS[0]] * CODES, first_tokens()))
    assert_close(probabilities.sum(), 1.0)


def first_tokens():
    return [[4 + code] for code in range(CODES)]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("form", FORMS)
def test_draw_returns_the_decoded_codes(form):
    model = make_model(form)
    drawn = model.draw(CAPTIONS, Sampling(num_draws=2, seed=3), batch_size=2)
    assert drawn.images.shape == (5, 2, *SHAPE) and drawn.ids.shape == (5, 2, POSITIONS)
    assert_close(drawn.images, model.tokenizer.decode(drawn.ids))
    result = model.generate(CAPTIONS, Sampling(num_draws=2, seed=3))
    assert (drawn.ids == result.token_ids - 4).all()
    assert_close(drawn.log_probs, result.log_probs)


def test_a_seed_gives_the_same_draws_for_any_batch_size():
    model = make_model()
    one, all_ = (
        model.draw(CAPTIONS, Sampling(seed=7, num_draws=3), batch_size=size)
        for size in (1, 5)
    )
    assert (one.ids == all_.ids).all()


def test_draw_completes_an_image_from_a_prefix():
    model = make_model()
    tokens = model.image_tokens(PICTURES)[:, 1:4]
    drawn = model.draw(CAPTIONS, prefix=tokens)
    assert (drawn.ids[:, 0, :3] == tokens - 4).all()


def test_best_of_returns_the_images_with_the_highest_scores():
    drawn = make_model().draw(CAPTIONS, Sampling(num_draws=3, seed=7))
    scores = np.random.default_rng(0).random((5, 3))
    best = kseq.decoding.best_of(drawn, scores, n=2)
    assert best.images.shape == (5, 2, *SHAPE)
    rows = np.arange(5)
    assert (best.images[:, 0] == drawn.images[rows, scores.argmax(axis=1)]).all()
    assert (best.log_probs[:, 0] == drawn.log_probs[rows, scores.argmax(axis=1)]).all()


def test_image_tokens_are_the_codes_after_a_start_token():
    model = make_model()
    tokens = model.image_tokens(PICTURES)
    assert (tokens[:, 0] == 2).all()
    assert (tokens[:, 1:] - 4 == model.tokenizer.encode(PICTURES)).all()


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("form", FORMS)
def test_training_does_not_change_the_tokenizer(form):
    model = make_model(form)
    before = [array(weight) for weight in model.tokenizer.weights]
    model.compile(keras.optimizers.Adam(1e-2), kseq.training.SequenceCrossentropy())
    history = model.fit(batches(model), epochs=12, verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert_close([array(weight) for weight in model.tokenizer.weights], before)


def test_the_loss_of_one_stream_includes_the_caption_tokens():
    model = make_model("one stream", text_weight=0.25)
    model.compile("sgd", kseq.training.SequenceCrossentropy())
    data = kseq.training.teacher_forcing(
        CAPTIONS, model.image_tokens(PICTURES), 5, shuffle=False, length_multiple=1
    )
    loss = model.evaluate(data, verbose=0)
    inputs, labels = data[0]
    logits = array(model(inputs)).astype("float64")

    def crossentropy(logits, labels):
        chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        return np.log(np.exp(logits).sum(axis=-1)) - chosen

    picture = crossentropy(logits, labels).mean()
    embedded = model.source(inputs["source"])
    _, read = model.decoder(
        model.target(inputs["target"]), embedded, return_prefix=True
    )
    [head] = [x for x in model.layers if x.name == "caption_loss"]
    words = crossentropy(array(head.head(read[:, :-1])), inputs["source"][:, 1:])
    words = words[inputs["source"][:, 1:] != 0].mean()
    assert_close(loss, picture + 0.25 * words, rtol=1e-4)


def test_captions_in_one_stream_do_not_attend_to_later_tokens():
    model = make_model("one stream")
    ids = np.array([[4, 5, 6, 7], [4, 5, 8, 9]])
    _, read = model.decoder(
        model.target(np.full((2, 1), 2)), model.source(ids), return_prefix=True
    )
    read = array(read)
    assert_close(read[0, :2], read[1, :2])
    assert abs(read[0, 2] - read[1, 2]).max() > 1e-3


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("form", FORMS)
def test_saved_models_and_clones_draw_the_same(form, tmp_path):
    model = make_model(form, caption_dropout=0.2)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    search = GreedySearch(guidance=2.0)
    expected = model.draw(CAPTIONS, search)
    for copy in (keras.saving.load_model(tmp_path / "model.keras"), clone):
        assert type(copy) is type(model)
        drawn = copy.draw(CAPTIONS, search)
        assert (drawn.ids == expected.ids).all()
        assert_close(drawn.images, expected.images)
        assert not copy.tokenizer.trainable_weights
        assert copy.text_weight == model.text_weight


@pytest.mark.thorough
def test_a_trained_tokenizer_is_copied(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.compile("adam", "mse")
    tokenizer.fit(PICTURES, PICTURES, verbose=0)
    model = kseq.text_to_image(11, tokenizer, width=8)
    ids = tokenizer.encode(PICTURES)
    assert (model.tokenizer.encode(PICTURES) == ids).all()
    assert tokenizer.trainable_weights and not model.tokenizer.trainable_weights
    tokenizer.fit(PICTURES, PICTURES, verbose=0)
    assert (model.tokenizer.encode(PICTURES) == ids).all()
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert (copy.tokenizer.encode(PICTURES) == ids).all()


def test_streaming_gives_the_tokens_of_generate():
    model = make_model()
    tokens = np.stack(list(model.generate_stream(CAPTIONS)), axis=-1)
    assert (tokens == model.generate(CAPTIONS).token_ids[:, 0]).all()


def test_attention_covers_the_caption_tokens():
    drawn = make_model().draw(CAPTIONS, return_attention_scores=True)
    assert drawn.attention.shape[:2] == (5, 1)
    assert drawn.attention.shape[-2:] == (POSITIONS, 4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: kseq.text_to_image(11, "vq.keras"), "kseq.image_tokenizer.*vq.keras"),
        (
            lambda: make_model("one stream", decoder="gru"),
            "causal prefix.*encoder=None.*causal_prefix=False",
        ),
        (lambda: make_model(caption_dropout=1.5), "`caption_dropout` must be"),
        (
            lambda: make_model("one stream", text_weight=-1),
            "`text_weight` must be a non-negative number",
        ),
        (lambda: kseq.text_to_image(11, make_tokenizer(), width=7), "`width`.*size 7"),
        (
            lambda: make_model().generate(CAPTIONS, max_length=5),
            "always has 6 tokens.*=5",
        ),
        (lambda: make_model().image_tokens(PICTURES * 255), "from 0 to 1"),
    ],
)
def test_rejects_invalid_arguments(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


def test_rejects_an_encoder_beside_a_one_stream_decoder():
    decoder = TransformerDecoder(1, 2, cross_attention=False, causal_prefix=True)
    with pytest.raises(ValueError, match="Use `encoder=None`"):
        kseq.text_to_image(11, make_tokenizer(), decoder=decoder, width=8)
