"""What training asks of a method, and what happens to a class that does not have it."""

import pytest
import torch
from methods import toy
from torch import nn
from toy_model import ToyBackbone

from openselfsup.checkpoints import describe_backbone
from openselfsup.errors import UserError
from openselfsup.models.method import BaseMethod, check_method
from openselfsup.models.parts import total_loss


class Smallest(BaseMethod):
    def __init__(self):
        super().__init__()
        self.backbone = ToyBackbone()


def test_a_base_method_with_a_backbone_is_a_method():
    check_method(Smallest())
    check_method(toy('MoCo'))


def test_what_a_class_lacks_is_named():
    with pytest.raises(UserError, match='BaseMethod lacks backbone; expected .*self.backbone'):
        check_method(BaseMethod())
    with pytest.raises(UserError, match='Linear lacks needs_geometry, batch_keys, features, '
                                        'backbone, set_data, begin_step, end_step, begin_pass, '
                                        'rate_factors, set_geometry, load_backbone'):
        check_method(nn.Linear(1, 1))


def test_a_key_that_no_batch_has_is_refused():
    method = Smallest()
    method.batch_keys = ('index', 'mask')
    with pytest.raises(UserError, match="asks for 'mask', which no batch has; .*index, label"):
        check_method(method)


def test_a_base_method_remembers_what_it_hears():
    method, other = Smallest(), Smallest()
    assert method.first_pass and method.loss_scale == 1 and not method.needs_geometry
    method.begin_pass(first=False, loss_scale=torch.tensor(8.))
    method.set_geometry('affine')
    assert not method.first_pass and method.loss_scale == 8 and method.geometry == 'affine'
    assert other.first_pass and other.loss_scale == 1 and other.geometry == 'axis_aligned'


def test_a_method_without_a_loss_is_told_what_it_returned():
    scalar = torch.tensor(1.)
    with pytest.raises(UserError, match="returns no loss but accuracy, total; .*with 'loss'"):
        total_loss(dict(accuracy=scalar, total=scalar))
    with pytest.raises(UserError, match='returns no loss but nothing; expected at least one'):
        total_loss({})
    assert total_loss(dict(loss_a=scalar, accuracy=scalar, loss=scalar)) == 2


def test_a_base_method_starts_from_weights(tmp_path):
    weights = {f'backbone.{name}': value + 1 for name, value in ToyBackbone().state_dict().items()}
    record = describe_backbone(Smallest(), dict(model={}))
    torch.save(dict(state_dict=weights, meta=dict(backbone=record)), tmp_path / 'ours.pth')
    method = Smallest()
    assert method.load_backbone(str(tmp_path / 'ours.pth')).matched == len(weights)
    for name, value in method.state_dict().items():
        assert torch.equal(value, weights[name])

    torch.save(weights, tmp_path / 'weights.pth')
    # A file of others does not say where the backbone is, and these are no names of a ResNet.
    with pytest.raises(UserError, match='weights.pth: no ResNet weights'):
        Smallest().load_backbone(str(tmp_path / 'weights.pth'))
