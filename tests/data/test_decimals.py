"""Vectorised decimals: every value is what `float` gives, and whatever `float` refuses is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosl_lightning.data.decimals import read_decimals


def _read(tokens: list[str], before: str = "", after: str = "\n") -> np.ndarray | None:
    ends = len(before) + np.cumsum([len(token) + 1 for token in tokens]) - 1
    starts = ends - [len(token) for token in tokens]
    return read_decimals((before + " ".join(tokens) + after).encode(), starts, ends)


def _bits(values: np.ndarray | list[float]) -> list[int]:
    return np.asarray(values, np.float64).view(np.int64).tolist()  # tells -0 from 0


@pytest.mark.parametrize("digits", range(16))
def test_values_are_rounded_like_float(digits):
    draw = np.random.default_rng(digits)
    numbers = np.concatenate([draw.normal(size=300) * scale for scale in (3, 1e5, 1e-4)])
    for form in (f".{digits}f", f".{digits + 1}g", f".{digits}e"):
        tokens = [format(number, form) for number in numbers]
        assert _bits(_read(tokens)) == _bits([float(token) for token in tokens])


def test_every_form_of_a_number():
    tokens = "0 -1 1.5E-05 -2.5e+01 +0.25 .5 -.5 7. -0.0 -0 00012 9.99999999 -9.99999999 9.999999999 0.00000000"
    tokens += " 123456789012345678 12345678.12345678 0.000000000001 10.5 -10.5"
    expected = [float(token) for token in tokens.split()]
    assert _bits(_read(tokens.split())) == _bits(expected)
    assert _bits(_read(tokens.split(), before="x" * 30)) == _bits(expected)


@pytest.mark.parametrize(
    "token", ["", "-", ".", "-.", "1.2.3", "1..2", "--1", "1-2", "1.-2", "1,2", "1/2", "1.2/", "1.:2", "/.5", ":.5",
              "1_0", "1.2_3", "nan", "-inf", "1e999", "abc", "1.12345678x"],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused(token):
    assert _read(["1.5", token, "2.5"]) is None
    assert _read([token], after="") is None, "also at the very end of the text"


def test_no_tokens():
    assert _read([]).shape == (0,)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("0123456789.-+eE", max_size=12), min_size=1, max_size=6))
def test_any_characters_give_the_values_of_float_or_nothing(tokens):
    try:
        expected = [float(token) for token in tokens]
    except ValueError:
        expected = [np.nan]
    read = _read(tokens)
    if np.isfinite(expected).all():
        assert _bits(read) == _bits(expected)
    else:
        assert read is None
