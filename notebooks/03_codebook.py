# %% [markdown]
# # The codebook and joint importance, explained
#
# ProSL trains an encoder by contrast first. Then it clusters the encoder's features into a **semantic codebook**, and from
# there on the codebook decides three things: which negatives are false, which sequences are pulled to their centroid, and which
# joints are hidden. This notebook trains a small encoder and looks at each. No labels are used, but those of the synthetic
# set let us judge.

# %%
# %matplotlib inline
import logging

import pytorch_lightning as pl
import torch

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.synthetic import write_archive

silence_lightning()
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

write_archive("codebook/data", num_samples=900, overwrite=True)
data = SkeletonDataModule("codebook/data", protocol="x-sub", batch_size=64)
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
    importance_samples=128,
)
trainer = pl.Trainer(
    max_epochs=14,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, datamodule=data)
codebook = model.codebook.cpu()
print("centroids", tuple(codebook.centroids.shape), "| semantic labels", tuple(codebook.assignment.shape))

# %% [markdown]
# ## What the clusters hold
#
# Before every semantic epoch k-means runs on the key encoder's features of the training set. Each training sequence gets the
# number of its cluster, its *semantic label*. Many clusters of a few dozen sequences are healthy; one giant or many empty
# ones would be a collapse.

# %%
from prosl_lightning.figures import codebook_figure

classes = torch.from_numpy(data.archive.labels[data.train_rows])
codebook_figure(codebook.assignment, len(codebook.centroids), classes=classes, class_names=data.archive.class_names)

# %% [markdown]
# The clusters follow classes, if not one to one: what the encoder sees as one motion may be two classes by name, and one
# class may fall apart by performer or camera. The sequences nearest to a centroid show what a cluster stands for:

# %%
from prosl_lightning.figures import nearest_figure, nearest_to_centroids

sizes = torch.bincount(codebook.assignment)
chosen = sizes.argsort(descending=True)[[0, 7, 15]].tolist()
found = nearest_to_centroids(model, data.archive, data.train_rows, chosen, count=2)
nearest_figure(model.layout, found, data.archive.class_names, title="Two sequences nearest to each of three centroids")

# %% [markdown]
# ## 1. False negatives are left out
#
# Contrast pushes a sequence away from all others in the memory bank, those of its own action included. Entries of the bank
# with the anchor's semantic label are left out (Eq. 4).

# %%
anchors = torch.arange(200)
bank = torch.randint(len(classes), (256,), generator=torch.Generator().manual_seed(0))
excluded = codebook.excluded(anchors, bank)
same_class = classes[anchors][:, None] == classes[bank]
print(f"left out: {100 * excluded.float().mean():.1f} % of the negatives")
print(
    f"of the same class: {100 * same_class.float().mean():.1f} % of all, {100 * same_class[excluded].float().mean():.1f} % of those left out"
)

# %% [markdown]
# ## 2. Confident sequences are pulled to their centroid
#
# A softmax over the cosines to all centroids says how sure the assignment is. The semantic loss (Eq. 2 and 3) only takes
# sequences above a threshold; `relative` is 1.755 times a uniform guess.

# %%
from matplotlib.figure import Figure

from prosl_lightning.prosl.extract import extract

model.eval()
with torch.no_grad():
    features, _ = extract(
        model, data.feature_dataloader(), lambda batch: model.key_features(model.prepare(batch)), data.num_samples
    )
confidence = (
    torch.softmax(features @ codebook.centroids.T / model.hparams["semantic_temperature"], dim=1).max(dim=1).values
)
right = (
    torch.zeros(len(codebook.centroids), int(classes.max()) + 1)
    .index_put_((codebook.assignment, classes), torch.ones(len(classes)), accumulate=True)
    .argmax(dim=1)[codebook.assignment]
    == classes
)  # of the cluster's commonest class

figure = Figure(figsize=(7, 3.2), layout="constrained")
axes = figure.add_subplot()
parts = [confidence[right], confidence[~right]]
axes.hist(
    parts, bins=30, stacked=True, color=["#0072B2", "#E69F00"], label=["the cluster's commonest class", "another class"]
)
axes.axvline(model.confidence_threshold, color="black", linestyle="--", label="threshold")
axes.set(xlabel="largest probability over the centroids", ylabel="training sequences")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
figure

# %% [markdown]
# ## 3. Unimportant joints are hidden
#
# A joint matters if the feature changes when it is missing. Its *semantic coefficient* (Eq. 6 and 7) is the divergence
# between the feature with and without it; the third branch then hides joints with a probability inverse to it (Eq. 8).

# %%
from prosl_lightning.figures import joint_importance_figure
from prosl_lightning.prosl.importance import mask_probability

joint_importance_figure(model.layout, codebook.importance, title="Semantic coefficients")

# %% [markdown]
# That is the mean over the data set, and what the masking goes by. Measured class by class, different joints matter:

# %%
from prosl_lightning.figures import Body, importance_grid_figure, measured_importance

bodies = []
for name in ("drink", "raise arms", "kick", "bow", "twist"):
    rows = data.train_rows[classes.numpy() == data.archive.class_names.index(name)][:8]
    bodies.append(Body(name, measured_importance(model, data.archive, rows).mean(axis=0)))
importance_grid_figure(model.layout, bodies)

# %%
probability = mask_probability(codebook.importance)
order = codebook.importance.argsort(descending=True).tolist()
figure = Figure(figsize=(8, 3.6), layout="constrained")
axes = figure.add_subplot()
axes.bar(range(len(order)), 100 * probability[order], color="#0072B2")
axes.axhline(100 / len(order), color="#D55E00", linestyle="--", label="uniform")
axes.set_xticks(
    range(len(order)), [model.layout.joints[joint].replace("_", " ") for joint in order], rotation=90, fontsize=8
)
axes.set(xlabel="joints, the most important first", ylabel="probability of the first draw (%)")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
figure

# %% [markdown]
# 15 of the 25 joints are drawn for each sequence, without replacement. What is left of one:

# %%
from prosl_lightning.figures.skeletons import default_pose
from prosl_lightning.views import draw_joints

hidden = draw_joints(probability, model.masked_joints, 6, torch.Generator().manual_seed(1))
pose = default_pose(model.layout)
figure = Figure(figsize=(10, 3.2), layout="constrained")
for axes, joints in zip(figure.subplots(1, 6), hidden, strict=True):
    for child, parent in model.layout.bones:
        axes.plot(*pose[[child, parent]].T, color="0.85", linewidth=3, zorder=1)
    shown = torch.ones(len(pose), dtype=torch.bool)
    shown[joints] = False
    axes.scatter(*pose[~shown.numpy()].T, s=18, facecolors="white", edgecolors="0.7", zorder=2)
    axes.scatter(*pose[shown.numpy()].T, s=45, color="#0072B2", zorder=3)
    axes.set_aspect("equal")
    axes.set_axis_off()
figure.suptitle("Six draws: joints the encoder sees (blue), hidden (white)")
figure

# %% [markdown]
# The encoder has to give the same semantics from the joints that carry most of it.
#
# While training, the same is logged under `codebook/` (sizes, churn, agreement with classes), and `prosl plot` draws it for any
# checkpoint.
