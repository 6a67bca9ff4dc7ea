"""A device that is not there is refused, or replaced by the CPU where that was asked for."""

import pytest
import torch

from xpath.device import device_of
from xpath.errors import ConfigError

NOWHERE = "cuda:99"  # no machine has it


def test_the_device_of_a_name():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("cpu", else_cpu=True) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "mps", "xpu", NOWHERE])
def test_what_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used .*; wanted cpu, cuda"):
        device_of(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_without_a_gpu():
    with pytest.raises(ConfigError, match="device 'cuda' cannot be used"):
        device_of("cuda")


def test_the_cpu_takes_over_with_a_word(caplog):
    assert device_of(NOWHERE, else_cpu=True) == torch.device("cpu")
    assert NOWHERE in caplog.text


def test_the_cpu_does_not_take_over_for_a_typing_error():
    with pytest.raises(ConfigError, match="'gpu'"):
        device_of("gpu", else_cpu=True)


def test_a_refusal_is_a_line():
    for name in ("gpu", "mps", NOWHERE):
        with pytest.raises(ConfigError) as caught:
            device_of(name)
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "reason"), [("mps", "no double precision"), ("meta", "nothing")])
def test_devices_that_torch_has_but_scores_cannot_be_summed_on(name, reason):
    """On a Mac torch would take the first one, and fail in the midst of training."""
    with pytest.raises(ConfigError, match=reason):
        device_of(name)
