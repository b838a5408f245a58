"""TRIDENT and eva take an exported backbone as the documentation says, and give our features.

They need not share an environment with this package (TRIDENT asks for another timm): the variables
OPENSELFSUP_TEST_TRIDENT and OPENSELFSUP_TEST_EVA name a Python that has them.
"""

import importlib.util
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from benchmarks.speed.slide_files import demo_tissue, write_slide
from openselfsup.datasets.slides import open_slide
from openselfsup.evaluation.slide_features import read_slide_features
from openselfsup.models.exporting import export_to_timm
from openselfsup.registry import BACKBONES
from openselfsup.training.features import extract_features
from tests.test_docs import blocks

MEAN, STD = [0.6, 0.5, 0.7], [0.2, 0.3, 0.25]
NETWORKS = dict(resnet=dict(type='ResNet', depth=18), vit=dict(
    type='TimmBackbone', model='vit_small_patch16_224', img_size=64, embed_dim=48, depth=2,
    num_heads=2))


def python_with(package: str) -> str:
    """Return a Python that has a package, or skip the test."""
    if found := os.environ.get(f'OPENSELFSUP_TEST_{package.upper()}'):
        return found
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed, and OPENSELFSUP_TEST_{package.upper()} names no '
                    'Python that has it')
    return sys.executable


def run(python, code, folder):
    found = subprocess.run([python, '-c', code], cwd=folder, capture_output=True, text=True,
                           timeout=600, check=False)
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.fixture(params=NETWORKS)
def exported(request, tmp_path):
    """A backbone, and the folder that holds its export as FOLDER."""
    torch.manual_seed(0)
    config = NETWORKS[request.param]
    backbone = BACKBONES.build(config).eval()
    export_to_timm(backbone, config, tmp_path / 'FOLDER', MEAN, STD, 'Made by a test.')
    return backbone, tmp_path


@pytest.mark.slow
def test_trident_gives_our_features(exported):
    python, (backbone, folder) = python_with('trident'), exported
    write_slide(folder / 'a.svs', demo_tissue(1000, 800, 150), 0.5, kind='svs')
    encoder, = [code for code in blocks('docs/backbones.md') if 'CustomInferenceEncoder' in code]
    run(python, encoder + """
from trident import load_wsi
from trident.segmentation_models import segmentation_model_factory
with load_wsi('a.svs') as slide:
    slide.segment_tissue(segmentation_model_factory('otsu'), job_dir='job', device='cpu')
    coords = slide.extract_tissue_coords(target_mag=20, patch_size=64, save_coords='job/coords')
    slide.extract_patch_features(encoder, coords, 'job/features', device='cpu')
""", folder)
    with h5py.File(folder / 'job/features/a.h5') as file:
        theirs, corners = file['features'][:], file['coords'][:]
    slide = open_slide(str(folder / 'a.svs'))
    tiles = np.stack([slide.read(slide.region(*(corner + 32), 0.5, 64), 64) for corner in corners])
    ours = extract_features(backbone, torch.from_numpy(tiles).permute(0, 3, 1, 2), 16, MEAN, STD)
    assert len(theirs) > 20
    np.testing.assert_allclose(theirs, ours, atol=1e-3, rtol=1e-3)
    assert np.array_equal(read_slide_features(folder / 'job/features/a.h5').corners, corners)


@pytest.mark.slow
def test_eva_gives_our_features(exported):
    python, (backbone, folder) = python_with('eva'), exported
    tiles = np.stack([demo_tissue(264, 264, 100)[100:164, 100 + i:164 + i] for i in (0, 20, 36)])
    np.save(folder / 'tiles.npy', tiles)
    text, = [text for text in blocks('docs/backbones.md', 'yaml') if 'ModelFromFunction' in text]
    (folder / 'backbone.yaml').write_text(text)
    (folder / 'norm.json').write_text(json.dumps([MEAN, STD]))
    run(python, """
import json
import jsonargparse, numpy as np, torch
from eva.vision.data.transforms import ResizeAndCrop
parser = jsonargparse.ArgumentParser(parser_mode='omegaconf')
parser.add_subclass_arguments(torch.nn.Module, 'backbone')
backbone = parser.instantiate_classes(parser.parse_path('backbone.yaml')).backbone.eval()
mean, std = json.load(open('norm.json'))
images = torch.from_numpy(np.load('tiles.npy')).permute(0, 3, 1, 2)
with torch.no_grad():
    np.save('found.npy', backbone(ResizeAndCrop(64, mean, std)(images)))
""", folder)
    ours = extract_features(backbone, torch.from_numpy(tiles).permute(0, 3, 1, 2), 3, MEAN, STD)
    np.testing.assert_allclose(np.load(folder / 'found.npy'), ours, atol=1e-3, rtol=1e-3)
