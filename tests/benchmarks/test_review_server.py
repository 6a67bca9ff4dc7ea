import importlib.util
import json
import runpy
import sys
from pathlib import Path

# The run is the one that the tests of the review package make by hand.
_spec = importlib.util.spec_from_file_location(
    "run_made_by_hand", Path(__file__).parents[1] / "review" / "conftest.py"
)
_by_hand = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_by_hand)
patched, made, run_folder = _by_hand.patched, _by_hand.made, _by_hand.run_folder


def test_nothing_is_refused_under_load(repository, run_folder, monkeypatch, capsys):
    script = repository / "benchmarks" / "review_server.py"
    options = ["--clients=4", "--requests=5", "--connections=300"]
    monkeypatch.setattr(sys, "argv", [script.name, str(run_folder.root), *options])

    runpy.run_path(str(script), run_name="__main__")

    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["clients"]["requests"] == 20
    assert facts["view"]["clicks"] > 0
    assert facts["crowd"]["connections"] == 300
    assert [facts[part]["refused"] for part in ("clients", "view", "crowd")] == [0, 0, 0]
