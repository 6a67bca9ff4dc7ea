"""Segment an image with words: encode once, ask as often as you like.

    python examples/segment_with_words.py [IMAGE] [--out overlay.png]

Without an image it draws one. What the weights that ship have seen stands in their model card.
"""

# %% an image at half a micron per pixel
import argparse
from pathlib import Path

import numpy as np

from xpath import SegmentPredictor
from xpath.export.overlay import objects_rgba, stacked, write_png
from xpath.geometry import Size
from xpath.labels import load_labels
from xpath.testing.tissue import TissueRecipe, paint_tissue

parser = argparse.ArgumentParser(description="Segment an image with words.")
parser.add_argument("image", nargs="?", type=Path)
parser.add_argument("--out", type=Path, default=Path("overlay.png"))
args = parser.parse_args()

if args.image:
    from PIL import Image

    image = np.asarray(Image.open(args.image).convert("RGB"))
else:
    recipe = TissueRecipe(tumour=0.4, infiltrate=0.15, necrosis=0.1, glass=0.0)
    image = paint_tissue(Size(512, 512), recipe, np.random.default_rng(1)).image

# %% three questions, one encoding
spoken = [
    "tumour, breast tissue",
    "lymphocytes (breast nuclei)",
    "breast tissue necrosis or debris",
]
labels = [load_labels().parse(text) for text in spoken]
predictor = SegmentPredictor.from_pretrained()
found = predictor.masks(predictor.encode(image), [label.prompt for label in labels])
for label, mask, presence in zip(labels, found.masks[0], found.presence[0], strict=True):
    print(f"{label.prompt:60} area {mask.mean():6.1%}  presence {presence:.2f}")

# %% look at it
shares = found.masks[0].astype(np.float32)
write_png(args.out, stacked(image, objects_rgba(shares, [label.id for label in labels])))
print("wrote", args.out)
