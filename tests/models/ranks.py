"""What two processes compute for test_two_ranks.py; a module, so that it can be spawned."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from toy_model import random_batch, toy_algorithm, train_step

from openselfsup import distributed
from openselfsup.models.norm import SplitBN

ROWS = 4  # of a rank
CASES = {
    'MoCo': ('MoCo', {}),
    'MoCo, shuffled': ('MoCo', dict(shuffle=True)),
    'DenseCL': ('DenseCL', {}),
    'DenseCL, shuffled': ('DenseCL', dict(shuffle=True)),
    'PLM': ('PLM', {}),
    'PLM, shuffled': ('PLM', dict(shuffle=True)),
    'PLM, weighted mean': ('PLM', dict(dense_reduction='weighted_mean', loss_lambda=0.75)),
    'PLM, attention, weighted mean': (
        'PLM', dict(attention=True, dense_reduction='weighted_mean', loss_lambda=1.)),
    'PLM, lambda 0': ('PLM', dict(loss_lambda=0.)),
    'PLM, lambda 1': ('PLM', dict(loss_lambda=1.)),
    'PLM, not linear': ('PLM', dict(linear=False)),
    'PLM, not linear, lambda 0': ('PLM', dict(linear=False, loss_lambda=0.)),
    'DenseCL, lambda 0': ('DenseCL', dict(loss_lambda=0.)),
}


def two_steps(case, rank, world):
    """Train two steps in float64 on this rank's share of two global batches of 8."""
    name, arguments = CASES[case]
    torch.manual_seed(3)
    algorithm = toy_algorithm(name, queue_len=20, **arguments).double()
    model = DistributedDataParallel(algorithm) if world > 1 else algorithm
    optimizer = torch.optim.SGD(algorithm.encoder_q.parameters(), lr=0.1)
    share = slice(rank * 2 * ROWS // world, (rank + 1) * 2 * ROWS // world)
    results = []
    for step in range(2):  # DDP complains of unused parameters at the second one
        views, maps = random_batch(2 * ROWS, seed=step, dtype=torch.float64)
        outputs, gradients = train_step(model, [view[share] for view in views], maps[share])
        losses = {key: distributed.all_reduce_mean(value) for key, value in outputs.items()
                  if key.startswith('loss')}
        gradients = {key.removeprefix('module.'): value for key, value in gradients.items()}
        optimizer.step()
        results.append((losses, gradients))
    return results, {key: value.clone() for key, value in algorithm.state_dict().items()}


def shuffled_order(rank):
    """Return which of the 8 global images the key backbone of this rank meets."""
    torch.manual_seed(rank)  # ranks must agree on a permutation whatever their own seeds
    algorithm = toy_algorithm('MoCo', norm=SplitBN(16, 2))
    seen, (views, _) = [], random_batch(2 * ROWS)
    algorithm.encoder_k['backbone'].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    algorithm([view[rank * ROWS:(rank + 1) * ROWS] for view in views])
    return torch.cdist(seen[0].flatten(1), views[1].flatten(1)).argmin(1).tolist()


def run(rank, folder):
    """Compute every case as one of two processes and save what this rank found."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    found = {case: two_steps(case, rank, 2) for case in CASES}
    torch.save(dict(cases=found, order=shuffled_order(rank)), f'{folder}/rank{rank}.pt')
    dist.destroy_process_group()
