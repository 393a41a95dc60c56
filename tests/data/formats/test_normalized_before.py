"""Coordinates that others normalised: found out, never normalised twice, and recorded as what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.clips import turned_as
from prosl_lightning.data.normalize import normalize_agcn
from prosl_lightning.data.pool import pool
from prosl_lightning.data.prepare import arrays
from prosl_lightning.data.recipes import left_to_do, normalize_bodies
from prosl_lightning.data.synthetic import generate
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

KINECT = SkeletonLayout.of("kinect-v2")


@pytest.fixture(scope="module")
def recorded() -> list[np.ndarray]:
    """Ten clips ``(T, 1, V, C)`` of people before a camera, y up."""
    return [clip.listed()[:, :1].astype(np.float64) for clip in generate(10, seed=3)]


def _npz(path: Path, clips: list[np.ndarray]) -> str:
    lengths = np.array([len(clip) for clip in clips])
    np.savez(path, joints=np.concatenate(clips).astype(np.float32), lengths=lengths)
    return str(path)


def _csv(folder: Path, clips: list[np.ndarray]) -> str:
    folder.mkdir()
    for row, clip in enumerate(clips):
        np.savetxt(folder / f"{row}.csv", clip.reshape(len(clip), -1), delimiter=",", fmt="%.5f")
    return str(folder)


def _agcn_folder(folder: Path, clips: list[np.ndarray]) -> str:
    (folder / "xsub").mkdir(parents=True)
    for part, some in (("train", clips[:6]), ("val", clips[6:])):
        done = [normalize_agcn(clip, KINECT, 2, total_frames=300) for clip in some]
        np.save(folder / "xsub" / f"{part}_data_joint.npy", np.stack(done).transpose(0, 4, 1, 3, 2))
        np.save(folder / "xsub" / f"{part}_num_frame.npy", np.array([len(clip) for clip in some]))
    return str(folder / "xsub")


def _recipe(root: Path) -> dict:
    return dict(Archive.open(root).meta["recipe"])


def test_an_archive_says_what_its_coordinates_are(make, recorded, tmp_path):
    arrays(_agcn_folder(tmp_path / "2s", recorded), out=str(tmp_path / "agcn"))
    assert _recipe(tmp_path / "agcn") == {"importer": "agcn", "normalize": "agcn", "normalized_by": "the files"}
    arrays(str(make("frame50", tmp_path / "f").path), out=str(tmp_path / "f50"))
    assert _recipe(tmp_path / "f50") == {"importer": "frame50", "normalize": "crossclr", "normalized_by": "the files"}
    arrays(_npz(tmp_path / "raw.npz", recorded), out=str(tmp_path / "raw"), layout="kinect-v2", normalize="none")
    assert _recipe(tmp_path / "raw") == {"importer": "ragged-npz", "normalize": "none"}


def test_archives_of_unlike_coordinates_are_not_pooled_and_of_like_ones_are(make, recorded, tmp_path):
    agcn, raw, f50, own = (tmp_path / name for name in ("agcn", "raw", "f50", "own"))
    arrays(_agcn_folder(tmp_path / "2s", recorded), out=str(agcn))
    file = _npz(tmp_path / "raw.npz", recorded)
    arrays(file, out=str(raw), layout="kinect-v2", normalize="none", num_bodies=2)
    arrays(file, out=str(own), layout="kinect-v2", num_bodies=2)
    arrays(str(make("frame50", tmp_path / "f").path), out=str(f50))
    for other, is_now in ((raw, "none"), (f50, "crossclr")):
        with pytest.raises(DataError, match=f"normalised in different ways: agcn agcn, {other.name} {is_now}"):
            pool([str(agcn), str(other)], out=str(tmp_path / "pool"))
    assert pool([str(agcn), str(own)], out=str(tmp_path / "pool")).num_sequences == 20


def test_nothing_is_turned_twice_whatever_is_asked_for(recorded, tmp_path, capsys):
    folder = _agcn_folder(tmp_path / "2s", recorded)
    arrays(folder, out=str(tmp_path / "as-is"), dtype="float32")
    for asked in ("agcn", "none"):
        capsys.readouterr()
        arrays(folder, out=str(tmp_path / asked), dtype="float32", normalize=asked)
        assert "coordinates are kept as they are: nothing is centred or turned twice" in capsys.readouterr().out
        assert _recipe(tmp_path / asked)["normalize"] == "agcn"
        np.testing.assert_array_equal(Archive.open(tmp_path / asked).frames, Archive.open(tmp_path / "as-is").frames)
    with pytest.raises(UsageError, match=r"normalised before \('agcn'\), from which 'crossclr' cannot be made"):
        arrays(folder, out=str(tmp_path / "x"), normalize="crossclr")
    assert not (tmp_path / "x").exists()


def test_upright_can_be_made_from_agcn(recorded, tmp_path):
    """It depends on the body alone, so the detour gives what the recording gives."""
    arrays(_agcn_folder(tmp_path / "2s", recorded), out=str(tmp_path / "a"), normalize="upright", dtype="float32")
    arrays(_npz(tmp_path / "raw.npz", recorded), out=str(tmp_path / "b"), layout="kinect-v2", normalize="upright",
           num_bodies=2, dtype="float32")  # fmt: skip
    assert _recipe(tmp_path / "a") == {"importer": "agcn", "normalize": "upright"}
    frames = [Archive.open(tmp_path / name).frames for name in ("a", "b")]
    np.testing.assert_allclose(*frames, atol=1e-5)
    assert left_to_do("none", "") == "none"
    with pytest.raises(UsageError):
        left_to_do("agcn", "upright")


def test_a_folder_called_agcn_that_is_not_centred_is_told_and_normalised(make, tmp_path):
    made = make("agcn", tmp_path)
    warning = "warning: their origin is not the body's centre (spine_mid) in every frame, as 2s-AGCN's is: "
    assert open_source(made.path).already == "agcn"
    for part in ("train", "val"):
        file = made.path / f"{part}_data_joint.npy"
        np.save(file, np.load(file) + 1.0)
    source = open_source(made.path)
    assert source.already == ""
    assert any(note.startswith(warning) for note in source.notes)


@pytest.mark.parametrize("recipe", ["agcn", "upright"])
def test_two_people_centred_on_the_calmer_one_come_out_as_recorded(recipe):
    """The livelier becomes the first; the other's centre was at the origin, which also means absent."""
    draw = np.random.default_rng(0)
    clip = draw.normal(size=(1, 2, 25, 3)) + draw.normal(size=(40, 2, 25, 3)) * np.array([0.05, 0.2])[:, None, None]
    clip += [[[[1.0, 0.5, 3.0]]]]
    centred = clip - clip[:, :1, 1:2]
    np.testing.assert_allclose(
        normalize_bodies(centred, KINECT, 2, recipe), normalize_bodies(clip, KINECT, 2, recipe), atol=1e-5
    )


@pytest.mark.parametrize("recipe", ["agcn", "upright"])
def test_ones_own_files_that_were_turned_are_kept(recorded, tmp_path, recipe):
    done = [normalize_agcn(clip, KINECT, 1, upright=recipe == "upright") for clip in recorded]
    np.save(tmp_path / "one.npy", done[0])
    places = (_csv(tmp_path / "csv", done), _npz(tmp_path / "own.npz", done), tmp_path / "one.npy")
    for number, place in enumerate(places):
        source = open_source(place, layout="kinect-v2")
        assert source.already == recipe
        note = f"the coordinates are centred and turned already, as --normalize {recipe} does it"
        assert note in source.notes
        arrays(str(place), out=str(tmp_path / str(number)), layout="kinect-v2", dtype="float32")
        clip = Archive.open(tmp_path / str(number)).clip(0).transpose(0, 3, 2, 1)
        np.testing.assert_allclose(clip, done[0], atol=1e-5)
        assert _recipe(tmp_path / str(number))["normalize"] == recipe


def test_files_relative_to_the_pelvis_are_turned_like_all_others(recorded, tmp_path):
    """Centred is not turned: with y up or z up the archive is that of the recordings."""
    layout = {**KINECT.to_dict(), "center": [0]}
    (tmp_path / "body.yaml").write_text(json.dumps(layout))
    relative = [clip - clip[:, :, :1] for clip in recorded]
    arrays(_npz(tmp_path / "raw.npz", recorded), out=str(tmp_path / "raw"), layout=str(tmp_path / "body.yaml"))
    for name, place in (("csv", _csv(tmp_path / "y", relative)), ("npz", _npz(tmp_path / "rel.npz", relative))):
        source = open_source(place, layout=layout)
        assert source.already == ""
        assert "the coordinates are centred already, but not turned: they are normalised as all others" in source.notes
        arrays(str(place), out=str(tmp_path / name), layout=str(tmp_path / "body.yaml"))
        assert _recipe(tmp_path / name)["normalize"] == "agcn"
        np.testing.assert_allclose(
            Archive.open(tmp_path / name).frames, Archive.open(tmp_path / "raw").frames, atol=2e-3
        )


def test_how_clips_were_turned():
    spec = {"joints": ["hip", "neck", "left", "right"], "parents": [0, 0, 1, 1], "center": 0}
    layout = SkeletonLayout.of(spec | {"spine": [0, 1], "shoulders": [2, 3]})
    still = np.array([[0, 0, 0], [0, 0, 0.5], [-0.2, 0, 0.5], [0.2, 0, 0.5]])
    lean, askew = still.copy(), still.copy()
    lean[1], askew[3, 2] = [0.1, 0.05, 0.5], 0.6
    side = still[:, [0, 2, 1]]  # y up
    none = np.zeros((4, 3))

    def of(*frames: np.ndarray) -> str:
        return turned_as([frame[None, None] for frame in frames], layout)

    assert of(still) == of(lean) == of(still, none) == of(still * [1, 1, -1], still, lean) == "agcn"
    assert of(askew) == of(askew, still) == "upright"
    assert {of(side), of(still, side), of(lean, askew), of(none), of(still * [-1, 1, 1]), of()} == {""}
    late = np.stack([none, still])[:, None]  # the first frame somebody is there
    assert turned_as([late], layout) == "agcn"
    assert turned_as([late * np.nan], layout) == ""
