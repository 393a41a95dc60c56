"""A user's own files for `prosl embed` and `prosl predict`: opened, checked, prepared as the encoder expects."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.commands.parsing import ShortUsageParser, spell_out
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.source import Source, reason
from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.encoder import SkeletonEncoder
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

_WHOLE = (".npz", ".npy", ".zip", ".pkl", ".pickle", ".h5", ".hdf5")  # files that `open_source` takes as they are
_SHOWN = 20


class Sample(NamedTuple):
    """A sequence that can be used: its name, file, class (-1 where unknown), and prepared joints ``(T, V, M, C)``."""

    name: str
    source: str
    label: int
    joints: NDArray[np.float32]


class UserFiles:
    """Files and folders of any format the package reads, opened; a context, since it may hold a folder of links.

    Formats of one file a sequence are opened by folder. Such files given one by one are linked into a folder of their
    own, and named as they were given in every message.

    Args:
        files: Files and folders.
        format: As `open_source` takes it.
        layout: Body model, where the files do not say.

    Attributes:
        sources: Those that could be opened.
        bad: File (or sequence) and reason of what cannot be used; complete once all samples have been read.

    Raises:
        DataError: None can be opened, or they are of several body models.
        UsageError: An option does not fit or is missing.
    """

    def __init__(self, files: Sequence[str], format: str | None, layout: str | None) -> None:
        self.sources: list[Source] = []
        self.bad: list[tuple[str, str]] = []
        self._links = tempfile.TemporaryDirectory(prefix="prosl-")
        self._folders: dict[str, str] = {}
        try:
            for path in self._places(files):
                try:
                    source = open_source(path, format=format, layout=layout)
                except DataError as error:
                    self.bad.append((self._told(path), self._told(reason(error, path))))
                    continue
                self.sources.append(source)
                self.bad += [(self._told(name), why) for name, why in source.bad]
            if not self.sources:
                raise self.nothing_usable()
            self._check_one_layout()
        except Exception:
            self._links.cleanup()
            raise

    def __enter__(self) -> UserFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._links.cleanup()

    def _places(self, files: Sequence[str]) -> list[str]:
        """What to open: whole files and folders as they are, single sequences by their folder of links."""
        places: dict[str, None] = {}
        folders: dict[tuple[Path, str], Path] = {}
        for file in files:
            path = Path(file)
            if not path.is_file() or path.suffix.lower() in _WHOLE:
                places[file] = None
                continue
            folder = folders.setdefault((path.parent, path.suffix), Path(self._links.name) / str(len(folders)))
            folder.mkdir(exist_ok=True)
            self._folders[str(folder)] = str(path.parent)
            self._folders[f"{folder}{os.sep}"] = file.removesuffix(path.name)
            link = folder / path.name
            if not link.exists():
                try:
                    link.symlink_to(path.absolute())
                except OSError:  # Windows lets few users make links
                    shutil.copy(path, link)
            places[str(folder)] = None
        return list(places)

    def _told(self, text: str) -> str:
        """A message in which folders of links have the name of the folder that the files lie in."""
        for folder, original in sorted(self._folders.items(), reverse=True):  # with the separator first
            text = text.replace(folder, original)
        return text

    def _check_one_layout(self) -> None:
        first = self.sources[0]
        for source in self.sources:
            if source.layout.joints != first.layout.joints:
                raise DataError(
                    f"{self.first} has layout '{first.layout.name}', {self._told(str(source.path))} "
                    f"'{source.layout.name}': give files of one body model at a time"
                )

    @property
    def first(self) -> str:
        """The first file or folder, for messages."""
        return self._told(str(self.sources[0].path))

    @property
    def layout(self) -> SkeletonLayout:
        """The body model of all of them."""
        return self.sources[0].layout

    def samples(self, encoder: SkeletonEncoder) -> Iterator[Sample]:
        """Every usable sequence, prepared, one at a time; the others are noted in :attr:`bad`."""
        for source in self.sources:
            for sequence in source:
                if sequence.bodies is None:
                    self.bad.append((self._told(sequence.source), sequence.error))
                    continue
                try:
                    joints = encoder.prepare(sequence.bodies, already=source.already)
                except DataError as error:
                    self.bad.append((self._told(sequence.source), str(error)))
                    continue
                yield Sample(sequence.name, self._told(sequence.source), sequence.label, joints)

    def nothing_usable(self) -> DataError:
        """The error for the case that nothing can be used."""
        first = f"; the first: {': '.join(self.bad[0])}" if self.bad else ""
        return DataError(f"nothing usable in the files given{first}")

    def report_bad(self) -> None:
        """List on stderr what was passed over."""
        for why, names in (item for source in self.sources for item in source.left_out.items()):
            if names:
                print(f"left out, {why}: {len(names)}", file=sys.stderr)
        if self.bad:
            print(f"warning: {len(self.bad)} could not be used:", file=sys.stderr)
        for name, why in self.bad[:_SHOWN]:
            print(f"  {name}: {why.splitlines()[0]}", file=sys.stderr)
        if len(self.bad) > _SHOWN:
            print(f"  and {len(self.bad) - _SHOWN} more", file=sys.stderr)


def refuse_other_layout(layout: SkeletonLayout, encoder: SkeletonEncoder, what: str, remedy: str) -> None:
    """Refuse data of another body model than the encoder's.

    Raises:
        DataError: Names both.
    """
    if layout.joints != encoder.layout.joints:
        raise DataError(
            f"{what} has layout '{layout.name}' with {counted(layout.num_joints, 'joint')}, the encoder takes "
            f"'{encoder.layout.name}' with {encoder.layout.num_joints}\n{remedy}"
        )


def run_with_list(function: Callable[..., Any], arguments: Sequence[str], verb: str, positional: str, help: str) -> Any:
    """Call a typed function as a verb whose parameter `positional` takes all arguments that are no options.

    Args:
        function: Its other parameters and its docstring become the options and the help.
        arguments: The command line after the verb.
        verb: Its name.
        positional: Name of the function's parameter for the list.
        help: What the list is.
    """
    described = inspect.cleandoc(function.__doc__ or "").split("\nArgs:")[0].strip()
    parser = ShortUsageParser(prog=f"prosl {verb}", description=described)
    parser.add_argument(positional, nargs="*", default=[], help=help)
    parser.add_function_arguments(function, as_group=False, skip={positional})
    switches = {f"--{each.name}" for each in inspect.signature(function).parameters.values() if each.default is False}
    given = list(spell_out(switches, arguments))
    # jsonargparse 4.49 renamed it; the old name goes with version 5
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return function(**vars(instantiate(parser.parse_args(given))))
