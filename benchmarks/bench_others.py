"""Optional rows of `make bench`: what `data.py` and `evaluation.py` measure, in their own words."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from bench_table import Disagreement, Row, Settings
from harness import Bench

import evaluation
from data import Data

TARGETS = {"data": (8.0, 8.0), "neighbours": (3.0, 5.0), "linear": (70.0, 120.0)}
_NAMED = ("part", "what", "target", "ratio", "measured", "limit", "limit_is")


def _rows(name: str, measure: Callable[[Bench], Any]) -> list[Row]:
    """What the script's part recorded; a row without a ratio is left out, one with an error stops the part."""
    bench = Bench(torch.device("cpu"), minutes=60, out=None)
    measure(bench)
    rows = []
    for recorded in bench.rows:
        if "error" in recorded:
            raise Disagreement(recorded["error"])
        value = recorded.get("ratio", recorded.get("measured"))
        if value is None:
            continue
        limit = f"{recorded['limit']:.0f}x ({recorded['limit_is']})" if "limit" in recorded else ""
        told = ", ".join(f"{key.replace('_', ' ')} {_text(one)}" for key, one in recorded.items() if key not in _NAMED)
        has_target = recorded.get("target") not in (None, "none")
        at_least, goal = TARGETS[name] if has_target else (float("nan"),) * 2
        rows.append(
            Row(
                f"{recorded['part']}: {recorded['what']}",
                value=value,
                at_least=at_least,
                goal=goal,
                limit=limit,
                note=told,
            )
        )
    return rows


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_text(one)}" for name, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def data(settings: Settings) -> list[Row]:
    """Random batches from an archive and from a padded memory-mapped float32 array."""
    options = argparse.Namespace(sequences=64 if settings.tiny else 12_000, rounds=settings.rounds, raw=None)
    folder = settings.folder / "data"
    folder.mkdir(exist_ok=True)
    return _rows("data", lambda bench: Data(bench, options, folder).batches())


def neighbours(settings: Settings) -> list[Row]:
    """One nearest neighbour of NTU-60's test set."""
    return _rows("neighbours", lambda bench: evaluation.neighbours(bench, settings.tiny))


def linear(settings: Settings) -> list[Row]:
    """Linear evaluation from features extracted once, and in every epoch."""
    return _rows("linear", lambda bench: evaluation.linear(bench, settings.tiny))


PARTS: dict[str, Callable[[Settings], list[Row]]] = {part.__name__: part for part in (data, neighbours, linear)}
