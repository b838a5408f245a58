"""Whatever draws with torch draws from the generator of a view, and from nothing else."""

import inspect
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import distributions
from torch.utils._pytree import tree_leaves
from torchvision import tv_tensors
from torchvision.transforms import v2

from openselfsup.views.one_generator import DrawFrom, with_generator

# Layers of networks: their dropout, where they have one, takes no generator in any form. The
# plain ones are made of operations that do.
LAYERS = ('attention', 'sdp', 'dropout', 'rnn', 'gru', 'lstm', 'nested_tensor_softmax')


def test_every_random_operation_of_torch_takes_the_generator():
    names = {schema.name.removeprefix('aten::') for schema in torch._C._jit_get_all_schemas()
             if schema.name.startswith('aten::')}
    forms = [getattr(packet, form) for name in names
             if (packet := getattr(torch.ops.aten, name, None)) for form in packet.overloads()]
    drawing = [form for form in forms if torch.Tag.nondeterministic_seeded in form.tags]
    assert len(drawing) > 60
    without = {form.overloadpacket.__name__ for form in drawing if with_generator(form) is None}
    like = {'rand_like', 'randn_like', 'randint_like'}  # drawn as rand, randn and randint
    assert not [name for name in without - like if not any(layer in name for layer in LAYERS)]
    assert with_generator(torch.ops.aten.add.Tensor) is None


X = torch.full((3, 50), 0.5)


@pytest.mark.parametrize('draw', [
    lambda: torch.rand(9), lambda: torch.randn(9), lambda: torch.randint(1000, (9,)),
    lambda: torch.randint(5, 1000, (9,)), lambda: torch.randperm(50),
    lambda: torch.rand_like(X), lambda: torch.randn_like(X, dtype=torch.float64),
    lambda: torch.randint_like(X, 1000), lambda: torch.randint_like(X, 5, 1000),
    lambda: torch.normal(X, X), lambda: torch.normal(0., 1., (9,)), lambda: torch.bernoulli(X),
    lambda: torch.multinomial(X, 9), lambda: torch.poisson(9 * X),
    lambda: torch.binomial(100 * X, X), lambda: torch._sample_dirichlet(X),
    lambda: torch._standard_gamma(X), lambda: torch.rand(9, out=torch.empty(9)),
    lambda: X.clone().uniform_(), lambda: X.clone().normal_(), lambda: X.clone().random_(),
    lambda: X.clone().bernoulli_(), lambda: X.clone().exponential_(), lambda: X.clone().cauchy_(),
    lambda: X.clone().log_normal_(), lambda: X.clone().geometric_(0.1), lambda: X.bernoulli(),
    lambda: distributions.Beta(2., 3.).sample((9,)), lambda: distributions.Poisson(9.).sample((9,)),
    lambda: distributions.StudentT(3.).sample((9,)), lambda: F.dropout(X),
    lambda: F.alpha_dropout(X, training=True), lambda: F.rrelu(-X, training=True)])
def test_numbers_depend_on_the_generator_alone(draw):
    def drawn(seed):
        with DrawFrom(torch.Generator().manual_seed(seed)):
            return draw()

    state = torch.get_rng_state()
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    assert torch.equal(state, torch.get_rng_state())


def test_numbers_are_those_of_a_call_with_the_generator():
    def generator():
        return torch.Generator().manual_seed(7)

    with DrawFrom(generator()):
        found = [torch.rand(4, 5), torch.randn_like(torch.empty(5, 4).T, dtype=torch.float64)]
        own = torch.poisson(X, generator())
    given = generator()
    assert torch.equal(found[0], torch.rand(4, 5, generator=given))
    assert torch.equal(found[1], torch.randn(4, 5, dtype=torch.float64, generator=given))
    assert torch.equal(own, torch.poisson(X, generator()))


NEEDED = dict(
    CenterCrop=dict(size=20), ColorJitter=dict(brightness=.4, hue=.1), FiveCrop=dict(size=20),
    GaussianBlur=dict(kernel_size=5), JPEG=dict(quality=(5, 90)), Pad=dict(padding=3),
    RandomAdjustSharpness=dict(sharpness_factor=2), RandomAffine=dict(degrees=20),
    RandomChoice=dict(transforms=[v2.Grayscale(), v2.RandomInvert()]),
    RandomCrop=dict(size=20), RandomOrder=dict(transforms=[v2.Grayscale(), v2.GaussianBlur(3)]),
    RandomApply=dict(transforms=[v2.Grayscale()]), RandomErasing=dict(value='random', p=1.),
    RandomPosterize=dict(bits=2), RandomResize=dict(min_size=20, max_size=40),
    RandomResizedCrop=dict(size=20), RandomRotation=dict(degrees=20),
    RandomShortestSize=dict(min_size=[20, 30]), RandomSolarize=dict(threshold=100),
    Resize=dict(size=20), ScaleJitter=dict(target_size=(20, 20)), TenCrop=dict(size=20),
    Compose=dict(transforms=[v2.RandomHorizontalFlip()]), CutMix=dict(num_classes=3),
    MixUp=dict(num_classes=3))
# They draw nothing, and take more than an image, or an image of another type.
NOT_FOR_TILES = {
    'ClampBoundingBoxes', 'ClampKeyPoints', 'ConvertBoundingBoxFormat', 'ConvertImageDtype',
    'Lambda', 'LinearTransformation', 'Normalize', 'PILToTensor', 'SanitizeBoundingBoxes',
    'SanitizeKeyPoints', 'SetClampingMode', 'ToDtype', 'ToTensor', 'Transform',
    'UniformTemporalSubsample', 'RandomIoUCrop'}  # the last one draws boxes, so not without boxes
TRANSFORMS = sorted(name for name, cls in inspect.getmembers(v2, inspect.isclass)
                    if issubclass(cls, torch.nn.Module) and name not in NOT_FOR_TILES)


@pytest.mark.parametrize('name', TRANSFORMS)
def test_every_transform_of_torchvision_depends_on_the_generator_alone(name):
    batch = name in ('CutMix', 'MixUp')
    arguments = NEEDED.get(name, {})
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (4, 3, 48, 40)[not batch:], dtype=torch.uint8, generator=generator)
    given = (image / 255, torch.arange(4) % 3) if batch else (tv_tensors.Image(image),)

    def views():
        transform = getattr(v2, name)(**arguments)
        with DrawFrom(torch.Generator().manual_seed(5)):
            return [np.asarray(leaf) for leaf in tree_leaves([transform(*given) for _ in range(4)])]

    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    assert all(map(np.array_equal, views(), views()))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))
