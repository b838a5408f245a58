"""Checkpoints to give away, and old ones under the names of today."""

import hashlib

import pytest
import torch
from zoo_files import ZOO, tensors

from openselfsup import load_backbone
from openselfsup.checkpoints import backbone_record, detect, load, save
from openselfsup.checkpoints.publishing import publish
from openselfsup.checkpoints.upgrading import upgrade
from openselfsup.cli.main import dispatch
from openselfsup.errors import UserError

RECORD = dict(prefix='encoder_q.backbone.', config=dict(type='ResNet', depth=18),
              out_channels=[512], normalize=dict(mean=(0.5,) * 3, std=(0.2,) * 3), imports=[])


def our_run(path, **meta):
    """Write a training checkpoint of ours; return its weights."""
    body = {key.removeprefix('backbone.'): value for key, value in tensors(ZOO['SimCLR']).items()
            if key.startswith('backbone.')}
    state = {f'encoder_{side}.backbone.{key}': value for side in 'qk'
             for key, value in body.items()}
    save(dict(state_dict=state, optimizer=dict(state={0: torch.ones(5)}), scaler={},
              meta=dict(epoch=3, iteration=0, config="work_dir = '/home/me'\n", **meta)), path)
    return state


def test_what_is_published_is_named_after_its_hash_and_holds_nothing_of_the_run(tmp_path):
    state = our_run(tmp_path / 'latest.pth', backbone=RECORD)
    path = publish(tmp_path / 'latest.pth', tmp_path / 'new/plm_r18.pth')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path == tmp_path / f'new/plm_r18-{digest[:8]}.pth'
    content = load(path)
    assert content.keys() == {'state_dict', 'meta'}
    assert content['meta'] == dict(epoch=3, backbone=RECORD)
    assert content['state_dict'].keys() == state.keys()
    assert b'/home/me' not in path.read_bytes()
    assert publish(tmp_path / 'latest.pth', tmp_path / 'new/plm_r18.pth') == path
    body = load_backbone(path).state_dict()
    assert all(value.equal(state[f'encoder_q.backbone.{key}']) for key, value in body.items())


def test_without_a_name_it_lies_beside_the_checkpoint(tmp_path, capsys):
    torch.save(dict(state_dict=tensors(ZOO['MOCO']), optimizer={}, meta=dict(epoch=200, time='x')),
               tmp_path / 'a.pth')
    dispatch(['publish', str(tmp_path / 'a.pth')])
    path, = tmp_path.glob('a-????????.pth')
    assert str(path) in capsys.readouterr().out
    assert load(path)['meta'] == dict(epoch=200) and detect(load(path)) == 'OpenSelfSup'


def test_spoilt_weights_are_not_published(tmp_path):
    torch.save(dict(state_dict={'conv1.weight': torch.tensor([torch.nan])}), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='NaN'):
        publish(tmp_path / 'a.pth')
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.pth']


@pytest.mark.parametrize('name, prefix, method', [
    ('PLM', 'encoder_q.backbone.', 'PLM'), ('BYOL', 'online_net.backbone.', 'BYOL'),
    ('SimCLR', 'encoder_q.backbone.', 'SimCLR'), ('Classification', 'backbone.', None),
    ('DeepCluster', 'backbone.', 'DeepCluster')])
def test_a_published_checkpoint_gets_our_names(tmp_path, name, prefix, method, capsys):
    state = tensors(ZOO[name])
    torch.save(dict(state_dict=state, optimizer={}, meta=dict(epoch=200)), tmp_path / 'a.pth')
    dispatch(['upgrade', str(tmp_path / 'a.pth'), '--save-path', str(tmp_path / 'b.pth')])
    said = capsys.readouterr().out
    assert f'published {method or "OpenSelfSup"} checkpoint' in said
    assert f'the backbone is {prefix[:-1]}' in said
    content = load(tmp_path / 'b.pth')
    assert content['meta']['epoch'] == 200 and content['meta']['method'] == method
    assert backbone_record(content, '').prefix == prefix and detect(content) == 'ours'
    ours, theirs = (load_backbone(tmp_path / f'{file}.pth').state_dict() for file in 'ba')
    assert ours.keys() == theirs.keys()
    assert all(value.equal(theirs[key]) for key, value in ours.items())
    with pytest.raises(UserError, match='has the names of today already'):
        upgrade(tmp_path / 'b.pth', tmp_path / 'c.pth')


def test_an_older_run_of_ours_keeps_what_it_needs_to_go_on(tmp_path):
    state = our_run(tmp_path / 'old.pth')
    upgrade(tmp_path / 'old.pth', tmp_path / 'new.pth')
    old, new = load(tmp_path / 'old.pth'), load(tmp_path / 'new.pth')
    assert new['meta'].pop('backbone')['prefix'] == 'encoder_q.backbone.'
    assert new['meta'] == old['meta'] and new['state_dict'].keys() == state.keys()
    assert new['optimizer']['state'][0].equal(old['optimizer']['state'][0])


def test_bare_weights_lose_their_head(tmp_path):
    body = {key.removeprefix('backbone.'): value for key, value in tensors(ZOO['SimCLR']).items()
            if key.startswith('backbone.')}
    torch.save(body | {'head.fc_cls.weight': torch.ones(2, 2)}, tmp_path / 'a.pth')
    assert 'and nothing else' in upgrade(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert load(tmp_path / 'b.pth')['state_dict'].keys() == body.keys()


def test_what_cannot_be_upgraded_is_said(tmp_path):
    torch.save({'model.resnet.conv1.weight': torch.ones(1),
                'model.resnet.layer1.0.conv1.weight': torch.ones(1)}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r"another kind \(prefix 'model.resnet.'\)"):
        upgrade(tmp_path / 'a.pth', tmp_path / 'b.pth')
    with pytest.raises(UserError, match='replace the checkpoint itself'):
        upgrade(tmp_path / 'a.pth', tmp_path / 'a.pth')
    for words in ([], [str(tmp_path / 'b.pth'), '--save-path', str(tmp_path / 'c.pth')]):
        with pytest.raises(UserError, match='expected openselfsup upgrade CHECKPOINT OUT'):
            dispatch(['upgrade', str(tmp_path / 'a.pth'), *words])
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.pth']
