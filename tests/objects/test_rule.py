import math

import pytest

from xpath.errors import ConfigError
from xpath.objects.rule import ObjectConfig


def test_the_rule_in_words():
    assert ObjectConfig().sentence(0.5) == (
        "mask pixels that share an edge, touching nuclei and cells separated, 4 um2 or more"
    )
    assert "none separated, 2.5 um2" in ObjectConfig(separate=False, min_area_um2=2.5).sentence(1.0)
    assert "no resolution" in ObjectConfig().sentence(None)


@pytest.mark.parametrize("name", ["min_area_um2", "waist_um", "smoothing_um", "max_hole_um2"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_negative_lengths_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        ObjectConfig(**{name: value})


def test_only_nuclei_and_cells_are_separated():
    labels = ("breast-nuclei-lymphocyte", "breast-cell-plasma", "breast-tissue-tumor", "gland")

    assert [ObjectConfig().separates(label) for label in labels] == [True, True, False, False]
    assert not ObjectConfig(separate=False).separates(labels[0])
