"""What a base contrastive method supplies to ProSL: an encoder, its contrast terms, and where the codebook lives."""

from __future__ import annotations

from dataclasses import dataclass

from prosl_lightning.errors import UsageError


@dataclass(frozen=True)
class ContrastTerm:
    """One term of the contrastive loss.

    Attributes:
        name: Its name in logs.
        query: Projection of the query branch that is the anchor; of one with several levels, the first (finest).
        key: Projection of the key branch whose levels are all positives. It also names the memory bank that holds the
            negatives.
    """

    name: str
    query: str
    key: str


@dataclass(frozen=True)
class BaseMethod:
    """A contrastive method that ProSL builds on.

    Attributes:
        encoder: Name of its encoder in :data:`prosl_lightning.encoders.ENCODERS`.
        terms: Its contrast terms; they are added with equal weights.
        semantic: Projection that is clustered, pulled to centroids and compared by the KL loss; also a term's key.
    """

    encoder: str
    terms: tuple[ContrastTerm, ...]
    semantic: str


# HiCo (Dong et al., AAAI 2023): clip and part contrast the finest level with every level of the key; the domain terms
# are crossed, time against space.
_HICO_TERMS = (
    ContrastTerm("clip", query="clip", key="clip"),
    ContrastTerm("part", query="part", key="part"),
    ContrastTerm("temporal", query="temporal", key="spatial"),
    ContrastTerm("spatial", query="spatial", key="temporal"),
    ContrastTerm("instance", query="instance", key="instance"),
)

BASES: dict[str, BaseMethod] = {
    name: BaseMethod(encoder=name, terms=_HICO_TERMS, semantic="instance")
    for name in ("hico-lstm", "hico-gru", "hico-transformer")
}


def base_method(name: str) -> BaseMethod:
    """Look a base method up by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in BASES:
        raise UsageError(f"unknown base method '{name}': known are {', '.join(BASES)}")
    return BASES[name]
