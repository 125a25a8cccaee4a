"""Text to image: what is drawn is made of codes, one for each place.

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
PLACES, CODES = 6, 12
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


def make(form="encoder", **options):
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
def test_a_picture_is_made_of_codes_alone(form, search):
    model = make(form)
    result = model.generate(CAPTIONS, search)
    assert result.token_ids.shape[2] == PLACES and (result.lengths == PLACES).all()
    assert result.token_ids.min() >= 4
    assert_close(model.score(CAPTIONS, result), result.log_probs, atol=1e-4)
    probabilities = np.exp(model.score([CAPTIONS[0]] * CODES, first_tokens()))
    assert_close(probabilities.sum(), 1.0)


def first_tokens():
    return [[4 + code] for code in range(CODES)]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("form", FORMS)
def test_drawings_are_the_decoded_codes(form):
    model = make(form)
    drawn = model.draw(CAPTIONS, Sampling(num_draws=2, seed=3), batch_size=2)
    assert drawn.images.shape == (5, 2, *SHAPE) and drawn.ids.shape == (5, 2, PLACES)
    assert_close(drawn.images, model.tokenizer.decode(drawn.ids))
    result = model.generate(CAPTIONS, Sampling(num_draws=2, seed=3))
    assert (drawn.ids == result.token_ids - 4).all()
    assert_close(drawn.log_probs, result.log_probs)


def test_a_seed_draws_the_same_for_any_size_of_batch():
    model = make()
    one, all_ = (
        model.draw(CAPTIONS, Sampling(seed=7, num_draws=3), batch_size=size)
        for size in (1, 5)
    )
    assert (one.ids == all_.ids).all()


def test_a_picture_is_completed():
    model = make()
    tokens = model.image_tokens(PICTURES)[:, 1:4]
    drawn = model.draw(CAPTIONS, prefix=tokens)
    assert (drawn.ids[:, 0, :3] == tokens - 4).all()


def test_the_best_of_drawings_is_what_somebody_scores_best():
    drawn = make().draw(CAPTIONS, Sampling(num_draws=3, seed=7))
    scores = np.random.default_rng(0).random((5, 3))
    best = kseq.decoding.best_of(drawn, scores, n=2)
    assert best.images.shape == (5, 2, *SHAPE)
    rows = np.arange(5)
    assert (best.images[:, 0] == drawn.images[rows, scores.argmax(axis=1)]).all()
    assert (best.log_probs[:, 0] == drawn.log_probs[rows, scores.argmax(axis=1)]).all()


def test_image_tokens_are_the_codes_behind_a_start():
    model = make()
    tokens = model.image_tokens(PICTURES)
    assert (tokens[:, 0] == 2).all()
    assert (tokens[:, 1:] - 4 == model.tokenizer.encode(PICTURES)).all()


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("form", FORMS)
def test_training_leaves_the_tokenizer_as_it_is(form):
    model = make(form)
    before = [array(weight) for weight in model.tokenizer.weights]
    model.compile(keras.optimizers.Adam(1e-2), kseq.training.SequenceCrossentropy())
    history = model.fit(batches(model), epochs=12, verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert_close([array(weight) for weight in model.tokenizer.weights], before)


def test_the_loss_of_one_stream_counts_the_words_of_captions():
    model = make("one stream", text_weight=0.25)
    model.compile("sgd", kseq.training.SequenceCrossentropy())
    data = kseq.training.teacher_forcing(
        CAPTIONS, model.image_tokens(PICTURES), 5, shuffle=False, length_multiple=1
    )
    loss = model.evaluate(data, verbose=0)
    inputs, labels = data[0]
    logits = array(model(inputs)).astype("float64")

    def nats(logits, labels):
        chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        return np.log(np.exp(logits).sum(axis=-1)) - chosen

    picture = nats(logits, labels).mean()
    embedded = model.source(inputs["source"])
    _, read = model.decoder(
        model.target(inputs["target"]), embedded, return_prefix=True
    )
    [head] = [x for x in model.layers if x.name == "caption_loss"]
    words = nats(array(head.head(read[:, :-1])), inputs["source"][:, 1:])
    words = words[inputs["source"][:, 1:] != 0].mean()
    assert_close(loss, picture + 0.25 * words, rtol=1e-4)


def test_a_caption_of_one_stream_sees_no_later_word():
    model = make("one stream")
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
    model = make(form, caption_dropout=0.2)
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
def test_a_tokenizer_that_has_been_trained_is_copied(tmp_path):
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


def test_a_stream_draws_place_by_place():
    model = make()
    tokens = np.stack(list(model.generate_stream(CAPTIONS)), axis=-1)
    assert (tokens == model.generate(CAPTIONS).token_ids[:, 0]).all()


def test_attention_is_over_the_words():
    drawn = make().draw(CAPTIONS, return_attention_scores=True)
    assert drawn.attention.shape[:2] == (5, 1)
    assert drawn.attention.shape[-2:] == (PLACES, 4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: kseq.text_to_image(11, "vq.keras"), "kseq.image_tokenizer.*vq.keras"),
        (
            lambda: make("one stream", decoder="gru"),
            "causal prefix.*encoder=None.*causal_prefix=False",
        ),
        (lambda: make(caption_dropout=1.5), "`caption_dropout` must be"),
        (
            lambda: make("one stream", text_weight=-1),
            "`text_weight` must be.*at least 0",
        ),
        (lambda: kseq.text_to_image(11, make_tokenizer(), width=7), "`width`.*size 7"),
        (lambda: make().generate(CAPTIONS, max_length=5), "6 tokens, always.*=5"),
        (lambda: make().image_tokens(PICTURES * 255), "from 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused_with_words(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


def test_the_decoder_of_one_stream_needs_no_encoder():
    decoder = TransformerDecoder(1, 2, cross_attention=False, causal_prefix=True)
    with pytest.raises(ValueError, match="Use `encoder=None`"):
        kseq.text_to_image(11, make_tokenizer(), decoder=decoder, width=8)
