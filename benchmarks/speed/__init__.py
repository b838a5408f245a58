"""What makes the figures of docs/performance.md: ratios taken in one run.

    python -m benchmarks.speed [--only views,loader,...] [--json OUT]

Every case does the same work in our way, in the published way (written out in
:mod:`.published`) and, where they are installed, with other libraries. The ways take turns,
so that a machine whose speed drifts slows all of them.
"""
