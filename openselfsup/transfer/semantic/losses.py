"""Loss terms of semantic segmentation, over the pixels that count."""

import torch.nn.functional as F
from torch import Tensor


def segmentation_losses(logits: Tensor, masks: Tensor, ignore_index: int) -> dict[str, Tensor]:
    """Return cross-entropy and soft Dice (Milletari et al. 2016, arXiv:1606.04797).

    Args:
        logits: [B, C, H, W], float32.
        masks: classes, int64 [B, H, W].
        ignore_index: value of pixels that do not count; a batch without any other gives 0.

    Returns:
        The scalars ``loss_entropy`` and ``loss_dice``; what is trained on is their sum.
    """
    counted = masks != ignore_index
    target = masks.masked_fill(~counted, 0)
    entropy = F.cross_entropy(logits, target, reduction='none')[counted].sum()
    entropy = entropy / counted.sum().clamp(min=1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1) * counted[:, None]
    found = logits.softmax(1) * counted[:, None]
    both, sizes = (truth * found).sum((0, 2, 3)), (truth + found).sum((0, 2, 3))
    there = truth.sum((0, 2, 3)) > 0
    dice = 1 - 2 * both / sizes.clamp(min=1e-6)
    return dict(loss_entropy=entropy, loss_dice=(dice * there).sum() / there.sum().clamp(min=1))
