"""Instance segmentation: Mask R-CNN on two backends, data, metrics."""
