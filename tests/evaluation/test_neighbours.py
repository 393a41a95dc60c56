"""The exact nearest-neighbour search: proven bound, near-ties, equal rows, degenerate galleries."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation import neighbours
from prosl_lightning.evaluation.neighbours import TIE, search

ROUTES = {
    "bfloat16 first": [torch.bfloat16, torch.float32],
    "float32 first": [torch.float32],
    "float64 only": [],
}


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """Each way through the precisions, in small blocks so that several of all kinds are met."""
    monkeypatch.setattr(neighbours, "_coarse_types", lambda device: ROUTES[request.param])
    for name, size in {"_BLOCK": 64, "_QUERIES": 48, "_CHUNK": 32, "_PIECE": 20}.items():
        monkeypatch.setattr(neighbours, name, size)
    return request.param


def _by_definition(gallery, queries, k):
    """The rule of `search`, one query after another in float64."""
    gallery, queries = (F.normalize(side.double(), dim=1) for side in (gallery, queries))
    found = []
    for cosine in queries @ gallery.T:
        found.append([])
        for _ in range(k):
            found[-1].append(int((cosine >= cosine.max() - TIE).nonzero()[0]))
            cosine[found[-1][-1]] = -torch.inf
    return found


def _galleries():
    draw = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, generator=draw)

    spread = noise(300, 40)
    centre = noise(1, 40)
    around = noise(6, 40).repeat_interleave(50, dim=0)
    twice = spread[torch.randint(40, (300,), generator=draw)]
    yield "spread", spread, noise(100, 40)
    yield "any length", spread * torch.rand(300, 1, generator=draw).mul(20).exp(), noise(100, 40) * 1e-4
    yield "one direction", centre + 0.03 * spread, centre + 0.03 * noise(100, 40)
    yield "near-ties about the rounding of bfloat16", around + 1e-3 * spread, around[::3] + 1e-3 * noise(100, 40)
    yield "near-ties about the rounding of float32", around + 3e-6 * spread, around[::3] + 1e-2 * noise(100, 40)
    yield "equal rows", twice, twice[:100] + 0.3 * noise(100, 40)
    yield "all rows equal", centre.expand(300, 40).contiguous(), noise(100, 40)
    yield "rows of zeros", spread * (torch.arange(300) % 3 == 0)[:, None], noise(100, 40)
    yield "queries of the gallery", spread, spread[:100] * 3


CASES = list(_galleries())


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(("gallery", "queries"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_neighbours_follow_the_definition(route, gallery, queries, k):
    found = search(gallery, queries, k)
    assert found.index.tolist() == _by_definition(gallery, queries, k)
    cosine = F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T
    torch.testing.assert_close(found.cosine, cosine.gather(1, found.index), atol=1e-12, rtol=0)


def test_queries_with_too_many_candidates_go_through_finer_products(monkeypatch):
    """60 rows lie within bfloat16's error of each other; with 10 allowed no query may be answered there."""
    monkeypatch.setattr(neighbours, "_coarse_types", lambda device: ROUTES["bfloat16 first"])
    monkeypatch.setattr(neighbours, "_CANDIDATES", 6)
    answered: dict[torch.dtype, int] = {}
    inner = neighbours._by_candidates

    def watched(gallery, queries, k, pending, dtype, found):
        left = inner(gallery, queries, k, pending, dtype, found)
        answered[dtype] = len(pending) - len(left)
        return left

    monkeypatch.setattr(neighbours, "_by_candidates", watched)
    draw = torch.Generator().manual_seed(1)
    centre = torch.randn(2, 64, generator=draw).repeat_interleave(60, dim=0)
    gallery = centre + 2e-3 * torch.randn(120, 64, generator=draw)
    gallery[60:] = gallery[60]  # equal rows are too many for float32, too
    queries = centre[::6] + 0.1 * torch.randn(20, 64, generator=draw)
    assert search(gallery, queries, 1).index.tolist() == _by_definition(gallery, queries, 1)
    assert answered == {torch.bfloat16: 0, torch.float32: 10}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", ["random", "rows rounded down", "score rounded down", "one direction"])
def test_no_score_is_off_by_more_than_its_bound(dtype, shape):
    draw = torch.Generator().manual_seed(2)
    gallery, queries = torch.randn(200, 256, generator=draw), torch.randn(50, 256, generator=draw)
    centre = None
    if shape == "rows rounded down":  # unit rows whose entries lie just below the middle of two numbers of bfloat16
        entries, centre = torch.full((254,), 2**-4 + 2**-12 - 2**-20)[:252], torch.zeros(253)
        entries = torch.cat([entries, (1 - entries.double().square().sum()).sqrt().float()[None]])
        gallery, queries = entries[None], entries[None]
    if shape == "score rounded down":  # to 0.5 from just below the middle of 0.5 and the next number of bfloat16
        small = 2**-8 * (1 - 2**-7)
        gallery = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
        queries, centre = torch.tensor([[0.5, 0.5, small, (0.5 - small**2) ** 0.5]]), torch.tensor([0, 0, 0, 0.5])
    if shape == "one direction":
        gallery, queries = 5 + gallery, 5 + queries
    sides = neighbours._Side.of(gallery, "gallery"), neighbours._Side.of(queries, "query")
    centre = sides[0].mean() if centre is None else centre
    rounded = [
        neighbours._coarse(side, torch.arange(len(side.features)), centre, dtype, gallery=i == 0)
        for i, side in enumerate(sides)
    ]
    cosine = F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T
    same_for_all_rows = F.normalize(queries.double(), dim=1) @ centre.double()
    scores = (rounded[1].values @ rounded[0].values.T).double()
    bound = neighbours._error(*rounded)[:, None] + neighbours._ROUNDING[dtype] * scores.abs()
    error = (scores + same_for_all_rows[:, None] - cosine).abs()
    assert bool((error <= bound).all())
    assert float(bound.max()) < (3.01 * 2**-8 if dtype == torch.bfloat16 else 1e-4)
    if shape.endswith("down") and dtype == torch.bfloat16:
        assert float(error.max()) > 0.4 * float(bound.max()), "the bound is not merely huge"


def test_plain_bfloat16_would_be_wrong_here(monkeypatch):
    monkeypatch.setattr(neighbours, "_coarse_types", lambda device: ROUTES["bfloat16 first"])
    draw = torch.Generator().manual_seed(3)
    common = torch.randn(1, 128, generator=draw)
    gallery, queries = (common + 0.2 * torch.randn(n, 128, generator=draw) for n in (2000, 200))
    plain = F.normalize(queries, dim=1).bfloat16() @ F.normalize(gallery, dim=1).bfloat16().T
    right = (F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T).argmax(dim=1)
    assert int((plain.argmax(dim=1) != right).sum()) > 20
    assert torch.equal(search(gallery, queries).index[:, 0], right)


@pytest.mark.parametrize("spread", [1.0, 0.02])
def test_agrees_with_scikit_learn_where_the_two_nearest_differ(spread):
    draw = torch.Generator().manual_seed(4)
    centres = torch.randn(8, 96, generator=draw)
    gallery, queries = (
        centres[torch.randint(8, (n,), generator=draw)] + spread * torch.randn(n, 96, generator=draw)
        for n in (700, 300)
    )
    peer = KNeighborsClassifier(2, metric="cosine").fit(gallery.numpy(), torch.zeros(700).numpy())
    index = torch.from_numpy(peer.kneighbors(queries.numpy(), return_distance=False))
    two = (F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T).topk(2, dim=1).values
    clear = two[:, 0] - two[:, 1] > 1e-6
    assert int(clear.sum()) > 250
    assert torch.equal(search(gallery, queries).index[clear, 0], index[clear, 0])


def test_a_user_setting_of_coarse_products_is_overruled_and_restored(monkeypatch):
    monkeypatch.setattr(neighbours, "_coarse_types", lambda device: ROUTES["float32 first"])
    seen, inner = [], neighbours._by_candidates

    def watched(*arguments):
        seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return inner(*arguments)

    monkeypatch.setattr(neighbours, "_by_candidates", watched)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert search(torch.eye(3), torch.eye(3)).index[:, 0].tolist() == [0, 1, 2]
            assert torch.is_autocast_enabled("cpu")
        assert (seen, torch.get_float32_matmul_precision()) == ([("highest", False)], "medium")
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_queries_have_no_neighbours(route):
    assert search(torch.eye(3), torch.zeros(0, 3), 2).index.shape == (0, 2)


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UsageError, match="k is 4; the gallery has 3"):
        search(torch.eye(3), torch.eye(3), 4)
    with pytest.raises(UsageError, match="3 wide, the queries' 2"):
        search(torch.eye(3), torch.eye(2))
    with pytest.raises(DataError, match="a query feature is not finite"):
        search(torch.eye(3), torch.full((1, 3), torch.nan))
