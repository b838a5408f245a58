"""Pretraining from a config: checks, the run and its loop, hooks, the work directory."""
