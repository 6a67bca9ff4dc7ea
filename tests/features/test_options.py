import pytest

from xpath.errors import ConfigError
from xpath.features.options import model_options


def test_texts_become_what_they_mean():
    texts = ["init_values=1e-5", "depth = 24", "a=true", "b=False", "c=none", "act_layer=SiLU"]

    options = model_options([*texts, "mean=0.7,0.6,0.7", "d=3.0"])

    assert options == {
        "init_values": 1e-5,
        "depth": 24,
        "a": True,
        "b": False,
        "c": None,
        "act_layer": "SiLU",
        "mean": (0.7, 0.6, 0.7),
        "d": 3.0,
    }
    assert isinstance(options["depth"], int)
    assert model_options([]) == {}


@pytest.mark.parametrize("texts", [["depth"], ["=3"], ["depth="], ["a b=3"], ["a=1", "a=2"]])
def test_anything_else_is_refused(texts):
    with pytest.raises(ConfigError, match="name=value"):
        model_options(texts)
