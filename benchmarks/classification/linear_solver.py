"""How fast is linear-v1 beside 100 epochs of the published SGD, at what accuracy?

    python benchmarks/classification/linear_solver.py [--tiles 1000 10000 80000] [--repeats 3]

Ways to a linear classifier on cached features (D = 512, 9 classes), interleaved in one run, all
in one thread:

- ``published loop``: 100 epochs of the published settings (SGD, lr 0.01, momentum 0.9, batch
  128, cosine warm restarts) with the published loop: a shuffled DataLoader, step by step.
- ``bare SGD``: the same without the DataLoader, batches sliced from the tensor: kinder than any
  published code.
- ``linear-v1``: our solver, the choice of the penalty included.

The features are drawn so that a linear layer classifies about 97 % of the tiles, as published
for NCT-CRC. Processor time is compared, so that other work on the machine does not count.

The published protocol does not cache: each epoch decodes, augments and forwards every tile. With
--images the time of that is measured on the bundled tiles for one epoch and multiplied.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from openselfsup.cli.run import run  # noqa: E402
from openselfsup.evaluation.linear_probe import fit_linear  # noqa: E402

CLASSES, WIDTH, EPOCHS, BATCH = 9, 512, 100, 128


def made_features(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features like those of a ResNet-18: not negative, correlated, classes overlap."""
    fixed = torch.Generator().manual_seed(0)
    mixing = torch.randn(64, WIDTH, generator=fixed) / 8
    centres = 0.5 * torch.randn(CLASSES, 64, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    latent = centres[labels] + torch.randn(count, 64, generator=generator)
    noise = 0.2 * torch.randn(count, WIDTH, generator=generator)
    return (latent @ mixing + noise).relu(), labels


def sgd(features: torch.Tensor, labels: torch.Tensor, loader: bool = False):
    """Train the published linear layer for 100 epochs on cached features."""
    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, CLASSES)
    optimizer = torch.optim.SGD(head.parameters(), 0.01, 0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5, eta_min=4e-8)
    tiles = DataLoader(TensorDataset(features, labels), BATCH, shuffle=True)
    for _ in range(EPOCHS):
        batches = tiles if loader else ((features[rows], labels[rows]) for rows
                                        in torch.randperm(len(labels)).split(BATCH))
        for images, truth in batches:
            loss = F.cross_entropy(head(images), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return lambda test: head(test).detach()


def linear_v1(features: torch.Tensor, labels: torch.Tensor):
    return fit_linear(features, labels, CLASSES, 0).probabilities


WAYS = {'published loop': partial(sgd, loader=True), 'bare SGD': sgd, 'linear-v1': linear_v1}


def seconds_of_published_epoch(repeats: int) -> float:
    """Return seconds a tile of one published epoch takes: augmentation and ResNet-18 forward."""
    import numpy as np

    from openselfsup.evaluation import networks
    from openselfsup.evaluation.classifier import TrainSettings
    from openselfsup.evaluation.data import Part, open_source
    from openselfsup.evaluation.finetune import train_honestly
    source = open_source('data/demo/kather2016')
    part = Part(source, np.arange(len(source)))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        backbone = networks.build(networks.named('resnet18'))
        trained = train_honestly(backbone, WIDTH, part, len(source.classes),
                                 TrainSettings(epochs=1, batch_size=BATCH), 0, frozen=True)
        times.append((time.perf_counter() - start) / trained.train_tiles)
    return statistics.median(times)


def spread(values: list[float], digits: int) -> str:
    """Return median (least - most)."""
    middle, low, high = (f'{one:.{digits}f}' for one in (statistics.median(values),
                                                         min(values), max(values)))
    return f'{middle} ({low}-{high})'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tiles', type=int, nargs='+', default=[1000, 10_000, 80_000])
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--images', action='store_true', help='also measure an uncached epoch')
    args = parser.parse_args()
    per_tile = seconds_of_published_epoch(args.repeats) if args.images else None
    torch.set_num_threads(1)
    print(f"{'tiles':>7}  {'way':<16}{'seconds':>18}{'linear-v1 is faster':>24}{'accuracy':>10}")
    for tiles in args.tiles:
        train, test = made_features(tiles, 1), made_features(10_000, 2)
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        accuracy = {}
        for _ in range(args.repeats):  # interleaved: drift of the machine hits all alike
            for name, way in WAYS.items():
                start = time.process_time()
                classify = way(*train)
                times[name].append(time.process_time() - start)
                accuracy[name] = float((classify(test[0]).argmax(1) == test[1]).double().mean())
        for name, measured in times.items():
            ratios = [one / ours for one, ours in zip(measured, times['linear-v1'])]
            print(f'{tiles:>7}  {name:<16}{spread(measured, 2):>18}{spread(ratios, 1):>23}x'
                  f'{100 * accuracy[name]:>9.2f}%', flush=True)
        if per_tile is not None:
            whole = EPOCHS * per_tile * tiles
            cached = per_tile * tiles + statistics.median(times['linear-v1'])
            print(f'{tiles:>7}  {"100 uncached epochs":<24}{whole:>9.0f}   '
                  f'linear-v1 with its one pass: {whole / cached:.1f}x faster')


if __name__ == '__main__':
    run(main)
