"""Decimal numbers in a text, many at once: from the places of the tokens to correctly rounded float64 values.

Coordinates in metres are nearly all written with one digit before the dot and at most eight after it. Those eight are
one 64-bit word, and one operation works on all of its characters (known as SWAR; the sum of eight digits follows
Lemire, "Quickly parsing eight digits", 2018). The digits make an integer that is exact, and its one division by a power
of ten rounds correctly. Numbers of any other form are left to ``float``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

_MINUS, _DOT, _ZERO = np.frombuffer(b"-.0", np.uint8)
_WORD = np.dtype("<u8")
_MOST = 8  # digits after the dot
_POWERS = 10.0 ** np.arange(_MOST + 1)
# the last n bytes of a word, the first characters being its lowest bytes
_LAST = np.array([2**64 - 2 ** (64 - 8 * n) for n in range(_MOST + 1)], np.uint64).astype(_WORD)


def _word(value: int) -> np.uint64:
    return np.uint64(value)


_ZEROS, _HIGHEST_BITS, _FROM_TEN = (_word(byte * 0x0101010101010101) for byte in (ord("0"), 0x80, 0x80 - 10))
_BYTE, _TWO_BYTES, _FOUR_BYTES, _TEN = map(_word, (8, 16, 32, 10))
_PAIRS, _UPPER_PAIRS, _LOWER_PAIRS = map(_word, (0xFF000000FF, 100 + (10**6 << 32), 1 + (10**4 << 32)))


def read_decimals(content: bytes, starts: IndexArray, ends: IndexArray) -> FloatArray | None:
    """Values of the tokens ``content[start:end]``.

    Args:
        content: ASCII text.
        starts: Where the tokens begin, ``(N,)``.
        ends: Where they end, ``(N,)``.

    Returns:
        ``(N,)``, each exactly what ``float`` gives; None where a token is not a finite number.
    """
    if len(ends) == 0:
        return np.zeros(0)
    if ends.min() < _MOST:
        content, starts, ends = b" " * _MOST + content, starts + _MOST, ends + _MOST
    text = np.frombuffer(content, np.uint8)
    negative = text.take(starts, mode="clip") == _MINUS
    digit = starts + negative
    whole = text.take(digit, mode="clip") - _ZERO
    decimals = ends - digit - 2
    words = np.ndarray((len(content) - _MOST + 1,), _WORD, content, strides=(1,))[ends - _MOST]
    words ^= _ZEROS
    words &= _LAST.take(decimals, mode="clip")
    unusual = ((words + _FROM_TEN) & _HIGHEST_BITS) != 0
    unusual |= (whole > 9) | (text.take(digit + 1, mode="clip") != _DOT) | (decimals.view(np.uintp) > _MOST)
    powers = _POWERS.take(decimals, mode="clip")
    values = (whole * powers + _sum_digits(words)) / powers
    values = np.where(negative, -values, values)
    if unusual.any():
        tokens = np.flatnonzero(unusual)
        texts = [content[start:end] for start, end in zip(starts[tokens].tolist(), ends[tokens].tolist(), strict=True)]
        try:
            values[tokens] = [float(text) if b"_" not in text else np.nan for text in texts]
        except ValueError:
            return None
    return values if np.isfinite(values).all() else None


def _sum_digits(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The value of eight digits, the first in the lowest byte: first of pairs, then of all four pairs."""
    pairs = words >> _BYTE
    pairs += words * _TEN
    upper = pairs & _PAIRS
    upper *= _UPPER_PAIRS
    pairs >>= _TWO_BYTES
    pairs &= _PAIRS
    pairs *= _LOWER_PAIRS
    upper += pairs
    upper >>= _FOUR_BYTES
    return upper
