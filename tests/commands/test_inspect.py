"""`prosl inspect` from the command line: what it prints, writes and returns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning import cli
from prosl_lightning.data.synthetic.archive import write_archive
from prosl_lightning.data.synthetic.raw import write_skeleton_files


def _inspect(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["inspect", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "synthetic"
    write_archive(root, num_samples=48)
    return root


def test_the_table(synthetic, capsys):
    code, out, err = _inspect(capsys, synthetic)
    assert (code, err) == (0, "")
    assert out.startswith(f"{synthetic}: archive\n48 sequences, ")
    assert "warning" not in out
    assert "checked: version, sizes, index (not the frames)" in out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["class"][1:4] == ["16", "3", "(wave)"]
    assert lines["camera"][1:6] == ["3", "16", "(1)", "16", "(1)"]
    assert lines["x-view"][1:4] == ["32", "16", "0"]
    assert lines["nonfinite"][2:4] == ["0", "0"]
    assert len(out.splitlines()) < 75
    assert max(map(len, out.splitlines())) < 140


def test_columns_of_text_are_shortened_and_wrong_units_told(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    draw = np.random.default_rng(0)
    for row in range(40):
        np.save(tmp_path / "mine" / f"clip{row:02d}.npy", draw.normal(size=(8, 25, 3)) * 400)
    table = ["name,room,split"] + [f"clip{row:02d},room-{row:02d},{('train', 'test')[row % 2]}" for row in range(40)]
    (tmp_path / "mine" / "index.csv").write_text("\n".join(table))
    options = ("--layout", "kinect-v2")
    archive = tmp_path / "archive"
    command = ["prepare", "arrays", str(tmp_path / "mine"), "--out", str(archive), "--dtype=float32", *options]
    assert cli.main(command) == 0
    capsys.readouterr()
    for code, out, err in (_inspect(capsys, archive), _inspect(capsys, tmp_path / "mine", *options)):
        assert (code, err) == (0, "")
        assert "\nwarning: a body measures 1" in out
        assert "they look like millimetres: divide them by 1000" in out
    code, out, _ = _inspect(capsys, archive)
    assert "from mine; importer files, normalize agcn\n" in out
    assert "\ncolumn room: room-00 = 0, room-01 = 1, " in out
    assert ", room-05 = 5 and 34 more\ncolumn split: test = 0, train = 1\n" in out
    assert max(map(len, out.splitlines())) < 160
    found = json.loads(_inspect(capsys, archive, "--json")[1])
    assert len(found["made"]["recipe"]["column_names"]["room"]) == 40
    assert 1000 < found["size"] < 3000


def test_verify(synthetic, capsys, tmp_path):
    assert "checked: every byte" in _inspect(capsys, synthetic, "--verify")[1]
    damaged = shutil.copytree(synthetic, tmp_path / "damaged")
    content = bytearray((damaged / "frames.npy").read_bytes())
    content[-7] ^= 4
    (damaged / "frames.npy").write_bytes(content)
    assert _inspect(capsys, damaged)[0] == 0
    code, out, err = _inspect(capsys, damaged, "--verify", "--json")
    assert (code, out) == (1, "")
    assert err == (
        f"prosl inspect: error: {damaged}/frames.npy: wrong checksum, the frames are damaged; prepare it again "
        "(`prosl prepare`)\n"
    )


def test_json_is_all_that_is_printed(synthetic, capsys, tmp_path):
    code, out, _ = _inspect(capsys, synthetic, "--json", "--sheet", tmp_path / "sheet.png")
    found = json.loads(out)
    assert code == 0
    assert (found["sequences"], found["layout"], found["made"]["recipe"]["seed"]) == (48, "kinect-v2", 0)
    assert [item["name"] for item in found["classes"]["sequences"]][:2] == ["wave", "drink"]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_raw_files_and_arrays(capsys, tmp_path):
    write_skeleton_files(tmp_path / "raw", num_samples=6)
    (tmp_path / "raw" / "S001C001P002R002A003.skeleton").write_text("2\n1\n")
    code, out, _ = _inspect(capsys, tmp_path / "raw")
    assert code == 0
    assert "raw files, format ntu60\n6 sequences" in out
    assert "could not be read: 1" in out
    assert "S001C001P002R002A003.skeleton: " in out
    joints = np.random.default_rng(0).normal(size=(30, 1, 20, 3)) + np.arange(20)[:, None]
    np.savez(tmp_path / "mine.npz", joints=joints.astype(np.float32), lengths=[10, 20])
    code, out, _ = _inspect(capsys, tmp_path / "mine.npz", "--layout", "kinect-v1")
    assert code == 0
    assert "2 sequences, 30 frames" in out
    assert "without a label: 2 sequences" in out


def test_wrong_use(synthetic, capsys, tmp_path):
    code, _, err = _inspect(capsys, synthetic, "--layout", "kinect-v2")
    assert (code, "which knows its layout" in err) == (2, True)
    code, _, err = _inspect(capsys, tmp_path / "nothing")
    assert (code, len(err.splitlines()) <= 3, "nothing" in err) == (1, True, True)
    write_skeleton_files(tmp_path / "ntu", num_samples=2)
    code, _, err = _inspect(capsys, tmp_path / "ntu", "--layout", "sbu-15")
    wanted = f"layout 'sbu-15' does not fit {tmp_path}/ntu: format ntu60 has 'kinect-v2'; leave it out\n"
    assert (code, err) == (2, f"prosl inspect: error: {wanted}")
    assert _inspect(capsys, tmp_path / "ntu", "--layout", "kinect-v2")[0] == 0
    (tmp_path / "raw").mkdir()
    code, _, err = _inspect(capsys, tmp_path / "raw", "--verify")
    assert (code, "raw files have no checksums" in err) == (2, True)
    code, out, err = _inspect(capsys, synthetic, "--sheet", tmp_path / "no" / "sheet.png")
    assert "48 sequences" in out  # what could be found is told all the same
    assert (code, err) == (
        1,
        f"prosl inspect: error: {tmp_path}/no/sheet.png: the sheet cannot be written (No such file or directory)\n",
    )
    broken = shutil.copytree(synthetic, tmp_path / "broken")
    (broken / "index.npy").write_bytes(b"")
    assert _inspect(capsys, broken)[0] == 1
