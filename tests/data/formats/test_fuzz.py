"""Damaged files of every format: our own clear errors come out, nothing else, soon, and without much memory."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prosl_lightning.data.formats import open_source
from prosl_lightning.errors import ProSLError

FORMATS = ["ragged-npz", "agcn", "stgcn", "frame50", "ctrgcn-npz", "sgn-pkl", "sgn-pkl-denoised", "pyskl", "pyskl-2d",
           "nw-ucla-json", "npy", "files"]  # fmt: skip
MUTATIONS = st.tuples(
    st.integers(0, 2**30),  # which file
    st.sampled_from(["flip", "flip", "flip", "cut", "drop", "double", "noise", "number"]),
    st.floats(0, 1),  # where
    st.integers(0, 2**32 - 1),
)


def mutate(content: bytes, kind: str, where: float, draw: int) -> bytes:
    """One kind of damage; most of it early in the file, where headers and programs are."""
    random = np.random.default_rng(draw)
    at = int(where**3 * max(len(content) - 1, 0))
    size = 1 + draw % 8
    if kind == "cut":
        return content[: int(where * len(content))]
    if kind == "drop":
        return content[:at] + content[at + size :]
    if kind == "double":
        return content[: at + size] + content[at:]
    if kind == "noise":
        return content[:at] + random.bytes(size) + content[at + size :]
    if kind == "number":
        values = (b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"-1", b"1e999", b"NaN")
        value = values[draw % len(values)]
        return content[:at] + value + content[at + len(value) :]
    changed = bytearray(content)
    for place in (at + random.integers(0, 64, size)) % max(len(content), 1) if content else ():
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


@pytest.mark.parametrize("format", FORMATS)
def test_damage_gives_our_own_errors_only(make, tmp_path, format):
    made = make(format, tmp_path)
    files = [made.path] if made.path.is_file() else sorted(path for path in made.path.rglob("*") if path.is_file())
    files += [path for path in tmp_path.glob("*.txt") if path not in files]
    whole = {path: path.read_bytes() for path in files}
    outcomes: dict[str, int] = {}

    @settings(max_examples=200, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(MUTATIONS)
    def run(mutation: tuple[int, str, float, int]) -> None:
        number, kind, where, draw = mutation
        path: Path = files[number % len(files)]
        path.write_bytes(mutate(whole[path], kind, where, draw))
        try:
            for sequence in open_source(made.path, layout=made.layout):
                assert (sequence.bodies is None) == bool(sequence.error)
                if sequence.bodies is not None:
                    assert sequence.bodies.ndim == 4
                    assert sequence.bodies.shape[3] == 3
            outcomes["read"] = outcomes.get("read", 0) + 1
        except ProSLError:
            outcomes["refused"] = outcomes.get("refused", 0) + 1
        finally:
            path.write_bytes(whole[path])

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    assert outcomes.get("refused", 0) > 0 or format in ("nw-ucla-json", "files")
    assert outcomes.get("read", 0) > 0
