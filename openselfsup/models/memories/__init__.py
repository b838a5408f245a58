"""Memories: what a method remembers between steps."""

from .queue import Queue

__all__ = ['Queue']
