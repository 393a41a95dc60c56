"""A user's own files for `prosl embed` and `prosl predict`: opened, checked, prepared as the encoder expects."""

from __future__ import annotations

import inspect
import itertools
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.commands.parsing import ShortUsageParser, check_one_checkpoint, spell_out
from prosl_lightning.data.archive_writer import FRAMES, META
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.files import FOLDER_FORMAT, NONE_USABLE
from prosl_lightning.data.formats.index_table import INDEX_FILES, SEQUENCE_SUFFIXES
from prosl_lightning.data.source import Source, reason
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.encoder import SkeletonEncoder, count_bodies
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

_WHOLE = (".npz", ".npy", ".zip", ".pkl", ".pickle", ".h5", ".hdf5")  # files that `open_source` takes as they are
# What the formats of one file a sequence, or a few, read of a folder; by the beginning of their names.
_READ = {
    "ntu": (".skeleton", ".zip"),
    "pku": (".skeleton", ".txt"),
    "nw-ucla": (".json",),
    FOLDER_FORMAT: SEQUENCE_SUFFIXES,
}
_READABLE = {*_WHOLE, *itertools.chain.from_iterable(_READ.values())}
_SHOWN = 20


class Sample(NamedTuple):
    """A sequence that can be used: its name, file (and row), class or -1, and prepared joints ``(T, V, M, C)``."""

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
        for_archive: What to do with a folder that is an archive, for the message.

    Attributes:
        sources: Those that could be opened.
        bad: File (or sequence) and reason of what cannot be used; complete once all samples have been read.

    Raises:
        DataError: None can be opened, or they are of several body models.
        UsageError: An option does not fit or is missing.
    """

    def __init__(
        self,
        files: Sequence[str],
        format: str | None,
        layout: str | None,
        for_archive: str = "give it with --data.root",
    ) -> None:
        self.sources: list[Source] = []
        self.bad: list[tuple[str, str]] = []
        self._links = tempfile.TemporaryDirectory(prefix="prosl-")
        self._folders: dict[str, str] = {}
        self._for_archive, self._note = for_archive, ""
        try:
            for path in self._places(files):
                try:
                    source = open_source(path, format=format, layout=layout)
                except DataError as error:
                    self.bad.append(self._refused(path, error))
                    continue
                except UsageError as error:
                    raise UsageError(str(error).replace(path, self._called(path))) from error
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
            name = Path(os.path.abspath(path.parent)).name or "files"  # messages may show the folder's name alone
            folder = folders.setdefault((path.parent, path.suffix), Path(self._links.name) / str(len(folders)) / name)
            folder.mkdir(parents=True, exist_ok=True)
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

    def _refused(self, path: str, error: DataError) -> tuple[str, str]:
        """What could not be opened, by the name that the user knows, and why."""
        why = reason(error, path)
        if (Path(path) / META).is_file() and (Path(path) / FRAMES).is_file():
            why = f"it is an archive; {self._for_archive}"
        name = self._called(path)
        return name, self._told(why.removeprefix(f"{NONE_USABLE}{Path(name).name}: "))

    def _called(self, path: str) -> str:
        """A place by the name that the user gave it; several single files by what their names have in common."""
        if path not in self._folders:
            return path
        links = os.listdir(path)
        return self._told(os.path.join(path, links[0] if len(links) == 1 else f"*{Path(links[0]).suffix}"))

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
                    f"{self.first} has layout '{first.layout.name}', {self._called(str(source.path))} "
                    f"'{source.layout.name}': give files of one body model at a time"
                )

    @property
    def first(self) -> str:
        """The first file or folder, for messages."""
        return self._called(str(self.sources[0].path))

    @property
    def layout(self) -> SkeletonLayout:
        """The body model of all of them."""
        return self.sources[0].layout

    def samples(self, encoder: SkeletonEncoder) -> Iterator[Sample]:
        """Every usable sequence, prepared, one at a time; the others are noted in :attr:`bad`."""
        there: list[int] = []
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
                there.append(count_bodies(sequence.bodies))
                yield Sample(sequence.name, self._origin(source, sequence.source), sequence.label, joints)
        self._note = encoder.note_on_bodies(there)

    def _origin(self, source: Source, where: str) -> str:
        """File (and row) of a sequence with the folder it lies in, so that equal names of two folders differ."""
        path = source.path
        if source.format == FOLDER_FORMAT:
            where = str(path / where)
        elif not where.startswith(str(path)):  # the file's name, or its folder's too, without what lies above
            above = path.is_file() or where.startswith(f"{path.name}/")
            where = str((path.parent if above else path) / where)
        return self._told(where)

    def nothing_usable(self) -> DataError:
        """The error for the case that nothing can be used."""
        first = f"; the first: {': '.join(self.bad[0])}" if self.bad else ""
        return DataError(f"nothing usable in the files given{first}")

    def report_bad(self) -> None:
        """List on stderr what was passed over, once all samples have been read."""
        for source in self.sources:
            if others := _other_formats(source):
                print(
                    f"left out, not of format {source.format}: {others}; give their folders one by one", file=sys.stderr
                )
        for why, names in (item for source in self.sources for item in source.left_out.items()):
            if names:
                print(f"left out, {why}: {len(names)}", file=sys.stderr)
        if self._note:
            print(f"warning: {self._note}", file=sys.stderr)
        if self.bad:
            print(f"warning: {len(self.bad)} could not be used:", file=sys.stderr)
        for name, why in self.bad[:_SHOWN]:
            print(f"  {name}: {why.splitlines()[0]}", file=sys.stderr)
        if len(self.bad) > _SHOWN:
            print(f"  and {len(self.bad) - _SHOWN} more", file=sys.stderr)


def _other_formats(source: Source) -> str:
    """Number of the files in a source's folder that are kept as other formats are, by suffix; empty where none is."""
    read = next((suffixes for format, suffixes in _READ.items() if source.format.startswith(format)), None)
    if read is None or not source.path.is_dir():
        return ""
    found: Counter[str] = Counter()
    for _, folders, names in os.walk(source.path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        lower = (name.lower() for name in names)
        found.update(Path(name).suffix for name in lower if not name.startswith((".", "readme", "licen", *INDEX_FILES)))
    return ", ".join(f"{found[suffix]} {suffix}" for suffix in sorted(_READABLE - set(read)) if found[suffix])


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
    check_one_checkpoint(arguments, verb)
    described = inspect.cleandoc(function.__doc__ or "").split("\nArgs:")[0].strip()
    parser = ShortUsageParser(prog=f"prosl {verb}", description=described)
    parser.add_argument(positional, nargs="*", default=[], help=help)
    parser.add_function_arguments(function, as_group=False, skip={positional})
    switches = {f"--{each.name}" for each in inspect.signature(function).parameters.values() if each.default is False}
    given = list(spell_out(switches, arguments))
    # jsonargparse 4.49 renamed it; the old name goes with version 5
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return function(**vars(instantiate(parser.parse_args(given))))
