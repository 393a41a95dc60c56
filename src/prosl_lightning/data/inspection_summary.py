"""Turns an inspection into plain data: what `prosl inspect --json` prints and the table on the screen is made from."""

from __future__ import annotations

from typing import Any

import numpy as np

from prosl_lightning.data.inspection import Inspection
from prosl_lightning.data.protocols import IntArray, split_rows
from prosl_lightning.data.severity import drifting, fault_counts, severity
from prosl_lightning.data.units import size_warning

FEW_VALUES = 150  # NTU-120 has 106 performers
UNUSUAL = 3.0  # deviations
_BINS = 8
_USUAL = 0.98  # a few endless sequences shall not flatten the histogram: they share its last bin


def summarize(inspection: Inspection) -> dict[str, Any]:
    """Everything that was found, as numbers, strings, lists and mappings.

    Counts of faults name every sequence that has the fault (``found``), the worst first. As recordings of some sensors
    all have faults, ``unusual`` names the sequences that have far more of them than the others.
    """
    layout, faults = inspection.layout, inspection.faults
    sizes = inspection.sizes[inspection.sizes > 0]
    return {
        "path": str(inspection.path),
        "kind": inspection.kind,
        "format": inspection.format,
        "layout": layout.name,
        "joints": layout.num_joints,
        "bodies": inspection.num_bodies,
        "unit": layout.unit,
        "size": round(float(np.median(sizes)), 4) if len(sizes) else None,
        "size_warning": size_warning(sizes, layout),
        "sequences": len(inspection),
        "frames": int(inspection.lengths.sum()),
        "verified": inspection.verified,
        "made": inspection.made,
        "left_out": inspection.left_out,
        "bad": [{"source": source, "reason": reason} for source, reason in inspection.bad],
        "notes": inspection.notes,
        "classes": _classes(inspection),
        "columns": {name: _column(values) for name, values in inspection.columns.items()},
        "lengths": _lengths(inspection.lengths),
        "protocols": {name: _protocol(inspection, name) for name in inspection.protocols},
        "positions": [
            {
                "absent_frames": int(absent.sum()),
                "absent_share": _share(int(absent.sum()), int(inspection.lengths.sum())),
                "never_there": int((absent == inspection.lengths).sum()),
            }
            for absent in faults.absent.T
        ],
        "faults": _faults(inspection),
        "unusual": _unusual(inspection),
        "joint_faults": [
            {"joint": joint, "missing_frames": int(missing), "stuck": int(stuck), "jumps": int(jumps)}
            for joint, missing, stuck, jumps in zip(
                layout.joints, faults.missing.sum(0), faults.stuck.sum(0), faults.jumps.sum(0), strict=True
            )
        ],
        "bone_drift": _bones(inspection),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _classes(inspection: Inspection) -> dict[str, Any]:
    names = inspection.class_names
    found, counts = np.unique(inspection.labels[inspection.labels >= 0], return_counts=True)
    numbers = dict.fromkeys(range(len(names)), 0) | dict(zip(found.tolist(), counts.tolist(), strict=True))
    return {
        "unlabelled": int((inspection.labels < 0).sum()),
        "largest_to_smallest": round(float(counts.max() / counts.min()), 3) if len(counts) else None,
        "sequences": [
            {"label": label, "name": names[label] if label < len(names) else str(label), "sequences": number}
            for label, number in sorted(numbers.items())
        ],
    }


def _column(values: IntArray) -> dict[str, Any]:
    found, counts = np.unique(values, return_counts=True)
    few = len(found) <= FEW_VALUES
    return {
        "values": len(found),
        "min": int(found[0]),
        "max": int(found[-1]),
        "sequences": {str(value): int(number) for value, number in zip(found, counts, strict=True)} if few else None,
    }


def _lengths(lengths: IntArray) -> dict[str, Any]:
    low, usual, high = int(lengths.min()), int(np.quantile(lengths, _USUAL)), int(lengths.max())
    edges = np.unique([*np.linspace(low, usual + 1, _BINS).round().astype(np.int64), high + 1])
    counts, _ = np.histogram(lengths, edges)
    return {
        "min": low,
        "median": float(np.median(lengths)),
        "mean": round(float(lengths.mean()), 3),
        "max": high,
        "histogram": [
            {"from": int(start), "to": int(end) - 1, "sequences": int(number)}
            for start, end, number in zip(edges[:-1], edges[1:], counts, strict=True)
        ],
    }


def _protocol(inspection: Inspection, name: str) -> dict[str, Any]:
    train, test = split_rows(inspection.protocols[name], inspection.columns)
    labels = inspection.labels
    untrained = sorted(set(labels[test].tolist()) - set(labels[train].tolist()) - {-1})
    names = inspection.class_names
    return {
        "train": len(train),
        "test": len(test),
        "neither": len(inspection) - len(np.union1d(train, test)),
        "both": len(np.intersect1d(train, test)),
        "official": list(inspection.official[name]) if name in inspection.official else None,
        "tested_but_not_trained": [names[label] if label < len(names) else str(label) for label in untrained],
    }


def _faults(inspection: Inspection) -> dict[str, Any]:
    counted = fault_counts(inspection.faults) | {"drifting bones": drifting(inspection.faults).sum(axis=1)}
    return {name.replace(" ", "_"): _found(inspection, counts) for name, counts in counted.items()}


def _found(inspection: Inspection, counts: IntArray) -> dict[str, Any]:
    worst = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    return {
        "count": int(counts.sum()),
        "sequences": len(worst),
        "share_of_sequences": _share(len(worst), len(inspection)),
        "found": [{"name": inspection.names[row], "row": int(row), "count": int(counts[row])} for row in worst],
    }


def _unusual(inspection: Inspection) -> list[dict[str, Any]]:
    """Sequences whose faults go far beyond the usual, the worst first, each with what is worst about it."""
    found = severity(inspection.faults, inspection.lengths)
    rows = np.argsort(-found.scores, kind="stable")
    worst = found.deviations.argmax(axis=1)
    return [
        {
            "name": inspection.names[row],
            "row": int(row),
            "severity": round(float(found.scores[row]), 2),
            "most": found.kinds[worst[row]],
            "rate": round(float(found.rates[row, worst[row]]), 4),
            "usual": round(float(found.usual[worst[row]]), 4),
        }
        for row in rows
        if found.scores[row] > UNUSUAL
    ]


def _bones(inspection: Inspection) -> list[dict[str, Any]]:
    layout, drift = inspection.layout, inspection.faults.drift
    bones = []
    beyond = drifting(inspection.faults).sum(axis=0)
    for (child, parent), values, number in zip(layout.bones, drift.T, beyond, strict=True):
        known = values[~np.isnan(values)]
        bones.append(
            {
                "bone": f"{layout.joints[parent]} - {layout.joints[child]}",
                "median": round(float(np.median(known)), 4) if len(known) else None,
                "largest": round(float(known.max()), 4) if len(known) else None,
                "drifting_sequences": int(number),
            }
        )
    return bones
