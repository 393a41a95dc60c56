"""Makes the notebooks from the scripts beside this file: `python notebooks/build.py [NAME ...] [--check]`.

A script is a notebook in jupytext's percent format. Without an option the notebooks are executed and written, outputs
and pictures kept. With `--check` they are executed and nothing is written: it fails where a kept notebook has other
source cells, another number of pictures in a cell, or prints another text. Numbers, and what stands in the columns of
a table beside its first, are not compared, because they differ between machines; nor is what a picture shows.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from PIL import Image

FOLDER = Path(__file__).parent
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
LIMIT_SECONDS = 180
LARGEST_BYTES = 400_000
Cells = list[tuple[str, str]]


def from_script(script: Path) -> Any:
    """The notebook of a script, without outputs; equal scripts give equal notebooks."""
    notebook = jupytext.read(script, fmt="py:percent")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", nbformat.from_dict({})
    return notebook


def source_cells(notebook: Any) -> Cells:
    """Kind and text of every cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def differences(script: Path) -> str:
    """Where a script and its notebook differ in their source cells; empty where they agree."""
    stored = script.with_suffix(".ipynb")
    if not stored.is_file():
        return f"{stored.name} does not exist"
    wanted, found = source_cells(from_script(script)), source_cells(nbformat.read(stored, as_version=4))
    for number, (ours, theirs) in enumerate(zip(wanted, found, strict=False)):
        if ours != theirs:
            return f"{stored.name}: cell {number} is not that of {script.name}:\n{ours[1]}"
    return "" if len(wanted) == len(found) else f"{stored.name}: {len(found)} cells, {script.name} has {len(wanted)}"


def outputs(notebook: Any) -> list[tuple[str, int]]:
    """What every cell printed, without what differs between machines, and how many pictures it shows."""
    found = []
    for cell in notebook.cells:
        made = cell.get("outputs", [])
        text = "".join(each.get("text", "") for each in made if each.get("name") == "stdout")
        found.append((masked(text), sum("image/png" in each.get("data", {}) for each in made)))
    return found


def masked(text: str) -> str:
    r"""A printed text with `#` for every number, one space for several, and of a table the first column alone.

    Example:
        >>> masked("took 1.5 s\nclass   %\n-----  --\nbow    81")
        'took # s\nclass %\n-- --\nbow'
    """
    lines, table = [], False
    for line in text.splitlines():
        rule = bool(re.fullmatch(r"-{2,}(  +-{2,})+ *", line))
        table = rule or (table and bool(re.match(r"\S.*\S  ", line)))
        shown = re.sub("-+", "--", line) if rule else line.split("  ")[0] if table else line
        lines.append(" ".join(re.sub(r"[-+]?\d+(\.\d+)*", "#", shown).split()))
    return "\n".join(lines).strip()


def output_differences(made: Any, script: Path) -> str:
    """Where the outputs of a notebook just executed are not those that are kept; empty where they agree."""
    stored = script.with_suffix(".ipynb")
    if differences(script):
        return ""  # told already
    kept = outputs(nbformat.read(stored, as_version=4))
    for number, ((ours, pictures), (theirs, shown)) in enumerate(zip(outputs(made), kept, strict=True)):
        if pictures != shown:
            return f"{stored.name}: cell {number} shows {shown} pictures, executed it shows {pictures}"
        if ours != theirs:
            return f"{stored.name}: cell {number} printed\n{theirs}\nexecuted it prints\n{ours}"
    return ""


def execute(notebook: Any) -> None:
    """Run a notebook from top to bottom in an empty folder, on one thread.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised.
    """
    from nbclient import NotebookClient

    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        NotebookClient(notebook, timeout=LIMIT_SECONDS, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})  # when it ran is of no use to a reader, and different every time
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = output["text"].replace(f"{folder}/", "")
            if "data" in output and "image/png" in output["data"]:
                output["data"] = nbformat.from_dict({"image/png": smaller(output["data"]["image/png"])})


def smaller(picture: str) -> str:
    """A PNG, base64, with 256 colours of its own: a third of the bytes, and no difference that a figure shows."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def faults(notebook: Any) -> list[str]:
    """What must not be in a notebook that is kept: paths of this machine, and more bytes than one wants to load."""
    text = nbformat.writes(notebook)
    outputs = [str({**output, "data": None}) for cell in notebook.cells for output in cell.get("outputs", [])]
    plain = [str(output["data"].get("text/plain", "")) for cell in notebook.cells for output in cell.get("outputs", [])
             if "data" in output]  # fmt: skip
    found = re.findall(r"(?<![\w.~/])/(?:work|tmp|home|root|Users|mnt|usr)/\S*", "\n".join(outputs + plain))
    large = [f"{len(text)} bytes, more than {LARGEST_BYTES}"] if len(text) > LARGEST_BYTES else []
    return [f"an output names {path}" for path in found] + large


def _children() -> float:
    """CPU seconds of finished kernels: on one thread the time of an idle machine, whatever else runs now."""
    times = os.times()
    return times.children_user + times.children_system


def main(arguments: Sequence[str]) -> int:
    """Make or check all notebooks, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names, e.g. 01; all where none is given")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a notebook is not its script's")
    options = parser.parse_args(arguments)
    scripts = [each for each in SCRIPTS if not options.names or each.name.startswith(tuple(options.names))]
    wrong = [text for script in scripts if options.check and (text := differences(script))]
    total = 0.0
    for script in scripts:
        notebook, began, used = from_script(script), time.perf_counter(), _children()
        execute(notebook)
        seconds, used = time.perf_counter() - began, _children() - used
        total += used
        wrong += [f"{script.stem}: {fault}" for fault in faults(notebook)]
        wrong += [text] if options.check and (text := output_differences(notebook, script)) else []
        size = len(nbformat.writes(notebook)) / 1000
        print(f"{script.stem:24s} {used:5.1f} s of CPU, {seconds:5.1f} s  {size:5.0f} kB", flush=True)
        if not options.check:
            nbformat.write(notebook, script.with_suffix(".ipynb"))
    print(f"{'in all':24s} {total:5.1f} s of CPU")
    if options.check and total > LIMIT_SECONDS:
        wrong.append(f"the notebooks took {total:.0f} s of CPU time, more than {LIMIT_SECONDS}")
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
