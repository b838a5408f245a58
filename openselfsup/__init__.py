"""Self-supervised pretraining on histopathology tiles."""

__version__ = '0.1.0'
