"""What two processes compute for test_two_ranks.py; a module, so that it can be spawned."""

import torch
import torch.distributed as dist
from methods import CASES, build, toy, with_options
from torch.nn.parallel import DistributedDataParallel
from toy_model import asked_for, batch_for, random_batch

from openselfsup import distributed
from openselfsup.models.method import Progress
from openselfsup.models.norm import SplitBN
from openselfsup.models.parts import total_loss
from openselfsup.registry import ALGORITHMS
from openselfsup.training import sharding

SHARDED = [case for case in CASES if ALGORITHMS.get(CASES[case]['type']).can_shard]
ROWS = 4  # of a rank; fewer than the clusters


def two_steps(case, rank, world, sharded=False):
    """Train two steps in float64 on this rank's share of two global batches of 8."""
    torch.manual_seed(3)
    algorithm = build(CASES[case]).double()
    model = DistributedDataParallel(algorithm) if world > 1 and not sharded else algorithm
    if sharded:
        sharding.shard(algorithm)
    trained = [p for p in algorithm.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    share = slice(rank * 2 * ROWS // world, (rank + 1) * 2 * ROWS // world)
    results = []
    for step in range(2):  # DDP complains of unused parameters at the second one
        views, maps = batch_for(algorithm, 2 * ROWS, step, torch.float64)
        # Only rank 0's generator may matter.
        torch.manual_seed(50 + step + 100 * rank)
        asked = asked_for(algorithm, 2 * ROWS, step)
        algorithm.begin_step(Progress(0, step, 2, 2))
        outputs = model([view[share] for view in views], maps[share],
                        **{key: value[share] for key, value in asked.items()})
        optimizer.zero_grad()
        total_loss(outputs).backward()
        found = {key: distributed.all_reduce_mean(value.detach())
                 for key, value in outputs.items()
                 if key.startswith('loss') or key in ('perturbation', 'label_agreement')}
        gradients = {key: value.grad.clone() for key, value in algorithm.named_parameters()
                     if value.grad is not None}
        optimizer.step()
        algorithm.end_step()
        results.append((found, sharding.whole(gradients)))
    state = {key: value.clone() for key, value in algorithm.state_dict().items()}
    return results, sharding.whole(state)


def shuffled_order(rank):
    """Return which of the 8 global images the key backbone of this rank meets."""
    torch.manual_seed(rank)  # ranks must agree on a permutation whatever their own seeds
    algorithm = toy('MoCo', norm=SplitBN(16, 2))
    seen, (views, _) = [], random_batch(2 * ROWS)
    algorithm.encoder_k['backbone'].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    algorithm([view[rank * ROWS:(rank + 1) * ROWS] for view in views])
    return torch.cdist(seen[0].flatten(1), views[1].flatten(1)).argmin(1).tolist()


def skipped(rank):
    """Return what each rank's ``skip_step`` is when the gradient of rank 1 alone is infinite."""
    torch.manual_seed(0)
    algorithm = build(CASES['CA2CL'])
    model = DistributedDataParallel(algorithm)
    found = []
    for bad in (False, True):
        if rank == 1 and bad:
            algorithm.backbone.conv1.weight.register_hook(lambda gradient: gradient * torch.inf)
        views, _ = random_batch(ROWS, seed=rank)
        outputs = model(views)
        total_loss(outputs).backward()
        found.append([outputs['skip_step'].item(), outputs['perturbation'].item()])
    return found


def synchronised():
    """Return how many gradients one step of CA2CL sends between ranks, and how many it has."""
    algorithm = build(CASES['CA2CL'])
    model, sent = DistributedDataParallel(algorithm), []

    def count(_, bucket):
        sent.append(bucket.buffer().numel())
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(
            lambda future: future.value()[0])

    model.register_comm_hook(None, count)
    total_loss(model(random_batch(ROWS, seed=0)[0])).backward()
    return sum(sent), sum(p.numel() for p in algorithm.parameters() if p.requires_grad)


def earlier_teacher(rank):
    """Return statistics of the earlier teacher's batch norm, whose ranks saw other tiles."""
    torch.manual_seed(0)
    algorithm = build(with_options('DINO', gram=dict(type='GramAnchoring', start=1.)),
                      torch.nn.BatchNorm2d(16))
    for step in range(2):
        algorithm.begin_step(Progress(step, step, 1, 2))
        algorithm(*batch_for(algorithm, ROWS, seed=2 * step + rank))
        algorithm.end_step()
    return {name: value.clone() for name, value in algorithm.gram.teacher.named_buffers()}


def run(rank, folder):
    """Compute every case as one of two processes and save what this rank found."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    found = {case: two_steps(case, rank, 2) for case in CASES}
    parts = {case: two_steps(case, rank, 2, sharded=True) for case in SHARDED}
    torch.save(dict(cases=found, sharded=parts, order=shuffled_order(rank), skipped=skipped(rank),
                    synchronised=synchronised(), teacher=earlier_teacher(rank)),
               f'{folder}/rank{rank}.pt')
    dist.destroy_process_group()
