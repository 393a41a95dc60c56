"""Opens raw NTU RGB+D recordings: folders, single files, and the distributed zip files without unpacking them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from prosl_lightning.data.ntu import parse_skeleton, read_skeleton
from prosl_lightning.data.ntu_sets import NTU60, NTU120, NtuSet, index_columns, ntu_fields, parse_name
from prosl_lightning.data.raw_files import member_names, read_member
from prosl_lightning.data.source import RawSequence, Source, reason
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

_SUFFIX = ".skeleton"
_MISSING = "on the published list of missing skeletons"
_FOREIGN = "of other data sets"
_TWICE = "in a zip file and unpacked, read once"


@dataclass(frozen=True)
class NtuFile:
    """One recording: a file, or a member of a zip file."""

    path: str
    member: str = ""

    @property
    def stem(self) -> str:
        """Its name without folders and ending."""
        return PurePosixPath(self.member).stem if self.member else Path(self.path).stem

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else self.path


def open_ntu(path: str | Path, ntu_set: NtuSet | None = None) -> Source:
    """Open NTU RGB+D recordings, in the order of their names.

    Args:
        path: A `.skeleton` file, a zip file, or a folder that holds either, at any depth.
        ntu_set: Which set is meant; files of the other are passed over. None: 120 if a name goes beyond 60.

    Raises:
        DataError: There is nothing to read. A damaged zip file among others is noted in ``Source.bad``.
    """
    root = Path(path)
    files, bad = find_files(root)
    found = sorted(files, key=lambda file: (file.stem, bool(file.member), str(file)))
    if not found and bad:
        raise DataError(": ".join(bad[0]))
    if not found:
        raise DataError(f"{root}: no {_SUFFIX} files in it or below it, and no zip file that holds any")
    fields = filter(None, (ntu_fields(file.stem) for file in found))
    ntu = ntu_set or (NTU60 if all(map(NTU60.contains, fields)) else NTU120)
    source = Source(
        path=root,
        format=ntu.name,
        layout=SkeletonLayout.of("kinect-v2"),
        num_bodies=2,
        items=[],
        read=partial(read_ntu, ntu=ntu),
        class_names=ntu.class_names,
        protocols=ntu.protocols,
        official=ntu.official,
        left_out={_MISSING: [], _FOREIGN: []},
        bad=bad,
    )
    source.items = _select(ntu, found, source)
    return source


def find_files(root: Path) -> tuple[list[NtuFile], list[tuple[str, str]]]:
    """All recordings in a file, a zip file, or a folder, in no particular order; path and reason of damaged zip files.

    Raises:
        DataError: There is no such file or folder.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such file or folder")
    files = [root]
    if root.is_dir():
        files = [file for file in root.rglob("*") if file.suffix in (_SUFFIX, ".zip") and not file.is_dir()]
    found: list[NtuFile] = []
    bad: list[tuple[str, str]] = []
    for file in sorted(files):
        if file.name.startswith("._"):  # what macOS leaves beside a file
            continue
        if file.suffix != ".zip":
            found.append(NtuFile(str(file)))
            continue
        try:
            found += [NtuFile(str(file), member) for member in member_names(file, (_SUFFIX,))]
        except DataError as error:
            bad.append((str(file), reason(error, file)))
    return found, bad


def read_ntu(file: NtuFile, ntu: NtuSet) -> RawSequence:
    """Read one recording; its columns are setup, camera, subject, replication, and in NTU-120 the part in one-shot."""
    try:
        fields = parse_name(file.stem)
        if file.member:
            bodies = parse_skeleton(read_member(file.path, file.member), str(file))
        else:
            bodies = read_skeleton(file.path)
    except DataError as error:
        return RawSequence.unusable(str(file), file.stem, error)
    return RawSequence(str(file), file.stem, bodies, label=fields["action"] - 1, columns=index_columns(fields, ntu))


def _select(ntu: NtuSet, found: Iterable[NtuFile], source: Source) -> list[NtuFile]:
    """The files to read, wrongly named ones among them; the others are noted in the source. Sorted by stem."""
    chosen: list[NtuFile] = []
    missing = ntu.missing
    for file in found:
        fields = ntu_fields(file.stem)
        if file.stem in missing:
            source.left_out[_MISSING].append(file.stem)
        elif fields is not None and not ntu.contains(fields):
            source.left_out[_FOREIGN].append(file.stem)
        elif not chosen or chosen[-1].stem != file.stem:
            chosen.append(file)
        elif file.member and not chosen[-1].member:
            source.left_out.setdefault(_TWICE, []).append(file.stem)
        else:
            source.bad.append((str(file), f"the same name as {chosen[-1]}"))
    return chosen
