"""Text files with quotes, row names and headers, and such as would fill the memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data.formats.text import read_text_frames
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

THREE = SkeletonLayout.of({"joints": ["root", "left_hand", "right_hand"], "parents": [0, 0, 0], "center": "root",
                           "spine": ["root", "left_hand"], "shoulders": ["left_hand", "right_hand"]})  # fmt: skip
NAMES = [f"{joint}_{axis}" for axis in "zyx" for joint in ("right_hand", "root", "left_hand")]
FRAME = [[8, 5, 2], [9, 6, 3], [7, 4, 1]]
ROW = list(map(str, range(1, 10)))


def _read(path: Path, *lines: str) -> np.ndarray:
    path.write_text("\n".join(lines))
    return read_text_frames(path, THREE)


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
def test_a_header_in_quotes_names_the_columns(tmp_path, separator):
    quoted = separator.join(f'"{name}"' for name in NAMES)
    np.testing.assert_array_equal(_read(tmp_path / "x.csv", quoted, separator.join(ROW))[0, 0], FRAME)
    numbers = separator.join(f'"{number}"' for number in ROW)
    np.testing.assert_array_equal(_read(tmp_path / "x.csv", quoted, numbers, numbers)[:, 0], [FRAME] * 2)


def test_row_names_as_r_writes_them(tmp_path):
    """write.csv leaves the name of their column empty, write.table leaves it out."""
    quoted = [f'"{name}"' for name in NAMES]
    for separator, header in ((",", ['""', *quoted]), (" ", quoted), ("\t", quoted)):
        lines = [separator.join([f'"{row}"', *ROW]) for row in (1, 2)]
        frames = _read(tmp_path / "x.csv", separator.join(header), *lines)
        np.testing.assert_array_equal(frames[:, 0], [FRAME] * 2)


def test_a_header_that_does_not_fit_its_lines(tmp_path):
    with pytest.raises(DataError, match=r"x.csv: the header names 9 columns, the lines have 18"):
        _read(tmp_path / "x.csv", ",".join(NAMES), ",".join(ROW * 2))


def test_a_separator_within_quotes(tmp_path):
    names = ['"time, s"', *NAMES]
    np.testing.assert_array_equal(_read(tmp_path / "x.csv", ",".join(names), ",".join(["0", *ROW]))[0, 0], FRAME)
    with pytest.raises(DataError, match=r"line 2: '1,5' is no number"):
        _read(tmp_path / "x.csv", ",".join(NAMES), ",".join([*ROW[:8], '"1,5"']))


def test_long_files_take_little_memory_and_too_long_ones_are_refused(tmp_path):
    line = ",".join(["1"] * 9)
    (tmp_path / "x.csv").write_text(f"{line}\n" * 20_000)
    tracemalloc.start()
    try:
        assert read_text_frames(tmp_path / "x.csv", THREE).shape == (20_000, 1, 3, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * 20_000 * 9 * 8


def test_too_many_numbers_are_refused_as_soon_as_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("prosl_lightning.data.formats.npy.SEQUENCE_BYTES", 1 << 20)
    (tmp_path / "x.csv").write_text(",".join(["1"] * 9) + "\n")
    assert len(read_text_frames(tmp_path / "x.csv", THREE)) == 1
    with (tmp_path / "x.csv").open("a") as file:
        file.write((",".join(["1"] * 9) + "\n") * 20_000 + "no number is looked at here\n")
    with pytest.raises(DataError, match=r"x.csv: a sequence of 1 MB; at most 1 MB, cut it up"):
        read_text_frames(tmp_path / "x.csv", THREE)


@pytest.mark.parametrize("missing", [1, 4])
def test_a_header_that_names_only_some_joints_is_refused(tmp_path, missing):
    names = [f"other{number}" if number < missing else name for number, name in enumerate(NAMES)]
    with pytest.raises(DataError, match=rf"x.csv: the header lacks {missing} of 9 columns of '.*': .*right_hand_z"):
        _read(tmp_path / "x.csv", ",".join(names), ",".join(ROW))
    names = [f"other{number}" if number < 5 else name for number, name in enumerate(NAMES)]
    assert _read(tmp_path / "x.csv", ",".join(names), ",".join(ROW)).reshape(-1).tolist() == list(range(1, 10))


def test_a_header_that_counts_the_columns_is_no_frame(tmp_path):
    """pandas writes it where columns have no names, after an empty cell where it writes row names."""
    counted = ",".join(map(str, range(9)))
    expected = np.arange(1, 10).reshape(1, 3, 3)
    np.testing.assert_array_equal(_read(tmp_path / "x.csv", counted, *[",".join(ROW)] * 2), [expected] * 2)
    lines = [",".join([row, *ROW]) for row in "01"]
    np.testing.assert_array_equal(_read(tmp_path / "x.csv", f",{counted}", *lines), [expected] * 2)
    for first in ("0,1,2,3,4,5,6,7,9", "0.0,1,2,3,4,5,6,7,8"):
        assert len(_read(tmp_path / "x.csv", first, ",".join(ROW))) == 2
    with pytest.raises(DataError, match=r"x.csv: the header names 8 columns, the lines have 9"):
        _read(tmp_path / "x.csv", ",".join(map(str, range(8))), ",".join(ROW))


@pytest.mark.parametrize("separator", [";", "\t", " ", "; "])
@pytest.mark.parametrize("header", [True, False])
def test_decimal_commas_are_told(tmp_path, separator, header):
    lines = [separator.join(NAMES)] * header + [separator.join(["0,5", "-1,25", "3,0e-1", "7", *ROW[4:]])]
    with pytest.raises(DataError, match=rf"x.csv: line {len(lines)}: decimal comma found \(0,5\); use points"):
        _read(tmp_path / "x.csv", *lines)


def test_a_wrong_cell_between_commas_is_no_decimal_comma(tmp_path):
    with pytest.raises(DataError, match=r"line 1: 'x y' is no number"):
        _read(tmp_path / "x.csv", ", ".join([*ROW[:8], "x y"]))
