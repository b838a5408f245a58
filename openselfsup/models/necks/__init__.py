"""Necks: feature maps in, projections out."""
