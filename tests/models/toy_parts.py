"""Toys of the golden size for SimCLR, CA2CL and the combinations of their parts."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from toy_model import ToyBackbone, random_batch, toy_algorithm

from openselfsup import distributed
from openselfsup.models.algorithms.ca2cl import CA2CL
from openselfsup.models.algorithms.simclr import SimCLR
from openselfsup.models.necks.projection import NonLinearNeck

ROWS = 4  # of a rank; fewer than the clusters below
ROBUST = dict(cluster=dict(detach_centroids=True, empty='mask'),
              adversary=dict(epsilon=0.1, relative=True, bn='frozen'))
CASES = {
    'SimCLR': ('SimCLR', {}),
    'SimCLR, adversary': ('SimCLR', dict(adversary={})),
    'CA2CL': ('CA2CL', dict(cluster={}, adversary={})),
    'CA2CL, robust': ('CA2CL', ROBUST),
    'CA2CL, every option': ('CA2CL', dict(
        cluster=dict(mutual_information=True, empty='resplit', init='kmeans++'),
        adversary=dict(norm='linf', epsilon=0.01, detach_anchor=True,
                       target='backbone.conv2.weight'))),
    'MoCo, clusters': ('MoCo', dict(cluster={})),
    'MoCo, adversary': ('MoCo', dict(adversary={})),
    'MoCo, both, shuffled': ('MoCo', dict(cluster={}, adversary={}, shuffle=True)),
    'PLM, clusters': ('PLM', dict(cluster={})),
    'PLM, adversary': ('PLM', dict(adversary={})),
    'PLM, both': ('PLM', dict(cluster=dict(mutual_information=True), adversary={})),
}


def toy(name, cluster=None, adversary=None, norm=None, clusters=6, **arguments):
    """Build a toy; dicts add the parts with these settings, None leaves them out."""
    if cluster is not None:
        arguments['cluster'] = dict(type='ClusterHead', clusters=clusters, **cluster)
        arguments['group_neck'] = dict(type='GroupNeck', in_channels=24, out_channels=16)
    if adversary is not None:
        arguments['adversary'] = dict(type='WeightAdversary', **adversary)
    if name in ('SimCLR', 'CA2CL'):
        cls = dict(SimCLR=SimCLR, CA2CL=CA2CL)[name]
        return cls(ToyBackbone(norm), NonLinearNeck(24, 24, 16), **arguments)
    return toy_algorithm(name, queue_len=20, norm=norm, **arguments)


def two_steps(case, rank, world):
    """Train two steps in float64 on this rank's share of two global batches of 8."""
    name, arguments = CASES[case]
    torch.manual_seed(3)
    algorithm = toy(name, **arguments).double()
    model = DistributedDataParallel(algorithm) if world > 1 else algorithm
    optimizer = torch.optim.SGD(algorithm.encoder_q.parameters(), lr=0.1)
    share = slice(rank * 2 * ROWS // world, (rank + 1) * 2 * ROWS // world)
    results = []
    for step in range(2):  # DDP complains of unused parameters at the second one
        views, maps = random_batch(2 * ROWS, seed=step, dtype=torch.float64)
        # Only rank 0's generator may matter.
        torch.manual_seed(50 + step + 100 * rank)
        outputs = model([view[share] for view in views], maps[share])
        optimizer.zero_grad()
        sum(value for key, value in outputs.items() if key.startswith('loss')).backward()
        found = {key: distributed.all_reduce_mean(value) for key, value in outputs.items()
                 if key.startswith('loss') or key in ('perturbation', 'label_agreement')}
        gradients = {key: value.grad.clone() for key, value in algorithm.named_parameters()
                     if value.grad is not None}
        optimizer.step()
        results.append((found, gradients))
    return results, {key: value.clone() for key, value in algorithm.state_dict().items()}


def skipped(rank):
    """Return what each rank's ``skip_step`` is when the gradient of rank 1 alone is infinite."""
    torch.manual_seed(0)
    algorithm = toy('CA2CL', cluster={}, adversary={})
    model = DistributedDataParallel(algorithm)
    found = []
    for bad in (False, True):
        if rank == 1 and bad:
            algorithm.backbone.conv1.weight.register_hook(lambda gradient: gradient * torch.inf)
        views, _ = random_batch(ROWS, seed=rank)
        outputs = model(views)
        sum(value for key, value in outputs.items() if key.startswith('loss')).backward()
        found.append([outputs['skip_step'].item(), outputs['perturbation'].item()])
    return found


def synchronised():
    """Return how many gradients one step of CA2CL sends between ranks, and how many it has."""
    algorithm = toy('CA2CL', cluster={}, adversary={})
    model, sent = DistributedDataParallel(algorithm), []

    def count(_, bucket):
        sent.append(bucket.buffer().numel())
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(
            lambda future: future.value()[0])

    model.register_comm_hook(None, count)
    outputs = model(random_batch(ROWS, seed=0)[0])
    sum(value for key, value in outputs.items() if key.startswith('loss')).backward()
    return sum(sent), sum(p.numel() for p in algorithm.parameters() if p.requires_grad)


def run(rank, folder):
    """Compute every case as one of two processes and save what this rank found."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    found = {case: two_steps(case, rank, 2) for case in CASES}
    torch.save(dict(cases=found, skipped=skipped(rank), synchronised=synchronised()),
               f'{folder}/rank{rank}.pt')
    dist.destroy_process_group()
