"""Pickles: plain data and arrays of all protocols come back; whatever could execute is refused, unexecuted."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.pickles import read_pickle
from prosl_lightning.errors import DataError

ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.arange(6, dtype=">i4"),
    np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    np.ones((2, 3), np.float16),
    np.zeros((0, 3), np.float32),
    np.array(["walk", "sit"]),
    np.array([True, False]),
    np.array([[1, 2], None, "x"], dtype=object),
]
PLAIN = {
    "names": ["a", "é"],
    "pair": (1, 2.5),
    "none": None,
    "true": True,
    "bytes": b"\xff1",
    "empty": b"",
    "big": 2**70,
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_data_come_back(tmp_path, protocol):
    content = {"arrays": ARRAYS, "plain": PLAIN, "set": {1, 2}, "ordered": OrderedDict(a=1), "buffer": bytearray(b"x")}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    read = read_pickle(tmp_path / "x.pkl")
    assert read["plain"] == PLAIN
    assert read["set"] == {1, 2}
    assert read["ordered"] == {"a": 1}
    assert read["buffer"] == b"x"
    for found, expected in zip(read["arrays"], ARRAYS, strict=True):
        native = expected.dtype.newbyteorder("=")
        assert (found.shape, found.dtype.newbyteorder("=")) == (expected.shape, native)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_numpy_scalars_become_python_numbers(tmp_path, protocol):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([np.float32(0.5), np.int64(-4), np.bool_(True)], protocol))
    read = read_pickle(tmp_path / "x.pkl")
    assert read == [0.5, -4, True]
    assert [type(value) for value in read] == [float, int, bool]


def test_names_of_numpy_1_and_of_python_2(tmp_path):
    array = np.arange(4, dtype=np.float32)
    new = pickle.dumps(array, 2)
    assert b"numpy._core.multiarray" in new
    (tmp_path / "old.pkl").write_bytes(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(read_pickle(tmp_path / "old.pkl"), array)
    values = "".join(f"\\x{byte:02x}" for byte in array.tobytes())
    python_2 = (
        "(lp0\ncnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
        "(I1\n(I4\ntp7\ncnumpy\ndtype\np8\n(S'f4'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'<'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\n"
        f"S'{values}'\np14\ntp15\nbaS'name\\xe9'\np16\na."
    )
    (tmp_path / "python2.pkl").write_bytes(python_2.encode())
    read = read_pickle(tmp_path / "python2.pkl")
    np.testing.assert_array_equal(read[0], array)
    assert read[1] == "nameé"


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Plain:
    """A class of one's own."""


def _call(module: str, name: str, *arguments: Any) -> bytes:
    """A pickle of ``module.name(*arguments)``, which need not exist here."""
    return b"c" + f"{module}\n{name}\n".encode() + pickle.dumps(arguments, 0)[:-1] + b"R."


MARK_FILE = "touched-by-a-pickle"
HOSTILE = {
    "os.system": _call("os", "system", f"touch {MARK_FILE}"),
    "posix.system": _call("posix", "system", f"touch {MARK_FILE}"),
    "subprocess.Popen": _call("subprocess", "Popen", ["touch", MARK_FILE]),
    "builtins.eval": _call("builtins", "eval", f"open('{MARK_FILE}', 'w')"),
    "builtins.exec": _call("builtins", "exec", f"open('{MARK_FILE}', 'w')"),
    "__builtin__.eval": _call("__builtin__", "eval", f"open('{MARK_FILE}', 'w')"),
    "builtins.open": _call("builtins", "open", MARK_FILE, "w"),
    "builtins.getattr": _call("builtins", "getattr", "x", "upper"),
    "builtins.__import__": _call("builtins", "__import__", "os"),
    "builtins.range": _call("builtins", "range", 10**12),
    "numpy.load": _call("numpy", "load", "x.npy", None, True),
    "numpy.fromfile": _call("numpy", "fromfile", "x.npy"),
    "numpy.memmap": _call("numpy", "memmap", MARK_FILE, "u1", "w+", 0, (10,)),
    "numpy.save": _call("numpy", "save", MARK_FILE, [1]),
    "numpy.ctypeslib.load_library": _call("numpy.ctypeslib", "load_library", "libc", "."),
    "numpy.testing._private.utils.runstring": _call("numpy.testing._private.utils", "runstring", "1", {}),
    "numpy.f2py.compile": _call("numpy.f2py", "compile", "x"),
    "numpy.core.multiarray.fromfile": _call("numpy.core.multiarray", "fromfile", "x"),
    "numpy.dtypes.Float32DType": _call("numpy.dtypes", "Float32DType"),
    "_codecs.decode": _call("_codecs", "decode", b"x", "latin1"),
    "collections.defaultdict": _call("collections", "defaultdict"),
    "functools.partial": _call("functools", "partial", 1),
    "operator.attrgetter": _call("operator", "attrgetter", "x"),
    "types.CodeType": _call("types", "CodeType"),
    "pickle.loads": _call("pickle", "loads", b"."),
    "numpy.dtype.__class__": b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_imported_or_called(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("x.pkl").write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=rf"x.pkl: asks for {name}, which is not admitted; nothing was executed"):
        read_pickle(Path("x.pkl"))
    assert not Path(MARK_FILE).exists()


def test_hostile_pickles_do_execute_elsewhere(tmp_path, monkeypatch):
    """The files above are real: Python's own unpickler obeys them."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["builtins.exec"])
    assert Path(MARK_FILE).exists()


def test_calls_by_reduce_and_objects_of_classes_are_refused(tmp_path):
    for protocol in range(6):
        for hostile in (Call(os.mkdir, str(tmp_path / "made")), Plain(), np.ma.array([1]), np.random.default_rng(0)):
            (tmp_path / "x.pkl").write_bytes(pickle.dumps([np.ones(2), hostile], protocol))
            with pytest.raises(DataError, match="not admitted; nothing was executed"):
                read_pickle(tmp_path / "x.pkl")
    assert not (tmp_path / "made").exists()


NDARRAY, DTYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n(S'f4'\ntR"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(" + NDARRAY + b"(I0\ntS'b'\ntR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (EMPTY + b"(I1\n(I9\nt" + DTYPE + b"I00\nS'abcd'\ntb.", r"array \(9,\) float32 with 4 bytes"),
        (EMPTY + b"(I1\n(I-9\nt" + DTYPE + b"I00\nS'abcd'\ntb.", "array of an impossible shape"),
        (EMPTY + b"(I1\n(I1\ntI5\nI00\nS'abcd'\ntb.", "array without a number format"),
        (EMPTY + b"(I1\n(I1\nt" + DTYPE + b"I00\nNtb.", "NoneType|without values"),
        (EMPTY + b"}S'__class__'\nI1\nsb.", "not a whole pickle"),
        (b"cnumpy\ndtype\n(S'V8'\ntR.", "numbers of type 'V8'"),
        (b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.", "numbers of type type"),
        (b"cnumpy\ndtype\n(S'f4'\ntR(I3\nS'<'\n(S'f4'\n(I2\ntt" + b"NNI-1\nI-1\nI0\ntb.", "fields"),
        (b"cnumpy\ndtype\n(S'f4'\ntR(I3\nS'x'\nNNNI-1\nI-1\nI0\ntb.", "byte order 'x'"),
        (NDARRAY + b"(I99999999999\ntR.", "not a whole pickle"),  # numpy.ndarray(99999999999)
        (NDARRAY + b"}b.", "instance of a class"),
        (NDARRAY + b")\x81.", "instance of a class"),
        (b"\x80\x02\x82\x01.", "instance of a class"),  # the extension registry
        (b"Pid\n.", "instance of a class"),
        (b"(i__main__\nPlain\n.", "instance of a class"),
        (b"cbuiltins\nbytearray\n(I9999999999\ntR.", "makes bytes of something that is no bytes"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.", "something else than an array"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "bytes spelt in 'rot13'"),
        (b"", "empty file"),
        (b"not a pickle", "not a whole pickle"),
        (b"\x80\x04]", "not a whole pickle"),
        (b"0.", "not a whole pickle"),
    ],
)
def test_damaged_and_forged_pickles(tmp_path, content, message):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(DataError, match=f"x.pkl: .*({message})"):
        read_pickle(tmp_path / "x.pkl")


def test_what_a_pickle_can_make_is_bounded_by_its_size(tmp_path):
    """Memory bombs: a place in the memo, byte strings that claim gigabytes, one text copied again and again."""
    huge = struct.pack("<Q", 1 << 36)
    text = pickle.dumps("x" * 100_000, 4)[:-1] + b"\x94"
    copies = text + b"0" + b"cbuiltins\nbytearray\nq\x01h\x00\x85R0h\x01h\x00\x85R0" * 2000 + b"N."
    bombs = {
        "memo": b"\x80\x02Nr\xff\xff\xff\xff.",
        "bytes": b"\x80\x04\x8e" + huge + b"abc.",
        "bytearray": b"\x80\x05\x96" + huge + b"abc.",
        "text": b"\x80\x04\x8d" + huge + b"abc.",
        "frame": b"\x80\x04\x95" + huge + b"abc.",
        "copies": copies,
    }
    for name, content in bombs.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
        if name == "memo":  # harmless with a memo that is a dict
            assert read_pickle(tmp_path / "memo.pkl") is None
            continue
        with pytest.raises(DataError, match="not a whole pickle|cut off|many times the memory"):
            read_pickle(tmp_path / f"{name}.pkl")


def test_one_load_leaves_nothing_behind_for_the_next(tmp_path):
    buffer = io.BytesIO()
    pickle.dump(np.arange(3), buffer)
    (tmp_path / "whole.pkl").write_bytes(buffer.getvalue())
    (tmp_path / "forged.pkl").write_bytes(b"cnumpy\ndtype\n(N}S'numpy'\nI1\nstb.")
    with pytest.raises(DataError):
        read_pickle(tmp_path / "forged.pkl")
    assert read_pickle(tmp_path / "whole.pkl").tolist() == [0, 1, 2]


def test_real_pickles_of_others(shared_folder):
    folder = shared_folder / "data" / "raw-samples" / "ntu-arrays"
    names, labels = read_pickle(folder / "crossclr-xsub-val_label.pkl")
    assert (len(names), len(labels), names[0], labels[0]) == (274, 274, "S001C001P003R001A023.skeleton", 22)
    shapes = [array.shape for array in read_pickle(folder / "sgn-raw_denoised_joints.pkl")]
    assert shapes == [(103, 75), (158, 75)]


def test_things_that_double_at_every_level_are_not_looked_into(tmp_path):
    """Sixty levels of a pair of the level below: to hash, print or convert such a thing would take for ever."""
    for start, pair in (("(I0\n", "t"), ("(", "l")):
        nested = f"{start}{pair}p0\n0" + f"(g0\ng0\n{pair}p0\n0" * 60 + "g0\n"
        uses = {
            "key": "}" + nested + "I1\ns.",
            "member": "cbuiltins\nset\n((" + nested + "ltR.",
            "shape": "cnumpy.core.numeric\n_frombuffer\n(S'abcd'\ncnumpy\ndtype\n(S'f4'\ntR" + nested + "S'C'\ntR.",
            "dtype": "cnumpy\ndtype\n(" + nested + "tR.",
        }
        for name, text in uses.items():
            (tmp_path / f"{name}.pkl").write_text(text)
            with pytest.raises(DataError):
                read_pickle(tmp_path / f"{name}.pkl")
        whole = {"labels": f"((S'a'\nl({nested}lt.", "names": f"(({nested}l(I0\nlt."}
        np.save(tmp_path / "train_position.npy", np.ones((1, 3, 1, 25, 1)))
        for text in whole.values():
            (tmp_path / "train_label.pkl").write_text(text)
            with pytest.raises(
                DataError, match="train_label.pkl: (labels are not a list of numbers|names are not a list)"
            ):
                open_source(tmp_path)
        (tmp_path / "x.pkl").write_text(
            "((dS'name'\n" + nested + "sS'num_frames'\n" + nested + "sS'data'\n" + nested + "sl."
        )
        (sequence,) = open_source(tmp_path / "x.pkl")
        assert (sequence.name, bool(sequence.error)) == ("000000", True)
