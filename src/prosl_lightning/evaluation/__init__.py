"""Judging a trained encoder: features once, then nearest neighbours and a linear classifier."""
