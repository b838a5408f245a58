"""U-Net on tiles with masks: settings, ignored pixels, learning, resuming, the command line."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from openselfsup.checkpoints import load, save
from openselfsup.datasets.prepare.mask_codes import CodeTable
from openselfsup.datasets.prepare.mask_folders import pair_masks
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.prepare.synthetic import draw_glands
from openselfsup.errors import UserError
from openselfsup.models.backbones.resnet import ResNet
from openselfsup.models.parts import total_loss
from openselfsup.registry import BACKBONES
from openselfsup.training import precision
from openselfsup.transfer.semantic.config import SemanticConfig
from openselfsup.transfer.semantic.data import MaskDataset, crop_batch, open_data_sets
from openselfsup.transfer.semantic.losses import segmentation_losses
from openselfsup.transfer.semantic.trainer import SemanticTrainer, learning_rates
from tests.transfer.messages import count_told

SEMANTIC = Path(__file__).resolve().parents[2] / 'segmentation' / 'semantic'


@pytest.fixture(scope='module')
def tiles(tmp_path_factory) -> Path:
    """Glands (1) on stroma (0) of 96 px, a corner of each tile ignored."""
    folder = tmp_path_factory.mktemp('tiles')
    for split, count in (('train', 8), ('test', 3)):
        for kind in ('images', 'masks'):
            (folder / split / kind).mkdir(parents=True)
        for i in range(count):
            image, ids = draw_glands(96, np.random.default_rng((i, len(split))))
            mask = (ids > 0).astype(np.uint8)
            mask[:20, :20] = 255
            Image.fromarray(image).save(folder / split / 'images' / f'{i}.png')
            Image.fromarray(mask).save(folder / split / 'masks' / f'{i}.png')
    (folder / 'classes.json').write_text(json.dumps(dict(classes=['stroma', 'gland'],
                                                         ignore_index=255)))
    return folder


def config(tiles: Path, out: Path, **more) -> SemanticConfig:
    return SemanticConfig(**{**dict(data=str(tiles), out=str(out), crop=64, batch_size=4, width=16,
                                    iterations=2, amp='off', lr=2e-3), **more})


def test_it_learns_and_scores_pooled_pixels(tiles, tmp_path):
    trainer = SemanticTrainer(config(tiles, tmp_path, iterations=40), torch.device('cpu'))
    trainer.fit()
    seen = []
    results = trainer.evaluate(lambda i, truth, found: seen.append((truth, found)))
    truth, found = (np.concatenate([p[k].ravel() for p in seen]) for k in (0, 1))
    counted = truth != 255
    gland = 2 * ((truth == 1) & (found == 1)).sum() / (
        (truth == 1).sum() + (found == 1)[counted].sum())
    assert results['scores']['classes']['gland']['dice'] == pytest.approx(gland)
    assert gland > 0.7
    assert results == json.loads((tmp_path / 'results.json').read_text())


def test_the_ignored_value_of_the_config_counts_before_that_of_the_file(tiles, tmp_path):
    shutil.copytree(tiles, tmp_path / 'tiles')
    listed = tmp_path / 'tiles/classes.json'
    said = json.loads(listed.read_text())
    for own, options, good in (({}, {}, True), ({}, dict(ignore_index=200), False),
                               (dict(ignore_index=7), {}, False),
                               (dict(ignore_index=7), dict(ignore_index=255), True)):
        listed.write_text(json.dumps({key: value for key, value in said.items()
                                      if key != 'ignore_index'} | own))
        asked = config(tmp_path / 'tiles', tmp_path, **options)
        if good:  # masks hold 255
            assert open_data_sets(asked)[0].ignore_index == 255
        else:
            with pytest.raises(UserError, match='values that are no class .*: 255 100.00%'):
                open_data_sets(asked)


def test_training_images_in_the_test_are_told(tiles, tmp_path):
    shutil.copytree(tiles, tmp_path / 'tiles')
    assert open_data_sets(config(tmp_path / 'tiles', tmp_path))[2].notes == []
    for kind in ('images', 'masks'):
        shutil.copy(tiles / 'train' / kind / '5.png', tmp_path / 'tiles/test' / kind / 'own.png')
    note, = open_data_sets(config(tmp_path / 'tiles', tmp_path))[2].notes
    assert '1 of 4 are training images too, such as own.png: the scores will be' in note


@pytest.mark.parametrize('freeze', [False, True])
def test_a_vit_is_an_encoder_too(freeze, tiles, tmp_path):
    vit = BACKBONES.build(dict(type='TimmBackbone', model='vit_small_patch14_dinov2', depth=2,
                               embed_dim=64, num_heads=1, img_size=42))
    save({name.removeprefix('net.'): value for name, value in vit.state_dict().items()
          if name != 'mask_token'}, tmp_path / 'vit.pth')
    settings = dict(backbone=str(tmp_path / 'vit.pth'), freeze=freeze, layer_decay=0.7)
    trainer = SemanticTrainer(config(tiles, tmp_path / 'o', **settings), torch.device('cpu'))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit()
    moved = {name for name, value in trainer.model.state_dict().items()
             if not value.equal(before[name])}
    assert ('backbone.net.blocks.0.attn.proj.weight' in moved) != freeze
    assert {'pyramid.levels.0.0.weight', 'up1.convs.0.weight'} <= moved
    assert trainer.predict(np.zeros((50, 70, 3), np.uint8)).shape == (50, 70)
    again = SemanticTrainer(config(tiles, tmp_path / 'o', iterations=3, **settings),
                            torch.device('cpu'))
    again.fit(resume=True)
    assert again.started_at == 2


def test_a_resnet_has_no_layers_that_learn_slower(tiles, tmp_path, weights):
    with pytest.raises(UserError, match='layer_decay is 0.7, for the layers of a ViT'):
        SemanticTrainer(config(tiles, tmp_path, layer_decay=0.7, backbone=str(weights)),
                        torch.device('cpu'))


def test_a_frozen_backbone_stays_as_it_was(tiles, tmp_path):
    body = ResNet(18)
    torch.save(dict(state_dict=body.state_dict()), tmp_path / 'b.pth')
    trainer = SemanticTrainer(config(tiles, tmp_path / 'o', freeze=True,
                                       backbone=str(tmp_path / 'b.pth')), torch.device('cpu'))
    trainer.fit()
    for name, value in trainer.model.backbone.state_dict().items():
        assert torch.equal(value, body.state_dict()[name]), name


def test_resumed_equals_uninterrupted(tiles, tmp_path):
    whole = SemanticTrainer(config(tiles, tmp_path / 'a', iterations=4), torch.device('cpu'))
    whole.fit()
    first = SemanticTrainer(config(tiles, tmp_path / 'b', iterations=4), torch.device('cpu'))
    stop = first._batch

    def killed(iteration: int):
        if iteration == 3:
            raise KeyboardInterrupt
        return stop(iteration)
    first._batch = killed
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = SemanticTrainer(config(tiles, tmp_path / 'b', iterations=4), torch.device('cpu'))
    second.fit(resume=True)
    assert second.started_at > 0
    for (name, a), b in zip(whole.model.state_dict().items(), second.model.state_dict().values()):
        assert torch.equal(a, b), name


def test_a_run_goes_on_with_its_model_and_says_what_else_changed(tiles, tmp_path, caplog,
                                                                 monkeypatch):
    caplog.set_level('INFO', 'openselfsup.transfer')
    monkeypatch.setattr(logging.getLogger('openselfsup'), 'propagate', True)
    SemanticTrainer(config(tiles, tmp_path), torch.device('cpu')).fit()
    more = SemanticTrainer(config(tiles, tmp_path, iterations=3, weight_decay=0.5),
                           torch.device('cpu'))
    more.fit(resume=True)
    assert 'weight_decay was 0.01, is now 0.5' in caplog.text and more.started_at == 2
    saved = load(tmp_path / 'latest.pth')
    assert saved['optimizer']['param_groups'][0]['weight_decay'] == 0.5
    saved['settings']['amp'] = False  # as earlier versions wrote it
    torch.save(saved, tmp_path / 'latest.pth')
    monkeypatch.setattr(precision, 'computes_in_bf16', lambda device: False)
    for amp, told in (('auto', 0), ('bf16', 1)):
        caplog.clear()
        SemanticTrainer(config(tiles, tmp_path, iterations=4, amp=amp), torch.device('cpu')
                        ).fit(resume=True)
        assert count_told(caplog, 'amp was') == told
    assert "amp was 'off', is now 'bf16'" in caplog.text
    other = SemanticTrainer(config(tiles, tmp_path, width=8), torch.device('cpu'))
    with pytest.raises(UserError, match='another model or other classes: width was 16, is now 8'):
        other.fit(resume=True)


def test_a_longer_run_is_not_scored_as_a_shorter_one(tiles, tmp_path):
    SemanticTrainer(config(tiles, tmp_path, iterations=3), torch.device('cpu')).fit()
    saved = (tmp_path / 'latest.pth').read_bytes()
    with pytest.raises(UserError, match='latest.pth: iterations is 2, and this run was trained '
                       'for 3 iterations; expected 3 or more to --resume, or another folder'):
        SemanticTrainer(config(tiles, tmp_path, iterations=2), torch.device('cpu')
                        ).fit(resume=True)
    assert (tmp_path / 'latest.pth').read_bytes() == saved
    whole = SemanticTrainer(config(tiles, tmp_path, iterations=3), torch.device('cpu'))
    whole.fit(resume=True)  # the same length: it is scored again
    assert whole.started_at == 3


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tiles, tmp_path):
    trainer = SemanticTrainer(config(tiles, tmp_path, iterations=30), torch.device('cpu'))
    batch = trainer._batch
    trainer._batch = lambda i: batch(i) if i < 4 else (batch(i)[0] * torch.nan, batch(i)[1])
    with pytest.raises(UserError, match=f'iteration 5: loss_entropy = nan, loss_dice = nan is not '
                                        f'finite.*{tmp_path}/latest.pth'):
        trainer.fit()
    assert load(tmp_path / 'latest.pth')['iteration'] == 3


def test_precisions_have_the_names_that_they_have_everywhere(tiles, tmp_path):
    for word, amp in ((True, 'bf16'), (False, 'off'), ('fp16', 'fp16'), ('auto', 'auto')):
        assert SemanticConfig.read(dict(amp=(word, 'x.yaml'))).amp == amp
    with pytest.raises(UserError, match="amp is 'half', expected one of auto, bf16"):
        SemanticConfig.read(dict(amp=('half', 'x.yaml')))
    with pytest.raises(UserError, match='fp16 needs a GPU'):
        SemanticTrainer(config(tiles, tmp_path, amp='fp16'), torch.device('cpu'))


def test_rates_rise_in_a_line_and_fall_like_a_cosine():
    rates = learning_rates(2.0, 100)
    np.testing.assert_allclose(rates[:6], [0.4, 0.8, 1.2, 1.6, 2.0, 2.0])
    assert rates[52] == pytest.approx(1 + np.cos(np.pi * 47 / 95))
    assert learning_rates(2.0, 1).tolist() == [2.0]


def test_ignored_pixels_give_no_loss_and_no_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = torch.randint(0, 3, (2, 4, 4))
    masks[:, :2] = 255
    total(logits, masks, 255).backward()
    assert logits.grad[:, :, :2].abs().max() == 0 and logits.grad[:, :, 2:].abs().min() > 0
    other = logits.detach().clone()
    other[:, :, :2] = 9
    assert total(other, masks, 255) == total(logits, masks, 255)
    assert total(logits, torch.full((2, 4, 4), 255), 255) == 0


def total(*args):
    return total_loss(segmentation_losses(*args))


def pairs_of(folder: Path, image: np.ndarray, mask: np.ndarray) -> list:
    """Write a pair; the image may be grey."""
    for kind, array in (('images', image), ('masks', mask)):
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / kind / 'a.png')
    return pair_masks(folder / 'images', folder / 'masks', Report(''))


def test_crops_keep_image_and_mask_together_and_fill_up_with_ignored(tmp_path):
    image = np.arange(40 * 50, dtype=np.uint8).reshape(40, 50)
    data = MaskDataset(pairs_of(tmp_path, image, (image > 100).astype(np.uint8)),
                       CodeTable(['low', 'high']))
    for size in (32, 64):
        for seed in range(6):
            images, masks = crop_batch(data, [0], size, np.random.default_rng(seed))
            counted = masks[0] != 255
            assert torch.equal((images[0, 0] > 100)[counted], (masks[0] == 1)[counted])
            assert counted.sum() == (32 * 32 if size == 32 else 40 * 50)


def test_codes_become_classes_and_others_are_refused(tmp_path):
    codes = np.full((40, 40), 7, np.uint8)
    codes[:10], codes[10:20] = 1, 20
    pairs = pairs_of(tmp_path, np.zeros((40, 40, 3), np.uint8), codes)
    classes = ['stroma', 'tumor']
    named = CodeTable(classes, 255, {1: 1, 20: 'tumor', 2: 0, 'others': 'ignore'})
    _, mask = MaskDataset(pairs, named).read(0)
    assert (mask[:20] == 1).all() and (mask[20:] == 255).all()
    for table in (CodeTable(classes), CodeTable(classes, 255, {1: 1, 2: 0})):
        with pytest.raises(UserError, match='a.png: holds values that are no class'):
            MaskDataset(pairs, table).read(0)


def test_mistakes_in_a_config_are_told_at_once():
    with pytest.raises(UserError) as error:
        SemanticConfig.read(dict(iteration=(3, 'x.yaml'), lr=('fast', 'x.yaml'),
                                 depth=(34, 'x.yaml')))
    assert "did you mean 'iterations'" in str(error.value) and 'lr is' in str(error.value)
    bad = dict(lr=-1.0, seed=-1, batch_size=0, iterations=2.5, depth=19, classes='gland',
               codes=[0, 255], data=7, weight_decay=float('nan'), freeze='yes')
    with pytest.raises(UserError) as error:
        SemanticConfig.read({name: (value, 'x.yaml') for name, value in bad.items()})
    assert all(f'x.yaml: {name} is {value!r}, expected ' in str(error.value)
               for name, value in bad.items())
    read = SemanticConfig.read(dict(lr=('3e-4', 'x.yaml'), codes=({0: 0}, 'x.yaml')))
    assert read.lr == 3e-4 and read.codes == {0: 0}


def test_the_command_line(tiles, tmp_path, tool):
    done = subprocess.run(
        [sys.executable, 'train.py', 'configs/bcss_r18_unet_frozen.yaml', '--cpu', 'data',
         str(tiles), 'out', str(tmp_path), 'crop', '64', 'batch_size', '2', 'iterations', '2',
         'width', '8'], cwd=SEMANTIC, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'gland' in done.stdout and (tmp_path / 'index.html').read_text().count('<img') == 4
    settings_read = json.loads((tmp_path / 'results.json').read_text())['run']['settings']
    assert settings_read['freeze'] is True and settings_read['depth'] == 18
    again = tool('segmentation/semantic/train.py', 'configs/bcss_r18_unet.yaml', 'data', tiles,
                 'out', tmp_path, cwd=SEMANTIC)
    assert again.returncode == 2 and 'an earlier run left results.json' in again.stderr


@pytest.mark.parametrize('form, told', [
    ('0 and 255', 'codes: {0: stroma, 255: gland}'),
    ('colours', "codes: {'#000000': stroma, '#00ff00': gland}")])
def test_masks_of_other_codes_are_refused_before_training_and_learned_as_told(
        tiles, tmp_path, form, told):
    """The whole way of a user: refused, the config mended as the message says, learned."""
    for split in ('train', 'test'):
        shutil.copytree(tiles / split / 'images', tmp_path / split / 'images')
        (tmp_path / split / 'masks').mkdir()
        for path in (tiles / split / 'masks').iterdir():
            gland = (np.asarray(Image.open(path)) == 1).astype(np.uint8) * 255
            mask = gland if form == '0 and 255' else np.stack([gland * 0, gland, gland * 0], -1)
            Image.fromarray(mask).save(tmp_path / split / 'masks' / path.name)
    own = dict(data=None, classes=['stroma', 'gland'], **{
        f'{split}_{kind}': str(tmp_path / split / kind) for split in ('train', 'test')
        for kind in ('images', 'masks')})
    out = tmp_path / 'out'
    with pytest.raises(UserError) as error:
        SemanticTrainer(config(tiles, out, **own, codes={0: 0, 1: 1}), torch.device('cpu'))
    assert told in str(error.value) and not out.exists()
    codes = yaml.safe_load(told)['codes']
    trainer = SemanticTrainer(config(tiles, out, **own, codes=codes, iterations=40),
                              torch.device('cpu'))
    assert (trainer.test_set.read(0)[1] == (np.asarray(Image.open(tiles / 'test/masks/0.png')) == 1)
            ).all()
    if form == '0 and 255':  # the same masks from here on
        return
    trainer.fit()
    results = trainer.evaluate()
    assert results['scores']['classes']['gland']['dice'] > 0.7
    assert 'gland' in results['data']['facts']['train'] and not results['data']['notes']
