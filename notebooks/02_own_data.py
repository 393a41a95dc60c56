# %% [markdown]
# # Your own recordings
#
# From a folder of csv files and a description of your joints to an encoder, and from there to features and classes of
# new recordings. Every step is a `prosl` command; [docs/own-data.md](../docs/own-data.md) describes files and options
# in full. Here the files are made up: replace the next two cells by recordings of your own sensor.

# %%
# %matplotlib inline
import csv
import shlex
from pathlib import Path

from prosl_lightning.cli import main
from prosl_lightning.data.synthetic import CLASS_NAMES, generate


def prosl(line: str) -> None:
    """What `prosl ...` does in a shell, without starting a process."""
    print("$ prosl", line)
    assert main(shlex.split(line)) == 0


# %% [markdown]
# ## The body
#
# A YAML file names the joints in the order of your data, their parents, the pairs that swap in a mirror, and the lines by
# which a body is turned upright and to the front.

# %%
BODY = """
joints:  [pelvis, chest, head, l_shoulder, l_elbow, l_hand, r_shoulder, r_elbow, r_hand,
          l_hip, l_knee, l_foot, r_hip, r_knee, r_foot]
parents: [pelvis, pelvis, chest, chest, l_shoulder, l_elbow, chest, r_shoulder, r_elbow,
          pelvis, l_hip, l_knee, pelvis, r_hip, r_knee]
mirror:  [[l_shoulder, r_shoulder], [l_elbow, r_elbow], [l_hand, r_hand], [l_hip, r_hip], [l_knee, r_knee], [l_foot, r_foot]]
center:  [pelvis]
spine:   [pelvis, chest]
shoulders: [l_shoulder, r_shoulder]
"""
_ = Path("body.yaml").write_text(BODY)

# %% [markdown]
# ## The files
#
# One csv file per recording, a line a frame, x y z of every joint in metres; and a table with labels and whatever else is
# known. Labels are optional: training does not look at them.

# %%
JOINTS = (0, 20, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19)  # which of the generator's 25 joints this sensor has
ACTIONS = ("wave", "raise arms", "kick", "squat", "bow", "march in place")

Path("recordings").mkdir(exist_ok=True)
Path("new").mkdir(exist_ok=True)
rows = []
for clip in generate(1500, seed=3):
    action = CLASS_NAMES[clip.label]
    if action not in ACTIONS or clip.camera == 3:
        continue
    frames = clip.joints[::2, JOINTS, 0].reshape(len(clip.joints[::2]), -1)
    name = f"{action.replace(' ', '_')}_{clip.subject:02d}_{clip.replication}_{clip.camera}"
    folder = "new" if clip.subject == 40 else "recordings"
    with open(f"{folder}/{name}.csv", "w", newline="") as file:
        csv.writer(file).writerows([f"{value:.3f}" for value in frame] for frame in frames)
    if folder == "recordings":
        rows.append((name, action, clip.subject, "test" if clip.subject % 4 == 0 else "train"))
with open("recordings/index.csv", "w", newline="") as file:
    csv.writer(file).writerows([("name", "label", "subject", "split"), *rows])
print(*Path("recordings/index.csv").read_text().splitlines()[:4], sep="\n")

# %% [markdown]
# ## One archive
#
# `prepare` says what it found and how it read it.

# %%
prosl("prepare arrays recordings --layout body.yaml --out data --overwrite")

# %% [markdown]
# Look at the archive before you train: joints in the wrong order or a body lying on its side are seen at once. In a shell it is
# `prosl inspect data --sheet sheet.png`, which also counts and looks for faults.

# %%
from prosl_lightning import Archive
from prosl_lightning.data.inspection import inspect_archive
from prosl_lightning.figures import strip_sheet

strip_sheet(inspect_archive(Archive.open("data")))

# %% [markdown]
# ## Training
#
# `--config nw-ucla` holds settings for about a thousand short clips. There are fewer here, and half a minute at most, so
# this configuration is smaller. Where classes are left/right twins, add `spatial_flip: false`.

# %%
_ = Path("mine.yaml").write_text("""
trainer: {max_epochs: 20, accelerator: cpu, enable_progress_bar: false, log_every_n_steps: 4}
data: {batch_size: 32}
model:
  base_args: {hidden_size: 64, num_layers: 1}
  num_frames: 24
  min_crop_frames: 20
  crop_ratio: [0.3, 1.0]
  bank_size: 256
  temperature: 0.07
  momentum: 0.99
  learning_rate: 0.02
  milestones: [18]
  semantic_start: 15
  num_clusters: 12
  confidence_threshold: relative
  semantic_temperature: 0.1
  importance_samples: 64
""")
prosl("fit --config mine.yaml --data.root data --data.protocol split --trainer.default_root_dir run")

# %% [markdown]
# ## Is it any good?
#
# With labels and a split, ask. Chance is 16.7 %. The linear evaluation also leaves a classifier.

# %%
prosl("knn --ckpt run/checkpoints/last.ckpt --data.root data")
prosl("linear --ckpt run/checkpoints/last.ckpt --data.root data --epochs 200")

# %% [markdown]
# ## New recordings
#
# Performer 40 is in neither part. `embed` writes features for whatever you build on top; `predict` names classes and
# shows the training recordings that are nearest.

# %%
prosl("embed new --layout body.yaml --ckpt run/checkpoints/last.ckpt --out features.npz")

# %%
classifier = next(Path("run/checkpoints").glob("last-linear-*/classifier.pt"))
prosl(f"predict new --layout body.yaml --ckpt {classifier} --top 2 --neighbours 1")
