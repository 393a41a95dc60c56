"""What is looked for in every figure: text that can be read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def legible(monkeypatch) -> Callable[[Figure], list[str]]:
    """Draw a figure; its texts must lie within it and not on each other. Returns the texts."""

    def check(figure: Figure) -> list[str]:
        drawn: list[Text] = []
        draw = Text.draw

        def record(self, renderer, *args, **kwargs):
            if self.get_visible() and self.get_text().strip():
                drawn.append(self)
            return draw(self, renderer, *args, **kwargs)

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", record)
            canvas.draw()
        texts = list(dict.fromkeys(drawn))
        boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
        width, height = figure.get_size_inches() * figure.dpi
        for name, box in boxes:
            assert box.x0 > -2, f"{name!r} is cut off on the left"
            assert box.x1 < width + 2, f"{name!r} is cut off on the right"
            assert box.y0 > -2, f"{name!r} is cut off below"
            assert box.y1 < height + 2, f"{name!r} is cut off above"
        for (name, box), (other, second) in combinations(boxes, 2):
            overlap = min(box.x1, second.x1) - max(box.x0, second.x0), min(box.y1, second.y1) - max(box.y0, second.y0)
            assert min(overlap) < 1.5, f"{name!r} lies on {other!r}"
        return [name for name, _ in boxes]

    return check


@pytest.fixture(scope="session")
def tiny_module(tiny_archive):
    """An untrained module that fits `tiny_archive`, with a codebook of four clusters made by hand."""
    import torch

    from prosl_lightning import ProSLModule

    torch.manual_seed(0)
    module = ProSLModule(
        base="hico-gru", base_args={"hidden_size": 16, "num_layers": 1, "projection_size": 8}, num_frames=16,
        min_crop_frames=8, bank_size=32, num_clusters=4,
    ).eval()  # fmt: skip
    module.codebook.update(torch.eye(4, 8), torch.arange(36) % 4)
    module.codebook.importance = torch.arange(25.0)
    return module
