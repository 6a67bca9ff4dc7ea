import json

import pytest

from xpath.errors import CheckpointError
from xpath.store.checkpoints import read_model_config


def test_what_a_checkpoint_says_of_itself(tmp_path):
    text = json.dumps({"schema": "xpath.thing/1", "depth": 3})
    (tmp_path / "config.json").write_text(text, encoding="utf-8")

    assert read_model_config(tmp_path, "xpath.thing/1", wanted="a thing") == {"depth": 3}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "has schema None"),
        ('{"depth": 3}', "has schema None"),
        ('{"schema": "xpath.thing/2"}', "has schema 'xpath.thing/2'"),
    ],
)
def test_what_is_none_is_refused_with_what_was_wanted(tmp_path, text, wrong):
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="utf-8")

    with pytest.raises(CheckpointError, match=f"{wrong}.*a thing has a depth"):
        read_model_config(tmp_path, "xpath.thing/1", wanted="a thing has a depth")
