"""`prosl prepare`: raw skeleton files to one archive."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from prosl_lightning.commands.parsing import run_function


def main(arguments: Sequence[str]) -> None:
    """Run `prosl prepare ntu60 | ntu120 | arrays`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was half written is removed
    from prosl_lightning.data import prepare

    run_function({"ntu60": prepare.ntu60, "ntu120": prepare.ntu120, "arrays": prepare.arrays}, arguments, "prepare")
