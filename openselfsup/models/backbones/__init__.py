"""Backbones: images in, a list of feature maps out."""

from .resnet import ResNet, ResNeXt

__all__ = ['ResNeXt', 'ResNet']
