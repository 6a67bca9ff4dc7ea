import pytest
import torch

from xpath.errors import ConfigError
from xpath.segment.training.precision import choose_precision


@pytest.mark.parametrize(
    ("processor", "name", "why"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16", "has avx512_bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16", "has amx_bf16"),
        ({"avx2": True, "avx512_f": True}, "fp32", "neither avx512_bf16 nor amx_bf16"),
        ({}, "fp32", "neither avx512_bf16 nor amx_bf16"),
    ],
)
def test_a_cpu_trains_in_bfloat16_only_where_it_multiplies_it(processor, name, why):
    chosen = choose_precision("auto", "cpu", processor=processor)

    assert chosen.name == name
    assert why in chosen.why


def test_what_is_asked_for_is_done_and_its_price_told():
    assert choose_precision("fp32", "cpu", processor={"avx512_bf16": True}).name == "fp32"
    slow = choose_precision("bf16", "cpu", processor={"avx2": True})
    assert slow.name == "bf16"
    assert "five times as long" in slow.why
    assert "five" not in choose_precision("bf16", "cpu", processor={"amx_bf16": True}).why


@pytest.mark.parametrize("able", [True, False])
def test_a_gpu_is_asked_itself(monkeypatch, able):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: able)

    assert choose_precision("auto", "cuda:1", processor={}).name == ("bf16" if able else "fp32")


def test_this_machine_is_asked_and_another_word_refused():
    capabilities = torch.cpu.get_capabilities()
    able = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")

    assert choose_precision("auto", "cpu").name == ("bf16" if able else "fp32")
    with pytest.raises(ConfigError, match="fp16"):
        choose_precision("fp16", "cpu")
