"""From a folder of raw NTU files to an archive: order, published exclusions, bad files, several processes."""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.ntu_sets import NTU60, NTU120, one_shot_part, parse_name
from prosl_lightning.data.prepare import arrays, ntu60, ntu120
from prosl_lightning.errors import DataError, UsageError

MISSING = "S001C002P005R002A008"  # on the published list
NAMES = ["S001C001P001R001A001", "S001C003P003R001A002", "S002C001P002R002A060", "S017C002P040R001A050"]


@pytest.fixture
def raw(tmp_path, skeleton_text, walker) -> Path:
    """Four good files in two folders, in an order that is not alphabetical."""
    root = tmp_path / "raw"
    for number, name in enumerate(NAMES):
        folder = root / ("b", "a")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        frames = walker(5 + number, bodies=1 + number % 2, seed=number)
        (folder / f"{name}.skeleton").write_bytes(skeleton_text(frames, ("\n", "\r\n")[number % 2]))
    return root


def test_archive_of_a_folder(raw, tmp_path, capsys):
    report = ntu60(str(raw), out=str(tmp_path / "out"))
    archive = Archive.open(tmp_path / "out")
    archive.verify()
    assert archive.names.tolist() == NAMES
    assert archive.lengths.tolist() == [5, 6, 7, 8]
    assert archive.labels.tolist() == [0, 1, 59, 49]
    columns = {name: values.tolist() for name, values in archive.columns.items()}
    assert columns == {
        "setup": [1, 1, 2, 17],
        "camera": [1, 3, 1, 2],
        "subject": [1, 3, 2, 40],
        "replication": [1, 1, 2, 1],
    }
    assert archive.class_names == NTU60.class_names
    assert archive.frames.shape == (26, 3, 25, 2)
    assert not archive.frames[:, :, 1, 0].any()  # the middle of the spine of the first person
    assert archive.split("x-sub")[0].tolist() == [0, 2]
    assert archive.split("x-view")[0].tolist() == [1, 3]
    assert report.splits == {"x-sub": (2, 2), "x-view": (2, 2), "all": (4, 0)}
    printed = capsys.readouterr()
    assert "4 sequences, 26 frames" in printed.out
    assert "x-sub         2     2  40,091 / 16,487" in printed.out
    assert printed.err.splitlines() == [
        "warning: x-sub: 2 of 40,091 train, 40,089 missing; 2 of 16,487 test, 16,485 missing",
        "warning: x-view: 2 of 37,646 train, 37,644 missing; 2 of 18,932 test, 18,930 missing",
    ]


def test_ntu120_has_the_cross_setup_protocol(raw, tmp_path, skeleton_text, walker, capsys):
    (raw / "S032C001P106R002A120.skeleton").write_bytes(skeleton_text(walker(4)))
    report = ntu120(str(raw), out=str(tmp_path / "out"))
    archive = Archive.open(tmp_path / "out")
    assert archive.labels.tolist() == [0, 1, 59, 49, 119]
    assert archive.split("x-set")[0].tolist() == [2, 4]
    splits = {"x-sub": (2, 3), "x-set": (2, 3), "one-shot": (0, 1), "one-shot-auxiliary": (4, 0), "all": (5, 0)}
    assert report.splits == splits
    printed = capsys.readouterr()
    assert report.neither == {"x-sub": 0, "x-set": 0, "one-shot": 4, "one-shot-auxiliary": 1, "all": 0}
    assert "protocol            train  test  neither  official\n" in printed.out
    assert "one-shot                0     1        4  20 / 18,924\n" in printed.out
    assert "warning: one-shot: 0 of 20 train, 20 missing; 1 of 18,924 test, 18,923 missing" in printed.err
    assert ntu60(str(raw), out=str(tmp_path / "60")).left_out["of other data sets"] == ["S032C001P106R002A120"]


def test_published_missing_samples_are_dropped_and_counted(raw, tmp_path, capsys):
    shutil.copy(raw / "b" / f"{NAMES[0]}.skeleton", raw / f"{MISSING}.skeleton")
    report = ntu60(str(raw), out=str(tmp_path / "out"))
    assert report.left_out == {"on the published list of missing skeletons": [MISSING], "of other data sets": []}
    archive = Archive.open(tmp_path / "out")
    assert MISSING not in archive.names
    assert archive.meta["counts"] == {
        "read": 4, "on the published list of missing skeletons": 1, "of other data sets": 0, "could not be used": 0
    }  # fmt: skip
    assert "on the published list of missing skeletons: 1\nof other data sets: 0\n" in capsys.readouterr().out


def _spoil(raw: Path, skeleton_text, walker) -> dict[str, str]:
    good = skeleton_text(walker(3))
    lines = good.split(b"\n")
    bad = {
        "S003C001P001R001A001": (good[:2000], "line 29 (in frame 1 of 3): truncated"),
        "S003C001P001R001A002": (b"", "empty file"),
        "S003C001P001R001A003": (good.replace(b" 277.4", b" x", 1), "line 5 (in frame 1 of 3): 'x' is not a number"),
        "S003C001P001R001A004": (b"\n".join([*lines[:4], b"nan " * 12, *lines[5:]]), "line 5 (in frame 1 of 3): coord"),
        "S003C001P001R001A005": (b"\n".join([*lines[:3], b"20", *lines[4:]]), "line 4 (in frame 1 of 3): 20 joints"),
        "S003C001P001R001A006": (b"2\n0\n0\n", "nobody in any of 2 frames"),
        "video": (good, "name 'video' is not of the form"),
    }
    for name, (content, _) in bad.items():
        (raw / f"{name}.skeleton").write_bytes(content)
    return {name: reason for name, (_, reason) in bad.items()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_files_are_named_and_passed_over(raw, tmp_path, capsys, skeleton_text, walker, jobs):
    expected = _spoil(raw, skeleton_text, walker)
    report = ntu60(str(raw), out=str(tmp_path / "out"), jobs=jobs)
    assert Archive.open(tmp_path / "out").names.tolist() == NAMES
    assert [Path(source).stem for source, _ in report.bad] == sorted(expected)
    printed = capsys.readouterr().out
    assert "could not be used: 7" in printed
    for (source, reason), wanted in zip(report.bad, [expected[name] for name in sorted(expected)], strict=True):
        assert reason.startswith(wanted)
        assert f"  {source}: {reason}" in printed


def test_strict_stops_at_the_first_bad_file(raw, tmp_path, skeleton_text, walker):
    _spoil(raw, skeleton_text, walker)
    for jobs in (1, 2):
        with pytest.raises(
            DataError, match=r"S003C001P001R001A001.skeleton: line 29 .*truncated.*\nleave out --strict"
        ):
            ntu60(str(raw), out=str(tmp_path / "out"), strict=True, jobs=jobs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_several_processes_write_the_same_bytes(raw, tmp_path):
    for jobs in (1, 2):
        ntu60(str(raw), out=str(tmp_path / str(jobs)), jobs=jobs)
    for file in ("frames.npy", "index.npy", "meta.json"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_a_name_that_occurs_twice_is_read_once(raw, tmp_path):
    (raw / "c").mkdir()
    shutil.copy(raw / "b" / f"{NAMES[0]}.skeleton", raw / "c")
    report = ntu60(str(raw), out=str(tmp_path / "out"))
    copy, original = raw / "c" / f"{NAMES[0]}.skeleton", raw / "b" / f"{NAMES[0]}.skeleton"
    assert report.bad == [(str(copy), f"the same name as {original}")]
    assert len(Archive.open(tmp_path / "out")) == 4
    with pytest.raises(DataError, match="the same name as"):
        ntu60(str(raw), out=str(tmp_path / "strict"), strict=True)


@pytest.fixture
def zipped(raw, tmp_path) -> Path:
    """The same four files in two zip files, as the data set is distributed."""
    folder = tmp_path / "zips"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate(sorted(raw.rglob("*.skeleton"), reverse=True)):
        target = folder / ("nturgbd_s001_to_s017.zip", "more/nturgbd_s018_to_s032.zip")[number % 2]
        with zipfile.ZipFile(target, "a", (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[number // 2]) as file:
            file.write(path, f"nturgb+d_skeletons/{path.name}")
            file.writestr(f"__MACOSX/._{path.name}", b"\0\5\26\7")
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_zip_files_are_read_as_they_are(raw, zipped, tmp_path, jobs):
    ntu60(str(raw), out=str(tmp_path / "folder"))
    report = ntu60(str(zipped), out=str(tmp_path / "zip"), jobs=jobs)
    assert report.bad == []
    for file in ("frames.npy", "index.npy"):
        assert (tmp_path / "folder" / file).read_bytes() == (tmp_path / "zip" / file).read_bytes()
    assert open_source(zipped).format == "ntu60"  # a folder with nothing but zip files in it
    assert ntu60(str(zipped / "nturgbd_s001_to_s017.zip"), out=str(tmp_path / "one")).num_sequences == 2
    assert ntu60(str(next(raw.rglob("*.skeleton"))), out=str(tmp_path / "file")).num_sequences == 1


def test_zip_files_beside_what_was_unpacked_from_them(raw, zipped, tmp_path):
    zipped.rename(raw / "zips")
    report = ntu60(str(raw), out=str(tmp_path / "out"), strict=True)
    assert report.num_sequences == 4
    assert report.left_out["in a zip file and unpacked, read once"] == NAMES


def test_a_damaged_zip_file(zipped, tmp_path):
    path = zipped / "nturgbd_s001_to_s017.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    damage = r"s017.zip: damaged or not a whole zip file .*download or copy it again"
    with pytest.raises(DataError, match=damage):
        ntu60(str(path), out=str(tmp_path / "out"))
    with pytest.raises(DataError, match=damage):
        ntu60(str(zipped), out=str(tmp_path / "out"), strict=True)
    others = ntu60(str(zipped), out=str(tmp_path / "others"))
    assert (others.num_sequences, [source for source, _ in others.bad]) == (2, [str(path)])
    assert "download or copy it again" in others.bad[0][1]
    with zipfile.ZipFile(zipped / "more" / "nturgbd_s018_to_s032.zip") as file:
        first = next(info for info in file.infolist() if info.compress_type == zipfile.ZIP_DEFLATED)
    path = zipped / "more" / "nturgbd_s018_to_s032.zip"
    whole_other = bytearray(path.read_bytes())
    middle = first.header_offset + 30 + len(first.filename) + first.compress_size // 2
    whole_other[middle : middle + 20] = bytes(20)
    path.write_bytes(whole_other)
    report = ntu60(str(path), out=str(tmp_path / "out"))
    assert [Path(source).name for source, _ in report.bad] == [Path(first.filename).name]
    assert report.bad[0][1].startswith("damaged in the zip file")


def test_one_shot_exemplars():
    evaluated = [action for action in range(1, 121) if action % 6 == 1]
    exemplars = [f"S{1 if action <= 60 else 18:03d}C003P008R001A{action:03d}" for action in evaluated]
    assert (len(exemplars), exemplars[1], exemplars[-1]) == (20, "S001C003P008R001A007", "S018C003P008R001A115")
    assert {one_shot_part(parse_name(name)) for name in exemplars} == {1}
    others = ["S001C001P008R001A001", "S002C003P008R001A007", "S001C003P008R001A115"]
    assert {one_shot_part(parse_name(name)) for name in others} == {2}
    assert not any(one_shot_part(parse_name(f"S001C003P008R001A{a:03d}")) for a in range(1, 121) if a not in evaluated)
    assert not set(exemplars) & NTU120.missing


def test_sizes_of_the_one_shot_protocol_follow_from_those_of_the_set():
    """Every action was recorded equally often, so that the published totals divide evenly."""
    recorded = {action: 948 if action <= 60 else 960 for action in range(1, 121)}
    assert sum(recorded.values()) == 114_480
    assert sum(NTU60.official["x-sub"]) == sum(recorded[action] for action in range(1, 61)) - len(NTU60.missing)
    for name in NTU120.missing:
        recorded[parse_name(name)["action"]] -= 1
    evaluated = sum(number for action, number in recorded.items() if action % 6 == 1)
    assert NTU120.official["one-shot"] == (20, evaluated - 20)
    assert NTU120.official["one-shot-auxiliary"] == (sum(recorded.values()) - evaluated, 0)
    assert sum(NTU120.official["x-set"]) == sum(recorded.values())


def test_too_many_are_named_too(raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(NTU60.official, "x-sub", (1, 2))
    ntu60(str(raw), out=str(tmp_path / "out"))
    assert "warning: x-sub: 2 of 1 train, 1 more than expected\n" in capsys.readouterr().err


def test_nothing_to_read(tmp_path, raw):
    with pytest.raises(DataError, match="gone: there is no such file or folder"):
        ntu60(str(tmp_path / "gone"), out=str(tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no .skeleton files"):
        ntu60(str(tmp_path / "empty"), out=str(tmp_path / "out"))
    for path in raw.rglob("*.skeleton"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"nothing usable among 4 sequences; the first: .*A001.skeleton: empty file"):
        ntu60(str(raw), out=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="jobs is 0"):
        ntu60(str(raw), out=str(tmp_path / "out"), jobs=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_named_and_not_waited_for(raw, tmp_path, monkeypatch):
    pipes = [raw / "S001C001P001R001A009.skeleton", raw / "b" / "set.zip"]
    for pipe in pipes:
        os.mkfifo(pipe)
    monkeypatch.chdir(raw)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("S001C001P001R001A010.skeleton")
        report = ntu60(str(raw), out=str(tmp_path / "out"))
    (raw / "S001C001P001R001A011.skeleton").symlink_to(tmp_path / "gone")
    assert report.num_sequences == 4
    assert sorted(report.bad) == sorted(
        [(str(pipe), "a named pipe, not a file that can be read") for pipe in pipes]
        + [(str(raw / "S001C001P001R001A010.skeleton"), "a socket, not a file that can be read")]
    )
    report = ntu60(str(raw), out=str(tmp_path / "again"))
    assert (str(raw / "S001C001P001R001A011.skeleton"), "cannot be read (No such file or directory)") in report.bad
    with pytest.raises(DataError, match=r"1 sequence; the first: .*A009.skeleton: a named pipe, not a file"):
        ntu60(str(pipes[0]), out=str(tmp_path / "new"))
    if os.path.exists("/dev/null"):
        with pytest.raises(DataError, match="/dev/null: neither a file nor a folder but a device"):
            arrays("/dev/null", out=str(tmp_path / "new"))
    assert arrays(str(raw), out=str(tmp_path / "found")).num_sequences == 4


def test_progress_is_shown_on_stderr(raw, tmp_path, capsys, monkeypatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("prosl_lightning.data.conversion.time.monotonic", lambda: next(clock))
    ntu60(str(raw), out=str(tmp_path / "out"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:-2] == ["prepared 2 of 4, 0 a second, 12 s left", "prepared 4 of 4, 0 a second, 0 s left"]


def test_an_existing_target_is_refused_before_anything_is_read(raw, tmp_path):
    ntu60(str(raw), out=str(tmp_path / "out"))
    shutil.rmtree(raw)
    with pytest.raises(DataError, match="exists already"):
        ntu60(str(raw), out=str(tmp_path / "out"))


def test_overwrite_replaces_the_archive(raw, tmp_path):
    ntu60(str(raw), out=str(tmp_path / "out"))
    (raw / "b" / f"{NAMES[0]}.skeleton").unlink()
    ntu60(str(raw), out=str(tmp_path / "out"), overwrite=True, dtype="float32")
    archive = Archive.open(tmp_path / "out")
    assert archive.names.tolist() == NAMES[1:]
    assert archive.frames.dtype == np.float32


def test_the_real_files(shared_folder, tmp_path):
    report = ntu60(str(shared_folder / "data" / "raw-samples" / "ntu-skeleton"), out=str(tmp_path / "out"))
    archive = Archive.open(tmp_path / "out")
    assert (report.num_sequences, report.num_frames, report.bad) == (23, 1901, [])
    assert report.splits == {"x-sub": (15, 8), "x-view": (7, 16), "all": (23, 0)}
    assert archive.frames[..., 1].any(axis=(1, 2)).sum() > 300  # the two-person actions keep both
