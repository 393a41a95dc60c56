# %% [markdown]
# # Quickstart: skeletons in, an encoder out
#
# Half a minute on one CPU core, no data needed. We make synthetic skeletons, train an encoder **without labels**
# through both stages of ProSL, and look at what it has learnt about performers it never saw.

# %%
# %matplotlib inline
import logging

import pytorch_lightning as pl

from prosl_lightning import Archive, ProSLModule, SkeletonDataModule
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.synthetic import write_archive

silence_lightning()
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

# %% [markdown]
# ## Data
#
# 900 recordings of 16 actions. What the labels do not name differs from one to the next: camera, tempo, body size,
# and whatever the body tracker got wrong. `prosl prepare` makes such an archive from real recordings.

# %%
from prosl_lightning.data.inspection import inspect_archive
from prosl_lightning.figures import strip_sheet

write_archive("quickstart/data", num_samples=900, overwrite=True)
strip_sheet(inspect_archive(Archive.open("quickstart/data")))

# %% [markdown]
# ## Training
#
# The protocol `x-sub` trains on three quarters of the performers. Everything below is small, so that it fits into half
# a minute: `prosl fit --config ntu60` holds the paper's settings. From `semantic_start` on, a codebook steers.

# %%
data = SkeletonDataModule("quickstart/data", protocol="x-sub", batch_size=64)
pl.seed_everything(0, verbose=False)
model = ProSLModule(
    base_args={"hidden_size": 64, "num_layers": 1},
    num_frames=24,
    min_crop_frames=20,
    crop_ratio=(0.3, 1.0),
    bank_size=256,
    temperature=0.07,
    momentum=0.99,
    learning_rate=0.02,
    milestones=(12,),
    semantic_start=10,
    num_clusters=24,
    confidence_threshold="relative",
    semantic_temperature=0.5,
    importance_samples=64,
)
trainer = pl.Trainer(
    max_epochs=14,
    accelerator="cpu",
    logger=pl.loggers.CSVLogger("quickstart", name="logs"),
    default_root_dir="quickstart",
    log_every_n_steps=5,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
data.setup()
untrained = ProSLModule(**model.hparams)  # the same architecture, for comparison
trainer.fit(model, datamodule=data)
trainer.save_checkpoint("quickstart/last.ckpt")

# %% [markdown]
# The loss jumps where the semantic stage begins, because terms are added to it.

# %%
from prosl_lightning.figures import curves_figure, read_curves

curves_figure(read_curves("quickstart/logs"))

# %% [markdown]
# ## What it has learnt
#
# Two questions to the features of unseen performers: is the nearest training recording of the same action, and does a
# linear layer separate the actions? Chance is 6.2 %. An untrained recurrent network is no bad feature extractor, so it
# is the honest comparison.

# %%
from prosl_lightning.evaluation.features import extract_tables
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.tables import table

encoders, rows = [], []
for name, module in (("untrained", untrained), ("ProSL", model)):
    found = extract_tables(module.eval(), data)
    knn = knn_accuracy(*found)
    linear = linear_evaluation(found, len(data.archive.class_names), epochs=200, milestones=(120, 170)).accuracy
    encoders.append((name, found))
    rows.append((name, knn, linear))
print(table(["encoder", "1-NN %", "linear %"], rows))

# %%
from prosl_lightning.figures.demo import demo_figure

demo_figure(encoders, data.archive, model.codebook.importance, rows)

# %% [markdown]
# ## Using it
#
# The checkpoint is all that is needed. Recordings go in as they are, in metres; features come out.

# %%
from prosl_lightning import load_encoder
from prosl_lightning.data.synthetic import generate

encoder = load_encoder("quickstart/last.ckpt")
recordings = [clip.listed() for clip in generate(3, seed=7)]  # each (T, bodies, V, 3)
print([recording.shape for recording in recordings])
print("features", encoder.embed(recordings).shape)

# %% [markdown]
# Next: [your own recordings](02_own_data.ipynb), [what the codebook is](03_codebook.ipynb),
# [evaluation](04_evaluation.ipynb), [inside your Lightning project](05_lightning_project.ipynb).
