"""Damage for `fuzz.py`: ways to spoil bytes, text, zip files, NumPy headers and pickles, drawn from a generator."""

from __future__ import annotations

import codecs
import io
import pickle
import re
import zipfile
from collections.abc import Callable

import numpy as np

_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NUMBERS = (
    b"0", b"-1", b"1", b"25", b"2147483648", b"-9223372036854775809", b"99999999999999999999", b"1e308", b"-1e308",
    b"1e999", b"NaN", b"-inf", b"1.5", b".", b"-", b"", b"1_0", b"0x10", b"1,5", b"1e", b"9" * 5000,
    "\u0663".encode(), b"null", b"true", b'"a"', b"[]", b"{}", b"[" * 3000,
)  # fmt: skip
_BYTES = b"\r\n\t ,;.-+eE0159_[]{}()\"'\x00\xff"
_DTYPES = (b"'<f8'", b"'|O'", b"'<f2'", b"'<i8'", b"'>f4'", b"'<U9'", b"'<c8'", b"'|b1'", b"'<M8[s]'", b"'<f16'")
_SHAPES = (b"()", b"(0,)", b"(-1,)", b"(9223372036854775807, 4)", b"(100000, 3, 300, 25, 2)", b"(1, 3, 4, 25, 2)",
           b"(2, 2)", b"(True,)", b"(1e5,)", b"(" + b"1, " * 60 + b")")  # fmt: skip


class _Call:
    """Pickles as a call of something that must never be called."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def _hostile() -> list[bytes]:
    import os
    import subprocess

    calls = [
        _Call(os.system, "touch executed"), _Call(subprocess.call, ["touch", "executed"]), _Call(eval, "1+1"),
        _Call(exec, "x = 1"), _Call(open, "executed", "w"), _Call(getattr, "", "upper"), _Call(bytearray, 1 << 33),
        _Call(np.ones, (1 << 28,)), _Call(np.load, "x.npy", None, True), _Call(__import__, "os"),
        _Call(codecs.encode, "a", "punycode"), _Call(codecs.decode, b"a", "zip"),
    ]  # fmt: skip
    nested: object = ()
    for _ in range(3000):
        nested = (nested,)
    shared: object = []
    for _ in range(60):
        shared = [shared, shared]
    done = [pickle.dumps(call, protocol) for call in calls for protocol in (0, 2, 4)]
    done += [pickle.dumps([{"keypoint": call, "label": 0}], 4) for call in calls]
    done.append(pickle.dumps(shared, 4))
    done.append(b"\x80\x04" + b"(" * 100_000 + b".")
    done.append(b"\x80\x04" + b"]" * 5 + b"a" * 4 + b".")
    done.append(b"\x80\x04\x8b\xff\xff\xff\x7f1.")  # LONG4 of two gigabytes
    done.append(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.")  # BINBYTES8
    done.append(b"\x80\x04]r\xff\xff\xff\x7f.")  # LONG_BINPUT far away
    return done


HOSTILE = _hostile()


def mutate(content: bytes, name: str, random: np.random.Generator) -> bytes:
    """Spoil the content of a file in one to four ways; what is tried depends on its name.

    Args:
        content: A valid file.
        name: Its name; the ending says what it is.
        random: Where the ways and places come from.
    """
    suffix = name.rsplit(".", 1)[-1]
    if suffix in ("npz", "zip") and random.random() < 0.7:
        return _mutate_members(content, random)
    if suffix == "pkl" and random.random() < 0.1:
        return HOSTILE[random.integers(len(HOSTILE))]
    ways = list(_ANY)
    if suffix in ("skeleton", "txt", "csv", "json", "yaml"):
        ways += _TEXT
    if suffix == "npy":
        ways += _NPY
    for _ in range(random.integers(1, 5)):
        content = ways[random.integers(len(ways))](content, random)
    return content


def _place(content: bytes, random: np.random.Generator) -> int:
    """A place anywhere, more often near the beginning, where counts and headers are."""
    return int(random.random() ** random.integers(1, 5) * len(content))


def _flip(content: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(random.integers(1, 9)):
        if changed:
            changed[min(_place(content, random), len(changed) - 1)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _replace(content: bytes, random: np.random.Generator) -> bytes:
    at = _place(content, random)
    return content[:at] + bytes([_BYTES[random.integers(len(_BYTES))]]) + content[at + 1 :]


def _truncate(content: bytes, random: np.random.Generator) -> bytes:
    return content[: int(random.random() * len(content))]


def _insert(content: bytes, random: np.random.Generator) -> bytes:
    at = _place(content, random)
    return content[:at] + random.bytes(int(random.integers(1, 60))) + content[at:]


def _delete(content: bytes, random: np.random.Generator) -> bytes:
    at = _place(content, random)
    return content[:at] + content[at + int(random.integers(1, 200)) :]


def _double(content: bytes, random: np.random.Generator) -> bytes:
    at = _place(content, random)
    piece = content[at : at + int(random.integers(1, 3000))]
    return content[:at] + piece * int(random.integers(2, 4)) + content[at + len(piece) :]


def _swap(content: bytes, random: np.random.Generator) -> bytes:
    first, second = sorted(_place(content, random) for _ in range(2))
    size = min(int(random.integers(1, 100)), second - first)
    a, b = content[first : first + size], content[second : second + size]
    return content[:first] + b + content[first + size : second] + a + content[second + size :]


def _number(content: bytes, random: np.random.Generator) -> bytes:
    found = list(_NUMBER.finditer(content[: 1 << 16]))
    if not found:
        return content
    hit = found[min(_place(b"x" * len(found), random), len(found) - 1)]
    return content[: hit.start()] + _NUMBERS[random.integers(len(_NUMBERS))] + content[hit.end() :]


def _line_ends(content: bytes, random: np.random.Generator) -> bytes:
    ends = (b"\r\n", b"\r", b"\n\n", b"\n \n", b"\n\r", b" \n", b"\x0b", b"\x85", b"")
    limit = -1 if random.random() < 0.5 else 1
    at = _place(content, random)
    return content[:at] + content[at:].replace(b"\n", ends[random.integers(len(ends))], limit)


def _line(content: bytes, random: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    at = min(_place(b"x" * len(lines), random), len(lines) - 1)
    other = lines[random.integers(len(lines))]
    lines[at : at + 1] = [[], [lines[at]] * 2, [other], [b""], [other[: len(other) // 2]]][random.integers(5)]
    return b"\n".join(lines)


def _header(content: bytes, random: np.random.Generator) -> bytes:
    """Another dtype or shape in a NumPy header, its length kept where that is possible."""
    pattern, values = ((rb"'[<>|=]\w\d*'", _DTYPES), (rb"\([^)]*\)", _SHAPES))[random.integers(2)]
    hit = re.search(pattern, content[:256])
    if hit is None:
        return content
    value = values[random.integers(len(values))]
    rest = content[hit.end() :]
    spare = len(value) - (hit.end() - hit.start())
    if spare > 0 and rest[:128].count(b" ") >= spare + 2:
        rest = rest.replace(b" " * spare, b"", 1)
    elif spare < 0:
        rest = rest.replace(b"}", b"}" + b" " * -spare, 1)
    return content[: hit.start()] + value + rest


def _fortran(content: bytes, random: np.random.Generator) -> bytes:
    return content.replace(b"False", b"True ", 1)


_ANY = (_flip, _replace, _truncate, _insert, _delete, _double, _swap)
_TEXT = (_number, _number, _number, _number, _line_ends, _line, _line)
_NPY = (_header, _header, _header, _fortran)


def _mutate_members(content: bytes, random: np.random.Generator) -> bytes:
    """Spoil a member of a zip file, or its name, or the list of members, with checksums that are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    at = int(random.integers(len(members)))
    name, inner = members[at]
    choice = random.random()
    if choice < 0.8:
        members[at] = name, mutate(inner, name, random)
    elif choice < 0.9:
        members[at : at + 1] = [[], [(name, inner)] * 2][random.integers(2)]
    else:
        members[at] = (("../" + name, "", name.upper(), "x/" * 50 + name)[random.integers(4)], inner)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[random.integers(2)]) as file:
        for name, inner in members:
            file.writestr(name or "empty", inner)
    return made.getvalue()
