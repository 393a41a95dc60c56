"""Class names are written as they are: they may hold what Matplotlib would read as a formula."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prosl_lightning.data.archive import Archive
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.figures.confusion import confusion_figure
from prosl_lightning.figures.demo import demo_figure

NAMES = (r"$\frac$", "a_$x$", "fine")


def test_confusion():
    figure = confusion_figure(np.eye(3, dtype=np.int64), NAMES, r"$\nonsense$")
    FigureCanvasAgg(figure).draw()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(NAMES)


def test_demo(tiny_archive):
    archive = Archive.open(tiny_archive)
    archive.class_names = NAMES
    features, labels = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    tables = FeatureTables(features, labels, features, labels)
    importance, rows = torch.ones(25), [("trained", 90.0, 95.0), ("random", 40.0, 50.0)]
    figure = demo_figure([("trained", tables), ("random", tables)], archive, importance, rows)
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(NAMES)
