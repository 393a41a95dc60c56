"""Reads pickles of numbers, strings, lists, dicts and NumPy arrays, and nothing else: no name in a pickle is imported.

A pickle is a program, and its opcodes call what it names. Here every name is looked up in a small table of stand-ins
written below; they build checked NumPy arrays from bytes. A name that is not in the table ends the reading. So does
an opcode that plain data never need. What a pickle can make is bounded by a multiple of its file's size.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.errors import DataError

_CODES = re.compile(r"[fiu][1248]|b1|[SU]\d{1,6}")
_NEEDLESS = (
    pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ,
    pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip
_Unpickler: Any = pickle._Unpickler
_LATIN_1 = ("latin1", "latin-1", "iso8859-1")
_BUDGET = 4  # bytes that calls may copy for each byte of the file


def read_pickle(path: Path) -> Any:
    """Read a pickle file of plain data and NumPy arrays, of Python 2 or 3 and NumPy 1 or 2.

    Args:
        path: The file.

    Returns:
        Numbers, strings, containers and arrays; scalars of NumPy come back as Python numbers.

    Raises:
        DataError: The file cannot be read, is damaged, or names something that is not admitted; nothing was executed.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise DataError(f"{path}: empty file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(content).load()
    except _RefusedError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DataError:
        raise
    except Exception as error:  # damage: a stack that is empty, an unknown opcode, text that is no number, ...
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a whole pickle ({reason})") from error


class _RefusedError(pickle.UnpicklingError):
    """Something that plain data do not need."""


class _DType:
    """Stands for ``numpy.dtype``: plain numbers, flags, strings, or objects (lists of what was read here)."""

    def __init__(self, code: Any, *flags: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not (code in ("O", "O8") or _CODES.fullmatch(code)):
            raise _RefusedError(f"holds numbers of type {_short(code)}, which is not admitted")
        self.is_object = code.startswith("O")
        self.numpy = np.dtype("O") if self.is_object else np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Take the byte order; refuse fields and sub-arrays."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _RefusedError("holds an array with fields, which is not admitted")
        order: Any = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise _RefusedError(f"holds numbers of byte order {_short(order)}")
        if order in "<>":
            self.numpy = self.numpy.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """An array that a pickle makes empty first and fills afterwards."""

    def set_state(self, state: Any) -> None:
        """Take shape, dtype and values once they fit together."""
        shape, dtype, fortran, content = state[-4:]
        if not isinstance(dtype, _DType):
            raise _RefusedError("holds an array without a number format")
        _check_shape(shape)
        if dtype.is_object:
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise _RefusedError("holds an array of objects whose number does not fit its shape")
        else:
            content = _bytes(content)
            if len(content) != math.prod(shape) * dtype.numpy.itemsize:
                raise _RefusedError(f"holds an array {shape} {dtype.numpy} with {len(content)} bytes of values")
        self.__setstate__((1, shape, dtype.numpy, bool(fortran), content))  # type: ignore[arg-type]


class _NdArray:
    """Stands for ``numpy.ndarray``, which pickles name without using it."""


def _checked(load: str, places: slice) -> Callable[[Any], None]:
    """An action of the unpickler that first checks what it will hash."""

    def action(self: Any) -> None:
        _check_keys(self.stack[places])
        getattr(self, load)()

    return action


class _Reader(_Unpickler):
    """The unpickler written in Python: its memo is a dict, so no opcode can make it take gigabytes."""

    dispatch: ClassVar[dict[int, Callable[..., Any]]] = {
        code: action for code, action in _Unpickler.dispatch.items() if bytes([code]) not in _NEEDLESS
    }

    def __init__(self, content: mmap.mmap) -> None:
        super().__init__(content, encoding="latin1")
        self._left = _BUDGET * len(content) + (1 << 20)
        array: dict[str, Callable[..., Any]] = {
            "_reconstruct": _reconstruct,
            "scalar": self._scalar,
            "_frombuffer": self._from_buffer,
        }
        self._names: dict[tuple[str, str], Any] = {
            (f"numpy.{core}.{module}", name): function
            for core in ("core", "_core")
            for module in ("multiarray", "numeric")
            for name, function in array.items()
        }
        self._names |= {("numpy", "ndarray"): _NdArray, ("numpy", "dtype"): _DType}
        self._names |= {("_codecs", "encode"): self._encode, ("collections", "OrderedDict"): self._dict}
        for module in ("builtins", "__builtin__"):
            self._names |= {(module, "set"): self._set, (module, "frozenset"): self._set}
            self._names |= {(module, "bytearray"): self._copy, (module, "bytes"): self._copy}

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the table of stand-ins."""
        found = self._names.get((module, name))
        if found is None:
            raise _RefusedError(f"asks for {module}.{name}"[:200] + ", which is not admitted; nothing was executed")
        return found

    def _refuse(self) -> None:
        raise _RefusedError("holds an instance of a class, which is not admitted; nothing was executed")

    for _code in _NEEDLESS:
        dispatch[_code[0]] = _refuse

    def _load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, _DType | _Array):
            self._refuse()
        if isinstance(made, _Array):
            self._spend(len(state[-1]))
        made.set_state(state)

    dispatch[pickle.BUILD[0]] = _load_build

    def _load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > self._left:  # Python would clear that much memory before it looks for the bytes
            raise _RefusedError("is cut off or damaged")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray8

    # opcodes that hash, by the places of what they hash on the stack
    for _code, _load, _places in (
        (pickle.SETITEM, "load_setitem", slice(-2, -1)),
        (pickle.SETITEMS, "load_setitems", slice(0, None, 2)),
        (pickle.DICT, "load_dict", slice(0, None, 2)),
        (pickle.ADDITEMS, "load_additems", slice(None)),
        (pickle.FROZENSET, "load_frozenset", slice(None)),
    ):
        dispatch[_code[0]] = _checked(_load, _places)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _RefusedError("would take many times the memory of its file")

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """Stands for ``_codecs.encode``, by which old protocols spell bytes."""
        self._spend(len(text))
        if encoding not in _LATIN_1:  # looking it up would import a module of that name
            raise _RefusedError(f"holds bytes spelt in {_short(encoding)}")
        return text.encode("latin1")

    def _copy(self, content: Any = b"", encoding: str = "latin1") -> bytes:
        """Stands for ``bytes`` and ``bytearray`` of something, never of a count."""
        if isinstance(content, str):
            return self._encode(content, encoding)
        if not isinstance(content, bytes | bytearray):
            raise _RefusedError("makes bytes of something that is no bytes")
        self._spend(len(content))
        return bytes(content)

    def _set(self, members: list[Any] | tuple[Any, ...] = ()) -> frozenset[Any]:
        self._spend(64 * len(members))
        _check_keys(members)
        return frozenset(members)

    def _dict(self, members: list[Any] | tuple[Any, ...] = ()) -> dict[Any, Any]:
        """Stands for ``collections.OrderedDict``."""
        self._spend(64 * len(members))
        made = [(key, value) for key, value in members]
        _check_keys([key for key, _ in made])
        return dict(made)

    def _scalar(self, dtype: _DType, content: Any = None) -> Any:
        """Stands for NumPy's maker of a single number."""
        self._spend(len(content))
        content = _bytes(content)
        if not isinstance(dtype, _DType) or dtype.is_object or len(content) != dtype.numpy.itemsize:
            raise _RefusedError("holds a number whose bytes do not fit its type")
        return np.frombuffer(content, dtype.numpy)[0].item()

    def _from_buffer(self, content: Any, dtype: _DType, shape: Any, order: Any) -> NDArray[Any]:
        """Stands for NumPy's maker of an array over bytes."""
        self._spend(len(content))
        if not isinstance(dtype, _DType) or dtype.is_object or order not in ("C", "F", "K"):
            raise _RefusedError("holds an array of an unknown form")
        _check_shape(shape)
        return np.frombuffer(_bytes(content), dtype.numpy).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, *_: Any) -> _Array:
    """Stands for NumPy's maker of an array that is filled afterwards."""
    if kind is not _NdArray:
        raise _RefusedError("makes something else than an array")
    return _Array((0,), np.int8)


def _check_keys(keys: Sequence[Any]) -> None:
    """Admit plain keys only: hashing tuples of tuples of tuples may take for ever."""
    if not all(key is None or isinstance(key, str | bytes | int | float) for key in keys):
        raise _RefusedError("has a key that is neither text nor a number")


def _short(value: Any) -> str:
    """A value for a message; only text is shown, since other things may be endless."""
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__


def _check_shape(shape: Any) -> None:
    if (
        not isinstance(shape, tuple)
        or len(shape) > 8
        or not all(isinstance(n, int) and 0 <= n < 1 << 40 for n in shape)
    ):
        raise _RefusedError("holds an array of an impossible shape")


def _bytes(content: Any) -> bytes | bytearray:
    """The values of an array; Python 2 kept them as text of one byte a letter."""
    if isinstance(content, str):
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise _RefusedError("holds an array without values")
    return content
