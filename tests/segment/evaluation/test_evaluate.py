import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xpath.errors import ConfigError, DataError
from xpath.labels import Label, load_labels
from xpath.metrics.boxes import box_cost
from xpath.metrics.overlap import dice
from xpath.metrics.shape import shape_traits
from xpath.pathseg.biomedparse_data import PromptedMask
from xpath.protocols import Segmentation
from xpath.segment.evaluation.evaluate import Sample, ask, evaluate_segmentor
from xpath.segment.evaluation.mapping import nearest_label, nearest_to_words, read_ignore_values
from xpath.segment.evaluation.questions import EvaluationConfig, Question, questions_of, read_mask
from xpath.segment.evaluation.tables import (
    dice_by,
    examples,
    presence_table,
    prompt_cost,
    untrained_table,
    write_tables,
)
from xpath.segment.evaluation.trend_lines import bins_of, trends

LYMPHOCYTE = "nuclei-level lymphocyte in breast pathology."
TUMOR = "tissue-level tumor in breast pathology."
TRAINED = ("breast-nuclei-lymphocyte", "breast-tissue-tumor", "unspecified-nuclei-inflammatory")


class Reader:
    """Finds lymphocytes where red is bright and anything else where green is."""

    def __init__(self):
        self.encoded, self.asked, self.mpp = 0, [], []

    def encode(self, images, *, mpp=None):
        self.encoded += len(images)
        self.mpp.append(mpp)
        return images

    def masks(self, images, prompts):
        self.asked.append(tuple(prompts))
        planes = [images[..., 0 if "lymphocyte" in prompt else 1] > 128 for prompt in prompts]
        masks = np.stack(planes, axis=1)
        present = masks.any(axis=(2, 3))
        return Segmentation(masks, present.astype(np.float32), present.astype(np.float32), present)


def picture(path, size=(40, 50), red=np.s_[5:15, 5:15], green=np.s_[20:30, 20:40]):
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0][red] = 255
    pixels[..., 1][green] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def mask_of(path, *parts, size=(40, 50), value=255):
    mask = np.zeros(size, np.uint8)
    for part in parts:
        mask[part] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def item(image, mask, sentence, **more):
    label = next((known.id for known in load_labels() if known.prompt == sentence), None)
    return PromptedMask(**{
        "image": image,
        "mask": mask,
        "prompts": (sentence,),
        "label": label,
        "name": mask.stem,
        **more,
    })


@pytest.fixture
def items(tmp_path):
    """Two images: lymphocytes found in full and by half. Tumour found, and missed."""
    root = tmp_path / "hospital"
    one, two = picture(root / "test" / "a.png"), picture(root / "test" / "b.png")
    masks = root / "test_mask"
    return [
        item(one, mask_of(masks / "a_l.png", np.s_[5:15, 5:15]), LYMPHOCYTE),
        item(two, mask_of(masks / "b_l.png", np.s_[5:15, 10:20]), LYMPHOCYTE),
        item(one, mask_of(masks / "a_t.png", np.s_[20:30, 20:40]), TUMOR),
        item(two, mask_of(masks / "b_t.png", np.s_[0:2, 0:50]), TUMOR),
    ]


def evaluated(items, predictor=None, **settings):
    config = EvaluationConfig(trained=TRAINED, **settings)
    return evaluate_segmentor(predictor or Reader(), questions_of(items, config), config)


def scores(evaluation):
    return {(s.question.image.stem, s.question.name): s.dice for s in evaluation.samples}


def test_dice_by_hand_and_each_image_encoded_once(items):
    predictor, done = Reader(), []
    config = EvaluationConfig(trained=TRAINED, batch=1)

    found = evaluate_segmentor(
        predictor, questions_of(items, config), config, on_images=done.append
    )

    assert scores(found) == {
        ("a", "breast-nuclei-lymphocyte"): 1,
        ("b", "breast-nuclei-lymphocyte"): 0.5,
        ("a", "breast-tissue-tumor"): 1,
        ("b", "breast-tissue-tumor"): 0,
    }
    assert (predictor.encoded, sum(done)) == (2, 2)
    assert predictor.asked == [(LYMPHOCYTE, TUMOR)] * 2
    assert predictor.mpp == [None, None]
    assert {s.question.source for s in found.samples} == {"hospital"}


def test_batches_change_nothing_and_a_resolution_is_passed_on(items):
    predictor = Reader()

    known = [item._replace(mpp=0.5) for item in items]
    together = evaluated(known, predictor, batch=8)

    assert predictor.mpp == [0.5]
    assert scores(together) == scores(evaluated(items, batch=1))


def test_images_of_several_resolutions_are_each_asked_at_their_own(items):
    """Also where an absent object is asked for whose question was copied from another image."""
    mixed = [item._replace(mpp=0.25 if item.image.stem == "a" else 0.0625) for item in items[:3]]
    predictor = Reader()

    together = evaluated(mixed, predictor, batch=8, absent=True)

    assert predictor.mpp == [0.25, 0.0625]
    assert {(s.question.image.stem, s.question.mpp) for s in together.samples} == {
        ("a", 0.25),
        ("b", 0.0625),
    }


def test_images_of_any_size_are_not_mixed(items, tmp_path):
    small = picture(tmp_path / "hospital/test/c.png", (7, 5), np.s_[:], np.s_[:])
    mask = mask_of(tmp_path / "c.png", np.s_[:], size=(7, 5))

    found = evaluated([*items, item(small, mask, TUMOR)], batch=8)

    assert scores(found)["c", "breast-tissue-tumor"] == 1
    assert not found.problems


def test_other_scores_of_a_sample(items):
    half = next(s for s in evaluated(items).samples if s.dice == 0.5)

    assert half.iou == pytest.approx(1 / 3)
    assert half.hausdorff95 == 5
    assert half.present
    assert half.found
    assert half.presence == 1
    assert half.traits == shape_traits(np.asarray(Image.open(half.question.mask)) > 0)
    assert math.isnan(half.dice_nearest)


def test_tables_by_hand(items, tmp_path):
    evaluation = evaluated(items)

    write_tables(tmp_path / "out", evaluation)

    with (tmp_path / "out" / "dice_by_label.csv").open() as file:
        rows = list(csv.DictReader(file))
    middle = ["median", "q1", "q3", "median_assd"]
    assert list(rows[0]) == ["label", "n", "dice", "ci_low", "ci_high", *middle]
    assert [(r["label"], r["n"], r["dice"]) for r in rows] == [
        ("breast-nuclei-lymphocyte", "2", "0.75"),
        ("breast-tissue-tumor", "2", "0.5"),
        ("overall", "4", "0.625"),
    ]
    assert (rows[0]["ci_low"], rows[0]["ci_high"]) == ("0.5", "1.0")
    structures = {row["structure"]: row["dice"] for row in dice_by(evaluation.samples, "structure")}
    assert structures == {"nuclei": 0.75, "tissue": 0.5, "overall": 0.625}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"samples.csv", "trends.csv", "presence.csv", "prompt_cost.csv"} <= names


def test_patients_are_drawn_whole(items):
    config = EvaluationConfig(trained=TRAINED)
    questions = questions_of(items, config, groups={"a": "p", "b.png": "p"})

    found = evaluate_segmentor(Reader(), questions, config)

    assert {s.question.group for s in found.samples} == {"p"}
    overall = dice_by(found.samples, "label")[-1]
    assert (overall["label"], overall["n"], overall["dice"]) == ("overall", 4, 0.625)
    assert math.isnan(overall["ci_low"]) and math.isnan(overall["ci_high"])  # one patient only


def test_a_label_never_taught_is_asked_as_it_is_and_as_the_nearest(items):
    asked = "nuclei-level inflammatory in colon pathology."
    spoken = items[2]._replace(prompts=(asked,), label="colon-nuclei-inflammatory")
    predictor = Reader()

    found = evaluated([spoken], predictor)

    assert predictor.asked == [(asked, "nuclei-level inflammatory in unspecified pathology.")]
    (row,) = untrained_table(found.samples)
    assert row["label"] == "colon-nuclei-inflammatory"
    assert row["nearest"] == "unspecified-nuclei-inflammatory"
    assert (row["n"], row["dice"], row["dice_nearest"]) == (1, 1, 1)
    assert dice_by(found.samples, "label")[0]["label"] == "colon-nuclei-inflammatory"
    assert untrained_table(evaluated(items).samples) == []


def test_words_without_template_are_asked_as_they_are(items):
    spoken = items[2]._replace(prompts=("pink stuff, wavy",), label=None)
    predictor = Reader()

    found = evaluated([spoken], predictor)

    assert predictor.asked == [("pink stuff, wavy",)]
    assert dice_by(found.samples, "label")[0]["label"] == "pink stuff, wavy"
    assert dice_by(found.samples, "region")[0]["region"] == "(no label)"


def test_a_mapped_label_is_asked_in_the_papers_words(items):
    spoken = items[2]._replace(prompts=("malignancy",), label="breast-tissue-tumor")

    (question,) = next(iter(questions_of([spoken], EvaluationConfig()).values()))

    assert (question.prompt, question.trained, question.nearest) == (TUMOR, True, None)


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("colon-nuclei-lymphocyte", "breast-nuclei-lymphocyte"),
        ("colon-cell-inflammatory", "breast-cell-inflammatory"),  # structure before region
        ("colon-tissue-inflammatory", "colon-nuclei-inflammatory"),  # then the region
        ("lung-nuclei-inflammatory", "unspecified-nuclei-inflammatory"),
        ("lung-cell-gland", "colon-tissue-gland"),  # the object type alone
        ("colon-nuclei-malignant epithelial", "breast-nuclei-neoplastic"),  # another name
        ("breast-tissue-cancerous", None),  # tissue is no nucleus
        ("colon-nuclei-muscle", None),
    ],
)
def test_the_nearest_trained_label(label, wanted):
    trained = (
        "breast-cell-inflammatory", "colon-nuclei-inflammatory", "unspecified-nuclei-inflammatory",
        "colon-tissue-gland",
        "breast-nuclei-lymphocyte", "breast-nuclei-neoplastic",
    )  # fmt: skip
    found = nearest_label(Label(*label.split("-", 2)), trained)

    assert (found.id if found else None) == wanted


def test_free_words_may_have_a_nearest_label():
    trained = ("breast-nuclei-neoplastic",)

    assert nearest_to_words("neoplastic cells in breast pathology", trained).id == trained[0]
    assert nearest_to_words("pink stuff", trained) is None


def test_absent_labels_are_judged_by_refusal(items, tmp_path):
    """The fourth image is blank: no label is in it, and none is found."""
    blank = picture(tmp_path / "hospital/test/d.png", red=np.s_[:0], green=np.s_[0:3])
    truth = mask_of(tmp_path / "d.png", np.s_[0:3])
    empty = item(items[0].image, mask_of(tmp_path / "none.png"), TUMOR)

    found = evaluated([items[0], empty, item(blank, truth, TUMOR)], absent=True)

    rows = {row["label"]: row for row in presence_table(found.samples)}
    assert rows["breast-nuclei-lymphocyte"] == {
        "label": "breast-nuclei-lymphocyte", "present": 1, "absent": 1, "precision": 1,
        "recall": 1, "absent_precision": 1, "absent_recall": 1,
    }  # fmt: skip
    assert rows["breast-tissue-tumor"]["absent_recall"] == 0  # green is in the first image
    assert rows["overall"]["absent"] == 2
    assert dice_by(found.samples, "label")[-1]["n"] == 2  # absent ones have no Dice


def test_a_predictor_may_refuse_in_spite_of_its_mask(items):
    class Doubtful(Reader):
        def masks(self, images, prompts):
            found = super().masks(images, prompts)
            lymphocyte = np.array(["lymphocyte" in prompt for prompt in prompts])
            return found._replace(present=found.present & ~lymphocyte)

    trusting, doubtful = (evaluated(items, reader).samples for reader in (Reader(), Doubtful()))

    for one, two in zip(trusting, doubtful, strict=True):
        assert one.found
        assert two.found == ("lymphocyte" not in two.question.prompt)
        assert one.dice == two.dice


def test_labels_the_data_call_absent_are_asked_once(items):
    both = [entry._replace(absent=("breast-tissue-fat",)) for entry in items[::2]]

    found = evaluated(both)

    fat = [s for s in found.samples if s.question.name == "breast-tissue-fat"]
    assert [(s.present, s.question.mask) for s in fat] == [(False, None)]


def test_unknown_pixels_do_not_count(items, tmp_path):
    """Half of the answer lies where nothing is known."""
    path = mask_of(tmp_path / "m.png", np.s_[5:15, 5:10])
    dark = mask_of(tmp_path / "u.png", np.s_[5:15, 10:15])
    plain = items[0]._replace(mask=path)
    second = plain._replace(ignore=dark)
    both = np.zeros((40, 50), np.uint8)
    both[5:15, 5:10], both[5:15, 10:15] = 1, 255
    Image.fromarray(both).save(tmp_path / "b.png")
    valued = plain._replace(mask=tmp_path / "b.png")

    assert next(iter(scores(evaluated([plain])).values())) == pytest.approx(2 / 3)
    assert next(iter(scores(evaluated([second])).values())) == 1
    assert next(iter(scores(evaluated([valued])).values())) == 1  # 255 is the object as well
    mask, unknown = read_mask(valued.mask, ignore=255)
    assert (mask.sum(), unknown.sum()) == (50, 50)

    config = EvaluationConfig()
    questions = questions_of([valued], config, ignore={valued.label: 255})
    assert questions[valued.image][0].ignore == 255
    assert evaluate_segmentor(Reader(), questions, config).samples[0].dice == 1


def test_ignore_values_of_a_mapping(tmp_path):
    table = tmp_path / "words.csv"
    table.write_text("sentence,label,ignore\nTum,breast-tissue-tumor,255\nfat,breast-tissue-fat,\n")
    assert read_ignore_values(table) == {"breast-tissue-tumor": 255}
    table.write_text(
        "sentence;label;ignore\nTum;breast-tissue-tumor;255.0\nfat;breast-tissue-fat;NA"
    )
    assert read_ignore_values(table) == {"breast-tissue-tumor": 255}
    table.write_text("sentence,label\nTum,breast-tissue-tumor\n")
    assert read_ignore_values(table) == {}
    table.write_text("sentence,label,ignore\nTum,breast-tissue-tumor,white\n")
    with pytest.raises(DataError, match=r"words\.csv.*white"):
        read_ignore_values(table)


def test_what_is_broken_is_named_and_the_rest_goes_on(items, tmp_path):
    good = items[0]
    small = items[1]._replace(mask=mask_of(tmp_path / "small.png", size=(20, 50)))
    gone = items[2]._replace(mask=tmp_path / "gone.png")
    cut = picture(tmp_path / "hospital/test/cut.png")
    cut.write_bytes(cut.read_bytes()[:60])
    lost = item(cut, good.mask, TUMOR)

    found = evaluated([good, small, gone, lost])

    assert [s.question for s in found.samples] == [
        next(iter(questions_of([good], EvaluationConfig(trained=TRAINED)).values()))[0]
    ]
    whats = {problem.path.name: problem.what for problem in found.problems}
    assert set(whats) == {"small.png", "gone.png", "cut.png"}
    assert "50 x 20 px" in whats["small.png"]
    assert "write the mask at the size of the image" in whats["small.png"]
    assert "does not exist" in whats["gone.png"]
    assert "truncated" in whats["cut.png"]


def test_a_predictor_that_refuses_is_a_problem_of_the_image(items):
    class Refusing(Reader):
        def masks(self, images, prompts):
            found = super().masks(images, prompts)
            return found._replace(masks=found.masks[..., :-1])

    found = evaluated(items, Refusing(), batch=1)

    assert not found.samples
    assert [problem.path.name for problem in found.problems] == ["a.png", "b.png"]


def test_large_images_are_asked_window_by_window():
    image = np.zeros((1, 1600, 40, 3), np.uint8)
    image[:, 700:900, :, 0] = 255
    predictor = Reader()

    found = ask(predictor, image, [LYMPHOCYTE])

    assert predictor.encoded == 2
    assert np.array_equal(found.masks[0, 0], image[0, ..., 0] > 128)
    assert found.presence.tolist() == [[1.0]]
    assert found.present.tolist() == [[True]]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="batch"):
        EvaluationConfig(batch=0)


def sample(score, mask, *, name="breast-nuclei-lymphocyte", image="a.png"):
    label = Label(*name.split("-", 2))
    question = Question(
        image=SimpleNamespace(name=image),
        mask=None, source="s", group=image, prompt=label.prompt, label=label, nearest=None,
        trained=True,
    )  # fmt: skip
    there = bool(mask.any())
    return Sample(
        question, there, True, score, score, 0.0, 1.0, 1.0, math.nan,
        shape_traits(mask), box_cost(mask),
    )  # fmt: skip


def dots(number):
    mask = np.zeros((100, 100), bool)
    for tile in range(number):
        row, column = divmod(tile, 10)
        mask[10 * row : 10 * row + 6, 10 * column : 10 * column + 6] = True
    return mask


def test_trends_by_hand():
    """Dice falls with the count: 1, 2, 3 and 12 dots."""
    found = trends([sample(1 - n / 20, dots(n)) for n in (1, 2, 3, 12)])

    count = next(trend for trend in found if trend.trait.name == "instance_count")
    assert [(b.low, b.high, b.n) for b in count.bins] == [(1, 2, 1), (2, 4, 2), (12, 14, 1)]
    assert count.bins[1].dice == pytest.approx(1 - 2.5 / 20)
    assert count.spearman == pytest.approx(-1)
    line = count.curves[0]
    assert line.at(np.array([0.0, 20.0])) == pytest.approx([1.0, 0.0])
    assert line.equation == "y = -0.05 x +1"
    ratio = next(trend for trend in found if trend.trait.name == "instance_ratio")
    assert math.isnan(ratio.spearman)  # all dots are of one size


def test_intervals_and_their_ends():
    values, score = np.array([0.0, 0.05, 0.09, 1.0, 7.0]), np.array([0.1, 0.2, 0.4, 0.8, 1.0])

    closed = bins_of(values[:4], score[:4], (0.0, 0.05, 1.0))
    opened = bins_of(values, score, (0.0, 0.05, 1.0))

    assert [(b.low, b.high, b.n) for b in closed] == [(0, 0.05, 1), (0.05, 1, 3)]
    assert closed[1].dice == pytest.approx(1.4 / 3)
    assert [(b.low, b.high, b.n) for b in opened][-1] == (1, math.inf, 1)
    assert min(values[1:4]) < closed[1].trait_weighted < closed[1].trait  # where most samples lie


def test_cost_of_prompts_by_hand():
    rows = prompt_cost([sample(0.9, dots(3)), sample(0.7, dots(5))])

    found = {(row["structure"], row["prompting"]): row for row in rows}
    text, boxes = found["overall", "text"], found["nuclei", "instance boxes"]
    assert (text["n"], text["prompts"], text["clicks"]) == (2, 1, 0)
    assert text["dice"] == pytest.approx(0.8)
    assert (boxes["prompts"], boxes["clicks"], boxes["dice"]) == (4, 8, 1)
    assert found["overall", "union box"]["prompts"] == 1
    wanted = (2 * 108 / (108 + 26 * 6) + 2 * 180 / (180 + 46 * 6)) / 2
    assert found["overall", "union box"]["dice"] == pytest.approx(wanted)


def test_examples_are_best_median_and_worst():
    several = [sample(score, dots(1)) for score in (0.2, 0.9, 0.5)]

    chosen = examples([*several, sample(0.4, dots(1), name="breast-tissue-fat")])

    assert {word: s.dice for word, s in chosen["breast-nuclei-lymphocyte"].items()} == {
        "best": 0.9, "median": 0.5, "worst": 0.2
    }  # fmt: skip
    assert list(chosen["breast-tissue-fat"]) == ["best"]


def test_the_real_predictor_fits(predictor, tmp_path):
    image = picture(tmp_path / "set/test/a.png", (50, 70))
    mask = mask_of(tmp_path / "m.png", np.s_[5:15, 5:15], size=(50, 70))
    config = EvaluationConfig(trained=predictor.info.labels)
    questions = questions_of([item(image, mask, TUMOR)], config)

    (found,) = evaluate_segmentor(predictor, questions, config).samples

    answer = predictor.masks(predictor.encode(np.asarray(Image.open(image))), [TUMOR]).masks[0, 0]
    assert found.dice == dice(answer, np.asarray(Image.open(mask)) > 0)
