import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xpath.segment.predict.text_cache import EncodedPrompt, TextCache, cache_folder

PROMPT = "tissue-level tumor in breast pathology."


@pytest.fixture
def cache(tmp_path):
    return TextCache("a" * 64, tmp_path)


@pytest.fixture
def encoded():
    generator = torch.Generator().manual_seed(0)
    return EncodedPrompt(
        torch.randn(5, 32, generator=generator), torch.randn(32, generator=generator)
    )


def test_what_was_kept_comes_back_to_the_last_bit(cache, encoded):
    cache.save(PROMPT, encoded)

    found = cache.load(PROMPT)

    assert torch.equal(found.tokens, encoded.tokens)
    assert torch.equal(found.sentence, encoded.sentence)
    assert [path.name for path in cache.folder.iterdir()] == [cache.path(PROMPT).name]


def test_another_encoder_or_prompt_finds_nothing(cache, encoded, tmp_path):
    cache.save(PROMPT, encoded)

    assert cache.load(PROMPT.upper()) is None
    assert TextCache("b" * 64, tmp_path).load(PROMPT) is None


def test_a_truncated_file_is_ignored_and_written_again(cache, encoded):
    cache.save(PROMPT, encoded)
    whole = cache.path(PROMPT).read_bytes()
    cache.path(PROMPT).write_bytes(whole[: len(whole) // 2])

    assert cache.load(PROMPT) is None
    cache.save(PROMPT, encoded)
    assert torch.equal(cache.load(PROMPT).tokens, encoded.tokens)


def test_a_flipped_bit_is_noticed(cache, encoded):
    cache.save(PROMPT, encoded)
    content = bytearray(cache.path(PROMPT).read_bytes())
    content[-1] ^= 1
    cache.path(PROMPT).write_bytes(content)

    assert cache.load(PROMPT) is None


def test_a_file_under_another_name_is_not_believed(cache, encoded):
    cache.save(PROMPT, encoded)
    cache.path(PROMPT).rename(cache.path("nuclei"))

    assert cache.load("nuclei") is None


def test_a_stranger_in_the_folder_is_not_believed(cache, encoded):
    cache.save(PROMPT, encoded)
    save_file(load_file(cache.path(PROMPT)), cache.path(PROMPT))  # without what it says of itself

    assert cache.load(PROMPT) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, encoded, caplog):
    (tmp_path / "file").write_text("no folder")
    cache = TextCache("a" * 64, tmp_path / "file")

    with caplog.at_level(logging.WARNING):
        cache.save(PROMPT, encoded)
        cache.save(PROMPT, encoded)

    assert cache.load(PROMPT) is None
    assert caplog.text.count("XPATH_CACHE") == 1


@pytest.mark.parametrize(
    ("platform", "variables", "wanted"),
    [
        ("linux", {"XPATH_CACHE": "/somewhere"}, "/somewhere"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/xpath"),
        ("linux", {}, "~/.cache/xpath"),
        ("darwin", {}, "~/Library/Caches/xpath"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/xpath"),
    ],
)
def test_the_folder_is_where_each_platform_keeps_such_things(
    monkeypatch, platform, variables, wanted
):
    for name in ("XPATH_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)

    assert cache_folder() == Path(wanted).expanduser()
