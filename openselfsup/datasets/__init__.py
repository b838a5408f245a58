"""Tiles: sources, datasets of views, and the loader that prepares batches in threads."""
