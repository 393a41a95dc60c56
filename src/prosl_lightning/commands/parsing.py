"""Command-line parsing shared by all verbs: short errors, and configuration names looked up among the packaged ones."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, auto_cli

from prosl_lightning.errors import UsageError

CONFIG_VARIABLE = "PROSL_FIT__CONFIG"


class ShortUsageParser(ArgumentParser):
    """An argument parser whose errors are the message and a pointer to the help, not a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print two lines and exit with 2; with PROSL_DEBUG set, raise instead."""
        if not self.exit_on_error:  # one of jsonargparse's own attempts to fit a value to a type
            super().error(message, ex)
        if os.environ.get("PROSL_DEBUG"):
            raise UsageError(message) from ex
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        subcommands = getattr(parser._subcommands_action, "_name_parser_map", {})
        for name in subcommands:
            if f" {name}." in message or len(subcommands) == 1:  # it speaks about an option of this subcommand
                command, message = f"{command} {name}", message.replace(f" {name}.", " ")
        sys.stderr.write(f"{command}: error: {short_message(message)}{_close_option(parser, message)}\n")
        sys.stderr.write(f"`{command} --help` lists all options\n")
        sys.exit(2)

    def format_help(self, *arguments: Any) -> str:
        """The help without the page of usage at its top, which names every option that is explained below it."""
        self.usage = f"{self.prog.replace(' [options]', '')} [options]"
        return super().format_help(*arguments)


def short_message(message: str) -> str:
    r"""One line of what jsonargparse says about a value, without the types that did not fit where a cause is named.

    Example:
        >>> short_message('Parser key "model.seed":\n  Expected a <class \'int\'>. Got value: abc')
        '--model.seed: expected int, found abc'
    """
    linked = re.match(r"argument ([\w.]+) --> ([\w.]+):", message)
    if linked:
        return f"--{linked[2]} follows from --{linked[1]}: give only that one"
    if wrong := re.search(r"argument subcommand: invalid choice: '(.*?)' \(choose from (.*)\)", message):
        names = re.findall(r"[\w-]+", wrong[2])
        close = difflib.get_close_matches(wrong[1], names, n=1)
        return f"there is no '{wrong[1]}'; " + (f"did you mean {close[0]}?" if close else f"choose {', '.join(names)}")
    lines = [_plain_types(line).strip().lstrip("- ") for line in message.splitlines()]
    lines = list(dict.fromkeys(line for line in lines if line))
    option = re.match(r'Parser key "([\w.+]+)":', lines[0])
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value type", "Parser key")
    lines = [line for line in lines if not line.startswith(noise)]
    causes = [line for line in lines if not line.startswith(("expected", "found"))] or _one_of(lines)
    return (f"--{option[1]}: " if option else "") + "; ".join(causes).replace(":;", ":")


def _one_of(lines: list[str]) -> list[str]:
    """Types none of which fitted, on one line: `expected int, 'classes' or null, found foo`."""
    kinds = [line.removeprefix("expected ").partition(", found ")[0] for line in lines if line.startswith("expected")]
    found = [line for line in lines if line.startswith("found")]
    if len(kinds) < 2 or len(kinds) + len(found) < len(lines):
        return lines
    kinds = [re.sub(r"^Literal\[(.*)\]$", r"\1", kind) for kind in kinds]
    return [f"expected {', '.join(kinds[:-1])} or {kinds[-1]}" + "".join(f", {line}" for line in found[:1])]


def _plain_types(line: str) -> str:
    line = re.sub(r"<class '([\w.]+)'>", r"\1", line).replace("typing.", "").replace("NoneType", "null")
    line = re.sub(r"Expected an? (.*)\. Got value: (.*)", r"expected \1, found \2", line)
    return re.sub(r"Given value: ", "found ", re.sub(r"Expected (an? )?", "expected ", line))


def _close_option(parser: ArgumentParser, message: str) -> str:
    """A guess at what a misspelt option was to be, or how a list is written where a word stands alone."""
    if re.search("unrecognized arguments: [^-]", message):
        return "; several values of one option are one list in quotes: '[A,B]'"
    found = re.search(r"(?:unrecognized arguments: --|does not accept option ')([\w.]+)", message)
    close = difflib.get_close_matches(found[1], [action.dest for action in parser._actions], n=1) if found else []
    return f"; did you mean {close[0]}?" if close else ""


Component = Callable[..., Any]


def run_function(component: Component | Mapping[str, Component], arguments: Sequence[str], verb: str) -> Any:
    """Call a typed function, or one of several named ones, with arguments from the command line.

    Signature and docstring become options and help; the first parameters without default are positional.

    Raises:
        UsageError: `--ckpt` is given more than once; a verb that takes several has gathered them before.
    """
    check_one_checkpoint(arguments, verb)
    functions = [component] if callable(component) else list(component.values())
    switches = {
        f"--{parameter.name}"
        for function in functions
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is False
    }
    return auto_cli(
        component if callable(component) else dict(component),
        args=list(spell_out(switches, arguments)),
        prog=f"prosl {verb}",
        parser_class=ShortUsageParser,
    )


def check_one_checkpoint(arguments: Sequence[str], verb: str) -> None:
    """Refuse a repeated `--ckpt`, of which argparse would take the last without a word.

    Raises:
        UsageError: It is given more than once.
    """
    repeats = sum(argument.partition("=")[0] == "--ckpt" for argument in arguments)
    if repeats > 1:
        raise UsageError(f"--ckpt is given {repeats} times; `prosl {verb}` takes one checkpoint")


def spell_out(switches: set[str], arguments: Sequence[str]) -> Iterator[str]:
    """Give a bare `--strict` the value that jsonargparse wants: `--strict=true`."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        bare = argument in switches and following.lower() not in ("true", "false")
        yield f"{argument}=true" if bare else argument


def gather_lists(arguments: Sequence[str], files: Set[str], choices: Set[str] = frozenset()) -> Iterator[str]:
    """Join what follows an option that takes a list, also where it is given repeatedly.

    `--ckpt a b` and `--ckpt a --ckpt b` become `--ckpt ["a", "b"]`; the list stands where the option came first.

    Args:
        arguments: The command line.
        files: Options that take one or several; one stays as it is.
        choices: Options that take a number, how many, or a list of names or numbers; a single name becomes a list.
    """
    given: dict[str, list[str]] = {}
    order: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        option, equals, value = argument.partition("=")
        if option not in files | choices:
            order.append(argument)
            continue
        if option not in given:
            order.append(option)
        words = [value] if equals else []
        while not equals and rest and not rest[0].startswith("-"):
            words.append(rest.pop(0))
        given.setdefault(option, []).extend(_values(words))
    for argument in order:
        yield argument
        values = given.get(argument, [])
        alone = len(values) == 1 and (argument in files or values[0].isdigit() or values[0].startswith("["))
        if values:
            yield values[0] if alone else json.dumps([name for value in values for name in _names(value)])


def _values(words: list[str]) -> list[str]:
    """A list that the shell cut at its blanks, `[a,` and `b]`, is one value again."""
    return [" ".join(words)] if words and words[0].startswith("[") and words[-1].endswith("]") else words


def _names(value: str) -> list[str]:
    """The names in one of several values, which may be a list itself."""
    if not (value.startswith("[") and value.endswith("]")):
        return [value]
    return [name.strip().strip("'\"") for name in value[1:-1].split(",") if name.strip()]


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


def resolve_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line of `prosl fit` in the order in which a later part overrides an earlier one.

    Configurations come first, with packaged names resolved to files, then the environment's `PROSL_FIT__...` variables,
    then the other options.
    """
    options: list[str] = []
    names = [os.environ[CONFIG_VARIABLE]] if os.environ.get(CONFIG_VARIABLE) else []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--config", "-c"):
            name = next(rest, None)
            (options if name is None else names).append(name or argument)  # the parser complains of a bare one
        elif argument.startswith("--config="):
            names.append(argument.removeprefix("--config="))
        else:
            options.append(argument)
    configs = [f"--config={resolve_config(name)}" for name in names]
    return [*configs, *_environment_options(), *options]


def _environment_options() -> list[str]:
    prefix = "PROSL_FIT__"
    return [
        f"--{name.removeprefix(prefix).lower().replace('__', '.')}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(prefix) and name != CONFIG_VARIABLE
    ]
