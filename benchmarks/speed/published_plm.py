"""A PLM training step as published: float32, contiguous, every logit of every cell."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from . import published


class _Encoder(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.backbone = nn.Sequential(*list(resnet18().children())[:-2])
        self.mlp = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, dim))
        self.mlp2 = nn.Sequential(nn.Conv2d(512, 512, 1), nn.ReLU(), nn.Conv2d(512, dim, 1))
        self.fc = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(x)
        return F.normalize(self.mlp(x.mean((2, 3))), dim=1), self.mlp2(x).flatten(2).mT


class PublishedPLM(nn.Module):
    """Precise location matching (arXiv 2212.12105) without any of our short cuts."""

    def __init__(self, queue_len: int = 16384, dim: int = 128, momentum: float = 0.999,
                 temperature: float = 0.2, loss_lambda: float = 0.5):
        super().__init__()
        self.q = _Encoder(dim)
        self.k = copy.deepcopy(self.q).requires_grad_(False)
        self.momentum, self.temperature, self.loss_lambda = momentum, temperature, loss_lambda
        for name in ('queue', 'queue2'):  # D x K
            self.register_buffer(name, F.normalize(torch.randn(dim, queue_len), dim=0))
        self.pointer = 0

    def forward(self, views: list[Tensor], boxes: Tensor) -> Tensor:
        """Return the loss of B pairs of views [B, 3, S, S] with boxes [B, 2, N, N, 4]."""
        q, q_grid = self.q(views[0])
        with torch.no_grad():
            for mine, theirs in zip(self.k.parameters(), self.q.parameters()):
                mine.data = mine.data * self.momentum + theirs.data * (1 - self.momentum)
            k, k_grid = self.k(views[1])
        weight_q, match_q, weight_k, match_k = published.match_boxes(boxes[:, 0], boxes[:, 1])
        with torch.no_grad():
            k_seen = self.k.fc(match_q @ k_grid)
        q_seen = self.q.fc(match_k @ q_grid)
        anchors = F.normalize(torch.cat([q_grid, q_seen]).flatten(0, 1), dim=1)
        positives = F.normalize(torch.cat([k_seen, k_grid]).flatten(0, 1), dim=1)
        weights = torch.cat([weight_q, weight_k]).flatten()
        single = published.info_nce(q, k, self.queue, self.temperature, torch.ones(len(q)))
        dense = published.info_nce(anchors, positives, self.queue2, self.temperature, weights)
        self._enqueue(k, F.normalize(k_grid.mean(1), dim=1))
        return (1 - self.loss_lambda) * single + self.loss_lambda * dense

    @torch.no_grad()
    def _enqueue(self, k: Tensor, k2: Tensor) -> None:
        place = slice(self.pointer, self.pointer + len(k))
        self.queue[:, place], self.queue2[:, place] = k.T, k2.T
        self.pointer = (self.pointer + len(k)) % self.queue.shape[1]
