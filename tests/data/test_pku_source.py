"""From folders of PKU-MMD files to an archive: names, labels, splits, clips that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning import cli
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.pku_sets import PKU1, PKU2, class_names, parse_clip_name, parse_video_name, video_name
from prosl_lightning.data.pku_source import open_pku
from prosl_lightning.data.prepare import pku1, pku2
from prosl_lightning.errors import DataError, UsageError

LENGTH = 60


def _video(seed: int) -> np.ndarray:
    """Two bodies who wander, ``(T, 2, 25, 3)``; the second comes after 20 frames."""
    draw = np.random.default_rng(seed)
    rest = draw.normal(size=(2, 25, 3)) + np.array([0, 0, 3])
    frames = np.round(rest + draw.normal(size=(LENGTH, 2, 25, 3)).cumsum(axis=0) * 0.02, 6)
    frames[:20, 1] = 0
    return frames


def _text(frames: np.ndarray) -> str:
    """In the layout of the real file: six decimals, blanks, from the second line on one at the beginning."""
    return "\n ".join(" ".join(f"{value:.6f}" for value in frame.ravel()) for frame in frames) + "\n"


VIDEOS = ("0002-L", "0002-M", "0300-L", "0300-R")
LABELS = "42,1,10,2\n7,11,30,1\n51,31,60,2\n"


@pytest.fixture
def raw(tmp_path) -> Path:
    """Four videos of phase I with three labels each, in folders called as in the wild."""
    root = tmp_path / "raw"
    for folder in ("PKU_Skeleton_Renew", "Train_Label_PKU_final"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(VIDEOS):
        (root / "PKU_Skeleton_Renew" / f"{name}.txt").write_text(_text(_video(number)))
        (root / "Train_Label_PKU_final" / f"{name}.txt").write_text(LABELS)
    return root


def test_archive_of_phase_one(raw, tmp_path, capsys):
    report = pku1(str(raw), out=str(tmp_path / "o"), normalize="none", dtype="float32")
    archive = Archive.open(tmp_path / "o")
    assert archive.names.tolist() == [f"{name}_{row:03d}" for name in VIDEOS for row in (1, 2, 3)]
    assert archive.lengths.tolist() == [10, 20, 30] * 4
    assert archive.labels.tolist() == [41, 6, 50] * 4
    assert archive.class_names[41] == "touch back (backache)"
    np.testing.assert_array_equal(archive.clip(1), _video(0)[10:30].transpose(0, 3, 2, 1).astype(np.float32))
    columns = {name: values[::3].tolist() for name, values in archive.columns.items()}
    assert columns["video"] == [2, 2, 300, 300]
    assert columns["view"] == [1, 2, 1, 3]
    assert archive.columns["start"][:3].tolist() == [1, 11, 31]
    assert archive.columns["end"][:3].tolist() == [10, 30, 60]
    assert archive.columns["confidence"][:3].tolist() == [2, 1, 2]
    assert report.splits == {"x-sub": (6, 6), "x-view": (6, 6), "all": (12, 0)}
    assert set(archive.columns["video"][archive.split("x-sub")[1]]) == {300}
    assert set(archive.columns["view"][archive.split("x-view")[0]]) == {2, 3}
    printed = capsys.readouterr()
    assert "x-sub by the list shipped with this library" in printed.out
    assert "21,545" in printed.out
    assert printed.err == ""


def test_labels_read_from_zero(raw, tmp_path):
    pku1(str(raw), out=str(tmp_path / "o"), normalize="none", dtype="float32", zero_based=True)
    archive = Archive.open(tmp_path / "o")
    assert archive.lengths[:3].tolist() == [9, 19, 29]
    np.testing.assert_array_equal(archive.clip(0), _video(0)[1:10].transpose(0, 3, 2, 1).astype(np.float32))


def test_phase_two_has_subjects(tmp_path):
    for number, name in enumerate(("A01N01-M", "A01N02-L", "A26N13-R")):
        (tmp_path / "raw" / "label").mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / f"{name}.txt").write_text(_text(_video(number)))
        (tmp_path / "raw" / "label" / f"{name}.txt").write_text("1,0,10,1\n")
    report = pku2(str(tmp_path / "raw"), out=str(tmp_path / "o"))
    archive = Archive.open(tmp_path / "o")
    assert archive.lengths.tolist() == [10, 10, 10]  # a start of 0 means the first frame
    assert archive.columns["subject"].tolist() == [1, 2, 13]
    assert archive.split("x-sub")[1].tolist() == [1]
    assert archive.split("x-view")[0].tolist() == [0, 2]
    assert report.bad == []
    assert open_pku(tmp_path / "raw").format == "pku2"
    with pytest.raises(DataError, match=r"no recordings of PKU-MMD phase 1 .*0002-L.txt with 150 numbers"):
        pku1(str(tmp_path / "raw"), out=str(tmp_path / "one"))


def test_split_files_are_used_where_there_are_any(raw, tmp_path, capsys):
    (raw / "Split").mkdir()
    (raw / "Split" / "cross-subject.txt").write_text(
        "Training videos: \n0002-L, 0300-L, 0111-L, \nValidataion videos: \n0002-M\n"
    )
    (raw / "Split" / "cross_subject_v2.txt").write_text("Training:\nA01N01-L,\nTest:\nA01N02-L,\n")
    pku1(str(raw), out=str(tmp_path / "o"))
    archive = Archive.open(tmp_path / "o")
    train, test = archive.split("x-sub")
    assert {name[:6] for name in archive.names[train]} == {"0002-L", "0300-L"}
    assert {name[:6] for name in archive.names[test]} == {"0002-M"}
    printed = capsys.readouterr().out
    assert "x-sub as in cross-subject.txt: 4 videos" in printed
    assert "x-view by the list shipped" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Training\n0002-L,0002-M\n", "1 line of video names, expected two"),
        ("Training\n0002-L,0002-M\nTest\n0300-L,0002-M\n", "on both sides: 1 video, e.g. 0002-M"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_wrong_split_file(raw, tmp_path, text, message):
    (raw / "cross-view.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=f"cross-view.txt: {message}"):
        pku1(str(raw), out=str(tmp_path / "o"))


def test_clips_that_cannot_be_used_are_listed(raw, tmp_path, capsys):
    labels = raw / "Train_Label_PKU_final"
    (labels / "0002-L.txt").write_text("42,1,10,2\n52,1,10,2\n1,20,19,1\n2,7,9,1\n3,70,90,1\n4,51,65,1\nx,1,9\n")
    (labels / "0002-M.txt").unlink()
    (labels / "0300-L.txt").write_text("")
    (labels / "0999-L.txt").write_text("1,1,10,1\n")
    lines = _text(_video(3)).split("\n")
    (raw / "PKU_Skeleton_Renew" / "0300-R.txt").write_text("\n".join([*lines[:40], "1 2 3", *lines[41:]]))
    report = pku1(str(raw), out=str(tmp_path / "o"))
    assert [(Path(source).name, reason) for source, reason in report.bad] == [
        ("0002-L.txt, line 7", "'x' is not a number"),
        ("0002-L.txt, line 2", "class 52, expected 1 to 51"),
        ("0002-L.txt, line 3", "empty: frames 20 to 19"),
        ("0002-M.txt", "no label file of this name"),
        ("0002-L.txt, 0002-L_004", "3 frames, fewer than 4"),
        ("0002-L.txt, 0002-L_005", "begins at frame 70 of a video of 60"),
        ("0300-R.txt, 0300-R_003", "line 41: 3 columns, expected 150 or more"),
    ]
    assert report.left_out == {"label files without a skeleton file": ["0999-L"]}
    archive = Archive.open(tmp_path / "o")
    assert archive.names.tolist() == ["0002-L_001", "0002-L_006", "0300-R_001", "0300-R_002"]
    assert archive.lengths.tolist() == [10, 10, 10, 20]
    assert archive.columns["cut"].tolist() == [0, 5, 0, 0]
    assert "were shortened (column cut): 1: 0002-L_006" in capsys.readouterr().out
    assert len(Archive.open(pku1(str(raw), out=str(tmp_path / "p"), min_frames=3).root)) == 5
    with pytest.raises(UsageError, match="min_frames is 0"):
        pku1(str(raw), out=str(tmp_path / "q"), min_frames=0)
    with pytest.raises(DataError, match="leave out --strict"):
        pku1(str(raw), out=str(tmp_path / "q"), strict=True)


def test_options_from_the_command_line(raw, tmp_path, capsys):
    """Those that the verbs pass on are theirs, the switches with or without a value."""
    options = [str(raw), "--zero_based", "--strict", "--min_frames=3", "--normalize", "none", "--overwrite", "false"]
    assert cli.main(["prepare", "pku1", *options, "--out", str(tmp_path / "o")]) == 0
    archive = Archive.open(tmp_path / "o")
    assert (archive.lengths[:3].tolist(), archive.meta["recipe"]["normalize"]) == ([9, 19, 29], "none")
    capsys.readouterr()
    assert cli.main(["prepare", "pku1", *options, "--out", str(tmp_path / "o")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["prepare", "pku1", *options[:-1], "--out", str(tmp_path / "o")]) == 0
    with pytest.raises(SystemExit, match="2"):
        cli.main(["prepare", "pku1", *options, "--out", str(tmp_path / "p"), "--num_bodies", "1"])
    with pytest.raises(SystemExit, match="0"):
        cli.main(["prepare", "pku2", "--help"])
    help = capsys.readouterr().out
    for option in ("out", "zero_based", "min_frames", "normalize", "strict", "jobs", "dtype", "overwrite"):
        assert f"\n  --{option} " in help
    assert not {"--part", "--opened", "--options", "--num_bodies"} & set(help.split())


def test_folders_without_labels_or_skeletons(raw, tmp_path):
    (raw / "Train_Label_PKU_final").rename(tmp_path / "labels")
    with pytest.raises(DataError, match=r"4 skeleton files but no label files; .*class,start,end,confidence"):
        pku1(str(raw), out=str(tmp_path / "o"))
    with pytest.raises(DataError, match="4 label files but no skeleton files"):
        pku1(str(tmp_path / "labels"), out=str(tmp_path / "o"))
    with pytest.raises(DataError, match="there is no such folder"):
        pku1(str(tmp_path / "gone"), out=str(tmp_path / "o"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_named_and_not_waited_for(raw):
    os.mkfifo(raw / "0001-L.txt")
    source = open_pku(raw, 1)
    assert (str(raw / "0001-L.txt"), "a named pipe, not a file that can be read") in source.bad
    assert not any(sequence.error for sequence in source)


def test_several_processes_write_the_same_bytes(raw, tmp_path):
    for jobs in (1, 2):
        pku1(str(raw), out=str(tmp_path / str(jobs)), jobs=jobs)
    for file in ("frames.npy", "index.npy", "meta.json"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_clips_that_were_cut_out_beforehand(tmp_path, cut_clip):
    root = tmp_path / "raw"
    root.mkdir()
    for name in ("F002V001C042L001", "F300V003C051L012", "F300V002C060L001", "F300V004C001L001"):
        (root / f"{name}.skeleton").write_text(cut_clip(_video(0)[10:30]))
    (root / "A001N002V001C001L001.skeleton").write_text(cut_clip(_video(1)[:10]))
    report = pku1(str(root), out=str(tmp_path / "o"), normalize="none", dtype="float32")
    archive = Archive.open(tmp_path / "o")
    assert archive.names.tolist() == ["F002V001C042L001", "F300V003C051L012"]
    assert archive.labels.tolist() == [41, 50]
    assert archive.columns["clip"].tolist() == [1, 12]
    assert (archive.split("x-sub")[1].tolist(), archive.split("x-view")[1].tolist()) == ([1], [0])
    np.testing.assert_array_equal(archive.clip(0), _video(0)[10:30].transpose(0, 3, 2, 1).astype(np.float32))
    assert [reason for _, reason in report.bad] == [
        "class 60, expected 1 to 51",
        "view 4, expected 1 (L), 2 (M) or 3 (R)",
    ]
    assert report.left_out == {"of the other phase": ["A001N002V001C001L001"]}
    assert pku2(str(root), out=str(tmp_path / "two")).splits["x-sub"] == (0, 1)


def test_an_option_about_label_files_is_refused_where_there_are_none(tmp_path, cut_clip):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "F002V001C042L003.skeleton").write_text(cut_clip(_video(0)[:10]))
    with pytest.raises(UsageError, match="zero_based is about the frames in label files; .* are cut out already"):
        pku1(str(tmp_path / "raw"), out=str(tmp_path / "o"), zero_based=True)
    assert pku1(str(tmp_path / "raw"), out=str(tmp_path / "o")).num_sequences == 1


def test_names():
    assert len(class_names()) == 51
    assert parse_video_name("A26N13-M") == (2, {"video": 26, "subject": 13, "view": 2})
    assert parse_video_name("2-L") is None
    assert parse_clip_name("A001N002V003C004L005") == (
        2, {"video": 1, "subject": 2, "view": 3, "action": 4, "clip": 5}
    )  # fmt: skip
    for stem in ("0364-R", "A26N13-M"):
        part, fields = parse_video_name(stem)
        assert video_name(part, fields) == stem


def test_the_known_lists_are_those_of_the_public_script(shared_folder):
    """The lists were found as names; here they are numbers."""
    for part, pku in ((1, PKU1), (2, PKU2)):
        listed = (shared_folder / "data" / "pku-mmd" / f"part{part}_xsub_test.txt").read_text().split()
        tested = {parse_video_name(name)[1][pku.test_column] for name in listed}
        assert tested == pku.test_values
        assert len(listed) == {1: 44 * 3, 2: 3 * 26 * 3}[part]


def test_the_real_file(shared_folder, tmp_path):
    (tmp_path / "raw" / "label").mkdir(parents=True)
    real = (shared_folder / "data" / "raw-samples" / "pku-mmd" / "A10N08-L.txt").read_bytes()
    (tmp_path / "raw" / "A10N08-L.txt").write_bytes(real)
    (tmp_path / "raw" / "label" / "A10N08-L.txt").write_text("12,101,300,1\n5,301,1040,1\n")
    report = pku2(str(tmp_path / "raw"), out=str(tmp_path / "o"))
    archive = Archive.open(report.root)
    assert (archive.lengths.tolist(), report.bad) == ([200, 740], [])
    assert archive.split("x-sub")[0].tolist() == [0, 1]
    assert not archive.frames[:, :, 1, 0].any()
