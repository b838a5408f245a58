"""Semantic segmentation: a U-Net on a pretrained encoder."""
