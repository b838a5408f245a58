"""torchvision's RetinaNet, of which the background is no object."""

import math

import torch.nn.functional as F
import torchvision.models.detection as detection
from torch import Tensor


class RetinaNet(detection.RetinaNet):
    """A RetinaNet that finds labels from 1, as the labels of its training are.

    torchvision's has no background: it would find label 0, which no object has, too.
    """

    def postprocess_detections(self, head_outputs: dict[str, list[Tensor]],
                               anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
                               ) -> list[dict[str, Tensor]]:
        """Return boxes, scores and labels of each image.

        Args:
            head_outputs: of each level ``cls_logits`` [B, anchors, labels] and
                ``bbox_regression`` [B, anchors, 4].
            anchors: of each image and level, [anchors, 4].
            image_shapes: (height, width) of each image.
        """
        # Before the best are taken, of which it would be some. The channel itself stays: older
        # checkpoints have it, and it is trained to say no.
        logits = [F.pad(level[..., 1:], (1, 0), value=-math.inf)
                  for level in head_outputs['cls_logits']]
        return super().postprocess_detections(dict(head_outputs, cls_logits=logits), anchors,
                                              image_shapes)
