# %% [markdown]
# # Judging an encoder
#
# Nearest neighbours, a linear layer, few labels, single files: the paper's downstream evaluations and what is left of them
# on disk. Each is one `prosl` command and one Python object; [docs/evaluation.md](../docs/evaluation.md) has all protocols.
# The encoder is trained for a few seconds on synthetic skeletons, so its numbers are modest.

# %%
# %matplotlib inline
import json
import logging
import shlex
from pathlib import Path

from IPython.display import Image

from prosl_lightning.cli import main
from prosl_lightning.data.synthetic import CLASS_NAMES, generate, skeleton_text, write_archive

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def prosl(line: str) -> None:
    """What `prosl ...` does in a shell, without starting a process."""
    print("$ prosl", line)
    assert main(shlex.split(line)) == 0


write_archive("data", num_samples=900, overwrite=True)
_ = Path("small.yaml").write_text("""
trainer: {max_epochs: 14, accelerator: cpu, enable_progress_bar: false, log_every_n_steps: 5, default_root_dir: run}
data: {root: data, batch_size: 64}
model:
  base_args: {hidden_size: 64, num_layers: 1}
  num_frames: 24
  min_crop_frames: 20
  crop_ratio: [0.3, 1.0]
  bank_size: 256
  temperature: 0.07
  momentum: 0.99
  learning_rate: 0.02
  milestones: [12]
  semantic_start: 10
  num_clusters: 24
  confidence_threshold: relative
  semantic_temperature: 0.5
  importance_samples: 64
""")
prosl("fit --config small.yaml")

# %% [markdown]
# ## Nearest neighbours and clusters
#
# Nothing is trained: the nearest training sequence by cosine gives its class to the test sequence. `--clusters classes` divides the
# test features by k-means and matches clusters to classes.

# %%
CKPT = "--ckpt run/checkpoints/last.ckpt --data.root data"
prosl(f"knn {CKPT} --clusters classes")

# %% [markdown]
# ## A linear layer on frozen features
#
# The evaluation most papers report. "Best epoch" is chosen on the test set and stands there for comparison only.

# %%
prosl(f"linear {CKPT} --epochs 300")

# %%
Image("run/checkpoints/last-linear-data-x-sub-epochs-300/confusion.png", width=700)

# %% [markdown]
# ## Every number with what it depends on
#
# Each command has added a row to `results.json`: settings, checksums of data and checkpoint, versions. `prosl table` puts rows of real
# sets beside the paper's tables.

# %%
rows = json.loads(Path("run/checkpoints/results.json").read_text())
for row in rows:
    print(
        f"{row['evaluation']:7s} top-1 {row['numbers']['top-1']:5.1f} %   {len(row['protocol'])} settings, {row['date'][:10]}"
    )

# %% [markdown]
# ## Single files
#
# The linear evaluation left a classifier that needs nothing else. Raw `.skeleton` files of recordings it has never seen:

# %%
Path("raw").mkdir(exist_ok=True)
for clip in list(generate(924))[900::3]:
    Path("raw", f"{clip.name}.skeleton").write_text(skeleton_text(clip))
prosl("predict raw --ckpt run/checkpoints/last-linear-data-x-sub-epochs-300/classifier.pt --top 2 --neighbours 1")
print("A001 to A016:", ", ".join(CLASS_NAMES))

# %% [markdown]
# ## The same from Python, and few labels
#
# Features are extracted once; all else is arithmetic on these tables. So it costs nothing to ask how many labels an encoder
# saves: a linear layer on a share of the training labels, five draws each, beside the untrained encoder. (`prosl semi` is the
# paper's protocol: it fine-tunes the encoder, too.)

# %%
import numpy as np
import torch
from matplotlib.figure import Figure

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.evaluation.features import extract_tables, load_module
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.evaluation.semi import labelled_subset

data = SkeletonDataModule("data", protocol="x-sub")
data.setup()
model = load_module("run/checkpoints/last.ckpt")
torch.manual_seed(0)
tables = {"untrained": extract_tables(ProSLModule(**model.hparams).eval(), data), "ProSL": extract_tables(model, data)}

FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)
figure = Figure(figsize=(6.5, 3.8), layout="constrained")
axes = figure.add_subplot()
for (name, found), colour, marker in zip(tables.items(), ("#E69F00", "#0072B2"), "so", strict=True):
    accuracies = np.zeros((len(FRACTIONS), 5))
    for row, fraction in enumerate(FRACTIONS):
        for seed in range(5):
            chosen = labelled_subset(found.train_labels.numpy(), fraction, "stratified", seed)
            part = found._replace(train=found.train[chosen], train_labels=found.train_labels[chosen])
            result = linear_evaluation(part, len(data.archive.class_names), epochs=100, milestones=(60, 90), seed=seed)
            accuracies[row, seed] = result.accuracy
    labels = [fraction * len(found.train) for fraction in FRACTIONS]
    axes.errorbar(
        labels, accuracies.mean(1), accuracies.std(1, ddof=1), color=colour, marker=marker, capsize=3, label=name
    )
axes.axhline(100 / len(data.archive.class_names), color="0.4", linestyle="--", linewidth=1, label="chance")
axes.set(
    xscale="log", xlabel="labelled training sequences", ylabel="linear accuracy, unseen performers (%)", ylim=(0, 90)
)
axes.set_xticks(labels, [f"{count:.0f}" for count in labels])
axes.minorticks_off()
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
figure

# %%
from prosl_lightning.figures import feature_map, map_figure

test = tables["ProSL"].test_labels
maps = [feature_map(found.test, test, name) for name, found in tables.items()]
map_figure([("test sequences", maps)], test, data.archive.class_names)
