"""The documentation site: generated pages, links good on GitHub and on the site, reST roles, the strict build."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

import prosl_lightning
from prosl_lightning.cli import VERBS

ROOT = Path(__file__).parents[1]
HOOKS = ROOT / "docs" / "hooks"
REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/reference/*.md")))


@pytest.fixture(scope="module")
def hooks():
    """The hooks' modules, imported as mkdocs does it: with their folder in sight."""
    sys.path.insert(0, str(HOOKS))
    try:
        return {name: importlib.import_module(name) for name in ("pages", "links", "roles")}
    finally:
        sys.path.remove(str(HOOKS))


def test_every_public_name_is_on_a_page_of_the_reference(hooks):
    listed = hooks["pages"].public_names()
    on_pages = re.findall(r"^::: (prosl_lightning[\w.]*)", REFERENCE, flags=re.MULTILINE)
    assert len(on_pages) == len(set(on_pages))
    for name in set(prosl_lightning.__all__) - {"__version__"}:
        thing = getattr(prosl_lightning, name)
        path = f"{thing.__module__}.{name}"
        assert f"[`{name}`][{path}]" in listed
        assert any(path == page or path.startswith(f"{page}.") for page in on_pages), name


def test_help_pages_are_what_the_verbs_print(hooks, capsys):
    from prosl_lightning.cli import main

    pages = hooks["pages"]
    assert {f"prosl {verb}" for verb in VERBS} <= set(
        re.findall(r"`(prosl \w+)`", dict(pages.verb_pages())["cli/index.md"])
    )
    with pytest.raises(SystemExit):
        main(["knn", "--help"])
    assert capsys.readouterr().out.split() == pages.help_text("knn").split()
    assert pages.subcommands(pages.help_text("prepare")) == ["ntu60", "ntu120", "pku1", "pku2", "arrays", "pool"]
    assert pages.subcommands(pages.help_text("knn")) == []


def test_a_notebook_becomes_text_code_outputs_and_pictures(hooks):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": "%matplotlib inline\nprint(1)", "outputs": [{"text": ["1\n"]}]},
        {"cell_type": "code", "source": "figure", "outputs": [{"data": {"image/png": "aGVsbG8="}}]},
    ]
    text, pictures = hooks["pages"].render({"cells": cells}, "x")
    assert text == (
        "# Title\nwords\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n"
        "```python\nfigure\n```\n\n![Figure 1](x-1.png)\n"
    )
    assert pictures == {"x-1.png": b"hello"}


@pytest.mark.parametrize(
    ("uri", "link", "target"),
    [
        ("own-data.md", "data.md#archive", "data.md#archive"),
        ("own-data.md", "../CONTRIBUTING.md", "project/contributing.md"),
        ("own-data.md", "../notebooks/01_quickstart.ipynb", "notebooks/01_quickstart.md"),
        ("own-data.md", "../src/prosl_lightning/skeleton.py", "files/src/prosl_lightning/skeleton.py.md"),
        ("own-data.md", "../src/prosl_lightning/layouts", "files/src/prosl_lightning/layouts.md"),
        ("results.md", "../benchmarks/results/2026-11-22-gain.jsonl", "files/benchmarks/results/2026-11-22-gain.jsonl"),
        ("project/contributing.md", "docs/paper.md", "../paper.md"),
        ("notebooks/02_own_data.md", "../docs/own-data.md", "../own-data.md"),
        ("notebooks/01_quickstart.md", "02_own_data.ipynb", "02_own_data.md"),
        ("own-data.md", "../nothing.md", "../nothing.md"),
        ("own-data.md", "https://example.org", "https://example.org"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(hooks, uri, link, target):
    assert hooks["links"].rewritten(f"see [this]({link}) and `[code]({link})`", uri) == (
        f"see [this]({target}) and `[code]({link})`"
    )


def _docstring(hooks, text: str) -> str:
    import griffe

    code = f'"""Module."""\nA, B = 1, 2\n\nclass Thing:\n    """{text}"""\n\n    def run(self): ...\n'
    module = griffe.visit("package", filepath=Path("package.py"), code=code, lines_collection=griffe.LinesCollection())
    hooks["roles"].Roles().on_package(pkg=module)
    return module["Thing"].docstring.value


def test_roles_become_references_and_literal_blocks_code(hooks, caplog):
    text = _docstring(
        hooks, "Calls :meth:`run` of :class:`~package.Thing`, :math:`x^2`.\n\n    Example::\n\n        f(x)\n"
    )
    link = '<autoref identifier="package.Thing{}" optional><code>{}</code></autoref>'
    assert text.splitlines()[0] == f"Calls {link.format('.run', 'run')} of {link.format('', 'Thing')}, `x^2`."
    assert "Examples:\n\n```python\nf(x)\n```" in text or "Examples:\n\n    ```python" in text
    assert not caplog.records


def test_a_role_that_names_nothing_is_reported(hooks, caplog):
    assert "`absent`" in _docstring(hooks, "Calls :func:`absent`.")
    assert "package.Thing: :func:`absent` names nothing in the package" in caplog.text


def test_every_document_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        """Reads tags of Python objects as None."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    assert config["strict"] is True
    assert config["theme"]["font"] is False
    listed = set(re.findall(r"[\w/-]+\.md", str(config["nav"])))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written <= listed


@pytest.mark.slow
def test_the_site_builds_strictly_and_needs_nothing_from_elsewhere(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    pages = {path.relative_to(tmp_path / "site").as_posix(): path.read_text(encoding="utf-8") for path in
             (tmp_path / "site").rglob("*.html")}  # fmt: skip
    assert {f"cli/{verb}.html" for verb in VERBS} <= set(pages)
    assert "--model.num_clusters" in pages["cli/fit.html"]
    assert 'id="prosl_lightning.prosl.module.ProSLModule.training_step"' in pages["reference/training.html"]
    assert 'href="training.html#prosl_lightning.prosl.module.ProSLModule"' in pages["reference/index.html"]
    assert '<img alt="Figure 1" src="01_quickstart-1.png"' in pages["notebooks/01_quickstart.html"]
    for uri, text in pages.items():
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', text)
        assert not [each for each in loaded if "canonical" not in each], f"{uri} loads {loaded}"
        assert not re.findall(r":(?:class|func|meth|mod|attr|data):<code>", text), uri
