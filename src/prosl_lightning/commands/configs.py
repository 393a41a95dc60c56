"""`prosl configs`: list the packaged configurations, or print one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prosl_lightning.commands.parsing import packaged_configs, resolve_config
from prosl_lightning.errors import UsageError


def main(arguments: Sequence[str]) -> int:
    """List all names with their first comment line, or print the named configuration."""
    if set(arguments) & {"-h", "--help"}:
        print("usage: prosl configs [NAME]\n\nLists the packaged configurations, or prints the named one.")
        return 0
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise UsageError(f"takes one name and no options, found {' '.join(arguments)}")
    if arguments:
        print(Path(resolve_config(arguments[0])).read_text(encoding="utf-8"), end="")
        return 0
    for name, file in packaged_configs().items():
        first = file.read_text(encoding="utf-8").splitlines()[0]
        print(f"{name:<12} {first.lstrip('# ')}")
    return 0
