"""Settings: what is taken, what is refused, and how it is said."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NewType

import pytest

from xpath.config import digest, from_dict, load_config, to_json
from xpath.errors import ConfigError

Microns = NewType("Microns", float)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    side: Microns = Microns(128.0)
    mpp: float = 0.5
    pixels: int = 256
    overlap: bool = False

    def __post_init__(self):
        if self.side <= 0:
            raise ConfigError(f"side must be positive, got {self.side}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    sigma: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    grid: Grid = field(default_factory=Grid)
    noise: Noise | None = None
    labels: tuple[str, ...] = ("tumor",)
    corner: tuple[int, float] = (0, 0.0)
    weights: Path | None = None
    out: Path = Path("run")
    seed: int | None = 0
    average: Literal["all", "present"] = "all"
    level: Literal[0, 1] = 0
    limit: int | str = 1
    name: str = ""


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_of_notepad_is_read(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbf# mine\r\n[grid]\r\nmpp = 1 # 10x\r\n")

    assert load_config(Run, tmp_path / "run.toml") == Run(grid=Grid(mpp=1.0))


def test_a_number_that_no_computer_has_is_refused():
    with pytest.raises(ConfigError, match=r"grid\.mpp must be a number, got one beyond 1e308"):
        load_config(Run, None, [f"grid.mpp={'9' * 400}"])


def test_nothing_given_is_the_defaults():
    assert load_config(Run) == Run()


def test_a_file_and_overrides(toml):
    path = toml('name = "brust ä"\nlabels = ["a", "b"]\n[grid]\nmpp = 1\npixels = 64\n')

    config = load_config(Run, path, ["grid.mpp=0.25", "grid.pixels=8", "grid.pixels=16"])

    assert config == Run(name="brust ä", labels=("a", "b"), grid=Grid(mpp=0.25, pixels=16))


def test_an_int_becomes_the_float_the_field_wants(toml):
    config = load_config(Run, toml("corner = [1, 2]\n[grid]\nside = 64\n"))

    assert (type(config.grid.side), config.grid.side) == (float, 64.0)
    assert [type(value) for value in config.corner] == [int, float]


@pytest.mark.parametrize(
    ("override", "name", "wanted"),
    [
        ("name=plain words", "name", "plain words"),
        ('name="true"', "name", "true"),
        (" name = spaced ", "name", "spaced"),
        ("name=a=b", "name", "a=b"),
        ("name=", "name", ""),
        ("weights=/data/w.safetensors", "weights", Path("/data/w.safetensors")),
        ("out='x y'", "out", Path("x y")),
        ("seed=7", "seed", 7),
        ("average=present", "average", "present"),
        ('labels=["x", "y"]', "labels", ("x", "y")),
        ("labels=[]", "labels", ()),
        ("limit=3", "limit", 3),
        ("limit=none", "limit", "none"),
        ("noise.sigma=2", "noise", Noise(sigma=2.0)),
        ("grid={side = 1.0, overlap = true}", "grid", Grid(side=Microns(1.0), overlap=True)),
    ],
)
def test_overrides(override, name, wanted):
    value = getattr(load_config(Run, None, [override]), name)

    assert value == wanted
    assert type(value) is type(wanted)


def test_an_override_leaves_its_neighbours_alone(toml):
    config = load_config(Run, toml("[grid]\nmpp = 2.0\n"), ["grid.pixels=1"])

    assert config.grid == Grid(mpp=2.0, pixels=1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gird.mpp=1", "no setting gird; did you mean grid?"),
        ("grid.mmp=1", "no setting grid.mmp; did you mean grid.mpp?"),
        ("noise.sgima=1", "no setting noise.sgima; did you mean noise.sigma?"),
        ("zzz=1", "no setting zzz; known are grid, noise, labels"),
        ("grid.pixels=0.5", "grid.pixels must be a whole number, got 0.5"),
        ("grid.pixels=true", "grid.pixels must be a whole number, got True"),
        ("grid.mpp=true", "grid.mpp must be a number, got True"),
        ("grid.mpp=fine", "grid.mpp must be a number, got 'fine'"),
        ("grid.side=wide", "grid.side must be a number, got 'wide'"),
        ("grid.overlap=1", "grid.overlap must be true or false, got 1"),
        ("grid.overlap=True", "grid.overlap must be true or false, got 'True'"),
        ("grid=5", "grid must be a table (Grid), got 5"),
        ("name=3", "name must be a string, got 3"),
        ("out=3", "out must be a path, got 3"),
        ("weights=3", "weights must be a path or nothing, got 3"),
        ("seed=x", "seed must be a whole number or nothing, got 'x'"),
        ("average=some", "average must be one of 'all', 'present', got 'some'"),
        ("level=true", "level must be one of 0, 1, got True"),
        ("labels=a,b", "labels must be a list (each a string), got 'a,b'"),
        ('labels=["a", 1]', "labels[1] must be a string, got 1"),
        ("corner=[1]", "corner must be a list (a whole number, a number), got 1: [1]"),
        ("corner=[1.5, 1]", "corner[0] must be a whole number, got 1.5"),
        ("grid.mpp.x=1", "grid.mpp must be a number, got {'x': 1}"),
        ("grid.side=-1", "side must be positive, got -1.0"),
        ("grid.mpp", "an override is written a.b=value, got 'grid.mpp'"),
        ("grid..mpp=1", "an override is written a.b=value, got 'grid..mpp=1'"),
        ("=1", "an override is written a.b=value, got '=1'"),
    ],
)
def test_refused(override, message):
    with pytest.raises(ConfigError) as refused:
        load_config(Run, None, [override])

    assert message in str(refused.value)


def test_a_value_is_no_table():
    with pytest.raises(ConfigError, match=r"grid\.mpp\.x=1: grid\.mpp is a value, not a table"):
        load_config(Run, None, ["grid.mpp=2", "grid.mpp.x=1"])


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"broken\.toml cannot be read as TOML"):
        load_config(Run, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read"):
        load_config(Run, tmp_path / "absent.toml")


def test_a_setting_without_default_must_be_given():
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        slides: str

    with pytest.raises(ConfigError, match="slides has no default; set it to a string"):
        from_dict(Needy, {})
    assert from_dict(Needy, {"slides": "here"}).slides == "here"


def test_a_value_survives_json():
    config = load_config(
        Run, None, ["weights=w", "noise.sigma=3", 'labels=["a"]', "corner=[1, 2.5]", "limit=x"]
    )

    assert from_dict(Run, json.loads(to_json(config))) == config
    assert from_dict(Run, asdict(config)) == config


def test_the_json_is_canonical():
    assert to_json(Noise(sigma=2.0)) == '{"sigma":2.0}'
    assert to_json(Grid()) == '{"mpp":0.5,"overlap":false,"pixels":256,"side":128.0}'


def test_equal_settings_have_equal_digests(toml):
    """However they were given."""
    spelled = load_config(Run, toml("[grid]\nside = 128\n"), ["out=run"])

    assert digest(spelled) == digest(Run())
    assert digest(load_config(Run, None, ["grid.pixels=255"])) != digest(Run())
    assert digest(Noise(sigma=2.0)) == (  # sha256sum of {"sigma":2.0}
        "018a509a0a0bd33e5f12c9e3ac09fefc4707dfe54245a222ca19257eebbaea79"
    )
