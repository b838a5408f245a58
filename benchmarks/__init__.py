"""Speed and evaluation, run from the command line."""
