"""The interpreter on tiny random weights: what must hold whatever the weights are."""

import numpy as np
import pytest
import torch

from xpath.errors import ConfigError, DataError
from xpath.grounded import prompts
from xpath.grounded.boxes import draw_box
from xpath.grounded.embedding import repeated
from xpath.grounded.inference import InterpreterConfig
from xpath.grounded.interpreter import GroundedInterpreter
from xpath.grounded.model import enlarge
from xpath.grounded.tiles import pixels_of

PHRASES = ["tumor in breast pathology", "gland", "a much longer phrase about necrosis in the colon"]


@pytest.fixture(scope="module")
def embedding(interpreter, image):
    return interpreter.encode(image)


def whole_pass(interpreter, image, text):
    """Slow reference: no cache, one sequence, everything in one call."""
    model, tokenizer = interpreter.model, interpreter.tokenizer
    pixels = pixels_of(image, model.config, max_tiles=interpreter.config.max_tiles)
    count = len(pixels.tiles) * model.config.vision.tokens
    ids = torch.tensor([tokenizer.ids(prompts.EVALUATION.before(count) + text)])
    with torch.no_grad():
        embeds = model.embed(ids, model.image_tokens(pixels.tiles))
        states = model.states(embeds).last_hidden_state[0]
        where = (ids[0] == tokenizer.seg).nonzero()[:, 0]
        drawn = model.draw(model.image_maps(pixels.square[None]), states[None, where])
        return enlarge(drawn.logits, image.shape[:2], model.config.grounding.image)[0].sigmoid()


def test_masks_equal_a_pass_without_cache_or_batch(interpreter, embedding, image):
    found = interpreter.masks(embedding, PHRASES, probability=True)

    for column, phrase in enumerate(PHRASES):
        text = prompts.EVALUATION.after(f"Please segment {phrase}.") + "Sure, it is [SEG]"
        wanted = whole_pass(interpreter, image, text)[0]
        np.testing.assert_allclose(found.probability[0, column], wanted, atol=1e-5)
    assert np.array_equal(found.masks, found.probability > 0.5)
    apart = np.abs(found.probability[0, 0] - found.probability[0, 1]).max()
    assert apart > 1e-3, "different words must give different masks, or this test sees nothing"


def test_prompts_are_independent_of_each_other_and_of_the_chunk(interpreter, embedding):
    together = interpreter.masks(embedding, PHRASES, probability=True)

    for chunk in (1, 2):
        again = interpreter.masks(embedding, PHRASES, probability=True, chunk=chunk)
        np.testing.assert_allclose(again.probability, together.probability, atol=1e-5)
    turned = interpreter.masks(embedding, PHRASES[::-1], probability=True)
    np.testing.assert_allclose(turned.probability[:, ::-1], together.probability, atol=1e-5)


def test_the_wording_of_a_prompt_is_normalised(interpreter, embedding):
    plain = interpreter.masks(embedding, ["gland"], probability=True)

    dressed = interpreter.masks(embedding, [" Gland. "], probability=True)

    assert np.array_equal(plain.probability, dressed.probability)


def test_images_of_a_batch_are_independent(interpreter, embedding, image):
    both = interpreter.encode(np.stack((image[::-1], image)))

    found = interpreter.masks(both, PHRASES[:1], probability=True)

    alone = interpreter.masks(embedding, PHRASES[:1], probability=True)
    assert found.masks.shape == (2, 1, 100, 140)
    np.testing.assert_allclose(found.probability[1:], alone.probability, atol=1e-5)
    assert np.abs(found.probability[0] - found.probability[1]).max() > 1e-3


def test_asking_leaves_the_embedding_as_it_was(interpreter, image):
    embedding = interpreter.encode(image)
    first = interpreter.masks(embedding, PHRASES)
    answer = interpreter.answer(embedding, "Is there a tumor?")

    assert np.array_equal(interpreter.masks(embedding, PHRASES).masks, first.masks)
    assert interpreter.answer(embedding, "Is there a tumor?").text == answer.text


def test_statistics_of_masks(interpreter, embedding):
    found = interpreter.masks(embedding, PHRASES, probability=True, threshold=0.3)

    values, inside = found.probability[0, 0], found.probability[0, 0] > 0.3
    assert found.presence[0, 0] == pytest.approx(values[inside].mean() if inside.any() else 0)
    assert found.peak[0, 0] == values.max()
    assert np.array_equal(found.present, found.masks.any(axis=(2, 3)))


def test_a_judge_decides_what_is_present(interpreter, embedding):
    def judge(found, asked):
        return np.array([["breast" in prompt for prompt in asked]])

    judged = GroundedInterpreter(
        interpreter.model, interpreter.tokenizer, interpreter.info, judge=judge
    )

    found = judged.masks(embedding, PHRASES, threshold=0.01)
    assert found.masks.any(axis=(2, 3)).all()
    assert found.present.tolist() == [[True, False, False]]


def test_an_answer_is_what_greedy_decoding_without_cache_gives(interpreter, embedding, image):
    """Slow reference: the whole sequence again for every token."""
    answer = interpreter.answer(embedding, "What is it?")

    model, tokenizer = interpreter.model, interpreter.tokenizer
    text = prompts.EVALUATION.after("What is it?")
    prefix = embedding.items[0].prefix
    ids = list[int]()
    with torch.no_grad():
        while len(ids) < interpreter.config.max_tokens:
            tail = model.embed(torch.tensor([tokenizer.ids(text) + ids]))
            states = model.states(torch.cat((prefix, tail), dim=1)).last_hidden_state
            ids.append(int(model.internvl.lm_head(states[0, -1]).argmax()))
            if ids[-1] == tokenizer.stop or tokenizer.text(ids).endswith(prompts.END):
                break
    assert answer.text == tokenizer.text(ids).partition(prompts.END)[0].strip()
    assert not answer.complete
    assert "[cut off]" in str(answer)


def test_one_pass_equals_generation(interpreter, image, monkeypatch):
    """The state of ``[SEG]`` is the same whether the answer is written or known."""
    embedding = interpreter.encode(image)
    known = interpreter.masks(embedding, ["gland"], probability=True)
    ids = torch.tensor(interpreter.tokenizer.ids("Sure, it is [SEG].<|end|>"))
    monkeypatch.setattr(interpreter._run, "generated", lambda *_: ids)

    answer = interpreter.answer(embedding, prompts.segment_question("gland"))

    assert (answer.text, answer.complete) == ("Sure, it is [SEG].", True)
    differing = np.count_nonzero(answer.masks[0] != known.masks[0, 0])
    assert differing <= 1
    assert answer.presence[0] == pytest.approx(known.presence[0, 0], abs=1e-5)


def test_a_mark_at_the_very_end_has_no_mask(interpreter, image, monkeypatch):
    embedding = interpreter.encode(image)
    ids = torch.tensor(interpreter.tokenizer.ids("<p> gland </p> [SEG] <p> fat </p> [SEG]"))
    monkeypatch.setattr(interpreter._run, "generated", lambda *_: ids)

    answer = interpreter.answer(embedding, prompts.REPORT)

    assert [(span.phrase, span.mask) for span in answer.spans] == [("gland", 0), ("fat", None)]
    assert answer.masks.shape == (1, 100, 140)
    wanted = whole_pass(
        interpreter, image, prompts.EVALUATION.after(prompts.REPORT) + "<p> gland </p> [SEG]"
    )
    assert np.count_nonzero(answer.masks[0] != (wanted[0] > 0.5).numpy()) <= 1


def test_a_region_is_asked_for_by_a_box_on_the_image(interpreter, embedding, image):
    [answer] = interpreter.regions(embedding, [(10, 20, 30, 40)])

    drawn = interpreter.encode(draw_box(image, (10, 20, 30, 40)))
    assert answer.text == interpreter.answer(drawn, prompts.REGION).text
    assert answer.question == prompts.REGION


def test_words_without_an_image(interpreter):
    answer = interpreter.answer(None, "Hello.")

    assert answer.masks.shape == (0, 0, 0)


def test_regions_of_interest_become_tokens_of_the_last_tile(interpreter, embedding, image):
    regions = np.zeros((2, 100, 140), bool)
    regions[0, :50, :70] = regions[1, 50:] = True

    answer = interpreter.answer(embedding, "\nCompare region1 and region2.", regions=regions)

    assert answer.question.startswith("\nCompare")
    text = prompts.visual_prompt(np.array([[[1, 0], [0, 0]], [[0, 0], [1, 1]]], bool))
    assert text == (
        "\nThere are 2 part regions in the picture: region1<vp><IMG_CONTEXT></vp>,"
        " region2<vp><IMG_CONTEXT><IMG_CONTEXT></vp>.\n"
    )
    grid = torch.tensor([[[True, False], [False, False]], [[False, False], [True, True]]])
    tail = interpreter._run.embed(embedding.items[0], text, grid)
    ids = torch.tensor(interpreter.tokenizer.ids(text))
    put = tail[0, ids == interpreter.tokenizer.context]
    assert torch.equal(put, embedding.items[0].prefix[0, -5:-1][[0, 2, 3]])


def test_a_repeated_cache_is_a_copy(embedding):
    cache = embedding.items[0].cache
    copy = repeated(cache, 3)

    (keys, *_), (again, *_) = next(iter(cache)), next(iter(copy))
    assert again.shape == (3, *keys.shape[1:])
    assert again.data_ptr() != keys.data_ptr()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("gland", "list of phrases"),
        ([""], "at least one word"),
        ([3], "at least one word"),
        (["gland [SEG]"], r"must not hold \[SEG\]"),
        (["<image>gland"], "must not hold <image>"),
        (["gland<|end|>"], r"must not hold <\|end\|>"),
    ],
)
def test_prompts_that_cannot_be_asked(interpreter, embedding, asked, words):
    with pytest.raises(DataError, match=words):
        interpreter.masks(embedding, asked)


def test_other_refusals(interpreter, embedding, image):
    pair = interpreter.encode(np.stack((image, image)))
    with pytest.raises(DataError, match="pass encode"):
        interpreter.masks(image, ["gland"])
    with pytest.raises(DataError, match="pass encode"):
        interpreter.answer(image, "What?")
    with pytest.raises(DataError, match="one image, got 2"):
        interpreter.answer(pair, "What?")
    with pytest.raises(DataError, match="within the image of 140 x 100"):
        interpreter.regions(embedding, [(100, 50, 50, 10)])
    with pytest.raises(DataError, match="must hold an image token"):
        interpreter.answer(embedding, "What?", regions=np.zeros((1, 100, 140), bool))
    with pytest.raises(DataError, match="there is none"):
        interpreter.answer(None, "What?", regions=np.ones((1, 100, 140), bool))
    with pytest.raises(ConfigError, match="max_tiles"):
        interpreter.regions(embedding, [(0, 0, 5, 5)], max_tiles=0)
    with pytest.raises(DataError, match="uint8"):
        interpreter.encode(image / 255)
    with pytest.raises(ConfigError, match="threshold"):
        interpreter.masks(embedding, ["gland"], threshold=1.0)
    with pytest.raises(ConfigError, match="chunk"):
        interpreter.masks(embedding, ["gland"], chunk=0)
    with pytest.raises(ConfigError, match="precision"):
        InterpreterConfig(precision="fp16")
    with pytest.raises(ConfigError, match="max_tiles"):
        InterpreterConfig(max_tiles=0)


def test_no_prompts_no_masks(interpreter, embedding):
    assert interpreter.masks(embedding, []).masks.shape == (1, 0, 100, 140)


def test_bf16_is_near_fp32(interpreter, embedding, image):
    half = GroundedInterpreter(
        interpreter.model,
        interpreter.tokenizer,
        interpreter.info,
        config=InterpreterConfig(precision="bf16", max_tiles=4),
    )

    found = half.masks(half.encode(image), PHRASES, probability=True)

    wanted = interpreter.masks(embedding, PHRASES, probability=True)
    assert np.abs(found.probability - wanted.probability).mean() < 0.05
