# %% [markdown]
# # Inside your own Lightning project
#
# `ProSLModule` is an ordinary `LightningModule`. Bring your own data, Trainer, callbacks, loggers, optimizer; take the encoder
# into a model of your own. All of it below, on arrays in memory.

# %%
# %matplotlib inline
import logging

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from prosl_lightning import Archive, ProSLModule, SkeletonBatch
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.synthetic import write_archive

silence_lightning()
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

# %% [markdown]
# ## Your data
#
# Any data module will do whose training loader yields a `SkeletonBatch`: `joints` (N, C, T, V, M) padded with zeros, in metres;
# `length`, the true number of frames; `index`, the row in the training set; `label`, -1 where unknown. The codebook needs two
# more things: `num_samples`, and `feature_dataloader()`, which visits the training set once and in order.


# %%
class Clips(Dataset):
    """Sequences of any length as a list of arrays (T, V, M, 3)."""

    def __init__(self, clips: list[np.ndarray], labels: list[int]) -> None:
        self.clips, self.labels = clips, labels

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, row: int) -> tuple[int, np.ndarray, int]:
        return row, self.clips[row], self.labels[row]


def collate(items: list[tuple[int, np.ndarray, int]]) -> SkeletonBatch:
    """One padded batch."""
    index, clips, labels = zip(*items, strict=True)
    lengths = [len(clip) for clip in clips]
    joints = torch.zeros(len(clips), 3, max(lengths), *clips[0].shape[1:3])
    for row, clip in zip(joints, clips, strict=True):
        row[:, : len(clip)] = torch.from_numpy(clip).permute(3, 0, 1, 2)
    return SkeletonBatch(joints, torch.tensor(lengths), torch.tensor(index), torch.tensor(labels))


class MyData(pl.LightningDataModule):
    """A foreign data module: nothing of it comes from the library."""

    def __init__(self, train: Clips, test: Clips) -> None:
        super().__init__()
        self.train, self.test = train, test
        self.num_samples = len(train)

    def train_dataloader(self) -> DataLoader:
        """Shuffled, without the incomplete last batch."""
        return DataLoader(self.train, 32, shuffle=True, drop_last=True, collate_fn=collate)

    def feature_dataloader(self, part: str = "train") -> DataLoader:
        """Every sequence once, in order."""
        return DataLoader(self.train if part == "train" else self.test, 128, collate_fn=collate)


write_archive("data", num_samples=600, overwrite=True)  # stands for whatever you have
archive = Archive.open("data")
parts = [
    Clips([archive.clip(row).astype(np.float32).transpose(0, 2, 3, 1) for row in rows], archive.labels[rows].tolist())
    for rows in archive.split("x-sub")
]
data = MyData(*parts)
print(f"{len(data.train)} sequences to train, {len(data.test)} to test; the first is {data.train.clips[0].shape}")

# %% [markdown]
# ## Your optimizer, your callback
#
# A subclass changes what it likes: this one trains by AdamW. The callback tells what the stages are about.


# %%
class WithAdamW(ProSLModule):
    """ProSL, but optimised by AdamW with a cosine schedule."""

    def configure_optimizers(self):
        """Only the query encoder learns; the key encoder follows it."""
        optimizer = torch.optim.AdamW(self.query_encoder.parameters(), lr=2e-3, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Stages(pl.Callback):
    """One line an epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The codebook, where there is one, was built at the end of the epoch before."""
        sizes = torch.bincount(pl_module.codebook.assignment).tolist()
        told = f", clusters of {min(sizes)} to {max(sizes)} sequences" if sizes else ""
        print(f"epoch {trainer.current_epoch}: {pl_module.stage}{told}")


pl.seed_everything(0, verbose=False)
model = WithAdamW(
    base_args={"hidden_size": 32, "num_layers": 1},
    num_frames=24,
    min_crop_frames=20,
    crop_ratio=(0.3, 1.0),
    bank_size=256,
    temperature=0.07,
    momentum=0.99,
    semantic_start=4,
    num_clusters=16,
    confidence_threshold="relative",
    semantic_temperature=0.2,
    importance_samples=32,
)
trainer = pl.Trainer(
    max_epochs=6,
    accelerator="cpu",
    callbacks=[Stages()],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, datamodule=data)

# %% [markdown]
# The module has added `CodebookCallback` by itself; give the trainer one of your own to change how the codebook is made.
#
# ## Your model on top
#
# `model.prepare(batch)` is the fixed view an encoder is judged by, `model(clips)` its features, `model.embed(batch)` both.
# Below, a classifier of your own takes the encoder over and trains all of it.


# %%
class MyClassifier(pl.LightningModule):
    """A pre-trained encoder and two layers on top."""

    def __init__(self, pretrained: ProSLModule, num_classes: int) -> None:
        super().__init__()
        self.backbone = pretrained
        self.head = nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, num_classes))

    def forward(self, batch: SkeletonBatch) -> torch.Tensor:
        """Logits (N, K)."""
        return self.head(self.backbone.embed(batch))

    def training_step(self, batch: SkeletonBatch, number: int) -> torch.Tensor:
        """Cross entropy."""
        return nn.functional.cross_entropy(self(batch), batch.label)

    def test_step(self, batch: SkeletonBatch, number: int) -> None:
        """Accuracy in percent."""
        right = (self(batch).argmax(dim=1) == batch.label).float()
        self.log("accuracy", 100 * right.mean(), batch_size=len(right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The encoder learns more slowly than the new layers."""
        slow, fast = self.backbone.query_encoder.parameters(), self.head.parameters()
        return torch.optim.AdamW([{"params": slow, "lr": 1e-3}, {"params": fast, "lr": 5e-3}])


classifier = MyClassifier(model, len(archive.class_names))
with torch.no_grad():
    classifier(next(iter(data.feature_dataloader())))  # the lazy layer takes its width
trainer = pl.Trainer(
    max_epochs=12,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(classifier, data.train_dataloader())
(found,) = trainer.test(classifier, data.feature_dataloader("test"), verbose=False)
print(f"{found['accuracy']:.1f} % of unseen performers' actions; chance is {100 / len(archive.class_names):.1f} %")

# %% [markdown]
# ## The library's evaluations with your data
#
# Anything with `embed(batch)` can be judged by them.

# %%
from prosl_lightning import KNNEvaluation

(found,) = trainer.test(KNNEvaluation(model, data.feature_dataloader()), data.feature_dataloader("test"), verbose=False)
print({name: round(value, 1) for name, value in found.items()})

# %% [markdown]
# It found the encoder after fine-tuning, since the classifier trained the very same module. Copy it first
# (`copy.deepcopy(model)`) where you want to keep both.

# %%
from prosl_lightning.figures import feature_map, map_figure

with torch.no_grad():
    features = torch.cat([model.embed(batch) for batch in data.feature_dataloader("test")])
shown = feature_map(features, data.test.labels, "test sequences, fine-tuned")
map_figure([("ProSL", [shown])], data.test.labels, archive.class_names)
