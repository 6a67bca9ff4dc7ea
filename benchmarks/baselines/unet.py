"""A U-Net of the segmentor's size, trained on the same crops for the same time: the bar to beat.

    python benchmarks/baselines/unet.py --data DIR --out run-unet --minutes 60 --shapes 8x256

A U-Net knows no words: it has one output per object class, organs pooled. Crops, augmentation,
optimiser and held-out images are those of pipelines/train_segmentor.py; with --encoder its way down
is the segmentor's image encoder, from the same pretrained weights. Out come samples.csv and
model.safetensors. Last line: JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from xpath.pathseg.collection import collect
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.packed import pack_all
from xpath.pathseg.sampler import batch_keys
from xpath.protocols import Segmentation
from xpath.segment.checkpoints.pretrained import load_encoder
from xpath.segment.evaluation.validation import mean_by_label, validate
from xpath.segment.model.timm_image_encoder import TimmImageEncoder
from xpath.segment.model.variants import mini_config
from xpath.segment.training.losses import UNKNOWN, soft_dice_loss
from xpath.segment.training.options import factors
from xpath.segment.training.trainer import DTYPES
from xpath.testing.crops import drawn_images

if TYPE_CHECKING:
    from collections.abc import Sequence

UP_CHANNELS = (243, 144, 90, 45, 18)
"""Of the pretrained U-Net: with these it is as large as the segmentor."""
STRIDE = 32


def main() -> None:
    """From arguments to scores."""
    args = arguments()
    torch.manual_seed(args.seed)
    train, held_out = collect(args.data, args.split)
    packed = pack_all(tqdm(train, desc="reading"))
    packed |= pack_all(drawn_images(range(args.drawn)))
    shapes = tuple(tuple(map(int, shape.split("x"))) for shape in args.shapes.split(","))
    total = args.steps * max(count for count, _ in shapes)
    views = CropConfig(emphasis=args.emphasis)
    crops = PromptedCrops(packed, views, total=total, seed=args.seed)
    classes = sorted({object_class_of(label) for label in crops.labels})
    batches = ClassBatches(crops, classes, shapes, args.seed)
    model = pretrained_unet(len(classes)) if args.encoder else plain_unet(args.width, len(classes))
    if args.encoder:
        load_encoder(model.encoder, args.encoder)
        model.encoder.measure(rescaled(batches[number][0]) for number in range(32))
    steps = train_unet(model.to(args.device), batches, args)
    samples = validate(UNetPredictor(model.eval(), classes, args.device), tqdm(held_out))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([samples[0]._fields, *samples])
    state = {name: value.half().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, args.out / "model.safetensors", {"classes": json.dumps(classes)})
    parameters = sum(p.numel() for p in model.parameters())
    print(
        json.dumps({
            "benchmark": "unet",
            "steps": steps,
            "minutes": args.minutes,
            "parameters": parameters,
            "scores": mean_by_label(samples),
        })
    )


def arguments() -> argparse.Namespace:
    """The command line, as far as it goes that of train_segmentor.py."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--split", type=Path, default=Path(__file__).parents[2] / "pipelines/splits/annotated.csv"
    )
    parser.add_argument(
        "--width", type=int, default=27, help="channels of the finest map, a multiple of 9"
    )
    parser.add_argument("--encoder", type=Path, help="pretrained weights, as train_segmentor.py")
    parser.add_argument(
        "--encoder-lr", type=float, default=1, help="its learning rate, as a share of --lr"
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="the schedule ends here")
    parser.add_argument("--shapes", default="32x256")
    parser.add_argument("--emphasis", type=factors, default={}, help="as train_segmentor.py")
    parser.add_argument("--drawn", type=int, default=0)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def object_class_of(label: str) -> str:
    """``structure-object type`` of a label id or of the paper's sentence."""
    if "-level " in label:
        structure, rest = label.split("-level ")
        return f"{structure}-{rest.split(' in ')[0]}"
    return label.split("-", 1)[1]


def plain_unet(width: int, classes: int) -> UNet:
    """The U-Net of the paper with five scales, ``width`` channels at the finest."""
    encoder = PlainEncoder([width * 2**i for i in range(5)])
    return UNet(encoder, encoder.channels[-2::-1], classes)


def pretrained_unet(classes: int) -> UNet:
    """A U-Net on the segmentor's image encoder, with as many weights as the segmentor."""
    return UNet(TimmImageEncoder(mini_config(1).encoder, drop_path=0.05), UP_CHANNELS, classes)


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015), with group norm on its way up.

    Args:
        encoder: Maps, finest first, each half as wide and high as the one before.
        sizes: Channels on the way up, coarsest first; the last are at full resolution.
        classes: Outputs.
    """

    def __init__(self, encoder: nn.Module, sizes: Sequence[int], classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        coarsest, *skips = reversed(encoder.channels)
        skips += [0] * (len(sizes) - len(skips))
        below = (coarsest, *sizes[:-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, 2) for a, b in zip(below, sizes, strict=True)
        )
        self.merge = nn.ModuleList(twice(a + b, b) for a, b in zip(skips, sizes, strict=True))
        self.head = nn.Conv2d(sizes[-1], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(B, K, H, W)`` of images ``(B, 3, H, W)`` in 0..255, H, W multiples of 32."""
        x, *skips = reversed(self.encoder(rescaled(image)))
        for up, merge, skip in zip_longest(self.up, self.merge, skips):
            x = merge(up(x) if skip is None else torch.cat((up(x), skip), dim=1))
        out: Tensor = self.head(x)
        return out


class PlainEncoder(nn.Module):
    """The way down of the paper's U-Net."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.down = nn.ModuleList(twice(a, b) for a, b in pairwise((3, *channels)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps at strides 1, 2, 4 and so on."""
        maps = []
        for block in self.down:
            maps.append(block(functional.max_pool2d(maps[-1], 2) if maps else x))
        return maps


def rescaled(image: Tensor) -> Tensor:
    """0..255 to -1..1."""
    return image.float() / 127.5 - 1


def twice(channels: int, out: int) -> nn.Sequential:
    """Two convolutions with norm and ReLU."""

    def once(a: int) -> list[nn.Module]:
        return [nn.Conv2d(a, out, 3, padding=1, bias=False), nn.GroupNorm(9, out), nn.ReLU()]

    return nn.Sequential(*once(channels), *once(out))


class ClassBatches(Dataset):
    """The segmentor's batches, with the number of the object class instead of words."""

    def __init__(self, crops, classes, shapes, seed) -> None:  # noqa: ANN001
        self.crops, self.classes, self.shapes, self.seed = crops, classes, shapes, seed

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images, classes ``(B, P)`` (-1: never trained), targets ``(B, P, H, W)``."""
        crops = [self.crops[key] for key in batch_keys(step, self.shapes, seed=self.seed)]
        rows = [[self.row(name) for name in crop.labels] for crop in crops]
        images = torch.from_numpy(np.stack([crop.image for crop in crops])).permute(0, 3, 1, 2)
        return images, torch.tensor(rows), torch.from_numpy(np.stack([c.target for c in crops]))

    def row(self, label: str) -> int:
        """Number of a label's object class."""
        object_class = object_class_of(label)
        return self.classes.index(object_class) if object_class in self.classes else -1


def train_unet(model: UNet, batches: ClassBatches, args: argparse.Namespace) -> int:
    """Trains in place, at a cosine rate over steps or minutes, whichever ends first.

    Returns:
        Steps that were made.
    """
    optimizer = torch.optim.AdamW(groups(model, args.encoder_lr), lr=args.lr, weight_decay=0.05)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(args.steps),
        num_workers=args.workers,
        prefetch_factor=4 if args.workers else None,
    )
    average = [p.detach().clone() for p in model.parameters()]
    started, dtype = time.monotonic(), DTYPES[args.precision]
    model.train()
    step = 0  # how many were made
    for images, classes, target in tqdm(loader, desc="training", mininterval=5):
        progress = max(step / args.steps, (time.monotonic() - started) / 60 / args.minutes)
        if progress >= 1:
            break
        rate = args.lr * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        device = torch.device(args.device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(images.to(device))
        optimizer.zero_grad(set_to_none=True)
        unet_loss(logits.float(), classes.to(device), target.to(device)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        decay = min(0.999, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - decay)
        step += 1
    for parameter, value in zip(model.parameters(), average, strict=True):
        parameter.data.copy_(value)
    return step


def groups(model: UNet, share: float) -> list[dict[str, object]]:
    """Weights with their share of the learning rate."""
    trunk = list(model.encoder.trunk.parameters()) if hasattr(model.encoder, "trunk") else []
    apart = {id(weight) for weight in trunk}
    rest = [weight for weight in model.parameters() if id(weight) not in apart]
    return [{"params": rest, "share": 1.0}, {"params": trunk, "share": share}]


def unet_loss(logits: Tensor, classes: Tensor, target: Tensor) -> Tensor:
    """BCE and Dice of the outputs that were asked for, as the segmentor's."""
    asked = classes >= 0
    chosen = logits.take_along_dim(classes.clamp(min=0)[..., None, None], dim=1)[asked]
    known, mask = (target != UNKNOWN).float()[asked], (target == 1).float()[asked]
    bce = functional.binary_cross_entropy_with_logits(chosen, mask, known, reduction="none")
    bce = bce.sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)
    return bce.mean() + soft_dice_loss(chosen, mask, known).mean()


class UNetPredictor:
    """Answers sentences with the output of their object class."""

    def __init__(self, model: UNet, classes: list[str], device: str) -> None:
        self.model, self.classes, self.device = model, classes, device

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Tensor:
        """Probabilities ``(K, H, W)``."""
        height, width = image.shape[:2]
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(self.device)
        pixels = functional.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        return self.model(pixels)[0, :, :height, :width].sigmoid()

    def masks(self, probability: Tensor, prompts: list[str]) -> Segmentation:
        """One mask a sentence, empty for an object class it has no output for."""
        rows = [object_class_of(prompt.rstrip(".")) for prompt in prompts]
        nothing = torch.zeros_like(probability[0])
        chosen = torch.stack([
            probability[self.classes.index(r)] if r in self.classes else nothing for r in rows
        ])
        inside = chosen > 0.5
        presence = (chosen * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)
        masks = inside.cpu().numpy()[None]
        peak = chosen.amax(dim=(1, 2)).cpu().numpy()[None]
        return Segmentation(masks, presence.cpu().numpy()[None], peak, masks.any(axis=(2, 3)))


if __name__ == "__main__":
    main()
