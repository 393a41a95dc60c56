"""Keep Lightning's lines that a user cannot act on off the screen."""

from __future__ import annotations

import logging
import warnings

from prosl_lightning._lightning import NAMESPACE

_LINES = (
    "💡 Tip", "GPU available: False", "TPU available: False", "HPU available: False", "Seed set to",
    "`Trainer.fit` stopped", "Restoring states", "Restored all states",
)  # fmt: skip
_WARNINGS = (
    r".*LeafSpec.*",  # pytree's deprecation, met by Lightning itself
    r"Checkpoint directory .* exists and is not empty",  # a second run in the same folder is meant to work
)


def _wanted(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)


def _plain(message: Warning | str, *_: object) -> str:
    return f"warning: {message}\n"


def silence_lightning() -> None:
    """Filter those lines and warnings in this process, and show other warnings without the code they come from."""
    fabric = "lightning.fabric" if NAMESPACE.startswith("lightning.") else "lightning_fabric"
    for name in (f"{NAMESPACE}.utilities.rank_zero", f"{fabric}.utilities.seed"):
        logging.getLogger(name).addFilter(_wanted)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = _plain  # type: ignore[assignment]
