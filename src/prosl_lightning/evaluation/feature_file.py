"""Features written to an npz file batch by batch, so that a large set needs no memory for its table."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.errors import DataError


class FeatureFile:
    """Collects rows of features in a scratch file and makes an npz of them at the end; an error leaves nothing behind.

    Args:
        path: The npz to make.

    Attributes:
        num_rows: Rows so far.

    Raises:
        DataError: The folder cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.num_rows, self.num_columns = 0, 0
        partial = f".{self.path.name}.partial-{os.getpid()}"
        self._rows, self._npz = (self.path.parent / f"{partial}{ending}" for ending in (".rows", ".npz"))
        try:
            self._file = self._rows.open("wb")
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        for path in (self._rows, self._npz):
            path.unlink(missing_ok=True)

    def add(self, features: NDArray[np.float32]) -> None:
        """Append features (n, D)."""
        features.astype("<f4", copy=False).tofile(self._file)
        self.num_rows, self.num_columns = self.num_rows + len(features), features.shape[1]

    def finish(self, **arrays: Any) -> None:
        """Write `features` (N, D) float32 and the other arrays to the npz.

        Args:
            **arrays: Names and values of what stands beside the features, e.g. N `names`.
        """
        self._file.close()
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.num_rows, self.num_columns)}
        try:
            with zipfile.ZipFile(self._npz, "w") as archive:
                with archive.open("features.npy", "w", force_zip64=True) as target, self._rows.open("rb") as rows:
                    np.lib.format.write_array_header_1_0(target, header)
                    shutil.copyfileobj(rows, target, 1 << 22)
                for name, values in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as target:
                        np.lib.format.write_array(target, np.asarray(values), allow_pickle=False)
            os.replace(self._npz, self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from error
