"""Every command of docs/reproduce.md runs, as written, on tiny data and random weights.

What is added to a command only makes it small: sizes, steps, the CPU, files that would come from a
hub. Other tools' models are left out of it (nnU-Net is another program, the others come from a
hub): ``tests/segment/baselines`` and ``tests/pipelines`` run them on tiny ones. The longest are
marked slow: the training, the studies of slides, and evaluations that differ from the main one by
an option.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.io import savemat

from xpath.cli.main import main
from xpath.grounded.checkpoint import GroundedInfo, save_grounded
from xpath.pathseg.prompts import sentences
from xpath.segment.checkpoints.checkpoint import SegmentorInfo, save_segmentor
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config
from xpath.store.tables import read_table
from xpath.testing.cohort import CohortPlan, make_cohort

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
BLOCKS = [line.strip() for line in PAGE.splitlines() if re.match(r"    (xpath|python) ", line)]
LINES = [line.split("  #")[0].strip() for line in BLOCKS]
INLINE = re.findall(r"`((?:xpath|python) [^`]+)`", PAGE)
EVERY = dict.fromkeys([*LINES, *(c for c in INLINE if " --" in c and "OUT" not in c)])
COMMANDS = [command for command in EVERY if "train_baseline" not in command]
SLOW = ("train_segmentor", "brca_subtype", "compare_segmentors", "--out X", "--out R", "--out D")
OTHERS = re.compile(r" --(?:model|detector|nnunet) \S+| --boxes SAM\S*=\S+")
"""Options that take another tool, or weights of a hub."""
SIDE = 64
SMALL_RUN = [
    "--device", "cpu", "--objects", "breast-tissue-tumor,breast-tissue-necrosis or debris",
    "--set", "tissue.min_area_um2=2000", "--set", "grid.patch_px=256", "--epochs", "2",
    "--set", "objects.encoder_size=0", "--set", "objects.encoder=test_vit",
    "--set", "explain.null_draws=1", "--set", "explain.evidence_seeds=0",
    "--set", "explain.resamples=50", "--set", "objects.batch=4",
]  # fmt: skip
ADDED = {
    "pathseg build": ["--size", str(SIDE), "--quiet"],
    "weights import": ["--tokenizer", "tokenizer.json"],
    "--bert": ["--tokenizer", "PUBMEDBERT"],
    "train_segmentor": [
        "--shapes", "2x64", "--steps", "2", "--device", "cpu", "--workers", "0", "--precision",
        "fp32",
    ],
    "evaluate_segmentor": ["--device", "cpu"],
    "evaluate_grounded": ["--max-tokens", "4", "--max-tiles", "1"],
    "--folds": ["--seeds", "2", "--folds", "2"],
    "brca_subtype": SMALL_RUN,
    "pathseg status": ["--quiet"],
}  # fmt: skip
"""What makes a command small, by words in it; the last that fits."""


def disc(size=SIDE):
    rows, columns = np.ogrid[:size, :size]
    return (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 3) ** 2


def pictures():
    """GlaS and CoNSeP as published, a few pictures each."""
    inside, rng = disc(), np.random.default_rng(0)
    top = Path("DATA/GlaS/Warwick QU Dataset (Released 2016_07_08)")
    top.mkdir(parents=True)
    for stem in ("train_1", "train_2", "testA_1", "testA_2"):
        pixels = rng.integers(180, 230, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[inside] = (110, 60, 140)
        Image.fromarray(pixels).save(top / f"{stem}.bmp")
        Image.fromarray(inside.astype(np.uint8)).save(top / f"{stem}_anno.bmp")
    for part, name in (("Train", "train_1"), ("Test", "test_1")):
        folder = Path("DATA/CoNSeP") / part
        for below in ("Images", "Labels"):
            (folder / below).mkdir(parents=True)
        pixels[~inside] = 200
        Image.fromarray(pixels).save(folder / "Images" / f"{name}.png")
        types = np.where(inside, 2.0, 0.0)
        types[:9, :9] = 5.0
        content = {"inst_map": types, "type_map": types, "inst_type": np.array([2.0, 5.0])}
        savemat(folder / "Labels" / f"{name}.mat", content)
    Image.fromarray(pixels).resize((256, 256)).save("tile.png")


def weights():
    """Random weights under the names that were published, and what their training would leave."""
    from transformers import BertConfig, BertModel, SamConfig, SamModel

    shapes = runpy.run_path(str(ROOT / "tests/segment/checkpoints/biomedparse_manifest.py"))
    tokenizer = fit_tokenizer(sentences(), vocabulary=700)
    tokenizer.save(Path("tokenizer.json"))
    config = replace(tiny_config(700), context=40, text_width=64, text_heads=1, dim=64, heads=8)
    draw = torch.Generator().manual_seed(0)
    wanted = shapes["shapes_of"](config) | shapes["spatial_shapes_of"](config)
    state = {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in wanted.items()}
    torch.save(state, "biomedparse_v1.pt")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "gland", "colon", "nuclei", "level"]
    bert = BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=64, num_hidden_layers=1, num_attention_heads=1,
            intermediate_size=256, max_position_embeddings=512,
        ),
        add_pooling_layer=True,
    )  # fmt: skip
    bert.save_pretrained("PUBMEDBERT")
    Path("PUBMEDBERT/vocab.txt").write_text("\n".join(words))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16}
    sam = SamConfig(
        vision_config=small
        | {"image_size": 64, "patch_size": 16, "output_channels": 8, "num_pos_feats": 4,
           "global_attn_indexes": [0]},
        prompt_encoder_config={"hidden_size": 8, "image_size": 64, "patch_size": 16,
                               "image_embedding_size": 4},
        mask_decoder_config=small | {"iou_head_hidden_dim": 8},
    )  # fmt: skip
    SamModel(sam).save_pretrained("medsam_vit_b.pth")  # a folder of transformers' will do
    small_vit = timm.create_model("test_vit", num_classes=0)
    torch.save({f"visual.trunk.{n}": v for n, v in small_vit.state_dict().items()}, "conch.bin")
    taught = ("colon-tissue-gland", "colon-cell-inflammatory")
    info = SegmentorInfo(name="tiny", mpp=0.25, image_size=SIDE, labels=taught, licence="CC0-1.0",
                         synthetic_only=True)  # fmt: skip
    plain = tiny_config(tokenizer.vocabulary)
    torch.manual_seed(0)
    model = build_segmentor(plain).eval()
    save_segmentor(Path("TRAINED/weights"), model, plain, tokenizer, info, card="#", half=False)


def grounded():
    tiny = runpy.run_path(str(ROOT / "tests/grounded/conftest.py"))
    tokenizer = tiny["tiny_tokenizer"]()
    model = tiny["tiny_model"](tokenizer)
    info = GroundedInfo(name="tiny", licence="CC0-1.0")
    save_grounded(Path("UNIBIOMED"), model.state_dict(), model.config, tokenizer, info)
    Image.fromarray(disc().astype(np.uint8) * 255).save("disc.png")
    report = {"image_file": "tile64.png", "mask_file": "disc.png", "abnormality": "tumor",
              "anatomy": "breast", "report": "a dark disc"}  # fmt: skip
    with Image.open("tile.png") as tile:
        tile.resize((SIDE, SIDE)).save("tile64.png")
    Path("reports.json").write_text(json.dumps([report]))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with everything the page takes for granted; the commands run in it."""
    folder, before = tmp_path_factory.mktemp("world"), Path.cwd()
    os.chdir(folder)
    pictures()
    weights()
    grounded()
    make_cohort(Path("cohort"), CohortPlan(slides=8, side=512, seed=3))
    shutil.copytree("cohort/slides", "SLIDES")
    shutil.copy("cohort/labels.csv", "LABELS.csv")
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def done(world, load_script):
    """Runs a command of the page once, and before it those whose files it reads."""
    ended: dict[str, int] = {}

    def run(command):
        for name, maker in MAKERS.items():
            if name in command and maker != command and maker not in ended:
                run(maker)
        if command not in ended:
            ended[command] = call(command, load_script)
        return ended[command]

    return run


MAKERS = {
    "PATHSEG": next(c for c in COMMANDS if "pathseg build" in c),
    "BIOMEDPARSE": next(c for c in COMMANDS if "--out BIOMEDPARSE" in c),
    "START": next(c for c in COMMANDS if "--out START" in c),
    "B/samples": next(c for c in COMMANDS if "--out B " in c),
    "E/samples": next(c for c in COMMANDS if "--out E " in c),
    "KS.json": next(c for c in COMMANDS if "--out KS.json" in c),
}
"""What a command reads, and the command that makes it."""


def expanded(word):
    """As a shell does; ``*/`` is for folders only."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def call(command, load_script):
    """The exit code of a command."""
    if "--out E " in command and not Path("MASKS").exists():
        Path("MASKS").mkdir()
        for mask in Path("PATHSEG").glob("*/test_mask/*.png"):
            shutil.copy(mask, "MASKS")
    ours = command if "weights presence" in command else OTHERS.sub("", command)
    words = shlex.split(ours)
    if "--out E " in command:
        words += ["--predictions", "nnU-Net=MASKS"]
    words = [word for each in words for word in expanded(each)]
    added = [more for name, more in ADDED.items() if name in command]
    if "--bert" in command:
        added = [ADDED["--bert"]]
    words += [word for more in added for word in more]
    if words[0] == "xpath":
        return main(words[1:])
    script = load_script(words[1])
    if script.main.__code__.co_argcount:
        return script.main(words[2:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script", *words[2:]])
        return script.main() or 0


def short(command):
    """Its script or sub-commands, and the folder it writes."""
    told = re.search(r"(?:xpath ((?:[a-z]+ ?)+)|pipelines/(\w+))", command)
    out = re.search(r"--(?:out|tables|figures) (\S+)", command)
    words = [told[1] or told[2], *(out.groups() if out else ())]
    return "-".join(word.strip().replace(" ", "-") for word in words)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.slow) if any(word in c for word in SLOW) else c
        for c in COMMANDS
    ],
    ids=map(short, COMMANDS),
)
def test_the_command_runs(command, done):
    assert done(command) == 0


FILES = {
    "E": [
        "compare_by_source.csv", "compare_by_region.csv", "compare_by_structure.csv",
        "compare_by_object_type.csv", "compare_by_label.csv", "compare_trends.csv", "trends.csv",
        "compare_improvement.csv", "prompt_cost.csv", "samples.csv", "dice_by_object_type.csv",
        "figures/bars_by_source.png", "figures/bars_by_object_type.png", "figures/trends.png",
        "figures/model_trends.png", "figures/prompt_cost.png", "figures/boxes_by_object_type.png",
        "figures/assd_by_object_type.png", "figures/improvement.png",
        "answers/panels_over_irregularity.png", "answers/panels_colon-tissue-gland.png",
    ],
    "X": ["untrained.csv", "compare_by_label.csv", "dice_by_label.csv", "spread.csv",
          "figures/spread.png", "figures/ranks_by_label.png"],
    "R": ["recognition.csv", "refusal.csv", "figures/recognition.png", "figures/refusal.png"],
    "C": ["compare_sizes.csv", "figures/sizes.png", "figures/bars_by_source.png"],
    "F": ["treemap.png", "bars.png", "sankey.png", "pies.png"],
    "T": [f"table{n}.csv" for n in range(1, 6)],
    "M": ["embeddings.png", "embeddings.csv", "silhouette.csv"],
    "A": ["ask.html"],
    "G": ["scores.csv", "answers.csv"],
}  # fmt: skip


@pytest.mark.parametrize(
    "folder", [pytest.param(f, marks=pytest.mark.slow) if f in "XRC" else f for f in FILES]
)
def test_what_the_page_names_is_there(folder, done, world):
    for command in COMMANDS:
        if re.search(rf"--(out|tables|figures) {folder}$|--out {folder} ", command):
            assert done(command) == 0
    for name in FILES[folder]:
        assert (world / folder / name).stat().st_size > 20, name


def test_every_model_has_its_column(done, world):
    done(next(c for c in COMMANDS if "--out E " in c))
    row = read_table(world / "E" / "compare_by_source.csv")[-1]
    models = {"PathSegmentor", "BiomedParse", "nnU-Net", "MedSAM union", "MedSAM instance"}
    assert models <= row.keys()
    assert row["nnU-Net"] == "1.0"  # its masks are the truth
    assert row["best"] == "nnU-Net"


@pytest.mark.slow
def test_the_studies_leave_the_figures_and_the_table(done, world):
    for command in COMMANDS:
        if "brca_subtype" in command:
            assert done(command) == 0
    for name in ("hidden.png", "importance.png", "activation.png"):
        assert (world / "RUN" / "figures" / name).stat().st_size > 5000
    rows = read_table(world / "FOLDS" / "tables" / "table19.csv")
    assert {"attention", "object_aware"} <= {row["model"] for row in rows}
    assert {(row["folds"], row["seeds"]) for row in rows} == {("2", "2")}
