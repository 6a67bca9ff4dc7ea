"""Labels that answer for others are named briefly, and unmistakably."""

from xpath.export.answers import answered_names, answers_in_words


def test_structure_and_region_are_named_where_they_differ():
    asked = ("breast-nuclei-lymphocyte", "breast-cell-plasma cells", "colon-cell-lymphocyte")

    assert answered_names("breast-nuclei-inflammatory", asked) == (
        "lymphocyte, plasma cells (cell), lymphocyte (cell) in colon"
    )
    assert answered_names("breast-nuclei-inflammatory", ()) == ""


def test_each_answer_is_named_with_what_it_answers_for():
    answers = {
        "unspecified-nuclei-epithelial": ("breast-nuclei-epithelial",),
        "breast-nuclei-neoplastic": ("breast-cell-cancerous", "breast-nuclei-tumor"),
    }

    assert answers_in_words(answers) == (
        "epithelial (nuclei) for epithelial in breast;"
        " neoplastic (nuclei) for cancerous (cell), tumor"
    )
    assert answers_in_words({}) == ""
