"""FocalNet against its formula, with levels and windows that differ from stage to stage."""

import pytest
import torch
from torch.nn import functional

from xpath.segment.model.image_encoder import ImageEncoder

LEVELS, WINDOWS = (1, 3, 2, 2), (3, 5, 3, 7)


def modulation(module, x, levels, window):
    """Focal modulation of ``(B, C, H, W)``, levels added one by one."""
    channels = x.shape[1]
    q, context, gates = module.f(x).split((channels, channels, levels + 1), dim=1)
    summed = torch.zeros_like(q)
    for level in range(levels):
        kernel = module.focal_layers[level][0].weight
        assert kernel.shape[-1] == window + 2 * level
        padded = functional.conv2d(context, kernel, padding=kernel.shape[-1] // 2, groups=channels)
        context = functional.gelu(padded)
        summed = summed + gates[:, level : level + 1] * context
    everywhere = functional.gelu(context.mean(dim=(2, 3), keepdim=True))
    summed = (summed + gates[:, levels:] * everywhere) / (levels + 1)
    return module.proj(q * module.h(summed))


def norm(module, x):
    x = functional.layer_norm(
        x.permute(0, 2, 3, 1), module.normalized_shape, module.weight, module.bias, 1e-5
    )
    return x.permute(0, 3, 1, 2)


def slow(model, x):
    trunk = model.trunk
    stem = trunk.stem
    x = functional.conv2d(x, stem.proj.weight, stem.proj.bias, stride=4, padding=2)
    x, maps = norm(stem.norm, x), []
    for i, stage in enumerate(trunk.layers):
        if i:
            proj = stage.downsample.proj
            x = functional.conv2d(x, proj.weight, proj.bias, stride=2, padding=1)
            x = norm(stage.downsample.norm, x)
        for block in stage.blocks:
            inner = modulation(block.modulation, x, LEVELS[i], WINDOWS[i])
            x = x + block.ls1.gamma[:, None, None] * norm(block.norm1_post, inner)
            inner = block.mlp.fc2(functional.gelu(block.mlp.fc1(x)))
            x = x + block.ls2.gamma[:, None, None] * norm(block.norm2_post, inner)
        maps.append(norm(model.norms[i], x))
    return maps


@torch.no_grad()
def test_maps_equal_the_formula():
    torch.manual_seed(0)
    model = ImageEncoder(
        width=8,
        depths=(1, 2, 1, 1),
        focal_levels=LEVELS,
        focal_windows=WINDOWS,
        mlp_ratio=2.0,
        layer_scale=0.5,
    ).eval()
    for parameter in model.parameters():  # fresh norms, biases and kernels would hide mistakes
        parameter.add_(0.2 * torch.randn_like(parameter))
    image = torch.randn(2, 3, 64, 96)

    maps = model(image)

    assert model.trunk.layers[1].blocks[0].mlp.fc1.weight.shape[:2] == (32, 16)
    for i, (found, wanted) in enumerate(zip(maps, slow(model, image), strict=True)):
        assert found.shape == (2, 8 * 2**i, 16 // 2**i, 24 // 2**i)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_reader_computes_no_later_stage():
    torch.manual_seed(0)
    model = ImageEncoder(width=8, depths=(1, 1, 1, 1)).eval()
    image = torch.randn(1, 3, 64, 96)
    wanted = model(image)
    model.trunk.layers[3].register_forward_hook(lambda *_: pytest.fail("the last stage ran"))

    fine, coarse = model.reader((8, 16))(image)

    assert torch.equal(fine, wanted[1])
    assert torch.equal(coarse, wanted[2])
