"""Exact nearest neighbours by cosine: a coarse matrix product proposes, a proven error bound decides, float64 ranks.

A product in bfloat16 is several times faster than one in float32, and its error has a bound. A gallery row is ruled
out only where its coarse score lies below the best by more than twice that bound; what is left, a handful for each
query, is ranked by its cosine in float64. Queries with too many rows left go through float32 in the same way, and at
last through float64, so the result never depends on luck. Nothing of the size queries x gallery is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.prosl.out_of_memory import explained

TIE = 1e-6
"""Cosines that differ by no more than this count as equal."""

# Rows: of the gallery and of the queries in rounded form, of the queries in one product, of what stays in the cache.
_BLOCK, _QUERIES, _CHUNK, _PIECE = 8192, 16384, 1024, 256
# More rows than this are dearer to rank one by one than a finer product with the whole gallery.
_CANDIDATES = 384
# Of normalising and centring a row in float32, and of adding up a bound: each is below 3e-7.
_SLACK = 1e-6
_ACCUMULATION = 2.0**-24
ON_THE_CPU = "free memory on the GPU", "hide it with CUDA_VISIBLE_DEVICES='' to work on the CPU"
"""What helps where a GPU's memory does not suffice for features that are there already."""
_ROUNDING = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}  # of a score: in float32 it comes as it was added up


class Neighbours(NamedTuple):
    """Nearest gallery rows of each query, nearest first: `index` (Q, k) int64 and their `cosine` (Q, k) float64."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    cosine: Tensor


@torch.no_grad()
def search(gallery: Tensor, queries: Tensor, k: int = 1) -> Neighbours:
    """The k gallery rows of largest cosine to each query, exactly.

    A neighbour is the row of largest cosine that is not taken yet; among rows within :data:`TIE` of it, the one of
    lowest index. So equal rows come in order. A row of zeros has cosine 0.

    Args:
        gallery: (N, D), of any length.
        queries: (Q, D), on the gallery's device.
        k: Neighbours per query.

    Raises:
        UsageError: k is not between 1 and N, the widths differ, or the device ran out of memory.
        DataError: A feature is not finite.
    """
    if not 1 <= k <= len(gallery):
        raise UsageError(f"k is {k}; the gallery has {len(gallery)} sequences")
    if gallery.shape[1] != queries.shape[1]:
        raise UsageError(f"the gallery's features are {gallery.shape[1]} wide, the queries' {queries.shape[1]}")
    if gallery.device.type == "cpu":
        keep_freed_memory()
    sides = _Side.of(gallery, "gallery"), _Side.of(queries, "query")
    found = Neighbours(
        torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device),
        torch.zeros(len(queries), k, dtype=torch.float64, device=queries.device),
    )
    pending = torch.arange(len(queries), device=queries.device)
    what = f"the search for neighbours of {len(queries)} features among {len(gallery)} of width {gallery.shape[1]}"
    with full_precision(queries.device), explained(queries.device, what, lambda: ON_THE_CPU):
        for dtype in _coarse_types(queries.device):
            left = [_by_candidates(*sides, k, rows, dtype, found) for rows in pending.split(_QUERIES)]
            pending = torch.cat(left)
        for rows in pending.split(_PIECE):
            _by_all(*sides, k, rows, found)
    return found


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 faster than in float32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # since torch 2.5
    return bool(probe is not None and probe())


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Take products at their word, whatever autocast, TF32 or `torch.set_float32_matmul_precision` allow."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _coarse_types(device: torch.device) -> list[torch.dtype]:
    # On a GPU the float32 product takes a fraction of a second, and how it adds up bfloat16 is not specified.
    return [torch.bfloat16, torch.float32] if device.type == "cpu" and has_fast_bfloat16() else [torch.float32]


class _Side(NamedTuple):
    """Features (N, D) as they are, and their lengths (N,) in float64; 1 for a row of zeros."""

    features: Tensor
    length: Tensor

    @classmethod
    def of(cls, features: Tensor, name: str) -> _Side:
        # Into one table: small results kept one by one would lie between the freed temporaries and pin all of them.
        length = torch.empty(len(features), dtype=torch.float64, device=features.device)
        for start in range(0, len(features), _PIECE):
            piece = slice(start, start + _PIECE)
            length[piece] = torch.linalg.vector_norm(features[piece], dim=1, dtype=torch.float64)
        if not bool(torch.isfinite(length).all()):
            raise DataError(f"a {name} feature is not finite: the encoder has diverged")
        return cls(features, torch.where(length == 0, 1.0, length))

    def unit(self, rows: Tensor | slice, dtype: torch.dtype) -> Tensor:
        """Rows at length 1."""
        return self.features[rows].to(dtype) / self.length[rows, None].to(dtype)

    def mean(self) -> Tensor:
        """Roughly the mean of the unit rows, (D,) float32; any centre gives the same neighbours."""
        total = self.features.new_zeros(self.features.shape[1], dtype=torch.float64)
        for start in range(0, len(self.features), _BLOCK):
            rows = slice(start, start + _BLOCK)
            total += (self.features[rows].to(torch.float32).T @ (1 / self.length[rows]).to(torch.float32)).double()
        return (total / len(self.features)).float()


class _Coarse(NamedTuple):
    """Rows rounded for a product.

    Attributes:
        values: (n, D + 2).
        kept: Length of each row's first D values, (n,).
        lost: Length of what rounding took from them, (n,).
        offset: Size of what the two last values add to a product, and of what rounding took from it, (2,).
    """

    values: Tensor
    kept: Tensor
    lost: Tensor
    offset: Tensor

    def chunk(self, rows: slice) -> _Coarse:
        return _Coarse(self.values[rows], self.kept[rows], self.lost[rows], self.offset)


def _coarse(side: _Side, rows: Tensor, centre: Tensor, dtype: torch.dtype, *, gallery: bool) -> _Coarse:
    r"""Round unit rows around a centre.

    With :math:`x = c + u` and :math:`y = c + v` the cosine is :math:`x y = u v + x c + c v`, whose last part is the
    same for all gallery rows x. Features of an encoder lie close together, so u and v are short and rounding them
    costs little. The offset x c goes into the product as two more columns: rounded, and what that left.
    """
    width = len(centre)
    values = torch.ones(len(rows), width + 2, dtype=dtype, device=rows.device)
    kept, lost = (torch.zeros(len(rows), device=rows.device) for _ in range(2))
    offset = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for start in range(0, len(rows), _PIECE):
        piece = slice(start, start + _PIECE)
        unit = side.unit(rows[piece], torch.float32)
        if gallery:
            offset[piece] = unit.double() @ centre.double()
        around = unit.sub_(centre)
        values[piece, :width] = around
        rounded = values[piece, :width].float()
        kept[piece] = torch.linalg.vector_norm(rounded, dim=1)
        lost[piece] = torch.linalg.vector_norm(around.sub_(rounded), dim=1) + _SLACK
    if not gallery:
        return _Coarse(values, kept, lost, torch.zeros(2, device=rows.device))
    offset -= centre.double() @ centre.double()
    values[:, width] = offset
    values[:, width + 1] = offset - values[:, width].double()
    missing = (offset - values[:, width:].double().sum(dim=1)).abs().max()
    return _Coarse(values, kept, lost, torch.stack([offset.abs().max(), missing]).float())


def _error(gallery: _Coarse, queries: _Coarse) -> Tensor:
    """Largest possible error of each query's scores before they are rounded themselves, (q,).

    Cauchy-Schwarz for what rounding the rows lost; n additions in float32 err by at most n 2^-24 of the absolute sum.
    """
    kept, lost = gallery.kept.max(), gallery.lost.max()
    offset, lost_offset = gallery.offset
    rows = lost * (queries.kept + queries.lost) + kept * queries.lost + lost_offset
    sums = gallery.values.shape[1] * _ACCUMULATION * (kept * queries.kept + 2 * offset)
    return 1.01 * (rows + sums) + _SLACK


def _by_candidates(
    gallery: _Side, queries: _Side, k: int, pending: Tensor, dtype: torch.dtype, found: Neighbours
) -> Tensor:
    """Answer the pending queries that a product in `dtype` leaves few rows for; return the others."""
    if not len(pending):
        return pending
    centre, limit, rounding = gallery.mean(), _CANDIDATES + 4 * k, _ROUNDING[dtype]
    asked = _coarse(queries, pending, centre, dtype, gallery=False)
    bound = torch.full((len(pending), k), -torch.inf, device=pending.device)  # lower bounds of the k best so far
    count = torch.zeros(len(pending), dtype=torch.int64, device=pending.device)
    proposed: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in torch.arange(len(gallery.features), device=pending.device).split(_BLOCK):
        block = _coarse(gallery, rows, centre, dtype, gallery=True)
        for first in range(0, len(pending), _CHUNK):
            part = slice(first, first + _CHUNK)
            chunk = asked.chunk(part)
            error = _error(block, chunk)
            scores = chunk.values @ block.values.T
            best = scores.amax(dim=1, keepdim=True) if k == 1 else scores.topk(min(k, len(rows)), dim=1).values
            lower = best.float() - rounding * best.float().abs() - error[:, None]
            bound[part] = torch.cat([bound[part], lower], dim=1).topk(k, dim=1).values
            least = bound[part, -1] - error - TIE
            least = (least / (1 + rounding * least.sign())).masked_fill(count[part] > limit, torch.inf)
            # Rounded down, for a row that lies exactly at the limit.
            least = torch.nextafter(least.to(dtype), least.new_tensor(-torch.inf, dtype=dtype))
            hit = (best[:, 0] >= least).nonzero().squeeze(1)  # most queries have no neighbour in most blocks
            row, column = (scores[hit] >= least[hit, None]).nonzero(as_tuple=True)
            row = hit[row]
            count[part] += row.bincount(minlength=len(error))
            few = count[part][row] <= limit
            row, column = row[few], column[few]
            upper = scores[row, column].float()
            upper += rounding * upper.abs() + error[row]
            proposed.append((row + first, rows[column], upper))
    row, column, upper = (torch.cat(parts) for parts in zip(*proposed, strict=True))
    stays = (count <= limit)[row] & (upper >= bound[row, -1] - TIE)
    _rank(gallery, queries, pending, row[stays], column[stays], found)
    return pending[count > limit]


def _rank(gallery: _Side, queries: _Side, pending: Tensor, row: Tensor, column: Tensor, found: Neighbours) -> None:
    """Choose among candidate pairs (position in `pending`, gallery row) by their cosines in float64."""
    asked = pending[row]
    cosine = torch.empty(len(row), dtype=torch.float64, device=row.device)
    for start in range(0, len(row), _PIECE):
        pairs = slice(start, start + _PIECE)
        left, right = queries.features[asked[pairs]], gallery.features[column[pairs]]
        cosine[pairs] = (left.double() * right.double()).sum(dim=1)
    cosine /= gallery.length[column] * queries.length[asked]
    seen = row.unique()
    for nearest in range(found.index.shape[1]):
        largest = cosine.new_full((len(pending),), -torch.inf).scatter_reduce(0, row, cosine, "amax")
        tied = cosine >= largest[row] - TIE
        lowest = column.new_full((len(pending),), len(gallery.features))
        lowest = lowest.scatter_reduce(0, row[tied], column[tied], "amin")
        taken = column == lowest[row]
        found.index[pending[seen], nearest] = lowest[seen]
        found.cosine[asked[taken], nearest] = cosine[taken]
        cosine = cosine.masked_fill(taken, -torch.inf)


def _by_all(gallery: _Side, queries: _Side, k: int, rows: Tensor, found: Neighbours) -> None:
    """Answer a few queries by their cosines with the whole gallery in float64."""
    asked = queries.unit(rows, torch.float64)
    blocks = range(0, len(gallery.features), _BLOCK // 4)
    cosine = torch.cat(
        [asked @ gallery.unit(slice(start, start + _BLOCK // 4), torch.float64).T for start in blocks], dim=1
    )
    for nearest in range(k):
        # argmax of a truth value: the first
        index = (cosine >= cosine.amax(dim=1, keepdim=True) - TIE).int().argmax(dim=1, keepdim=True)
        found.index[rows, nearest] = index[:, 0]
        found.cosine[rows, nearest] = cosine.gather(1, index)[:, 0]
        cosine.scatter_(1, index, -torch.inf)
