"""The command ``openselfsup``: one module for each of its sub-commands.

A module has a docstring, which is its help and holds an example, ``add_arguments(parser)`` and
``main(args)``, which returns the exit status. What takes time to import, torch above all, is
imported in ``main``: ``openselfsup --help`` and a typo in the arguments do not wait for it.
"""
