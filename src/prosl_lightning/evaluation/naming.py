"""Names of what was judged and how: methods, data sets, settings; and which results are runs of one thing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prosl_lightning.evaluation.settings import unusual
from prosl_lightning.skeleton import STREAMS

_NAMES = {
    "hico-lstm": "HiCo-LSTM", "hico-gru": "HiCo-GRU", "hico-transformer": "HiCo-Transformer",
    "skeletonclr": "SkeletonCLR", "isc": "ISC", "hiclr": "HiCLR",
}  # fmt: skip
_SETS = {
    "ntu60": "ntu60", "nturgbd60": "ntu60", "ntu120": "ntu120", "nturgbd120": "ntu120", "pku1": "pku1",
    "pkummd1": "pku1", "pkummdi": "pku1", "pku2": "pku2", "pkummd2": "pku2", "pkummdii": "pku2",
}  # fmt: skip
_USUAL_NORMALISATION = "agcn"

Row = dict[str, Any]


def method_name(row: Row) -> str:
    """A result's method: base and its arguments, whether the semantic stage took part, streams, epochs trained.

    Example:
        >>> checkpoint = {"base": "hico-lstm", "semantic": "on", "stream": "joint", "epochs": 450}
        >>> method_name({"checkpoints": [checkpoint]})
        'ProSL (HiCo-LSTM), 450 epochs'
    """
    checkpoints = row["checkpoints"]

    def each(key: str) -> list[Any]:
        return list(dict.fromkeys(checkpoint.get(key) for checkpoint in checkpoints))

    base = "+".join(dict.fromkeys(_model(checkpoint) for checkpoint in checkpoints))
    stages = {"on": f"ProSL ({base})", "warm-up": f"ProSL warm-up ({base})", "off": base}
    name = "+".join(stages.get(value, f"{value} ({base})") for value in each("semantic"))
    streams = each("stream")
    if len(checkpoints) > 1:
        name += f"-{len(checkpoints)}s" if set(streams) == set(STREAMS) else f" {'+'.join(streams)}"
    elif streams != ["joint"]:
        name += f" {streams[0]}"
    epochs = "+".join(map(str, each("epochs")))
    return f"{name}, {epochs} epoch{'' if epochs == '1' else 's'}"


def _model(checkpoint: Mapping[str, Any]) -> str:
    base, arguments = checkpoint.get("base"), (checkpoint.get("options") or {}).get("base_args") or {}
    return ", ".join([_NAMES.get(str(base), str(base)), *(f"{name} {value}" for name, value in arguments.items())])


def data_set(described: Mapping[str, Any]) -> str:
    """Canonical name of a data set from its description: who imported it, the archive's name, the file it came from.

    Example:
        >>> data_set({"recipe": {"importer": "ntu60"}, "name": "mine"}), data_set({"name": "NW-UCLA"})
        ('ntu60', 'NW-UCLA')
    """
    recipe = described.get("recipe")
    importer = recipe.get("importer") if isinstance(recipe, Mapping) else None
    candidates = [importer, described.get("name"), described.get("source"), described.get("data")]
    for candidate in filter(None, candidates):
        stem = re.sub(r"[^a-z0-9]", "", str(candidate).lower().split(".")[0])
        if stem in _SETS:
            return _SETS[stem]
    return str(described.get("name") or described.get("data") or "unknown")


def told(row: Row) -> dict[str, Any]:
    """What a row tells of its place: settings of the evaluation, data, and the data its encoders were trained on."""
    trained, data = [each["trained_on"] for each in row["checkpoints"]], data_set(row["data"])
    return row["protocol"] | {
        "evaluation": row["evaluation"],
        "data": data,
        "source": "+".join(dict.fromkeys(data if each.get("same_data") else data_set(each) for each in trained)),
        "source_split": "+".join(dict.fromkeys(str(each.get("protocol")) for each in trained)),
    }


def options_of(row: Row) -> dict[str, Any]:
    """Everything that the encoders were built and trained with but their seeds, by name."""
    each = [checkpoint.get("options") or {} for checkpoint in row["checkpoints"]]
    return {name: [options.get(name) for options in each] for name in sorted({name for o in each for name in o})}


def line_key(row: Row) -> str:
    """What rows share that are runs of one thing."""
    return json.dumps([method_name(row), settings_of(row), options_of(row)], sort_keys=True)


def line_names(rows: Sequence[Row]) -> dict[str, str]:
    """Name of each line: its method, and the options in which it differs from another line of that method."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(method_name(row), []).append(row)
    names: dict[str, str] = {}
    for method, group in alike.items():
        told = [{name: json.dumps(values) for name, values in options_of(row).items()} for row in group]
        known = sorted({name for options in told for name in options} - {"base_args"})  # those are in the method's name
        differing = [name for name in known if len({options.get(name) for options in told}) > 1]
        for row in group:
            options = options_of(row)
            values = [f"{name} {_joined(options.get(name, ['?']))}" for name in differing]
            names[line_key(row)] = ", ".join([method, *values])
    return names


def _joined(values: Sequence[Any]) -> str:
    return "+".join(dict.fromkeys(map(str, values)))


def settings_of(row: Row) -> str:
    """The settings in which an evaluation differs from the usual protocol, as `name value`."""
    found = unusual(row["evaluation"], row["protocol"])
    normalisation = row["data"]["recipe"].get("normalize", _USUAL_NORMALISATION)
    if normalisation != _USUAL_NORMALISATION:
        found["normalisation"] = normalisation
    return ", ".join(f"{name} {value}" for name, value in found.items())
