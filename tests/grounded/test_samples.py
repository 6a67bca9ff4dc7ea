import json

import numpy as np
import pytest
import torch
from PIL import Image

from xpath.errors import DataError
from xpath.grounded.losses import IGNORED
from xpath.grounded.samples import GroundedSamples, SampleConfig, batches, collate, schedule
from xpath.grounded.tasks import TASKS, Annotation, phrase_of, read_reports

from .conftest import tiny_config


@pytest.fixture
def annotation(tmp_path, image):
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[30:70, 40:80] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    phrases = ("Tissue-level tumor in breast pathology.",)
    return Annotation(
        tmp_path / "a.png", tmp_path / "a_mask.png", phrases, "breast", "dark cells", "a disc"
    )


def samples_of(tokenizer, shown, **config):
    config = SampleConfig(max_tiles=4, repeat=False, **config)
    return GroundedSamples(shown, tiny_config(tokenizer.size), tokenizer, config)


ANSWERS = {
    "disease": (
        "It is [SEG]. tissue-level tumor in breast pathology.",
        "[SEG]. tissue-level tumor",
    ),
    "region": ("tissue-level tumor in breast pathology",),
    "region-report": ("a disc",),
    "anatomy": ("<p> Tissue-level tumor in breast pathology.. </p> [SEG]",),
    "report": ("<p> Tissue-level tumor in breast pathology.. dark cells </p> [SEG]",),
    "segment": ("Sure, it is [SEG].", "It is [SEG].", "Sure, [SEG].", "Sure, the", "[SEG]."),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_asks_and_answers(tokenizer, annotation, task):
    samples = samples_of(tokenizer, [(task, annotation)])
    seen = set()
    for number in range(12):
        sample = samples[number]
        answer = tokenizer.text(sample.answer.tolist())
        question = tokenizer.text(sample.prompt.tolist())
        assert answer.startswith(ANSWERS[task])
        assert answer.endswith("<|end|>")
        assert question.endswith("<|end|><|assistant|>\n")
        assert "</img>\n" in question
        tiles = 1 if TASKS[task].boxed else 3  # 140 x 100 is nearest to 3 x 2, or 1 x 1 and 2 x 1
        assert sample.prompt.tolist().count(tokenizer.context) == 4 * len(sample.pixels.tiles)
        assert (len(sample.pixels.tiles) == 1) == (tiles == 1)
        assert len(sample.masks) == answer.count("[SEG]")
        seen.add(answer)
    assert len(seen) == {"segment": 5, "disease": 2}.get(task, 1)


def test_masks_are_at_the_size_at_which_they_are_drawn(tokenizer, annotation):
    [mask] = samples_of(tokenizer, [("segment", annotation)])[0].masks

    wanted = torch.zeros(16, 16, dtype=torch.uint8)
    wanted[5:12, 5:10] = 1  # rows 31.25, 37.5 ... of 100; columns 43.75, 52.5 ... of 140
    assert torch.equal(mask, wanted)


def test_nothing_found_is_an_empty_mask(tokenizer, annotation):
    nothing = annotation._replace(mask=None, phrases=("no findings",))

    sample = samples_of(tokenizer, [("report", nothing)])[0]

    assert sample.masks.shape == (1, 16, 16)
    assert not sample.masks.any()


def test_a_region_is_boxed_and_an_empty_one_refused(tokenizer, annotation, tmp_path):
    boxed = samples_of(tokenizer, [("region", annotation)])[0]
    plain = samples_of(tokenizer, [("segment", annotation)])[0]
    assert not torch.equal(boxed.pixels.square, plain.pixels.square)

    Image.new("L", (140, 100)).save(tmp_path / "a_mask.png")
    with pytest.raises(DataError, match=r"a_mask\.png is empty"):
        samples_of(tokenizer, [("region", annotation)])[0]


def asked(samples, numbers):
    """Ends of the prompts, which differ from task to task."""
    return tuple(str(samples[k].prompt.tolist()[-150:]) for k in numbers)


def test_sample_k_is_a_function_of_k_and_seed(tokenizer, annotation):
    shown = [(task, annotation) for task in TASKS]
    samples, again = samples_of(tokenizer, shown), samples_of(tokenizer, shown)
    late = again[17]

    assert torch.equal(samples[17].prompt, late.prompt)
    assert len(set(asked(samples, range(6)))) == 6  # every task once
    shuffled = [asked(samples, range(6 * epoch, 6 * epoch + 6)) for epoch in range(4)]
    assert len(set(shuffled)) > 1
    other = samples_of(tokenizer, shown, seed=1)
    assert [asked(other, range(6 * epoch, 6 * epoch + 6)) for epoch in range(4)] != shuffled


def test_small_data_sets_are_repeated(annotation):
    data = {"segment": [annotation] * 3, "region": [annotation] * 2}

    shown = schedule([data], SampleConfig())

    tasks = [task for task, _ in shown]
    assert (tasks.count("segment"), tasks.count("region")) == (3 * 1666, 2 * 1500)
    assert len(schedule([data], SampleConfig(repeat=False))) == 5


def test_annotations_that_tell_too_little_are_not_asked(annotation):
    silent = annotation._replace(report="", anatomy="", caption="", mask=None)
    data = {task: [silent] for task in TASKS}

    with pytest.raises(DataError, match="no annotation that fits"):
        schedule([data], SampleConfig())
    rest = schedule([data, {"region": [annotation]}], SampleConfig(repeat=False))
    assert rest == [("region", annotation)]


def test_batches_are_padded_on_the_right(tokenizer, annotation):
    samples = samples_of(tokenizer, [("segment", annotation), ("region", annotation)])

    batch = collate([samples[0], samples[1]], pad=tokenizer.pad)

    for row, sample in enumerate((samples[0], samples[1])):
        prompt, answer = len(sample.prompt), len(sample.answer)
        assert batch.ids[row, :prompt].tolist() == sample.prompt.tolist()
        assert (batch.labels[row, :prompt] == IGNORED).all()
        labels = batch.labels[row, prompt : prompt + answer]
        assert labels.tolist() == sample.answer.tolist()
        assert torch.equal(labels, batch.ids[row, prompt : prompt + answer])
        assert (batch.ids[row, prompt + answer :] == tokenizer.pad).all()
        assert (batch.labels[row, prompt + answer :] == IGNORED).all()
    assert batch.masks.shape == (1, 16, 16)
    assert len(batch.squares) == 2


def test_steps_see_samples_in_turn(tokenizer, annotation):
    samples = samples_of(tokenizer, [("segment", annotation)] * 3)

    options = {"size": 1, "accumulate": 2, "pad": tokenizer.pad}
    [_, second] = batches(samples, range(2), **options)
    [again] = batches(samples, range(1, 2), workers=1, **options)

    assert all(torch.equal(a, b) for a, b in zip(second[1], again[1], strict=True))
    assert second[1].ids[0].tolist() == torch.cat((samples[3].prompt, samples[3].answer)).tolist()


def test_reports_are_read(tmp_path):
    path = tmp_path / "reports.json"
    for name in "abcm":
        (tmp_path / f"{name}.png").touch()
    rows = [
        {"image_file": "a.png", "mask_file": "m.png", "abnormality": "Tumor.", "anatomy": "Liver"},
        {"image_file": "b.png", "abnormality": "No findings", "report": "Normal Liver."},
        {"image_file": "c.png", "mask_file": "m.png", "caption": "Dark cells"},
    ]
    path.write_text(json.dumps(rows))

    first, second, third = read_reports(path)

    assert first == Annotation(tmp_path / "a.png", tmp_path / "m.png", ("tumor",), anatomy="liver")
    assert (second.mask, second.phrases, second.report) == (None, ("no findings",), "normal liver.")
    assert (third.phrases, third.caption) == ((), "dark cells")
    path.write_text(json.dumps([rows[0], {"image_file": "a.png"}]))
    with pytest.raises(DataError, match=r"entry 1 of .*mask_file"):
        read_reports(path)
    rows[2]["image_file"] = "gone.png"
    path.write_text(json.dumps([rows[2], 3, rows[0]]))
    errors = []
    assert read_reports(path, on_error=errors.append) == [first]
    assert "gone.png" in str(errors[0])
    assert "entry 1" in str(errors[1])
    path.write_text("{}")
    with pytest.raises(DataError, match="holds a dict"):
        read_reports(path)


def test_phrases_lose_their_full_stop():
    assert phrase_of(" Tumor in Breast. ") == "tumor in breast"
