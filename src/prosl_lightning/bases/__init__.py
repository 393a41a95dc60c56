"""Contrastive methods that ProSL builds on: by name, or a class of your own by its path."""

from __future__ import annotations

from prosl_lightning.bases.base import BaseMethod, ContrastTerm, StrongerView, ViewOptions
from prosl_lightning.bases.build import BASES, build_base

__all__ = ["BASES", "BaseMethod", "ContrastTerm", "StrongerView", "ViewOptions", "build_base"]
