"""Figures of what was learnt; every function returns a matplotlib figure and needs no display."""
