"""The interpreter stands wherever a segmentor does: evaluation and presence calibration."""

from pathlib import Path

import numpy as np
import pytest

from xpath.grounded.interpreter import GroundedInterpreter
from xpath.labels import load_labels
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.segment.evaluation.evaluate import ask
from xpath.segment.evaluation.presence_calibration import calibrate
from xpath.segment.predict.calibration import mask_facts

GLAND, NECROSIS = "colon-tissue-gland", "breast-tissue-necrosis or debris"


def test_its_answers_are_asked_for_as_those_of_a_segmentor(interpreter, image):
    prompts = [label.prompt for label in list(load_labels())[:2]]

    result = ask(interpreter, np.stack((image, image[::-1])), prompts)

    wanted = interpreter.masks(interpreter.encode(image), prompts)
    assert np.array_equal(result.masks[0], wanted.masks[0])
    assert result.presence[0] == pytest.approx(wanted.presence[0])


@pytest.mark.integration
def test_a_calibration_is_learnt_from_it_and_judges_for_it(interpreter, image):
    def annotated(number):
        disc = np.zeros(image.shape[:2], bool)
        disc[30:70, 40:80] = True
        pixels = np.roll(image, 7 * number, axis=1)
        return SourceImage(
            source="glas",
            name=str(number),
            group=str(number),
            split="train",
            mpp=0.5,
            region="colon",
            path=Path(f"{number}.png"),
            read=lambda: Annotated(pixels, (LabelMask(GLAND, disc),), None, (NECROSIS,)),
        )

    learnt = calibrate(interpreter, [annotated(number) for number in range(6)])
    chances = []

    def judge(result, _prompts):
        facts = mask_facts(result.masks, result.presence, result.peak)
        chances.append(learnt(facts, (GLAND, NECROSIS)))
        return chances[-1] >= learnt.threshold

    judged = GroundedInterpreter(
        interpreter.model,
        interpreter.tokenizer,
        interpreter.info,
        config=interpreter.config,
        judge=judge,
    )
    prompts = [load_labels().parse(label).prompt for label in (GLAND, NECROSIS)]
    result = judged.masks(judged.encode(image), prompts)

    assert 0 < chances[0].min() < chances[0].max() < 1
    assert np.array_equal(result.present, chances[0] >= learnt.threshold)
