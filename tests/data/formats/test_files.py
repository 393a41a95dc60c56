"""A user's own files: orders of axes, text with and without header, the table of labels and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.axes import arrange, find_axes
from prosl_lightning.data.formats.index_table import read_index
from prosl_lightning.data.formats.text import read_text_frames
from prosl_lightning.data.prepare import arrays
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

THREE = SkeletonLayout.of({"joints": ["root", "left_hand", "right_hand"], "parents": [0, 0, 0], "center": "root",
                           "spine": ["root", "left_hand"], "shoulders": ["left_hand", "right_hand"]})  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "samples", "axes"),
    [
        ((60, 25, 3), True, "TVC"),
        ((3, 60, 25), True, "CTV"),
        ((60, 75), True, "TD"),
        ((40, 60, 150), True, "NTD"),
        ((3, 60, 25, 2), True, "CTVM"),
        ((40, 3, 60, 25), True, "NCTV"),
        ((40, 3, 60, 25, 2), True, "NCTVM"),
        ((40, 60, 2, 25, 3), True, "NTMVC"),
        ((40, 2, 60, 25, 3), True, "NMTVC"),
        ((40, 60, 25, 3), True, "NTVC"),
        ((60, 2, 25, 3), True, "TMVC"),
        ((2, 60, 25, 3), False, "MTVC"),
    ],
)
def test_orders_that_the_sizes_tell(shape, samples, axes):
    assert find_axes(shape, 25, samples, "x") == axes


def test_orders_that_must_be_given(tmp_path):
    with pytest.raises(
        UsageError, match=r"x: \(2, 60, 25, 3\) may be NTVC or MTVC; give the order as --format npy:NTVC"
    ):
        find_axes((2, 60, 25, 3), 25, True, "x")
    with pytest.raises(DataError, match=r"\(60, 20, 3\) fits no known order of axes with 25 joints"):
        find_axes((60, 20, 3), 25, True, "x")
    clip = np.arange(2 * 60 * 25 * 3.0).reshape(2, 60, 25, 3)
    np.save(tmp_path / "x.npy", clip)
    two = list(open_source(tmp_path / "x.npy", layout="kinect-v2", format="npy:NTVC"))
    assert [s.name for s in two] == ["x_000000", "x_000001"]
    np.testing.assert_array_equal(two[1].bodies[:, 0], clip[1])
    (one,) = open_source(tmp_path / "x.npy", layout="kinect-v2", format="npy:mtvc")
    np.testing.assert_array_equal(one.bodies, clip.transpose(1, 0, 2, 3))
    for axes in ("XTVC", "TTVC", "NCVM", "NTVD", "T"):
        with pytest.raises(UsageError, match="expected some of N, C, T, V, M, D, with T and either D or both V and C"):
            open_source(tmp_path / "x.npy", layout="kinect-v2", format=f"npy:{axes}")
    with pytest.raises(DataError, match=r"x.npy: \(2, 60, 25, 3\) is not CTVM with V = 25 joints"):
        open_source(tmp_path / "x.npy", layout="kinect-v2", format="npy:CTVM")
    with pytest.raises(UsageError, match="format 'agcn:NCTVM': an order of axes goes with npy and files only"):
        open_source(tmp_path / "x.npy", format="agcn:NCTVM")


def test_every_order_gives_the_same_clip():
    clip = np.random.default_rng(0).normal(size=(7, 2, 25, 3))
    for axes in ("TMVC", "MTVC", "CTVM", "VCMT"):
        given = clip.transpose(["TMVC".index(letter) for letter in axes])
        np.testing.assert_array_equal(arrange(given, axes, 25), clip)
    np.testing.assert_array_equal(arrange(clip.reshape(7, 150), "TD", 25), clip)
    np.testing.assert_array_equal(arrange(clip.reshape(7, 150).T, "DT", 25), clip)
    np.testing.assert_array_equal(arrange(clip[:, 0], "TVC", 25), clip[:, :1])


def test_an_array_of_many_samples_with_a_table_beside_it(make, tmp_path):
    made = make("npy", tmp_path)
    (tmp_path / "mine.csv").write_text("label,subject\nwave,4\nbow,5\nwave,6\n,7\n")
    source = open_source(made.path)
    assert source.notes[:2] == ["format npy: one npy array", "axes NCTVM: 4, 3, 12, 25, 2"]
    assert [(s.name, s.label, s.columns["subject"], len(s.bodies)) for s in source] == [
        ("mine_000000", 1, 4, 12), ("mine_000001", 0, 5, 7), ("mine_000002", 1, 6, 9), ("mine_000003", -1, 7, 5),
    ]  # fmt: skip
    assert source.class_names == ("bow", "wave")
    (tmp_path / "mine.csv").write_text("label\n1\n")
    with pytest.raises(DataError, match=r"mine.csv: 1 rows, but mine.npy holds 4 samples"):
        open_source(made.path)


def test_the_real_array_of_paddlevideo(shared_folder):
    (file,) = (shared_folder / "data" / "raw-samples" / "ntu-arrays").glob("paddlevideo*.npy")
    (clip,) = open_source(file)
    whole = np.load(file).transpose(1, 3, 2, 0)
    assert clip.bodies.shape == (72, 2, 25, 3)
    np.testing.assert_array_equal(clip.bodies, whole[:72])
    assert not whole[72:].any()


def test_a_folder_of_files(make, tmp_path, capsys):
    made = make("files", tmp_path)
    report = arrays(str(made.path), out=str(tmp_path / "o"), layout="florence3d", protocol="x-sub:subject=1")
    archive = Archive.open(tmp_path / "o")
    assert archive.names.tolist() == ["clip0", "clip1", "clip2", "clip3", "clip9"]
    assert archive.labels.tolist() == [1, 0, 1, 0, -1]
    assert archive.class_names == ("sit", "walk")
    assert {name: values.tolist() for name, values in archive.columns.items()} == {
        "subject": [1, 1, 2, 3, 2], "split": [1, 1, 0, 2, 0], "room": [0, 1, 1, 0, -1],
    }  # fmt: skip
    assert report.splits == {"split": (2, 2), "x-sub": (2, 3), "all": (5, 0)}  # val neither trains nor tests
    printed = capsys.readouterr().out
    assert "format files: folder of csv, txt, npy files" in printed
    assert "column split: test = 0, train = 1, val = 2" in printed
    assert "column room: kitchen = 0, office = 1" in printed


def test_files_without_a_table_in_folders_below(tmp_path):
    for name in ("b/two.txt", "a/one.csv", "zero.csv", ".hidden.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1 2 3 4 5 6 7 8 9\n" * 4)
    (tmp_path / "zero.txt").write_text("1 2 3 4 5 6 7 8 9\n" * 4)
    (tmp_path / "README.txt").write_text("how these were recorded\n")
    (tmp_path / "notes.txt").write_text("how these were recorded\n")
    source = open_source(tmp_path, layout=THREE)
    sequences = list(source)
    assert [s.name for s in sequences if not s.error] == ["a/one", "b/two", "zero"]
    assert [s.label for s in sequences] == [-1] * 4
    assert source.bad == [("zero.txt", "the same name as zero.csv")]
    assert [s.error for s in sequences if s.error] == ["no frames below the header"]


def test_files_and_table_that_do_not_match(make, tmp_path):
    made = make("files", tmp_path)
    (made.path / "index.csv").write_text("name;label\nclip0;3\ngone;1\n")
    source = open_source(made.path, layout="florence3d")
    assert [(s.name, s.label) for s in source] == [("clip0", 3)]
    assert source.bad == [("index.csv, row 3", "no file gone")]
    assert source.left_out == {"not in index.csv": ["clip1", "clip2", "clip3", "clip9"]}
    (made.path / "index.csv").rename(made.path / "splits.csv")
    assert [s.name for s in open_source(made.path, layout="florence3d")] == ["clip0"]
    (made.path / "index.csv").write_text("label\n3\n")
    with pytest.raises(DataError, match=r"both index.csv and splits.csv are there"):
        open_source(made.path, layout="florence3d")
    (made.path / "splits.csv").unlink()
    with pytest.raises(DataError, match=r"index.csv: lacks a column 'name'"):
        open_source(made.path, layout="florence3d")


def test_a_folder_with_the_wrong_layout_is_one_error(make, tmp_path):
    made = make("files", tmp_path)
    with pytest.raises(UsageError, match=r"recordings: whose joints are these\? give the body model with --layout"):
        open_source(made.path)
    wanted = r"nothing usable among the first files; clip0.csv: 45 numbers a line, expected 60 or 120 \(x y z of 20"
    with pytest.raises(DataError, match=wanted):
        open_source(made.path, layout="kinect-v1")
    with pytest.raises(UsageError, match="each file of a folder is one sequence, so there is no N"):
        list(open_source(made.path, layout="florence3d", format="files:NTVC"))


def _text(path: Path, text: str) -> np.ndarray:
    path.write_text(text)
    return read_text_frames(path, THREE)


def test_text_files_in_their_varieties(tmp_path):
    expected = np.arange(1.0, 19.0).reshape(2, 1, 3, 3)
    rows = [list(map(str, range(1, 10))), list(map(str, range(10, 19)))]
    file = tmp_path / "x.csv"
    for separator in (",", ";", "\t", " ", "  ", ", "):
        lines = [separator.join(row) for row in rows]
        for text in ("\n".join(lines), "\r\n".join(lines) + "\r\n\r\n", f"{separator}\n".join(lines) + separator):
            np.testing.assert_array_equal(_text(file, text), expected)
    np.testing.assert_array_equal(
        _text(file, "\ufeff" + ",".join("abcdefghi") + "\n" + "\n".join(map(",".join, rows))), expected
    )
    two = _text(file, ",".join(rows[0] + rows[1]))
    assert two.shape == (1, 2, 3, 3)
    np.testing.assert_array_equal(two[0], expected[:, 0])
    assert np.isnan(_text(file, "1,2,3,,5,6,7,8,9")[0, 0, 1, 0])


def test_named_columns_are_picked_whatever_their_order(tmp_path):
    names = [f"{joint}_{axis}" for axis in "zyx" for joint in ("Right_Hand", "root", "left_hand")]
    text = ",".join(["time", *names]) + "\n" + ",".join(map(str, [0.04, *range(1, 10)]))
    np.testing.assert_array_equal(_text(tmp_path / "x.csv", text)[0, 0], [[8, 5, 2], [9, 6, 3], [7, 4, 1]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"\n \n", "empty file"),
        (b"1,2,3,4,5,6,7,8,9\n1,2,3\n", "line 2 has 3 numbers, the first has 9"),
        (b"1,2,3,4,5,6,7,8,9\n1,2,3,4,x,6,7,8,9\n", "line 2: 'x' is no number"),
        (b"1,2,3,4\n", r"4 numbers a line, expected 9 or 18 \(x y z of 3 joints of 'unnamed'"),
        (b"\xff\xfe1\x00", "not a text file"),
        (b"x,y,z\n", "no frames below the header"),
        (b"1 " * 600_000, "line 1 is longer than a million characters"),
    ],
)
def test_text_files_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"x.csv: {message}"):
        read_text_frames(tmp_path / "x.csv", THREE)


def test_the_table(tmp_path):
    file = tmp_path / "index.csv"
    file.write_text("\ufeffFile;Class;Subject;Age Group;split\n./a.csv;2;1;old;train\nb;0;-3;young;test\n\nc;;;;\n")
    table = read_index(file)
    assert (table.names, table.labels, table.class_names) == (["a", "b", "c"], [2, 0, -1], ())
    assert table.columns == {"subject": [1, -3, -1], "age_group": [0, 1, -1], "split": [1, 0, -1]}
    assert table.protocols == {"split": {"column": "split", "train": [1], "test": [0]}}
    assert table.notes == ["column age_group: old = 0, young = 1", "column split: test = 0, train = 1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,label\n", "expected a header and at least one row"),
        (b"name,label\na,1,2\n", "row 2 has 3 cells, the header 2"),
        (b"name,name\na,1\n", "expected a different name for each column"),
        (b"name,label,class\na,1,x\n", "has columns label and class; keep one of them"),
        (b"name,file\na,b\n", "has columns name and file; keep one of them"),
        (b"name,label\na,1\na.csv,2\n", "'a' stands there twice"),
        (b"\xff\xfe\xff", "not a readable csv file"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, content, message):
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"index.csv: .*{message}"):
        read_index(tmp_path / "index.csv")


def test_real_simplified_files_of_irds(shared_folder):
    """The simplified files are such a folder; they hold the same frames as the set that was made from them."""
    folder = shared_folder / "data" / "raw-samples" / "irds-raw" / "simplified"
    sequences = list(open_source(folder, layout="kinect-v2"))
    whole = {s.name: s for s in open_source(shared_folder / "data" / "irds" / "irds.npz")}
    assert [len(s.bodies) for s in sequences] == [59, 69, 85]
    for sequence in sequences:
        np.testing.assert_allclose(sequence.bodies, whole[sequence.name].bodies, atol=1e-4)
