import math
import types
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from openselfsup.engine.hooks.metrics import what_limits
from openselfsup.errors import UserError
from openselfsup.models.method import BaseMethod, Progress
from openselfsup.models.parts import total_loss
from openselfsup.training.preprocessor import Preprocessor, choose_render
from openselfsup.training.step import TrainStep
from openselfsup.views import ViewRecipe, render_opencv, unbind

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


class Regression(BaseMethod):
    """Two loss terms, one monitor; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.moved, self.dtypes = [], []

    def forward(self, views, view_to_tile=None):
        a, b = (self.conv(view).mean((2, 3)) for view in views)
        self.moved.append(self.first_pass)
        self.dtypes.append(a.dtype)
        return dict(loss_fit=(a.float() - b.float().detach() - 1).square().mean(),
                    loss_size=0.1 * a.float().square().mean(), size=a.detach().abs().mean())


def batch(n: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randint(0, 256, (n, 3, 9, 9), dtype=torch.uint8, generator=generator)
             for _ in range(2)]
    return dict(views=views, view_to_tile=None)


def make(amp='off', clip=None, lr=0.5):
    torch.manual_seed(0)
    model = Regression()
    step = TrainStep(model, Preprocessor(MEAN, STD), torch.optim.SGD(model.parameters(), lr=lr),
                     amp, clip)
    return model, step


class Listening(Regression):
    """Writes down what it hears in which order."""

    batch_keys = ('index', 'label')

    def __init__(self):
        super().__init__()
        self.heard = []

    def begin_step(self, progress):
        self.heard.append(progress)

    def end_step(self):
        self.heard.append(('moved', float(self.conv.weight.detach().sum())))

    def forward(self, views, view_to_tile=None, index=None, label=None):
        self.heard.append((index.tolist(), label.tolist()))
        return super().forward(views, view_to_tile)


def test_a_method_hears_of_its_steps_and_is_given_what_it_asks_for():
    torch.manual_seed(0)
    model = Listening()
    step = TrainStep(model, Preprocessor(MEAN, STD), torch.optim.SGD(model.parameters(), lr=1.),
                     'off')
    before = float(model.conv.weight.detach().sum())
    parts = [dict(batch(2), index=torch.tensor([4 + i, 1]), label=torch.tensor([i, 1]))
             for i in range(2)]
    progress = Progress(epoch=3, step=7, steps_per_epoch=2, steps=10)
    step(iter(parts), 2, 0.5, progress)
    *heard, (moved, after) = model.heard
    assert heard == [progress, ([4, 1], [0, 1]), ([5, 1], [1, 1])] and moved == 'moved'
    assert after != before and after == float(model.conv.weight.detach().sum())


def test_a_method_hears_of_no_end_of_a_step_that_the_loss_scale_left_out():
    """Nor does a target then follow an encoder that did not move."""
    model = Listening()
    step = TrainStep(model, Preprocessor(MEAN, STD), torch.optim.SGD(model.parameters(), lr=1.),
                     'fp16')
    hook = model.conv.weight.register_hook(lambda gradient: gradient * torch.inf)
    data = dict(batch(2), index=torch.tensor([4, 1]), label=torch.tensor([0, 1]))
    step(iter([data]), 1, 0.5)
    assert model.heard == [Progress(), ([4, 1], [0, 1])]
    hook.remove()
    step(iter([data]), 1, 0.5)
    assert model.heard[-1] == ('moved', float(model.conv.weight.detach().sum()))


def test_preprocessor_normalises_as_written():
    preprocessor = Preprocessor(MEAN, STD)
    data = batch(2)
    views, maps = preprocessor(data)
    expected = (data['views'][0].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD).view(3, 1, 1)
    torch.testing.assert_close(views[0].double(), expected, atol=1e-5, rtol=1e-5)
    assert maps is None and views[0].is_contiguous(memory_format=torch.channels_last)


def test_accumulated_batches_make_the_step_of_their_union():
    whole, parts = batch(8), [batch(8), batch(8)]
    for i, part in enumerate(parts):
        part['views'] = [v[4 * i:4 * i + 4] for v in whole['views']]
    one, step_one = make()
    two, step_two = make()
    out_one = step_one(iter([whole]), 1, lr=0.25)
    out_two = step_two(iter(parts), 2, lr=0.25)
    torch.testing.assert_close(one.conv.weight, two.conv.weight)
    torch.testing.assert_close(out_one['loss'], out_two['loss'])
    assert two.moved == [True, False] and one.moved == [True]
    assert step_two.optimizer_step.optimizer.param_groups[0]['lr'] == 0.25
    assert out_one['loss'] == pytest.approx(float(out_one['loss_fit'] + out_one['loss_size']))


def test_a_short_batch_counts_by_its_tiles():
    whole = batch(6)
    parts = [dict(whole, views=[view[rows] for view in whole['views']])
             for rows in (slice(4), slice(4, 6))]
    one, step_one = make()
    two, step_two = make()
    out_one = step_one(iter([whole]), 1, lr=0.25)
    out_two = step_two(iter(parts), 2, lr=0.25, rows=6)
    torch.testing.assert_close(one.conv.weight, two.conv.weight)
    torch.testing.assert_close(out_one['loss'], out_two['loss'])


def test_the_rows_of_an_epochs_last_step_are_counted(make_runner):
    runner = make_runner('drop_last=False', 'accumulate=2', 'global_batch_size=32', 'epochs=1')
    seen, moves = [], runner.step.optimizer_step
    backward = moves.backward
    moves.backward = lambda loss, parts: seen.append(parts) or backward(loss, parts)
    runner.train()  # batches of 16, 16, then 16 and the last 3 of 51 tiles
    assert seen == [2, 2, 19 / 16, 19 / 3]


def test_batch_norm_has_two_tiles_in_an_epochs_last_step(make_runner):
    runner = make_runner('drop_last=False', 'global_batch_size=25', 'epochs=1')  # 2 x 25 and one
    norms = [module for module in runner.module.modules() if isinstance(module, nn.BatchNorm2d)]
    seen = []
    norms[0].register_forward_hook(lambda module, given, output: seen.append(len(given[0])))
    runner.train()
    assert runner.steps_done == 3 and set(seen) == {25, 2}


def idle(rank, folder):
    """Take a step of a method with a layer that it does not use, as one of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    model = Regression()
    model.unused = nn.Linear(2, 2)
    step = TrainStep(DistributedDataParallel(model), Preprocessor(MEAN, STD),
                     torch.optim.SGD(model.parameters(), lr=0.1), 'off')
    try:
        step(iter([batch(2), batch(2)]), 2, lr=0.1)
    except UserError as error:
        (Path(folder) / f'{rank}.txt').write_text(str(error))
    dist.destroy_process_group()


def test_ranks_do_not_wait_for_parameters_that_nothing_uses(tmp_path):
    mp.spawn(idle, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        said = (tmp_path / f'{rank}.txt').read_text()
        assert said.startswith('model: 2 parameters take no part in the loss, such as unused.')


def test_bf16_computes_in_bf16_with_float32_weights():
    model, step = make('bf16')
    step(iter([batch(4)]), 1, lr=0.1)
    assert model.dtypes == [torch.bfloat16] and model.conv.weight.dtype == torch.float32


def test_clipping_bounds_the_update():
    model, step = make(clip=1e-3, lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    step(iter([batch(4)]), 1, lr=1.0)
    moved = math.sqrt(sum((p - b).square().sum().item()
                          for p, b in zip(model.parameters(), before)))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_gradients_are_gone_after_a_step():
    model, step = make()
    step(iter([batch(4)]), 1, lr=0.1)
    assert all(p.grad is None for p in model.parameters())


def test_total_loss_sums_terms_only():
    out = dict(loss_a=torch.tensor(1.0), loss_b=torch.tensor(2.0), acc=torch.tensor(9.0))
    assert total_loss(out) == 3


@pytest.mark.parametrize('returned, told', [
    (lambda x: dict(loss=x), r"output 'loss' of Returning is a tensor of shape \(4,\); expected "
                             r'a scalar tensor, such as its mean\(\)'),
    (lambda x: dict(loss=x.mean(), acc=x[None]), r"'acc' of Returning .* tensor of shape \(1, 4\)"),
    (lambda x: dict(loss=x.mean(), acc=0.5), "'acc' of Returning is of the type float; expected a "
                                             'scalar tensor$'),
    (lambda x: x.mean(), r'what Returning returns is a tensor of shape \(\); expected a dict of '
                         'scalar tensors, such as'),
    (lambda x: (x.mean(), {}), 'what Returning returns is of the type tuple'),
    (lambda x: None, 'what Returning returns is of the type NoneType'),
    (lambda x: dict(acc=x.mean()), 'the method returns no loss but acc')])
def test_what_is_no_dict_of_scalars_is_told_of_the_method(returned, told):
    class Returning(Regression):
        def forward(self, views, view_to_tile=None):
            return returned(self.conv(views[0]).mean((1, 2, 3)))

    model = Returning()
    step = TrainStep(model, Preprocessor(MEAN, STD), torch.optim.SGD(model.parameters(), lr=0.1),
                     'off')
    with pytest.raises(UserError, match='model.type: .*' + told):
        step(iter([batch(4)]), 1, 0.1)


# --- views on the device ---

CROP = dict(type='RandomResizedCrop', scale=(0.2, 1.0))
FLIP = dict(type='HorizontalFlip')
EVEN = dict(type='CLAHE')


def raw_batch(recipes: list) -> dict:
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8, generator=generator)
    sizes = torch.tensor([[40, 40]]).expand(4, 2)
    return dict(tiles=tiles, draw=[recipe.draw(sizes, generator) for recipe in recipes])


def test_raw_tiles_become_the_views_that_workers_render():
    recipes = [ViewRecipe(32, [CROP, FLIP]), ViewRecipe(24, [CROP])]  # sizes may differ
    data = raw_batch(recipes)
    views, maps = Preprocessor(MEAN, STD, recipes=recipes)(data)
    assert [tuple(v.shape) for v in views] == [(4, 3, 32, 32), (4, 3, 24, 24)]
    assert maps.shape == (4, 2, 2, 3) and maps[:, 1].equal(data['draw'][1]['view_to_tile'])
    for view, recipe, drawn in zip(views, recipes, data['draw']):
        rendered = torch.zeros(4, *recipe.size, 3, dtype=torch.uint8)
        for tile, parameters, slot in zip(data['tiles'], unbind(drawn), rendered.numpy()):
            render_opencv(tile.permute(1, 2, 0).contiguous().numpy(), recipe, parameters, slot)
        expected = Preprocessor(MEAN, STD).normalize(rendered.permute(0, 3, 1, 2))
        assert (view - expected).abs().max() <= 3 / 255 / min(STD)
        assert view.is_contiguous(memory_format=torch.channels_last)


class Tiles:
    def __init__(self, *steps, tile_size=(40, 40)):
        self.recipes = [ViewRecipe(32, steps)] * 2
        self.recipe_paths = ['dataset.recipe'] * 2
        self.source = types.SimpleNamespace(tile_size=tile_size)


@pytest.mark.parametrize('wanted, device, dataset, chosen', [
    ('auto', 'cpu', Tiles(CROP), 'worker'), ('auto', 'cuda', Tiles(CROP), 'device'),
    ('auto', 'cuda', Tiles(CROP, EVEN), 'worker'),
    ('auto', 'cuda', Tiles(CROP, tile_size=None), 'worker'),
    ('worker', 'cuda', Tiles(CROP), 'worker'), ('device', 'cpu', Tiles(CROP), 'device')])
def test_where_views_are_rendered(wanted, device, dataset, chosen):
    assert choose_render(wanted, dataset, torch.device(device)) == chosen


@pytest.mark.parametrize('dataset, message', [
    (Tiles(CROP, EVEN), 'render: CLAHE of dataset.recipe cannot be rendered on the device'),
    (Tiles(CROP, tile_size=None), 'not all of one size')])
def test_what_cannot_be_rendered_on_the_device_is_refused(dataset, message):
    with pytest.raises(UserError, match=message):
        choose_render('device', dataset, torch.device('cpu'))


def test_a_run_from_raw_tiles(make_runner):
    runner = make_runner('render=device', 'epochs=1', 'dataset.recipe.size=48')
    assert runner.render == 'device' and 'tiles' in runner.loader.make_batch(0, 0)
    runner.train()
    record = runner.record
    assert record['step'] == 3 and math.isfinite(record['loss'])
    assert (Path(runner.work_dir) / 'views.png').exists()


@pytest.mark.parametrize('data, device, kind, found', [
    (0.5, 0.0, 'cuda', 'data'), (0.1, 0.5, 'cuda', 'model'), (0.1, 0.01, 'cuda', 'host'),
    (0.1, 0.0, 'cpu', 'model')])
def test_what_limits_a_run_is_named(data, device, kind, found):
    assert what_limits(data, device, kind).startswith(f'the {found}' if found != 'data' else found)
