"""explanation.h5 holds what both classifiers answer and what it rests on."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from xpath.errors import StoreError
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.explanation import Explanation, read_explanation, write_explanation
from xpath.explain.importance import ObjectImportance
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.store.hdf5 import create_h5


@pytest.fixture
def explanation():
    torch.manual_seed(0)
    standard, aware = AttentionMIL(6, 3), ObjectAwareMIL(6, ("a", "b"), 3)
    by_object = object_activation(aware, Bag(torch.randn(9, 2, 6), torch.rand(9, 2) > 0.3))
    measured = {
        name: np.array([number])
        for number, name in enumerate((
            "hidden_probability",
            "imp",
            "effects",
            "random",
            "patches",
            "area",
        ))
    }
    return Explanation(
        patch=patch_activation(standard, Bag(torch.randn(9, 6)), by_object.target),
        object=by_object,
        shared=np.array([[9, 4], [4, 16]]),
        importance=ObjectImportance(
            slide_id="one",
            target=2,
            objects=("a + b",),
            probability=0.25,
            slide_patches=9,
            **measured,
        ),
    )


def test_what_is_written_is_read(tmp_path, explanation):
    path = tmp_path / "explanation.h5"
    write_explanation(path, explanation)

    result = read_explanation(path)

    assert (result.slide_id, result.target) == ("one", explanation.object.target)
    for part in ("patch", "object", "importance"):
        written, read = getattr(explanation, part), getattr(result, part)
        for field in fields(written):
            np.testing.assert_array_equal(getattr(read, field.name), getattr(written, field.name))


def test_the_sums_survive(tmp_path, explanation):
    path = tmp_path / "explanation.h5"
    write_explanation(path, explanation)

    for part in (read_explanation(path).patch, read_explanation(path).object):
        assert part.logit == part.logits[explanation.target]
        assert abs(part.delta) < 1e-12


def test_an_older_version_says_what_to_run(tmp_path):
    path = tmp_path / "explanation.h5"
    with create_h5(path, "xpath.explanation/2"):
        pass

    with pytest.raises(StoreError, match="run `xpath explain` on this run again"):
        read_explanation(path)
