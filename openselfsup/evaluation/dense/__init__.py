"""Dense evaluation: what the cells of a frozen backbone's feature maps know of the pixels below.

Probes classify single cells of feature maps, in context (Hummingbird, Balažević et al. 2023,
arXiv:2306.01667) or linearly, and are scored on the pixels of masks. Nothing is trained but a
linear classifier, so that the numbers are about the features.
"""
