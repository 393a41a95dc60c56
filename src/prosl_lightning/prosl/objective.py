"""What is minimised: the contrast terms of the base method and, on top, the semantic terms (Eq. 11 and 12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from prosl_lightning.prosl.base import BaseMethod
from prosl_lightning.prosl.codebook import SemanticCodebook
from prosl_lightning.prosl.losses import KLDirection, branch_kl_loss, contrastive_loss, semantic_loss
from prosl_lightning.prosl.memory_bank import MemoryBank

Projections = dict[str, Tensor]


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
        banks: Mapping[str, MemoryBank],
        codebook: SemanticCodebook | None,
        index: Tensor,
    ) -> Projections:
        """One scalar per contrast term: Eq. 1, or Eq. 5 where there is a codebook.

        Args:
            query: Unit projections of the query branch, (N, P) or (N, levels, P) each.
            key: Those of the key branch.
            banks: Memory banks, each named by the key projection it holds.
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

    def semantic(
        self,
        query: Projections,
        semantic: Projections,
        banks: Mapping[str, MemoryBank],
        codebook: SemanticCodebook | None,
        index: Tensor,
    ) -> tuple[Projections, Projections]:
        """The terms of the semantic branch and the codebook.

        Args:
            query: Unit projections of the query branch.
            semantic: Those of the semantic branch.
            banks: As for :meth:`contrast`.
            codebook: None in the contrast stage.
            index: Training rows of the batch, (N,).

        Returns:
            Scalars to add to the loss: `kl` (Eq. 10), and with a codebook `semantic_query` (Eq. 2) and
            `semantic_branch` (Eq. 9); and scalars to watch: the share of the bank that is excluded, and the shares of
            samples that were confident in the two branches (Eq. 3).
        """
        name = self.base.semantic
        bank = banks[name]
        kl = branch_kl_loss(semantic[name], query[name], bank.features, self.temperature, self.kl_direction)
        losses = {"kl": kl.mean()}
        if codebook is None:
            return losses, {}
        observed = {"excluded_share": codebook.excluded(index, bank.index).float().mean()}
        labels = codebook.labels_of(index)
        for branch, features in (("query", query[name]), ("branch", semantic[name])):
            result = semantic_loss(
                features, codebook.centroids, labels, self.semantic_temperature, self.confidence_threshold
            )
            losses[f"semantic_{branch}"] = result.loss
            observed[f"confident_share_{branch}"] = result.confident.float().mean()
        return losses, observed
