"""What trains anything. Pretraining, fine-tuning, semantic and instance segmentation share it.

A loop makes a batch (:mod:`openselfsup.datasets.prefetch` ahead of time), seeds the step
(:mod:`.seeding`), runs its model in a precision (:mod:`.precision`) on normalised images
(:mod:`.normalization`), hands the loss to :class:`.optimizer_step.OptimizerStep`, lets
:class:`.finite.FiniteCheck` watch the terms, and shows them (:mod:`.progress`, :mod:`.logs`).
Nothing here knows configs or what is trained; :mod:`.step` and :mod:`.preprocessor` are the
parts of pretraining's own step.
"""
