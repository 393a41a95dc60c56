"""ProSL: progressive semantic learning of human-skeleton representations, as a PyTorch Lightning library.

Public names are imported when they are first used, so `import prosl_lightning` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prosl_lightning.version import __version__

_PUBLIC = {
    "Archive": "data.archive",
    "ArchiveWriter": "data.archive",
    "SkeletonBatch": "data.batch",
    "SkeletonDataModule": "data.datamodule",
    "SkeletonLayout": "skeleton",
    "BaseMethod": "bases",
    "ContrastTerm": "bases",
    "ProjectedEncoder": "encoders.projected",
    "HiCoEncoder": "encoders.hico",
    "build_encoder": "encoders",
    "load_hico_checkpoint": "encoders.public_hico",
    "ProSLModule": "prosl.module",
    "CodebookCallback": "prosl.callback",
    "SemanticCodebook": "prosl.codebook",
    "SharedClusters": "prosl.shared_clusters",
    "MemoryBank": "prosl.memory_bank",
    "SideBySide": "prosl.side_by_side",
    "SkeletonEncoder": "evaluation.encoder",
    "load_encoder": "evaluation.encoder",
    "load_classifier": "evaluation.classifier",
    "KNNEvaluation": "evaluation.knn",
    "LinearEvaluation": "evaluation.linear",
    "SemiSupervisedEvaluation": "evaluation.semi",
    "TransferEvaluation": "evaluation.transfer",
    "OnlineEvaluation": "evaluation.online",
    "ProSLError": "errors",
    "DataError": "errors",
    "UsageError": "errors",
    "MissingExtraError": "errors",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from prosl_lightning.bases import BaseMethod, ContrastTerm
    from prosl_lightning.data.archive import Archive, ArchiveWriter
    from prosl_lightning.data.batch import SkeletonBatch
    from prosl_lightning.data.datamodule import SkeletonDataModule
    from prosl_lightning.encoders import build_encoder
    from prosl_lightning.encoders.hico import HiCoEncoder
    from prosl_lightning.encoders.projected import ProjectedEncoder
    from prosl_lightning.encoders.public_hico import load_hico_checkpoint
    from prosl_lightning.errors import DataError, MissingExtraError, ProSLError, UsageError
    from prosl_lightning.evaluation.classifier import load_classifier
    from prosl_lightning.evaluation.encoder import SkeletonEncoder, load_encoder
    from prosl_lightning.evaluation.knn import KNNEvaluation
    from prosl_lightning.evaluation.linear import LinearEvaluation
    from prosl_lightning.evaluation.online import OnlineEvaluation
    from prosl_lightning.evaluation.semi import SemiSupervisedEvaluation
    from prosl_lightning.evaluation.transfer import TransferEvaluation
    from prosl_lightning.prosl.callback import CodebookCallback
    from prosl_lightning.prosl.codebook import SemanticCodebook
    from prosl_lightning.prosl.memory_bank import MemoryBank
    from prosl_lightning.prosl.module import ProSLModule
    from prosl_lightning.prosl.shared_clusters import SharedClusters
    from prosl_lightning.prosl.side_by_side import SideBySide
    from prosl_lightning.skeleton import SkeletonLayout


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'prosl_lightning' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"prosl_lightning.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
