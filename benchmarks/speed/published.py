"""The published ways of doing the same work, in our own words from the papers' methods.

They are here to be measured against, and kept as simple as they were.
"""

import io
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

# ---- views: per-sample PIL pipeline with a grid of boxes for every view ----


class PILViews:
    """MoCo v2's augmentation on PIL images, with the boxes of the view's cells."""

    def __init__(self, size: int = 224, grid: int = 7):
        self.size, self.grid = size, grid
        self.jitter = transforms.RandomApply(
            [transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
        self.gray = transforms.RandomGrayscale(p=0.2)
        self.finish = transforms.Compose([
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Return a normalised view [3, S, S] and its boxes [N, N, 4]."""
        top, left, height, width = transforms.RandomResizedCrop.get_params(
            image, (0.2, 1.0), (3 / 4, 4 / 3))
        view = transforms.functional.resized_crop(image, top, left, height, width,
                                                  [self.size, self.size])
        view = self.gray(self.jitter(view))
        if random.random() < 0.5:
            view = view.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        flipped = random.random() < 0.5
        if flipped:
            view = view.transpose(Image.FLIP_LEFT_RIGHT)
        boxes = self.boxes(top / image.height, left / image.width, height / image.height,
                           width / image.width, flipped)
        return self.finish(view), boxes

    def boxes(self, top: float, left: float, height: float, width: float,
              flipped: bool) -> Tensor:
        """Cut the crop into N x N boxes (y0, x0, y1, x1)."""
        n = self.grid
        y = top + height * torch.arange(n + 1) / n
        x = left + width * torch.arange(n + 1) / n
        y0, x0 = torch.meshgrid(y[:-1], x[:-1], indexing='ij')
        y1, x1 = torch.meshgrid(y[1:], x[1:], indexing='ij')
        boxes = torch.stack([y0, x0, y1, x1], -1)
        return boxes.flip(1) if flipped else boxes


class PILDataset(torch.utils.data.Dataset):
    """Reads a tile with PIL and makes two views, for torch's DataLoader."""

    def __init__(self, paths: list[str]):
        self.paths, self.views = paths, PILViews()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = read_pil(self.paths[index])
        (a, boxes_a), (b, boxes_b) = self.views(image), self.views(image)
        return torch.stack([a, b]), torch.stack([boxes_a, boxes_b])


class PILTiles(torch.utils.data.Dataset):
    """Reads a tile with PIL and hands it on as it is."""

    def __init__(self, paths: list[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(read_pil(self.paths[index])))


def read_pil(path: str) -> Image.Image:
    """Read a file as RGB."""
    return Image.open(path).convert('RGB')


def as_pil(tile: np.ndarray) -> Image.Image:
    """Return a tile as the PIL image that decoding it would give."""
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, 'BMP')
    return Image.open(buffer).convert('RGB')


# ---- matching: every pair of boxes, then rows picked by a mask ----


def match_boxes(boxes_q: Tensor, boxes_k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return weights and matchings of cells given as boxes [B, N, N, 4], both ways.

    With the nine boolean indexings of the published code, each of which makes a GPU wait.
    """
    q, k = boxes_q.flatten(1, 2), boxes_k.flatten(1, 2)  # B x N² x 4
    low = torch.maximum(q[:, :, None, :2], k[:, None, :, :2])
    high = torch.minimum(q[:, :, None, 2:], k[:, None, :, 2:])
    overlap = (high - low).prod(-1)  # B x N² x N²
    overlap[((high - low) < 0).any(-1)] = 0
    area_q, area_k = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (q, k))
    share_q = overlap / area_q[:, :, None]
    share_k = overlap.transpose(1, 2) / area_k[:, :, None]
    return (*_normalise_rows(share_q), *_normalise_rows(share_k))


def _normalise_rows(share: Tensor) -> tuple[Tensor, Tensor]:
    weight, match = share.sum(-1), torch.zeros_like(share)
    covered = weight > 0
    match[covered] = share[covered] / weight[covered][:, None]
    weight[~covered] = 0
    return weight, match


# ---- losses: all logits at once ----


def info_nce(query: Tensor, positive: Tensor, queue: Tensor, temperature: float,
             weights: Tensor) -> Tensor:
    """Concatenate the logits with a cloned D x K queue; weighted cross-entropy."""
    pos = (query * positive).sum(-1, keepdim=True)
    neg = query @ queue.clone().detach()
    logits = torch.cat([pos, neg], 1) / temperature
    labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return (weights * F.cross_entropy(logits, labels, reduction='none')).mean()


def nt_xent_mask(n: int) -> Tensor:
    """Return the 2B x 2B mask of negatives, made once for a batch size that never changes."""
    mask = ~torch.eye(2 * n, dtype=torch.bool)
    rows = torch.arange(n)
    mask[rows, rows + n] = mask[rows + n, rows] = False
    return mask


def nt_xent(a: Tensor, b: Tensor, temperature: float, mask: Tensor) -> Tensor:
    """Take the 2B x 2B similarities; a boolean mask picks the negatives."""
    z, n = torch.cat([a, b]), len(a)
    similarity = z @ z.T / temperature
    positives = torch.cat([similarity.diag(n), similarity.diag(-n)])[:, None]
    logits = torch.cat([positives, similarity[mask].view(2 * n, -1)], 1)
    return F.cross_entropy(logits, torch.zeros(2 * n, dtype=torch.long, device=z.device))


def kmeans(x: Tensor, clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's iterations over a broadcast N x K x D difference; means by scatter."""
    centroids = x[:clusters].clone()
    for _ in range(iterations):
        distance = ((x[:, None, :] - centroids[None]) ** 2).sum(-1)
        labels = distance.argmin(1)
        centroids = torch.zeros_like(centroids).scatter_add_(
            0, labels[:, None].expand_as(x), x)
        counts = torch.bincount(labels, minlength=clusters).clamp(min=1).to(x.dtype)
        centroids = centroids / counts[:, None]
    return labels, centroids
