"""Features beyond the memory train as those within it."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xpath.errors import ConfigError, StoreError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.feature_cache import FeatureCache
from xpath.mil.training import TrainConfig, train

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.int64]


def is_paged(tensor):
    """True if the storage of a tensor is not the one torch allocated."""
    return not tensor.untyped_storage().resizable()


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_beyond_the_limit_has_the_same_values(tmp_path, dtype):
    cache = FeatureCache(tmp_path, memory_gb=0)
    given = [(torch.arange(size * 3).reshape(size, 3) % 7).to(dtype) for size in (5, 1, 30)]

    kept = [cache.keep(tensor) for tensor in given]

    for tensor, found in zip(given, kept, strict=True):
        assert found.dtype == dtype
        assert found.shape == tensor.shape
        assert found.equal(tensor)
        assert is_paged(found)


def test_the_limit_is_filled_first(tmp_path):
    cache = FeatureCache(tmp_path, memory_gb=1000e-9)
    small, large, last = torch.zeros(150), torch.zeros(200), torch.zeros(100)  # 600, 800, 400 bytes

    assert cache.keep(small) is small
    assert cache.keep(large) is not large
    assert cache.keep(last) is last


def test_views_and_transposes_are_kept_as_they_look(tmp_path):
    odd = torch.arange(24.0).reshape(4, 6).T[1:4]

    assert FeatureCache(tmp_path, memory_gb=0).keep(odd).equal(odd)


def test_no_file_is_seen_and_none_is_made_without_need(tmp_path):
    within, beyond = (
        FeatureCache(tmp_path / "a", memory_gb=1),
        FeatureCache(tmp_path / "b", memory_gb=0),
    )
    within.keep(torch.ones(9))
    kept = beyond.keep(torch.ones(9))

    assert not (tmp_path / "a").exists()
    assert list((tmp_path / "b").iterdir()) == []
    assert kept.sum() == 9


def test_a_training_does_not_depend_on_the_memory(tmp_path):
    torch.manual_seed(3)
    cache = FeatureCache(tmp_path, memory_gb=0)
    bags = [Bag(torch.randn(4 + n, 6).half(), label=n % 2, slide_id=str(n)) for n in range(6)]
    paged = [replace(bag, features=cache.keep(bag.features)) for bag in bags]
    models = []
    for chosen in (bags, paged):
        torch.manual_seed(0)
        models.append(AttentionMIL(6, ("IDC", "ILC"), hidden=4))
        train(models[-1], chosen[:4], chosen[4:], TrainConfig(epochs=3))

    one, two = (model.state_dict() for model in models)
    assert all(is_paged(bag.features) for bag in paged)
    assert all(one[name].equal(two[name]) for name in one)


def test_segments_follow_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("xpath.mil.feature_cache.SEGMENT", 2**12)
    cache = FeatureCache(tmp_path, memory_gb=0)
    given = [torch.randn(size) for size in (900, 100, 200, 5000, 3)]  # the fourth is longer

    kept = [cache.keep(tensor) for tensor in given]

    assert all(one.equal(two) for one, two in zip(kept, given, strict=True))


def test_more_slides_than_files_that_may_be_open(tmp_path):
    cache = FeatureCache(tmp_path, memory_gb=0)
    first = cache.keep(torch.tensor([1.0]))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())), limit[1])
    )
    try:
        kept = [cache.keep(torch.tensor([float(n)])) for n in range(300)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)

    assert first.item() == 1
    assert torch.cat(kept).tolist() == list(range(300))


def test_a_full_disk_is_said(tmp_path):
    """A file may not grow beyond a limit, as on a disk without room."""
    cache = FeatureCache(tmp_path, memory_gb=0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot be kept in .*free some space"):
            cache.keep(torch.ones(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_limit_that_is_none_is_refused(tmp_path, limit):
    with pytest.raises(ConfigError, match="memory_gb"):
        FeatureCache(tmp_path, memory_gb=limit)
