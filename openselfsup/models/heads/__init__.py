"""Heads: registered shells that hold a loss's settings, for methods whose loss has any."""
