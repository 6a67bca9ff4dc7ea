"""Every example runs as it stands, and says what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
PROMISES = {
    "glas_bags": "skipped: no GlaS images",  # with them it takes minutes; tests/examples has a few
    "object_aware_mil": "right: 10 of 10",
    "segment_with_words": "wrote overlay.png",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "XPATH_SHARED": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert PROMISES[path.stem] in done.stdout
