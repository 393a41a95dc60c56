"""Opens raw PKU-MMD: videos with their label files, or clips cut out of them, in whatever folders they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from prosl_lightning.data.pku import PkuLabel, PkuVideo, read_clip, read_labels, read_video
from prosl_lightning.data.pku_sets import (
    PKU1,
    PKU2,
    PROTOCOLS,
    VIEWS,
    PkuSet,
    class_names,
    known_side,
    parse_clip_name,
    parse_video_name,
    read_split_file,
    split_protocol,
    video_name,
)
from prosl_lightning.data.raw_files import check_file
from prosl_lightning.data.source import RawSequence, Source, reason
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

MIN_FRAMES = 4
_OTHER_PART = "of the other phase"
_CUT_BESIDE = "cut clips beside whole videos, not read"
_NO_VIDEO = "label files without a skeleton file"
_MOST_LABEL_COLUMNS = 8  # a label's line has four; a frame's has 150


@dataclass(frozen=True)
class PkuClip:
    """Where one clip is read from.

    Attributes:
        path: The video's skeleton file, or the clip's own if it was cut out.
        name: Its name in the archive.
        label: Its class, from 0.
        columns: Its integers in the index.
        frames: First frame and the one after the last, from 0; None for a clip with a file of its own.
    """

    path: str
    name: str
    label: int
    columns: Mapping[str, int]
    frames: tuple[int, int] | None = None


def open_pku(
    path: str | Path, part: int | None = None, *, zero_based: bool = False, min_frames: int = MIN_FRAMES
) -> Source:
    """Open PKU-MMD, clips in the order of video and label file.

    Args:
        path: Folder with the files, at any depth. A skeleton and a label file belong together by their name.
        part: Phase 1 or 2; videos of the other are passed over. None: 2 if a name is of that phase.
        zero_based: Read a label's frames as ``start:end``, from 0 and without the last, instead of from 1 and with it.
        min_frames: Clips with fewer frames are listed and left out.

    Raises:
        DataError: There is nothing to read, or no label file, or a split file is wrong.
        UsageError: ``min_frames`` is not positive, or ``zero_based`` has nothing to be about.
    """
    if min_frames < 1:
        raise UsageError(f"min_frames is {min_frames}; expected at least 1")
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")
    files = _Files.of(root, part)
    if zero_based and not files.skeletons:
        raise UsageError(
            f"zero_based is about the frames in label files; the clips in {root} are cut out already: leave it out"
        )
    pku = files.pku
    source = Source(
        path=root,
        format=pku.name,
        layout=SkeletonLayout.of("kinect-v2"),
        num_bodies=2,
        items=[],
        read=partial(read_pku, min_frames=min_frames),
        class_names=class_names(),
        protocols=PROTOCOLS,
        left_out={why: names for why, names in files.left_out.items() if names},
        bad=files.bad,
    )
    splits = _splits(files, source)
    clips = _labelled(files, source, zero_based) if files.skeletons else _cut(files, source)
    source.items = [_with_sides(clip, pku, splits) for clip in clips]
    source.notes.append(pku.told)
    return source


def read_pku(clip: PkuClip, min_frames: int) -> RawSequence:
    """Read one clip, unless it is too short. Column ``cut`` counts the frames that lie beyond the end of the video."""
    where = f"{clip.path}, {clip.name}" if clip.frames else clip.path
    columns = dict(clip.columns)
    try:
        if clip.frames is None:
            bodies = read_clip(clip.path)
        else:
            video = _video(clip.path, os.path.getmtime(clip.path))
            first, last = clip.frames
            if first >= len(video):
                raise DataError(f"begins at frame {columns['start']} of a video of {len(video)}")
            bodies = video.frames(first, min(last, len(video)))
            columns["cut"] = last - first - len(bodies)
        if len(bodies) < min_frames:
            raise DataError(f"{counted(len(bodies), 'frame')}, fewer than {min_frames}")
    except (DataError, OSError) as error:
        return RawSequence.unusable(where, clip.name, error, clip.path)
    return RawSequence(where, clip.name, bodies, label=clip.label, columns=columns)


@lru_cache(maxsize=1)
def _video(path: str, changed: float) -> PkuVideo:
    # the clips of a video come one after another, so the last one read is enough
    return read_video(path)


@dataclass
class _Files:
    """What lies in a folder: skeletons, labels and cut clips by name, split files, and what is passed over."""

    pku: PkuSet
    root: Path
    skeletons: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    clips: dict[str, Path] = field(default_factory=dict)
    splits: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: {_OTHER_PART: [], _CUT_BESIDE: [], _NO_VIDEO: []})
    bad: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path, part: int | None) -> _Files:
        """Sort out all text files below a folder.

        Raises:
            DataError: None of them is a recording of the phase, or there is no label file.
        """
        found = sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".skeleton") and not path.is_dir())
        names = {path: parse_video_name(path.stem) or parse_clip_name(path.stem) for path in found}
        if part is None:
            part = max((name[0] for name in names.values() if name), default=1)
        files = cls(PKU1 if part == 1 else PKU2, root)
        for path, name in names.items():
            if name and name[0] != part:
                files.left_out[_OTHER_PART].append(path.stem)
            elif name:
                files._add(path)
            elif split_protocol(path.name):
                files.splits.append(path)
        files._check()
        return files

    def _add(self, path: Path) -> None:
        try:
            check_file(path)
        except DataError as error:
            self.bad.append((str(path), reason(error, path)))
            return
        videos = self.labels if _is_label_file(path) else self.skeletons
        group = self.clips if parse_clip_name(path.stem) else videos
        if path.stem in group:
            self.bad.append((str(path), f"the same name as {group[path.stem]}"))
        group.setdefault(path.stem, path)

    def _check(self) -> None:
        if not self.skeletons and not self.clips:
            labels = counted(len(self.labels), "label file")
            what = f"{labels} but no skeleton files" if self.labels else "no recordings"
            example = "0002-L.txt" if self.pku.part == 1 else "A01N01-L.txt"
            raise DataError(
                f"{self.root}: {what} of PKU-MMD phase {self.pku.part} in it or below it; expected files like "
                f"{example} with 150 numbers a line"
            )
        if self.skeletons and not self.labels:
            raise DataError(
                f"{self.root}: {counted(len(self.skeletons), 'skeleton file')} but no label files; put the labels "
                "(files of the same names, lines class,start,end,confidence) beside them"
            )
        if self.skeletons:
            self.left_out[_CUT_BESIDE] = sorted(self.clips)
            self.left_out[_NO_VIDEO] = sorted(set(self.labels) - set(self.skeletons))


def _is_label_file(path: Path) -> bool:
    """Whether the first line is short: a label file, or an empty one. What cannot be read is taken for a skeleton."""
    try:
        with path.open("rb") as file:
            line = file.read(4096).lstrip().split(b"\n")[0]
    except OSError:
        return False
    return len(line.replace(b",", b" ").split()) <= _MOST_LABEL_COLUMNS


def _labelled(files: _Files, source: Source, zero_based: bool) -> Iterator[PkuClip]:
    """The clips of all videos; labels that cannot be clips are noted in the source."""
    for stem, path in sorted(files.skeletons.items()):
        if stem not in files.labels:
            source.bad.append((str(path), "no label file of this name"))
            continue
        try:
            labels, bad = read_labels(files.labels[stem])
        except DataError as error:
            source.bad.append((str(files.labels[stem]), reason(error, files.labels[stem])))
            continue
        source.bad.extend(bad)
        numbers = (parse_video_name(stem) or (0, {}))[1]
        for label in labels:
            first = label.start if zero_based else max(label.start, 1) - 1  # 0 occurs and means the first
            if problem := _unusable(label, first, source):
                source.bad.append((f"{files.labels[stem]}, line {label.row}", problem))
                continue
            columns = numbers | {
                "clip": label.row, "start": label.start, "end": label.end, "confidence": label.confidence, "cut": 0
            }  # fmt: skip
            yield PkuClip(str(path), f"{stem}_{label.row:03d}", label.action - 1, columns, (first, label.end))


def _unusable(label: PkuLabel, first: int, source: Source) -> str:
    if not 1 <= label.action <= len(source.class_names):
        return f"class {label.action}, expected 1 to {len(source.class_names)}"
    if label.start < 0 or label.end <= first:
        return f"empty: frames {label.start} to {label.end}"
    return ""


def _cut(files: _Files, source: Source) -> Iterator[PkuClip]:
    for stem, path in sorted(files.clips.items()):
        numbers = dict((parse_clip_name(stem) or (0, {}))[1])
        action = numbers.pop("action")
        if not 1 <= action <= len(source.class_names):
            source.bad.append((str(path), f"class {action}, expected 1 to {len(source.class_names)}"))
        elif not 1 <= numbers["view"] <= len(VIEWS):
            source.bad.append((str(path), f"view {numbers['view']}, expected 1 (L), 2 (M) or 3 (R)"))
        else:
            yield PkuClip(str(path), stem, action - 1, numbers)


def _splits(files: _Files, source: Source) -> dict[str, dict[str, int]]:
    """Side by video for the protocols that have a split file; says in the notes where each split comes from."""
    found: dict[str, dict[str, int]] = {}
    for path in files.splits:
        protocol = split_protocol(path.name)
        sides = read_split_file(path, files.pku.part)
        if sides and protocol not in found:
            found[protocol] = sides
            source.notes.append(f"{protocol} as in {path.name}: {counted(len(sides), 'video')}")
    for protocol in sorted(set(PROTOCOLS) - set(found)):
        source.notes.append(f"{protocol} by the list shipped with this library: there is no split file")
    return found


def _with_sides(clip: PkuClip, pku: PkuSet, splits: Mapping[str, Mapping[str, int]]) -> PkuClip:
    columns = dict(clip.columns)
    video = video_name(pku.part, columns)
    for protocol in PROTOCOLS:
        side = splits[protocol].get(video, 0) if protocol in splits else known_side(pku, protocol, columns)
        columns[protocol.replace("-", "_")] = side
    return replace(clip, columns=columns)
