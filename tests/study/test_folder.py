import pytest

from xpath.store.tables import write_table
from xpath.study.folder import RunFolder, slide_probabilities


@pytest.mark.parametrize(
    ("calibration", "wanted"),
    [
        ([], 0.9),
        # the odds of 9 to 1 at temperature 2 are their root, 3 to 1
        ([{"model": "object_aware", "fold": 0, "temperature": 2.0, "in_predictions": False}], 0.75),
        ([{"model": "object_aware", "fold": 0, "temperature": 2.0}], 0.75),  # an older table
        ([{"model": "object_aware", "fold": 0, "temperature": 2.0, "in_predictions": True}], 0.9),
        ([{"model": "object_aware", "fold": 1, "temperature": 2.0, "in_predictions": False}], 0.9),
        ([{"model": "attention", "fold": 0, "temperature": 2.0, "in_predictions": False}], 0.9),
    ],
)
def test_probabilities_are_those_of_the_slides_own_pages(tmp_path, calibration, wanted):
    folder = RunFolder(tmp_path)
    row = {"model": "object_aware", "slide_id": "s", "fold": 0, "predicted": "A"}
    write_table(folder.table("predictions"), [row | {"p A": 0.9, "p B": 0.1}])
    write_table(folder.table("calibration"), calibration, ("model", "fold", "temperature"))

    assert slide_probabilities(folder) == {"s": pytest.approx({"A": wanted, "B": 1 - wanted})}


def test_a_class_called_impossible_stays_a_number(tmp_path):
    folder = RunFolder(tmp_path)
    row = {"model": "object_aware", "slide_id": "s", "fold": 0, "p A": 1.0, "p B": 0.0}
    write_table(folder.table("predictions"), [row])
    write_table(
        folder.table("calibration"), [{"model": "object_aware", "fold": 0, "temperature": 2.0}]
    )

    assert slide_probabilities(folder)["s"]["A"] == pytest.approx(1.0)
