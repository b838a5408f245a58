"""Backbones: images in, a list of feature maps out."""
