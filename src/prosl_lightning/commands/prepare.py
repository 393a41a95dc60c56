"""`prosl prepare`: raw files, arrays, or archives to one archive."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence

from prosl_lightning.commands.parsing import run_function, spell_out

_SWITCHES = {"--overwrite", "--strict", "--zero_based"}


def main(arguments: Sequence[str]) -> None:
    """Run `prosl prepare ntu60 | ntu120 | pku1 | pku2 | arrays | pool`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was half written is removed
    from prosl_lightning.data import prepare
    from prosl_lightning.data.pool import pool

    verbs = (prepare.ntu60, prepare.ntu120, prepare.pku1, prepare.pku2, prepare.arrays, pool)
    arguments = list(spell_out(_SWITCHES, arguments))  # which stand in no signature where a function passes them on
    if arguments[:1] == ["pool"]:
        arguments = ["pool", *_as_one_list(arguments[1:])]
    run_function({verb.__name__: verb for verb in verbs}, arguments, "prepare")


def _as_one_list(arguments: Sequence[str]) -> list[str]:
    """Put the positional arguments into one, a list, as the parser wants it."""
    positional, options = [], []
    takes_value = False
    for argument in arguments:
        if takes_value or argument.startswith("-"):
            options.append(argument)
        else:
            positional.append(argument)
        takes_value = argument.startswith("--") and "=" not in argument and argument != "--help"
    return ([json.dumps(positional)] if positional else []) + options
