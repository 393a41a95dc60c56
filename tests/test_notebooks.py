"""Notebooks are their scripts with outputs: equal source cells, pictures kept, small, nothing of a machine in them.

`make notebooks-check`, which CI runs, also executes them.
"""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("jupytext")
import nbformat

ROOT = Path(__file__).parents[1]


def _builder():
    specification = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


build = _builder()
NAMES = [script.stem for script in build.SCRIPTS]


def test_there_is_a_notebook_for_every_script_and_none_besides():
    assert len(NAMES) == 5
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("script", build.SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_is_its_script_with_outputs(script):
    assert build.differences(script) == ""
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # from top to bottom, once
    assert notebook.cells[0].source.startswith("# ")  # says what it shows
    assert build.faults(notebook) == []


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_kept_and_no_cell_failed(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= {"05_lightning_project": 1, "02_own_data": 1}.get(name, 3)
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


def test_a_changed_script_or_notebook_is_told(tmp_path, monkeypatch):
    script = tmp_path / "01_x.py"
    script.write_text("# %% [markdown]\n# # Title\n\n# %%\nprint(1)\n", encoding="utf-8")
    assert build.differences(script) == "01_x.ipynb does not exist"
    nbformat.write(build.from_script(script), tmp_path / "01_x.ipynb")
    assert build.differences(script) == ""
    script.write_text(script.read_text(encoding="utf-8").replace("print(1)", "print(2)"), encoding="utf-8")
    assert build.differences(script) == "01_x.ipynb: cell 1 is not that of 01_x.py:\nprint(2)"
    script.write_text("# %% [markdown]\n# # Title\n", encoding="utf-8")
    assert build.differences(script) == "01_x.ipynb: 2 cells, 01_x.py has 1"
    monkeypatch.setattr(build, "SCRIPTS", [script])
    monkeypatch.setattr(build, "execute", lambda notebook: None)
    assert build.main(["--check"]) == 1


def test_outputs_are_compared_without_what_differs_between_machines(tmp_path, monkeypatch, capsys):
    script = tmp_path / "01_x.py"
    script.write_text("# %%\nprint(1)\n", encoding="utf-8")
    table = "in {} s\nmeasure   value\n--------  -----\ntop-1     {}\nMean age  {} kick\n\nwritten to a file\n"
    png = nbformat.v4.new_output("display_data", data={"image/png": "iVBO"})

    def made(text, pictures=1):
        notebook = build.from_script(script)
        warning = nbformat.v4.new_output("stream", name="stderr", text="a warning of this machine")
        halves = [nbformat.v4.new_output("stream", name="stdout", text=part) for part in (text[:9], text[9:])]
        notebook.cells[0].outputs = [halves[0], warning, halves[1], *[png] * pictures]
        return notebook

    nbformat.write(made(table.format(1.5, 62.16, 3)), script.with_suffix(".ipynb"))
    assert build.output_differences(made(table.format(12, 7.1, 40)), script) == ""
    told = build.output_differences(made(table.format(1, 2, 3), 2), script)
    assert told == "01_x.ipynb: cell 0 shows 1 pictures, executed it shows 2"
    other = table.replace("a file", "another").format(1, 2, 3)
    assert "executed it prints\nin # s" in build.output_differences(made(other), script)
    assert build.output_differences(made(table.replace("top-", "R@").format(1, 2, 3)), script)
    monkeypatch.setattr(build, "SCRIPTS", [script])
    monkeypatch.setattr(build, "execute", lambda notebook: notebook.update(made(other)))
    assert build.main(["--check"]) == 1
    assert "written to another" in capsys.readouterr().out
    monkeypatch.setattr(build, "execute", lambda notebook: notebook.update(made(table.format(2, 2, 2))))
    assert build.main(["--check"]) == 0


def test_what_must_not_be_kept_is_found(tmp_path):
    notebook = build.from_script(ROOT / "notebooks" / f"{NAMES[0]}.py")
    assert build.faults(notebook) == []
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    folder = "/" + "home/somebody/data"
    cell.outputs = [nbformat.v4.new_output("stream", text=f"written to {folder}\n")]
    assert build.faults(notebook) == [f"an output names {folder}\\n'"] or folder in build.faults(notebook)[0]
    cell.outputs = [nbformat.v4.new_output("stream", text="x" * build.LARGEST_BYTES)]
    assert "more than 400000" in build.faults(notebook)[0]
