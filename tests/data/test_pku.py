"""PKU-MMD text: frames of a video, label lines, clips that others cut out, and what is said of damaged ones."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosl_lightning.data.pku import PkuLabel, PkuVideo, read_clip, read_labels, read_video
from prosl_lightning.errors import DataError

FRAMES = np.round(np.random.default_rng(0).normal(size=(6, 2, 25, 3)), 6)
FRAMES[2:4, 1] = 0
LINES = [" ".join(f"{value:.6f}" for value in frame.ravel()) for frame in FRAMES]


@pytest.mark.parametrize("join", ["\n", "\r\n", "\n ", " \t\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n \n"])
def test_frames_of_a_video(join, tail):
    video = PkuVideo((join.join(LINES) + tail).encode())
    assert len(video) == 6
    np.testing.assert_array_equal(video.frames(0, 6), FRAMES)
    np.testing.assert_array_equal(video.frames(2, 5), FRAMES[2:5])
    assert video.frames(3, 3).shape == (0, 2, 25, 3)


def test_columns_beyond_the_first_150_are_passed_over():
    lines = [f"{line} 7{' x' * number}" for number, line in enumerate(LINES)]
    np.testing.assert_array_equal(PkuVideo("\n".join(lines).encode()).frames(1, 6), FRAMES[1:])


def _with(line: int, text: str) -> bytes:
    return "\n".join([*LINES[:line], text, *LINES[line + 1 :]]).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 4: 0 columns, expected 150 or more"),
        (LINES[3][:500], r"line 4: \d\d columns, expected 150 or more"),
        (LINES[3].replace(" ", ",", 1), "line 4: 149 columns"),
        ("nan " + LINES[3], "line 4: nan, expected finite numbers"),
        ("1e999 " + LINES[3], "line 4: 1e999, expected finite"),
        ("1_0 " + LINES[3], "line 4: '1_0' is not a number"),
        ("# " + LINES[3], "line 4: '#' is not a number"),
        ("\xff " + LINES[3], "line 4: .* is not a number"),
    ],
)
def test_a_damaged_line_spoils_only_the_frames_around_it(text, message):
    video = PkuVideo(_with(3, text), "0002-L.txt")
    with pytest.raises(DataError, match=f"0002-L.txt: {message}"):
        video.frames(2, 5)
    np.testing.assert_array_equal(video.frames(0, 3), FRAMES[:3])


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b" \n\n")
    with pytest.raises(DataError, match="empty.txt: empty file"):
        read_video(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="gone.txt: cannot be read"):
        read_video(tmp_path / "gone.txt")
    (tmp_path / "large.txt").write_bytes(b"1,1,10,1\n" * 200_000)
    with pytest.raises(DataError, match="large.txt: more than 1 MB"):
        read_labels(tmp_path / "large.txt")


def test_labels(tmp_path):
    path = tmp_path / "0002-L.txt"
    path.write_bytes(
        b"\xef\xbb\xbf42,10,20,2\r\n\r\n7, 30, 45\r\n3 50 60 1\r\n12.0,1,2,1,9\r\nfan,1,2,1\r\n5,9\r\n1.5,2,3,1\r\n"
    )
    labels, bad = read_labels(path)
    assert labels == [
        PkuLabel(1, 42, 10, 20, 2),
        PkuLabel(3, 7, 30, 45),
        PkuLabel(4, 3, 50, 60, 1),
        PkuLabel(5, 12, 1, 2, 1),
    ]
    assert bad == [
        (f"{path}, line 6", "'fan' is not a number"),
        (f"{path}, line 7", "'5,9', expected class,start,end,confidence"),
        (f"{path}, line 8", "'1.5' is not a whole number"),
    ]


def test_a_clip_that_was_cut_out(tmp_path, cut_clip):
    path = tmp_path / "F002V001C049L003.skeleton"
    for text in (cut_clip(FRAMES), cut_clip(FRAMES).replace("\n", "\r\n"), cut_clip(FRAMES, announced=9)):
        path.write_text(text, newline="")
        np.testing.assert_array_equal(read_clip(path), FRAMES)
    path.write_text("3\n")
    assert read_clip(path).shape == (0, 2, 25, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "empty file"),
        (lambda text: text[:1000], "line 3[0-9]: truncated: the file ends within this line"),
        (lambda text: "5" + text[1:], r"goes on after line \d+, but its first line says 5 frames"),
        (lambda text: text.replace("\n2\n6 ", "\n3\n6 "), "line 2: 3 cannot be a body count"),
        (lambda text: text.replace("\n25\n", "\n20\n"), "line 4: 20 cannot be the joint count"),
        (lambda text: text.replace("6 1 0 0", "6 1 0", 1), "line 3: 9 columns, expected the 10 numbers about a body"),
        (lambda text: "many" + text, "line 1: 'many6', expected the frame count"),
        (lambda text: text.replace("\n0.", "\nx.", 1), r"line \d+: 'x.* is not a number"),
    ],
)
def test_a_damaged_clip(tmp_path, cut_clip, change, message):
    path = tmp_path / "F002V001C049L003.skeleton"
    path.write_text(change(cut_clip(FRAMES)))
    with pytest.raises(DataError, match=f"L003.skeleton: ({message})"):
        read_clip(path)


def _peak(work) -> int:
    """Bytes that a call takes at most; it must end in an error of ours."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b"1000000\n" + b"0\n" * 300_000, b"60000\n" * 3, b"5\n" + b"0\n" * 300_000])
def test_a_clip_of_more_frames_than_there_can_be_takes_no_memory(tmp_path, text):
    (tmp_path / "clip.skeleton").write_bytes(text)
    assert _peak(lambda: read_clip(tmp_path / "clip.skeleton")) < 3 * len(text) + 1_000_000


def test_lines_that_are_no_frames_take_no_memory():
    lines = b"0\n" * 500_000
    assert _peak(lambda: PkuVideo(lines, "v")) < 3 * len(lines)
    wide = (LINES[0] + " 1" * 1_000_000 + "\n" + "x").encode()
    np.testing.assert_array_equal(PkuVideo(wide).frames(0, 1)[0], FRAMES[0])
    assert _peak(lambda: PkuVideo(wide).frames(0, 2)) < 10 * len(wide)


def test_a_long_video_is_parsed_in_parts():
    video = PkuVideo("\n".join(LINES * 400).encode())
    np.testing.assert_array_equal(video.frames(5, 2395), np.tile(FRAMES, (400, 1, 1, 1))[5:2395])
    damaged = PkuVideo("\n".join([*LINES * 300, "1 2", *LINES]).encode(), "v")
    with pytest.raises(DataError, match="v: line 1801: 2 columns, expected 150 or more"):
        damaged.frames(0, len(damaged))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_only_our_own_errors_come_out_of_mutated_files(tmp_path_factory, cut_clip, data):
    """Some bytes replaced, cut out or doubled."""
    path = tmp_path_factory.getbasetemp() / "mutated.txt"
    clip, video = cut_clip(FRAMES[:3]).encode(), "\n".join(LINES[:3]).encode()
    content = bytearray(data.draw(st.sampled_from([clip, video, b"42,10,20,2\n7,30,45,1\n"])))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 40)))
        content[start:end] = data.draw(st.binary(max_size=6) | st.just(bytes(content[start:end]) * 2))
    path.write_bytes(content)
    for read in (read_clip, read_labels, lambda path: (video := read_video(path)).frames(0, len(video))):
        found, message = None, ""
        try:
            found = read(path)
        except DataError as error:
            message = str(error)
        assert message.startswith(str(path)) if message else isinstance(found, tuple) or np.isfinite(found).all()


def test_the_real_file(shared_folder):
    path = shared_folder / "data" / "raw-samples" / "pku-mmd" / "A10N08-L.txt"
    video = read_video(path)
    expected = np.loadtxt(path)
    assert len(video) == 1040
    np.testing.assert_array_equal(video.frames(0, 1040).reshape(1040, 150), expected)
    np.testing.assert_array_equal(video.frames(100, 220).reshape(120, 150), expected[100:220])
    assert video.frames(0, 1040)[:, 1].any(axis=(1, 2)).sum() == 728
