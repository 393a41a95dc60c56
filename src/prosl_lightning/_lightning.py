"""Which Lightning this process uses: `pytorch_lightning` and `lightning.pytorch` are different classes.

A Trainer of one refuses a module of the other, so the choice is made once, here, and every other file imports `pl`.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from prosl_lightning.errors import UsageError

VARIABLE = "PROSL_LIGHTNING"
_NAMES = ("pytorch_lightning", "lightning.pytorch")


def _choose() -> str:
    wanted = os.environ.get(VARIABLE)
    if wanted:
        if wanted not in _NAMES:
            raise UsageError(f"{VARIABLE} is '{wanted}'; expected one of {', '.join(_NAMES)}")
        return wanted
    # A process that already imported both has settled on its first choice; `pytorch_lightning` is the default.
    if "lightning.pytorch" in sys.modules and "pytorch_lightning" not in sys.modules:
        return "lightning.pytorch"
    return "pytorch_lightning"


class _OtherLightningWarning(MetaPathFinder):
    """Warns when the Lightning that was not chosen is imported afterwards; finds nothing itself."""

    def __init__(self, chosen: str, other: str) -> None:
        self._chosen, self._other = chosen, other

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname == self._other:
            sys.meta_path.remove(self)
            warnings.warn(
                f"prosl_lightning already uses {self._chosen}, but {self._other} is being imported: its Trainer will "
                f"refuse our modules. Import {self._other} first, or set {VARIABLE}={self._other}.",
                stacklevel=2,
            )
        return None


NAMESPACE = _choose()

if TYPE_CHECKING:
    import pytorch_lightning as pl
else:
    pl = importlib.import_module(NAMESPACE)
    _other = next(name for name in _NAMES if name != NAMESPACE)
    if _other not in sys.modules:
        sys.meta_path.insert(0, _OtherLightningWarning(NAMESPACE, _other))


def submodule(name: str) -> Any:
    """A submodule of the chosen Lightning, e.g. ``submodule("cli")``."""
    return importlib.import_module(f"{NAMESPACE}.{name}")
