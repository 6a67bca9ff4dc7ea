"""A run folder made by hand: one drawn slide, three classes of objects, classifiers of random
weights whose explanation is computed, not trained. Nothing of it needs the segmentor."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xpath.batch.done import mark_done
from xpath.batch.slides import SlideEntry
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.explanation import Explanation, write_explanation
from xpath.explain.importance import ObjectImportance
from xpath.geometry import Mpp, PatchGrid, Size
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.review.access import Access
from xpath.review.server import ReviewServer
from xpath.review.service import ReviewService
from xpath.store.features import SlideFeatures, write_features
from xpath.store.masks import MaskWriter
from xpath.study.config import ObjectsConfig, StudyConfig
from xpath.study.slides import bags_of, objects_of
from xpath.study.study import new_study
from xpath.testing.slides import write_slide

LABELS = ("breast-tissue-tumor", "breast-tissue-stroma", "breast-nuclei-lymphocyte")
SIDE, ACROSS, DOWN = 128, 4, 3  # pixels of a patch, patches
SLIDES = ("one", "two words")
MIN_COVERAGE = 0.001
TOKEN = "a-token-that-nobody-guesses"


def masks_of_the_slide():
    """``(L, H, W)`` of the whole slide: two tumours, one of them over a seam; stroma everywhere
    below; one lymphocyte in the large tumour."""
    masks = np.zeros((3, DOWN * SIDE, ACROSS * SIDE), bool)
    masks[0, 40:90, 60:220] = True  # over the seam at x = 128
    masks[0, 10:20, 300:340] = True
    masks[1, 200:384] = True
    masks[2, 60:68, 100:108] = True
    return masks


def grid_of(coords):
    return PatchGrid(
        coords=coords,
        footprint=SIDE,
        pixels=SIDE,
        mpp=Mpp(0.5),
        overlap=0,
        slide_size=Size(ACROSS * SIDE, DOWN * SIDE),
        slide_mpp=0.5,
    )


@pytest.fixture(scope="session")
def patched():
    """Grid, and masks patch by patch ``(N, L, H, W)``."""
    places = [(c * SIDE, r * SIDE) for r in range(DOWN) for c in range(ACROSS)]
    whole = masks_of_the_slide()
    masks = np.stack([whole[:, y : y + SIDE, x : x + SIDE] for x, y in places])
    return grid_of(np.array(places, np.int64)), masks


def write_masks(path, grid, masks):
    with MaskWriter(path, grid=grid, labels=LABELS, size=SIDE, provenance={}) as writer:
        presence = masks.any(axis=(2, 3)).astype(np.float32) * 0.75
        writer.write(0, masks, presence)


def explanation_of(slide, standard, aware):
    patches, objects = bags_of(slide, None, MIN_COVERAGE)
    by_object = object_activation(aware, objects)
    importance = ObjectImportance(
        slide_id=slide.slide_id,
        target=0,
        objects=(LABELS[0],),
        probability=0.9,
        hidden_probability=np.array([0.5]),
        imp=np.array([6.58]),
        effects=np.array([[2.2], [-2.2]]),
        random=np.array([[[0.25]], [[-0.25]]]),
        patches=np.array([3]),
        area=np.array([0.04]),
        slide_patches=9,
    )
    by_patch = patch_activation(standard, patches, 0)
    shared = np.zeros((len(LABELS), len(LABELS)), np.int64)
    return Explanation(patch=by_patch, object=by_object, importance=importance, shared=shared)


@pytest.fixture(scope="session")
def made(tmp_path_factory, patched):
    """Slides and a run of two of them, explained; tests must not change it."""
    home, rng = tmp_path_factory.mktemp("review"), np.random.default_rng(0)
    grid, masks = patched
    torch.manual_seed(0)
    standard, aware = AttentionMIL(8, ("A", "B")), ObjectAwareMIL(8, (*LABELS, "other"), ("A", "B"))
    y, x = np.indices((DOWN * SIDE, ACROSS * SIDE))
    image = np.stack([x // 2, y // 2, 255 - x // 2], axis=-1).astype(np.uint8)
    (home / "slides").mkdir()
    for slide_id in SLIDES:
        write_slide(home / "slides" / f"{slide_id}.tiff", image, mpp=0.5, levels=2, lossless=True)
    folder = study_in(home).folder
    standard.save_pretrained(folder.model("attention"))
    aware.save_pretrained(folder.model("object_aware"))
    coverage = np.concatenate([masks.mean(axis=(2, 3)), np.ones((len(grid), 1))], axis=1)
    for slide_id in SLIDES:
        write_masks(folder.masks(slide_id), grid, masks)
        mark_done(folder.masks(slide_id), "made by hand")
        features = SlideFeatures(
            slide_id=slide_id,
            grid=grid,
            features=rng.normal(size=(len(grid), 8)),
            object_features=rng.normal(size=(len(grid), 4, 8)) * (coverage > 0)[..., None],
            object_coverage=coverage,
            objects=(*LABELS, "other"),
        )
        write_features(folder.features(slide_id), features)
        write_explanation(folder.explanation(slide_id), explanation_of(features, standard, aware))
    study = study_in(home)
    for entry in study.slides[: len(SLIDES)]:
        objects_of(study, entry)
    return home


def study_in(home):
    """The third slide is not explained."""
    names = {slide_id: (slide_id, "A") for slide_id in SLIDES} | {"third": (SLIDES[0], "B")}
    entries = [
        SlideEntry(slide_id=slide_id, path=home / "slides" / f"{name}.tiff", label=label)
        for slide_id, (name, label) in names.items()
    ]
    config = StudyConfig(objects=ObjectsConfig(labels=LABELS, min_coverage=MIN_COVERAGE))
    return new_study(home / "run", config, entries)


@pytest.fixture
def run_folder(made, tmp_path):
    """A copy; tests may do with it what they want."""
    home = shutil.copytree(made, tmp_path / "home")
    return SimpleNamespace(root=home / "run", study=study_in(home), slides=home / "slides")


@pytest.fixture
def service(run_folder):
    return ReviewService(run_folder.study)


class Client:
    """Asks a server, connection by connection."""

    def __init__(self, server):
        self.server = server
        self.port = server.server_address[1]

    def ask(self, path, method="GET", body=None, **headers):
        """Status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, path, method="GET", body=None, **headers):
        """Status and what was said."""
        status, _, said = self.ask(path, method, body, **headers)
        return status, json.loads(said)


@contextmanager
def serving(service, token=""):
    """A server of the run in a thread."""
    server = ReviewServer(service, Access(host="127.0.0.1", token=token), port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def by_hand():
    """Serves a run."""
    return serving


@pytest.fixture(scope="session")
def readers(made):
    """A server of the run that is not to be changed."""
    with serving(ReviewService(study_in(made))) as client:
        yield client


@pytest.fixture
def client(service):
    """A server of the run that may be changed."""
    with serving(service) as client:
        yield client


@pytest.fixture
def guarded(service, monkeypatch):
    """A server that asks for a token."""
    monkeypatch.setattr("xpath.review.server.PENALTY", 0.0)
    with serving(service, TOKEN) as client:
        yield client
