"""`prosl prepare`: raw skeleton files to one archive."""

from __future__ import annotations

from collections.abc import Sequence

from prosl_lightning.commands.parsing import run_function


def main(arguments: Sequence[str]) -> None:
    """Run `prosl prepare ntu60 | ntu120 | arrays`."""
    from prosl_lightning.data import prepare

    run_function({"ntu60": prepare.ntu60, "ntu120": prepare.ntu120, "arrays": prepare.arrays}, arguments, "prepare")
