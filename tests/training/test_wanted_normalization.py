"""Which normalisation a backbone wants: of its training, of its folder, or ImageNet's."""

import json
import shutil

import pytest
import torch
from PIL import Image

from benchmarks.learning import classification, dense
from benchmarks.learning.networks import Network
from openselfsup.checkpoints import save
from openselfsup.checkpoints.extracting import extract_backbone
from openselfsup.cli.extract import backbone_of
from openselfsup.cli.main import main
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.evaluation import networks
from openselfsup.models.backbones.resnet import ResNet
from openselfsup.training.normalization import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalize,
    Wanted,
    normalization_of,
)
from openselfsup.transfer.semantic.config import SemanticConfig
from openselfsup.transfer.semantic.trainer import SemanticTrainer

OWN = (0.5, 0.6, 0.7), (0.3, 0.2, 0.1)
SAID = dict(mean=list(OWN[0]), std=list(OWN[1]))


@pytest.fixture(scope='module')
def ours(tmp_path_factory):
    """A checkpoint of a run that recorded its normalisation."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('run') / 'latest.pth'
    save(dict(state_dict={f'encoder_q.backbone.{name}': value
                          for name, value in ResNet(18).state_dict().items()},
              meta=dict(backbone=dict(prefix='encoder_q.backbone.', normalize=SAID,
                                      config=dict(type='ResNet', depth=18)))), path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Weights as hubs have them."""
    save(ResNet(18).state_dict(), tmp_path / 'hub/pytorch_model.bin')
    return tmp_path / 'hub'


def numbers(wanted):
    return wanted.mean, wanted.std


def test_our_checkpoints_and_what_is_extracted_from_them_say_it(ours, tmp_path):
    extract_backbone(ours, tmp_path / 'pytorch_model.bin')
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        architecture='resnet18', pretrained_cfg=dict(mean=[0.1] * 3, std=[0.1] * 3))))
    for path in (ours, tmp_path / 'pytorch_model.bin', tmp_path):
        assert numbers(normalization_of(path)) == OWN
        assert numbers(networks.from_checkpoint('resnet18', path).wanted) == OWN


@pytest.mark.parametrize('file, content', [
    ('config.json', dict(architecture='resnet18', pretrained_cfg=SAID)),
    ('config.json', dict(architecture='resnet18', **SAID)),
    ('preprocessor_config.json', dict(image_mean=SAID['mean'], image_std=SAID['std']))])
def test_the_folder_of_published_weights_says_it(file, content, folder):
    (folder / file).write_text(json.dumps(content))
    wanted = normalization_of(folder)
    assert numbers(wanted) == OWN and file in str(wanted)
    assert networks.from_checkpoint('resnet18', folder).wanted == wanted
    shutil.copy(folder / 'pytorch_model.bin', folder / 'mine.pth')  # not what the file is beside
    assert normalization_of(folder / 'mine.pth') == Wanted()


def test_a_hub_says_it(folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    (folder / 'config.json').write_text(json.dumps(dict(
        architecture='resnet18', pretrained_cfg=SAID)))

    def download(model, name):
        if not (folder / name).exists():
            raise EntryNotFoundError.__new__(EntryNotFoundError)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    assert numbers(normalization_of('hf-hub:Owner/Model')) == OWN


def test_nothing_says_it(folder):
    (folder / 'config.json').write_text(json.dumps(dict(architectures=['ViTModel'])))
    assert numbers(normalization_of(folder)) == (IMAGENET_MEAN, IMAGENET_STD)
    assert "ImageNet's" in str(normalization_of(folder))
    for text, words in (('{', 'beside the weights cannot be read'),
                        (json.dumps(dict(architecture='x', mean=[1], std=[1, 2, 0])),
                         'the normalisation in this file is')):
        (folder / 'config.json').write_text(text)
        with pytest.raises(UserError, match=words):
            normalization_of(folder)


def test_extraction_says_where_the_config_has_other_numbers(ours, capsys):
    cfg = load_config('demo/plm_r18', ['model.backbone.norm_cfg=None'])
    backbone_of(cfg, str(ours))
    assert f'WARNING: {ours} wants images normalised otherwise' in capsys.readouterr().out
    for weights in (str(ours), 'random'):
        cfg.normalize = SAID
        backbone_of(cfg, weights)
        assert 'WARNING' not in capsys.readouterr().out


def test_one_number_of_two_is_refused(monkeypatch, capsys, ours):
    for more in ([], ['--dense']):
        monkeypatch.setattr('sys.argv', ['openselfsup', 'evaluate', '--model_path', str(ours),
                                         '--mean', '0.5', '0.5', '0.5', *more])
        with pytest.raises(SystemExit) as left:
            main()
        assert '--mean, --std: one of both is given' in f'{left.value}{capsys.readouterr().err}'


def test_a_unet_takes_it(ours, tmp_path):
    for split in ('train', 'test'):
        for kind in ('images', 'masks'):
            (tmp_path / split / kind).mkdir(parents=True)
            picture = Image.new('RGB' if kind == 'images' else 'L', (64, 64))
            picture.paste(1 if kind == 'masks' else (200, 100, 200), (0, 0, 32, 32))
            picture.save(tmp_path / split / kind / f'{split}.png')
    (tmp_path / 'classes.json').write_text(json.dumps(dict(classes=['a', 'b'], ignore_index=255)))
    trainer = SemanticTrainer(SemanticConfig(
        data=str(tmp_path), out=str(tmp_path / 'out'), crop=64, width=16, amp='off',
        backbone=str(ours)), torch.device('cpu'))
    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(trainer.normalize(pixels), Normalize(*OWN)(pixels))
    assert trainer.evaluate()['run']['normalize'] == SAID


def test_the_study_takes_it(ours, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(dense, 'measure',
                        lambda *_, mean, std, **__: given.append((mean, std)) or [])
    monkeypatch.setattr(classification, 'extract_features',
                        lambda *args: given.append(args[3:]) or torch.zeros(1, 1))
    monkeypatch.setattr(classification, 'LabeledTileDataset', lambda *_, **__: None)
    monkeypatch.setattr(classification, 'answers', lambda *_: {})
    part = type('Part', (), dict(source=None, indices=torch.zeros(1)))
    network = Network('random init', dict(type='ResNet', depth=18))
    for checkpoint, expected in ((ours, OWN), (None, (IMAGENET_MEAN, IMAGENET_STD))):
        dense._probe('PLM', network, checkpoint, 0, None, {}, 'cpu')
        classification.evaluate('PLM', network, checkpoint, bool(checkpoint), (part, part), 32,
                                tmp_path)
        assert given == [expected] * 3
        given.clear()
