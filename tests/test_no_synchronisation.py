"""A GPU never waits for the host: what would make it wait is counted, operation by operation."""

import sys
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import openselfsup.datasets  # noqa: F401  (registers)
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.models.losses import info_nce, nt_xent
from openselfsup.training.launch import Launch
from openselfsup.training.optimizer_step import OptimizerStep
from openselfsup.training.optimizers import LARS
from openselfsup.training.preprocessor import Preprocessor
from openselfsup.training.step import TrainStep
from openselfsup.views import UnionView, ViewRecipe, match_cells

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / 'tests/models'))
from methods import CASES, build  # noqa: E402
from toy_model import asked_for  # noqa: E402

# What gives the host a number, or a tensor whose shape depends on numbers.
READING = {'_local_scalar_dense', 'item', 'is_nonzero', 'equal', 'nonzero', 'nonzero_numpy',
           'masked_select', 'unique', '_unique', '_unique2', 'unique_dim', 'unique_consecutive',
           'bincount', 'histc', 'repeat_interleave', 'allclose'}
FETCHING = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__}


class _Fetches(TorchFunctionMode):
    def __init__(self, found: list[str]):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in FETCHING:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Synchronisations(TorchDispatchMode):
    """Lists what was read by the host while it was active."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self._fetches = _Fetches(self.found)

    def __enter__(self):
        self._fetches.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self._fetches.__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = (name in ('index', 'index_put', 'index_put_', '_index_put_impl_')
                 and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]))
        if name in READING or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Rows of weight 0 are counted and logits bounded on a CPU only, where nobody waits for it."""
    module = sys.modules['openselfsup.models.losses.info_nce']
    monkeypatch.setattr(module, '_can_leave_rows_out', lambda query: False)
    monkeypatch.setattr(module, '_shifting_pays', lambda query: False)


@pytest.mark.parametrize('read', [
    lambda x: x.sum().item(), lambda x: bool(x[0] > 0), lambda x: x[x > 0], lambda x: x.nonzero(),
    lambda x: x.tolist(), lambda x: x.numpy(), lambda x: torch.where(x > 0)[0],
    lambda x: x.masked_select(x > 0), lambda x: x.__setitem__(x > 0, x[:1]),
    lambda x: torch.equal(x, x)])
def test_the_count_sees_what_reads_a_tensor(read):
    x = torch.randn(5)
    with Synchronisations() as count:
        read(x)
    assert count.found
    with Synchronisations() as count:
        (torch.where(x > 0, x, 0) * x[torch.tensor([1, 2, 0, 3, 4])]).sum()
    assert not count.found


CROP = dict(type='RandomResizedCrop', scale=(0.2, 1.0))
STEPS = [CROP, dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
         dict(type='HEDJitter'), dict(type='Grayscale'), dict(type='GaussianBlur'),
         dict(type='Solarize'), dict(type='HorizontalFlip'), dict(type='QuarterTurn')]
RECIPES = {'axis_aligned': ViewRecipe(64, STEPS),
           'affine': ViewRecipe(64, [*STEPS, dict(type='ShiftScaleRotate', p=1.)])}
STRONG = ViewRecipe(64, [
    dict(type='Brightness'), dict(type='Contrast'), dict(type='HueSaturationValue'),
    dict(type='OneOf', steps=[dict(type=name) for name in ('MotionBlur', 'MedianBlur',
                                                           'GaussianBlur', 'GaussianNoise')]),
    dict(type='OneOf', steps=[dict(type=name) for name in ('OpticalDistortion', 'GridDistortion',
                                                           'ElasticDistortion')]),
    dict(type='ShiftScaleRotate'), dict(type='Cutout')])
NORMALIZE = dict(mean=[0.5] * 3, std=[0.25] * 3)


# Methods that look after clusters when the optimiser has moved: there the host may wait.
UPKEEP = {case for case in CASES if CASES[case]['type'] == 'ODC'}


def raw_batch(recipe: ViewRecipe, batch: int = 6) -> dict:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[80, 80]]).expand(batch, 2)
    tiles = torch.randint(0, 256, (batch, 3, 80, 80), dtype=torch.uint8, generator=generator)
    return dict(tiles=tiles, draw=[recipe.draw(sizes, generator) for _ in range(2)])


@pytest.mark.parametrize('geometry', RECIPES)
def test_views_and_matching_read_nothing(geometry):
    recipe = RECIPES[geometry]
    batch, preprocessor = raw_batch(recipe), Preprocessor(**NORMALIZE, recipes=[recipe] * 2)
    with Synchronisations() as count:
        _, maps = preprocessor(batch)
        match_cells(maps[:, 0], maps[:, 1], 7, geometry=geometry)
    assert not count.found


def test_strong_views_read_nothing():
    batch, preprocessor = raw_batch(STRONG), Preprocessor(**NORMALIZE, recipes=[STRONG] * 2)
    with Synchronisations() as count:
        preprocessor(batch)
    assert not count.found


@pytest.mark.parametrize('case', CASES)
def test_a_step_reads_nothing_but_whether_an_attack_was_finite(case):
    torch.manual_seed(0)
    model = build(CASES[case], torch.nn.BatchNorm2d(16)).train()
    recipe = RECIPES['axis_aligned']
    recipes, batch = [recipe] * 2, raw_batch(recipe) | asked_for(model, 6)
    if hasattr(model, 'concepts'):
        recipes.append(UnionView(['query', 'key'], 64))
        batch['draw'].append(recipes[2].around(batch['draw'], torch.tensor([[80, 80]] * 6)))
    step = TrainStep(model, Preprocessor(**NORMALIZE, recipes=recipes),
                     torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    step(iter([batch]), 1, 0.1)  # optimisers set up their state once
    if case in UPKEEP:
        model.end_step = lambda: None
    with Synchronisations() as count:
        outputs = step(iter([batch]), 1, 0.1)
    assert count.found == (['tolist'] if 'skip_step' in outputs else [])


@pytest.mark.parametrize('name', ['SGD', 'LARS'])
@pytest.mark.parametrize('factor', [1., torch.inf])
def test_whether_the_optimiser_moved_is_learnt_from_what_the_scaler_reads(name, factor):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = {'SGD': torch.optim.SGD, 'LARS': LARS}[name]([weight], lr=0.1)
    step = OptimizerStep(optimizer, torch.device('cpu'), 'fp16')
    step.backward(weight.sum() * factor)
    with Synchronisations() as count:
        assert step.update(0.1) == (factor == 1)
    assert count.found == ['_local_scalar_dense']


def test_losses_read_nothing():
    torch.manual_seed(0)
    a, b, queue = (torch.nn.functional.normalize(torch.randn(n, 8), dim=1) for n in (6, 6, 20))
    weights = torch.tensor([0.5, 1, 0, 1, 0.2, 1])
    with Synchronisations() as count:
        for reduction in ('mean', 'weighted_mean', 'none'):
            info_nce(a.requires_grad_(), b, queue, 0.2, weights, reduction).sum().backward()
        nt_xent(a, b, 0.2).backward()
    assert not count.found


def test_the_loop_fetches_one_flag_a_step(tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    cfg = load_config(REPO / 'configs/demo/plm_r18.py', [
        'dataset.source.root=data/demo/kather2016', 'dataset.recipe.size=64', 'workers=0',
        'global_batch_size=8', 'model.queue_len=40', 'log_interval=1000', 'render=device',
        'optimizer.type=SGD'])
    runner = Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path)
    batch = runner.loader.make_batch(0, 0)
    runner.call_hooks('before_train')
    runner.call_hooks('before_epoch')
    runner.train_step(iter([batch]))
    for _ in range(2):
        with Synchronisations() as count:
            runner.train_step(iter([batch]))
        assert count.found == ['tolist']
