"""State: the memory bank's queue and the codebook's tables, and that checkpoints carry them."""

from __future__ import annotations

import pytest
import torch

from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.prosl.codebook import SemanticCodebook
from prosl_lightning.prosl.memory_bank import MemoryBank


def _rows(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32).unsqueeze(1).expand(-1, 2).clone()


def test_bank_starts_as_unit_noise_of_no_sample():
    bank = MemoryBank(6, 4, levels=2)
    torch.testing.assert_close(bank.features.norm(dim=1), torch.ones(12))
    assert bank.index.tolist() == [-1] * 12


def test_full_wrap_overwrites_the_oldest_row_even_when_batches_do_not_divide_the_bank():
    bank = MemoryBank(5, 2)
    bank.enqueue(_rows(0, 3), torch.tensor([10, 11, 12]))
    bank.enqueue(_rows(3, 3), torch.tensor([13, 14, 15]))
    assert bank.index.tolist() == [15, 11, 12, 13, 14]
    assert bank.features[:, 0].tolist() == [5, 1, 2, 3, 4]
    assert int(bank.pointer) == 1


def test_levels_of_a_sample_stand_side_by_side():
    bank = MemoryBank(2, 2, levels=3)
    bank.enqueue(_rows(0, 6).view(2, 3, 2), torch.tensor([7, 8]))
    assert bank.index.tolist() == [7, 7, 7, 8, 8, 8]
    assert bank.features[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_reference_wrap_never_writes_most_rows():
    bank, full = MemoryBank(8, 2, levels=4, wrap="reference"), MemoryBank(8, 2, levels=4)
    for step in range(40):
        for each in (bank, full):
            each.enqueue(_rows(step, 8).view(2, 4, 2), torch.tensor([step, step]))
    assert (bank.index >= 0).sum() == 8
    assert (full.index >= 0).all()


def test_too_large_a_batch_names_the_option():
    with pytest.raises(UsageError, match="bank_size"):
        MemoryBank(3, 2).enqueue(_rows(0, 4), torch.arange(4))


def _codebook() -> SemanticCodebook:
    codebook = SemanticCodebook()
    codebook.update(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), torch.tensor([1, 0, 1]))
    codebook.importance = torch.rand(5)
    return codebook


def test_labels_are_those_of_the_current_codebook_and_noise_has_none():
    codebook = _codebook()
    assert codebook.labels_of(torch.tensor([[0, -1], [2, 1]])).tolist() == [[1, -1], [1, 0]]
    codebook.update(codebook.centroids, torch.tensor([0, 0, 1]))
    assert codebook.labels_of(torch.tensor([0])).tolist() == [0]
    torch.testing.assert_close(codebook.centroids, torch.eye(2))


def test_noise_is_never_excluded_although_minus_one_is_a_real_row_in_python():
    codebook = _codebook()  # row -1 has label 1, the anchor's
    excluded = codebook.excluded(torch.tensor([0, 1]), torch.tensor([-1, 2, 1, 0]))
    assert excluded.tolist() == [[False, True, False, True], [False, False, True, False]]


def test_an_empty_codebook_says_so():
    with pytest.raises(DataError, match="CodebookCallback"):
        SemanticCodebook().labels_of(torch.tensor([0]))


def test_shapes_come_from_the_checkpoint(tmp_path):
    codebook = _codebook()
    torch.save(codebook.state_dict(), tmp_path / "state.pt")
    other = SemanticCodebook()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.is_built
    for name, value in codebook.state_dict().items():
        assert torch.equal(getattr(other, name), value)


def test_buffers_are_written_in_place_and_a_snapshot_is_not():
    bank, codebook = MemoryBank(4, 2), SemanticCodebook()
    codebook.update(_rows(0, 3), torch.tensor([0, 1, 2]), torch.ones(5))
    buffers = [*bank.buffers(), codebook.centroids, codebook.assignment, codebook.importance]
    addresses = [buffer.data_ptr() for buffer in buffers]
    before, noise = bank.snapshot(), bank.features.clone()
    bank.enqueue(_rows(0, 3), torch.tensor([7, 8, 9]))
    bank.enqueue(_rows(3, 2), torch.tensor([5, 6]))
    codebook.update(_rows(3, 3), torch.tensor([2, 1, 0]), torch.zeros(5))
    assert bank.index.tolist() == [6, 8, 9, 5]
    assert int(bank.pointer) == 1
    assert codebook.assignment.tolist() == [2, 1, 0]
    assert float(codebook.importance.sum()) == 0
    assert torch.equal(before.features, noise)
    assert before.index.tolist() == [-1] * 4
    bank.forget_samples()
    now = [*bank.buffers(), codebook.centroids, codebook.assignment, codebook.importance]
    assert [buffer.data_ptr() for buffer in now] == addresses


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_row_that_overflows_in_float16_leaves_the_bank_as_it_is(dtype):
    bank = MemoryBank(4, 2)
    before = bank.snapshot()
    rows = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [0.0, 1.0]])
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        bank.enqueue(rows, torch.tensor([5, 6, 7]))
    kept = dtype == torch.float16
    assert bank.index.tolist() == [5, -1 if kept else 6, 7, -1]
    assert torch.equal(bank.features[[0, 2]], rows[[0, 2]])
    assert torch.equal(bank.features[3], before.features[3])
    assert torch.equal(bank.features[1], before.features[1]) == kept
    assert int(bank.pointer) == 3
