"""What is minimised: the contrast terms of the base method and, on top, the semantic terms (Eq. 11 and 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prosl_lightning.bases import BaseMethod
from prosl_lightning.prosl.branches import Projections
from prosl_lightning.prosl.codebook import SemanticCodebook
from prosl_lightning.prosl.distributed import all_reduce_sum, world_size
from prosl_lightning.prosl.losses import (
    KLDirection,
    SemanticLoss,
    branch_kl_loss,
    chained_loss,
    contrastive_loss,
    semantic_loss,
)
from prosl_lightning.prosl.memory_bank import BankRows


@dataclass(frozen=True)
class Objective:
    """The losses of one step, given the unit projections of the branches.

    Attributes:
        base: The base method; its terms are added with equal weights.
        temperature: Of the contrast and of the KL loss.
        filtered_terms: Terms whose same-label negatives are excluded: `all`, or the codebook's own only (`instance`).
        semantic_temperature: Of the softmax over centroids.
        confidence_threshold: Smallest confidence of a sample in the semantic loss.
        kl_direction: Direction of the KL loss.
    """

    base: BaseMethod
    temperature: float
    filtered_terms: Literal["all", "instance"]
    semantic_temperature: float
    confidence_threshold: float
    kl_direction: KLDirection

    def contrast(
        self,
        query: Projections,
        key: Projections,
        banks: Mapping[str, BankRows],
        codebook: SemanticCodebook | None,
        index: Tensor,
    ) -> Projections:
        """One scalar per contrast term: Eq. 1, or Eq. 5 where there is a codebook.

        Args:
            query: Unit projections of the query branch, (N, P) or (N, levels, P) each.
            key: Those of the key branch.
            banks: Contents of the memory banks, each named by the key projection it holds.
            codebook: Excludes same-label negatives; None in the contrast stage.
            index: Training rows of the batch, (N,).
        """
        losses = {}
        for term in self.base.terms:
            bank, anchor, positives = banks[term.key], query[term.query], key[term.key]
            anchor = anchor[:, 0] if anchor.dim() == 3 else anchor
            positives = positives if positives.dim() == 3 else positives.unsqueeze(1)
            filtered = codebook is not None and (self.filtered_terms == "all" or term.key == self.base.semantic)
            excluded = codebook.excluded(index, bank.index) if codebook is not None and filtered else None
            losses[term.name] = contrastive_loss(anchor, positives, bank.features, self.temperature, excluded).mean()
        return losses

    def chain(
        self,
        query: Projections,
        stronger: Sequence[Projections],
        key: Projections,
        banks: Mapping[str, BankRows],
    ) -> Projections:
        """One scalar per stronger view, weighted: what it learns from the view before it, first of all the query.

        Args:
            query: Unit projections of the query branch.
            stronger: Those of the stronger views, weakest first.
            key: Those of the key branch.
            banks: As for :meth:`contrast`.
        """
        name, losses = self.base.semantic, {}
        memory = banks[name].features
        for number, (teacher, student) in enumerate(zip([query, *stronger], stronger, strict=False), start=1):
            loss = chained_loss(teacher[name], student[name], key[name], memory, self.temperature).mean()
            losses[f"stronger_{number}"] = self.base.stronger_weight * loss
        return losses

    def semantic(
        self,
        query: Projections,
        semantic: Projections | None,
        banks: Mapping[str, BankRows],
        codebook: SemanticCodebook | None,
        index: Tensor,
    ) -> tuple[Projections, Projections]:
        """The terms of the third branch and of the codebook.

        Args:
            query: Unit projections of the query branch.
            semantic: Those of the third branch; None without it.
            banks: As for :meth:`contrast`.
            codebook: None in the contrast stage.
            index: Training rows of the batch, (N,).

        Returns:
            Scalars to add to the loss: with a third branch `kl` (Eq. 10), with a codebook `semantic_query` (Eq. 2),
            with both `semantic_branch` (Eq. 9); and, with a codebook, scalars to watch: the share of the bank that is
            excluded, and the shares of samples that were confident in the branches (Eq. 3).
        """
        losses, name = {}, self.base.semantic
        bank, branches = banks[name], {"query": query[name]}
        if semantic is not None:
            branches["branch"] = semantic[name]
            kl = branch_kl_loss(semantic[name], query[name], bank.features, self.temperature, self.kl_direction)
            losses["kl"] = kl.mean()
        if codebook is None:
            return losses, {}
        observed = {"excluded_share": excluded_share(codebook, index, bank.index)}
        labels = codebook.labels_of(index)
        for branch, features in branches.items():
            result = semantic_loss(
                features, codebook.centroids, labels, self.semantic_temperature, self.confidence_threshold
            )
            losses[f"semantic_{branch}"] = _part_of_mean(result)
            observed[f"confident_share_{branch}"] = result.confident.float().mean()
        return losses, observed


def excluded_share(codebook: SemanticCodebook, index: Tensor, memory_index: Tensor) -> Tensor:
    """Share of pairs of anchor and bank entry that are excluded: the mean of :meth:`SemanticCodebook.excluded`.

    It is counted by label, which never makes the (N, K) pairs.

    Args:
        codebook: A built one.
        index: Training rows of the anchors, (N,).
        memory_index: Training rows of the bank's entries, (K,); -1 for the initial noise.

    Returns:
        Scalar float32.
    """
    labels, memory_labels = codebook.labels_of(index), codebook.labels_of(memory_index)
    counts = torch.zeros(len(codebook.centroids), dtype=torch.int64, device=index.device)
    counts.index_add_(0, memory_labels.clamp_min(0), (memory_labels >= 0).long())
    return counts[labels].sum() / (len(labels) * len(memory_labels))


def _part_of_mean(result: SemanticLoss) -> Tensor:
    """What a process adds to the mean over the confident samples of all processes, times their number.

    Processes average their gradients, which divides it again. In one process it is the mean itself.
    """
    world = world_size()
    if world == 1:
        return result.loss
    own = result.confident.sum()
    return result.loss * (own * world / all_reduce_sum(own).clamp_min(1))
