"""The reader of raw NTU text: exact values, and one clear error for every kind of damage."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosl_lightning.data import ntu, raw_files
from prosl_lightning.data.ntu import parse_skeleton, read_skeleton
from prosl_lightning.data.ntu_sets import NTU60, NTU120, parse_name
from prosl_lightning.errors import DataError


def _plain(content: bytes) -> np.ndarray:
    return ntu._read_plainly(content, "text")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_values_are_exact(skeleton_text, walker, newline):
    frames = walker(bodies=2)
    bodies = parse_skeleton(skeleton_text(frames, newline))
    assert bodies.shape == (12, 2, 25, 3)
    np.testing.assert_array_equal(bodies, np.array(frames))


def test_fast_reader_takes_regular_text(skeleton_text, walker):
    """Without this the other tests could pass on the slow path alone."""
    text = skeleton_text(walker(), "\r\n")
    np.testing.assert_array_equal(ntu._parse_regular(text), _plain(text))
    assert ntu._parse_regular(text.replace(b" 0.97 ", b" NaN ")) is None


def test_every_way_to_write_a_number(skeleton_text, walker):
    frames = walker(2)
    written = ["0", "-1", "1.5E-05", "-2.5e+01", "+0.25", ".5", "-.5", "7.", "-0.0", "123456.7890123456789"]
    written += ["1.234567890123", "0.1234567890123", "-0.12345678901234", "999999999.99999", "0.000000000001"]
    text = skeleton_text(frames)
    for token, old in zip(written, frames[0][0].ravel(), strict=False):
        text = text.replace(f"{old} ".encode(), f"{token} ".encode(), 1)
    expected = np.array(frames)
    expected[0, 0].flat[: len(written)] = [float(token) for token in written]
    np.testing.assert_array_equal(ntu._parse_regular(text), expected)
    np.testing.assert_array_equal(_plain(text), expected)


def test_bodies_come_and_go(skeleton_text, walker):
    bodies = walker(6, bodies=6)
    counts = [0, 1, 6, 4, 0, 2]
    frames = [frame[:count] for frame, count in zip(bodies, counts, strict=True)]
    read = parse_skeleton(skeleton_text(frames))
    assert read.shape == (6, 4, 25, 3)  # list positions beyond the fourth are not read
    for frame, count in enumerate(counts):
        kept = min(count, 4)
        np.testing.assert_array_equal(read[frame, :kept], np.array(bodies)[frame, :kept])
        assert not read[frame, kept:].any()


def test_blanks_and_a_missing_last_line_end_do_no_harm(skeleton_text, walker):
    frames = walker(3)
    text = skeleton_text(frames).replace(b" 277.4", b"\t  277.4").replace(b" 2\n", b" 2 \n").rstrip()
    assert ntu._parse_regular(text) is None
    np.testing.assert_array_equal(parse_skeleton(text), np.array(frames))
    np.testing.assert_array_equal(parse_skeleton(skeleton_text(frames).rstrip()), np.array(frames))


def test_unused_columns_may_hold_nan_but_not_words(skeleton_text, walker):
    frames = walker(2)
    text = skeleton_text(frames)
    np.testing.assert_array_equal(parse_skeleton(text.replace(b" 1036.2 ", b" NaN ", 1)), np.array(frames))
    with pytest.raises(DataError, match=r"line 5 .*'abc' is not a number"):
        parse_skeleton(text.replace(b" 1036.2 ", b" abc ", 1))


def _line(text: bytes, number: int, content: bytes) -> bytes:
    lines = text.split(b"\n")
    lines[number - 1] = content
    return b"\n".join(lines)


JOINT = b"1 2 3 4 5 6 7 8 9 10 11 12"


@pytest.mark.parametrize(
    ("number", "content", "message"),
    [
        (1, b"x", "line 1 .*'x', expected the frame count"),
        (1, b"0", "line 1 .*0 frames"),
        (1, b"-3", "line 1 .*-3 cannot be the frame count"),
        (1, b"999999999999999999999999", "line 1 .*cannot be the frame count"),
        (1, b"4", "truncated: ends after line 85, in frame 4 of 4"),
        (1, b"2", "line 58 .*text after the last of 2 frames"),
        (2, b"1.5", "line 2 .in frame 1 of 3.: '1.5', expected a body count"),
        (2, b"-1", "line 2 .*-1 cannot be a body count"),
        (2, b"4000000000", "line 2 .*cannot be a body count"),
        (3, b"1 2 3", "line 3 .*3 columns, expected the 10 numbers about a body"),
        (4, b"24", "line 4 .*24 joints, expected 25"),
        (4, b"", "line 4 .*'', expected a joint count"),
        (5, JOINT + b" 13", "line 5 .*13 columns, expected the 12 numbers of a joint"),
        (5, JOINT[:-3], "line 5 .*11 columns"),
        (5, JOINT.replace(b"2", b"oops", 1), "line 5 .*'oops' is not a number"),
        (5, JOINT.replace(b"2", b"1.2.3", 1), "line 5 .*'1.2.3' is not a number"),
        (5, JOINT.replace(b"2", b"2,5", 1), "line 5 .*'2,5' is not a number"),
        (5, JOINT.replace(b"2", b"1_0", 1), "line 5 .*'1_0' is not a number"),
        (5, JOINT.replace(b"2", b"nan", 1), "line 5 .*expected finite numbers"),
        (5, JOINT.replace(b"2", b"-inf", 1), "line 5 .*expected finite numbers"),
        (5, JOINT.replace(b"2", b"1e999", 1), "line 5 .*expected finite numbers"),
        (5, b"\xff\xfe\x00", "line 5 .*1 column,"),
    ],
)
def test_damage_is_named_with_its_line(skeleton_text, walker, number, content, message):
    text = skeleton_text(walker(3))
    assert len(text.split(b"\n")) == 86
    with pytest.raises(DataError, match=f"^made-up: {message}"):
        parse_skeleton(_line(text, number, content), "made-up")


def test_empty_and_unpopulated_files(tmp_path):
    for content, message in [
        (b"", "empty file"),
        (b"\n \r\n", "empty file"),
        (b"2\n0\n0\n", "nobody in any of 2 frames"),
    ]:
        path = tmp_path / "S001C001P001R001A001.skeleton"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path.name}: {message}"):
            read_skeleton(path)
    with pytest.raises(DataError, match=r"gone.skeleton: cannot be read"):
        read_skeleton(tmp_path / "gone.skeleton")


def test_a_file_too_large_for_a_recording_is_not_read(tmp_path):
    path = tmp_path / "S001C001P001R001A001.skeleton"
    with path.open("wb") as file:
        file.truncate(raw_files.MAX_BYTES + 1)
    with pytest.raises(DataError, match=f"{path.name}: more than 50 MB, which no recording has"):
        read_skeleton(path)


def test_truncation_anywhere_is_found(skeleton_text, walker):
    text = skeleton_text(walker(2))
    last_token = len(text) - 3  # the file may end after its last number
    for end in range(0, last_token, 61):
        with pytest.raises(DataError):
            parse_skeleton(text[:end])


def test_counts_do_not_decide_how_much_memory_is_taken(skeleton_text, walker):
    text = skeleton_text(walker(2))
    tracemalloc.start()
    try:
        for number in (1, 2, 4):
            with pytest.raises(DataError):
                parse_skeleton(_line(text, number, b"99999"))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text", [b"1" + b" " * 3_000_000, b"1\n" * 1_000_000, b"\n" * 2_000_000 + b"1", b"0 " * 1_000_000]
)
def test_blanks_and_short_lines_take_no_more_memory_than_a_few_times_the_text(text):
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            parse_skeleton(text)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(text)
    finally:
        tracemalloc.stop()


def test_few_bytes_do_not_make_a_huge_array(skeleton_text, walker):
    (body,) = skeleton_text(walker(1)).split(b"\n", 2)[2:]
    with pytest.raises(DataError, match="99999 cannot be the frame count"):
        parse_skeleton(b"99999\n" + b"1\n" + body + b"0\n" * 99_998)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_bytes_give_an_array_or_a_data_error(skeleton_text, walker, data):
    text = bytearray(skeleton_text(walker(2, bodies=2), data.draw(st.sampled_from(["\n", "\r\n"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(text) - 1))
        byte = st.sampled_from(b"\r\n\t -+.,eE059_nN/") | st.integers(0, 255)
        if data.draw(st.booleans()):
            text[position] = data.draw(byte)
        else:
            del text[position : position + data.draw(st.integers(1, 40))]
    try:
        expected = _plain(bytes(text))
    except DataError:
        expected = None
    try:
        read = parse_skeleton(bytes(text))
    except DataError:
        assert expected is None
    else:  # the fast reader may overlook damage in columns it does not use, never read other values
        assert np.isfinite(read).all()
        if expected is not None:
            np.testing.assert_array_equal(read, expected)


def test_real_files_are_read_alike_by_both_readers(shared_folder):
    files = sorted((shared_folder / "data" / "raw-samples" / "ntu-skeleton").glob("*.skeleton"))
    assert len(files) == 23
    for path in files:
        content = path.read_bytes()
        fast = ntu._parse_regular(content)
        assert fast is not None, path.name
        np.testing.assert_array_equal(fast, _plain(content))


def test_names_missing_lists_and_classes():
    assert parse_name("S017C003P020R002A054") == {
        "setup": 17, "camera": 3, "subject": 20, "replication": 2, "action": 54,
    }  # fmt: skip
    for name in ("S017C003P020R002", "S017C003P020R002A054x", "s017c003p020r002a054"):
        with pytest.raises(DataError, match="SsssCcccPpppRrrrAaaa"):
            parse_name(name)
    assert len(NTU60.missing) == 302
    assert len(NTU120.missing) == 535
    assert NTU60.missing < NTU120.missing
    assert len(NTU60.class_names) == 60
    assert len(NTU120.class_names) == 120
    assert NTU120.class_names[:60] == NTU60.class_names
    assert NTU60.class_names[0] == "drink water"
    assert len(NTU60.protocols["x-sub"]["train"]) == 20
    assert len(NTU120.protocols["x-sub"]["train"]) == 53
    assert len(NTU120.protocols["x-set"]["train"]) == 16
