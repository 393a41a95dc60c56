"""A user's files as `prosl embed` and `prosl predict` take them: where each sequence is from, and what is left out."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from prosl_lightning import ProSLModule, SkeletonDataModule


def _write_clips(raw: Path, folder: str, count: int) -> None:
    """The first recordings as one csv file each."""
    whole = np.load(raw)
    starts = np.cumsum(whole["lengths"]) - whole["lengths"]
    Path(folder).mkdir(parents=True)
    for i in range(count):
        clip = whole["joints"][starts[i] : starts[i] + whole["lengths"][i]]
        np.savetxt(f"{folder}/clip{i}.csv", clip.reshape(len(clip), -1), delimiter=",", fmt="%.5f")


def test_equal_names_of_two_files_are_told_apart_by_their_source(prosl, checkpoint, raw, archive):
    Path("other").mkdir()
    shutil.copy(raw, "other/raw.npz")
    _write_clips(raw, "a/day", 2)
    _write_clips(raw, "b/day", 2)
    given = ("raw.npz", "other/raw.npz", "a/day", "b/day/clip0.csv")
    result = prosl("embed", "--ckpt", checkpoint, *given, "--layout", "kinect-v2", "--out", "f.npz")
    assert result.code == 0, result.err
    found = np.load("f.npz")
    names, sources = found["names"].tolist(), found["sources"].tolist()
    assert len(names) == len(sources) == len(found["features"]) == 51
    assert len(set(names)) == 26
    assert len(set(zip(names, sources, strict=True))) == 51
    assert sources[0] == f"raw.npz, sequence 0 ({names[0]})"
    assert sources[24] == f"other/raw.npz, sequence 0 ({names[0]})"
    assert sources[48:] == ["a/day/clip0.csv", "a/day/clip1.csv", "b/day/clip0.csv"]
    assert prosl("embed", "--ckpt", checkpoint, "--data.root", archive, "--out", "all.npz").code == 0
    assert set(np.load("all.npz")["sources"].tolist()) == {str(archive)}


def test_arrays_in_folders_of_one_name_have_sources_of_their_own(prosl, checkpoint, raw):
    whole = np.load(raw)
    clips = np.zeros((2, 3, 20, 25, 1), np.float32)
    clips[:] = whole["joints"][:20].transpose(3, 0, 2, 1)
    for root in ("a/xsub", "b/xsub"):
        Path(root).mkdir(parents=True)
        np.save(f"{root}/val_data_joint.npy", clips)
        np.save(f"{root}/val_label.npy", np.array([0, 1]))
    assert prosl("embed", "--ckpt", checkpoint, "a", "b/xsub", "--out", "f.npz").code == 0
    sources = [source.split(" (")[0] for source in np.load("f.npz")["sources"].tolist()]
    files = ("a/xsub/val_data_joint.npy", "b/xsub/val_data_joint.npy")
    assert sources == [f"{file}, row {row}" for file in files for row in (0, 1)]


def test_files_of_other_formats_in_a_folder_are_counted(prosl, checkpoint, classifier, raw, shared_folder):
    folder = shared_folder / "data" / "raw-samples"
    result = prosl("embed", "--ckpt", checkpoint, folder, "--out", "f.npz")
    assert result.code == 0, result.err
    assert len(np.load("f.npz")["names"]) == 23
    told = "left out, not of format ntu60: 1 .h5, 2 .npy, 1 .npz, 5 .pkl, 20 .txt; give their folders one by one"
    assert told in result.err.splitlines()
    assert told in prosl("predict", "--ckpt", classifier, folder).err.splitlines()
    _write_clips(raw, "mine", 2)
    for name in ("README.txt", "index.csv.bak", ".hidden.npz", "film.avi"):
        Path("mine", name).write_text("not joints")
    result = prosl("embed", "--ckpt", checkpoint, "mine", "--layout", "kinect-v2", "--out", "g.npz")
    assert (result.code, result.err) == (0, "")


def test_further_bodies_than_the_encoder_has_are_told(prosl, archive, tiny_options, raw):
    data = SkeletonDataModule(str(archive), "x-sub", batch_size=8)
    data.setup()
    module = ProSLModule(**tiny_options, num_bodies=1)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "epoch": 3}
    torch.save(content | {"recipe": data.recipe, "pytorch-lightning_version": "2.6.6"}, "one.ckpt")
    whole = dict(np.load(raw))
    second = np.zeros_like(whole["joints"])
    first, last = whole["lengths"][0], whole["lengths"][0] + whole["lengths"][1]
    second[first:last] = whole["joints"][first:last] + 1  # somebody beside the second sequence's person alone
    np.savez("pairs.npz", **whole | {"joints": np.concatenate([whole["joints"], second], axis=1)})
    result = prosl("embed", "--ckpt", "one.ckpt", "pairs.npz", "--layout", "kinect-v2", "--out", "f.npz")
    assert result.code == 0
    told = "warning: 1 sequence with up to 2 bodies: the encoder looks at 1, the others are not used\n"
    assert result.err == told
    assert prosl("embed", "--ckpt", "one.ckpt", raw, "--layout", "kinect-v2", "--out", "g.npz").err == ""
    np.testing.assert_array_equal(np.load("f.npz")["features"][0], np.load("g.npz")["features"][0])


def test_refusals_name_the_files_that_were_given(prosl, checkpoint, shared_folder):
    recording = shared_folder / "data" / "raw-samples" / "ntu-skeleton" / "S001C001P001R001A001.skeleton"
    Path("junk.txt").write_text("a,b\n")
    here = Path.cwd().name
    result = prosl("embed", "--ckpt", checkpoint, "junk.txt", "--out", "f.npz")
    assert result.code == 2
    assert result.err.startswith(f"prosl embed: error: {here}: whose joints are these?")
    result = prosl("embed", "--ckpt", checkpoint, "junk.txt", "--layout", "kinect-v2", "--out", "f.npz")
    told = "nothing usable in the files given; the first: junk.txt: no frames below the header\n"
    assert (result.code, result.err) == (1, f"prosl embed: error: {told}")
    Path("more.txt").write_text("a,b\n")
    both = ("junk.txt", "more.txt", "--layout", "kinect-v2", "--out", "f.npz")
    result = prosl("embed", "--ckpt", checkpoint, *both)
    assert "; the first: *.txt: nothing usable among the first files; junk.txt: no frames" in result.err
    Path("film.avi").write_text("")
    result = prosl("embed", "--ckpt", checkpoint, "film.avi", "--out", "f.npz")
    assert "; the first: film.avi: holds no skeletons in a known format" in result.err
    wrong = ("junk.txt", "--layout", "kinect-v2", "--format", "nonsense", "--out", "f.npz")
    assert "unknown format 'nonsense'" in prosl("embed", "--ckpt", checkpoint, *wrong).err
    shutil.copy(recording, "S001C001P001R001A001.skeleton")
    other = ("S001C001P001R001A001.skeleton", "--layout", "kinect-v1", "--out", "f.npz")
    result = prosl("embed", "--ckpt", checkpoint, *other)
    assert (
        result.code,
        "layout 'kinect-v1' does not fit S001C001P001R001A001.skeleton: format ntu60" in result.err,
    ) == (2, True)


@pytest.mark.parametrize(
    ("verb", "remedy"),
    [
        ("embed", "it is an archive; give it with --data.root"),
        ("predict", "it is an archive; give the files it was made from: predict takes no archives"),
    ],
)
def test_an_archive_among_the_files_gets_a_remedy(prosl, checkpoint, classifier, archive, raw, verb, remedy):
    options = ("--ckpt", checkpoint, "--out", "f.npz") if verb == "embed" else ("--ckpt", classifier, "--out", "f.csv")
    result = prosl(verb, *options, archive)
    assert result.code == 1
    assert result.err == f"prosl {verb}: error: nothing usable in the files given; the first: {archive}: {remedy}\n"
    result = prosl(verb, *options, archive, "raw.npz", "--layout", "kinect-v2")
    assert result.code == 0
    assert result.err == f"warning: 1 could not be used:\n  {archive}: {remedy}\n"
    if verb == "predict":
        rows = list(csv.DictReader(Path("f.csv").read_text().splitlines()))
        assert rows[3]["source"] == f"raw.npz, sequence 3 ({rows[3]['name']})"


@pytest.mark.parametrize("verb", ["embed", "predict"])
def test_a_second_checkpoint_is_refused(prosl, verb):
    result = prosl(verb, "--ckpt", "a.ckpt", "--ckpt=b.ckpt", "file.npz")
    assert (result.code, result.out) == (2, "")
    assert result.err == f"prosl {verb}: error: --ckpt is given 2 times; `prosl {verb}` takes one checkpoint\n"
