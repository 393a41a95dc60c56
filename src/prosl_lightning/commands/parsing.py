"""Command-line parsing shared by all verbs: short errors, and configuration names looked up among the packaged ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, auto_cli

from prosl_lightning.errors import UsageError


class ShortUsageParser(ArgumentParser):
    """An argument parser whose errors are the message and a pointer to the help, not a page of usage."""

    def print_usage(self, file: Any = None) -> None:
        """Print one line instead of all options."""
        print(f"usage: {self.prog} [options]; see {self.prog.split(' [')[0]} --help", file=file)


Component = Callable[..., Any]


def run_function(component: Component | Mapping[str, Component], arguments: Sequence[str], verb: str) -> Any:
    """Call a typed function, or one of several named ones, with arguments from the command line.

    Signature and docstring become options and help; the first parameters without default are positional.
    """
    return auto_cli(  # type: ignore[return-value]
        component if callable(component) else dict(component),
        args=list(arguments),
        prog=f"prosl {verb}",
        parser_class=ShortUsageParser,
    )


def packaged_configs() -> dict[str, Any]:
    """Packaged configurations by name, without `.yaml`."""
    folder = resources.files("prosl_lightning.configs")
    found = {item.name.removesuffix(".yaml"): item for item in folder.iterdir() if item.name.endswith(".yaml")}
    return dict(sorted(found.items()))


def resolve_config(name: str) -> str:
    """Path of a configuration: a file that exists, else a packaged one, with or without `.yaml`.

    Raises:
        UsageError: There is neither.
    """
    if Path(name).is_file():
        return name
    packaged = packaged_configs().get(name.removesuffix(".yaml"))
    if packaged is None:
        raise UsageError(
            f"there is no configuration '{name}': no such file, and packaged are {', '.join(packaged_configs())}"
        )
    return str(packaged)


def resolve_config_arguments(arguments: Sequence[str]) -> list[str]:
    """The same arguments with every `--config NAME` pointing at a file."""
    resolved: list[str] = []
    for position, argument in enumerate(arguments):
        if position and arguments[position - 1] == "--config":
            argument = resolve_config(argument)
        elif argument.startswith("--config="):
            argument = "--config=" + resolve_config(argument.removeprefix("--config="))
        resolved.append(argument)
    return resolved
