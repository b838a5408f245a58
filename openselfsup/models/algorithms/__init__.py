"""Algorithms: what is matched with what. One file each, to be read beside its paper."""
