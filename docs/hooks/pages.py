"""Pages that are made, not written: the verbs' help, the notebooks, the list of public names, texts outside docs/.

A hook of mkdocs. What is made here cannot go out of date: help comes from the verbs, pictures from the notebooks.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import inspect
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
TEXTS = {
    "project/contributing.md": "CONTRIBUTING.md",
    "project/changelog.md": "CHANGELOG.md",
    "project/benchmarks.md": "benchmarks/README.md",
}
NOTEBOOKS = sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
_WIDTH = "110"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all generated pages."""
    for uri, content in pages():
        files.append(File.generated(config, uri, content=content))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the verbs into the navigation, in their own order."""
    from prosl_lightning.cli import VERBS

    for entry in config.nav or []:
        if isinstance(entry, dict) and entry.get("Command line") == "cli/":
            entry["Command line"] = ["cli/index.md", *({f"prosl {verb}": f"cli/{verb}.md"} for verb in VERBS)]
    return config


def pages() -> Iterator[tuple[str, str | bytes]]:
    """Address and content of every generated page and picture."""
    for uri, source in TEXTS.items():
        yield uri, (ROOT / source).read_text(encoding="utf-8")
    yield from notebook_pages()
    yield from verb_pages()
    yield "reference/index.md", public_names()


def verb_pages() -> Iterator[tuple[str, str]]:
    """A page for each verb with its help as it is printed, that of its subcommands below it."""
    from prosl_lightning.cli import VERBS

    rows = "\n".join(f"| [`prosl {verb}`]({verb}.md) | {text} |" for verb, (_, text) in VERBS.items())
    yield "cli/index.md", f"# Command line\n\n| Verb | What it does |\n|---|---|\n{rows}\n"
    for verb, (_, text) in VERBS.items():
        printed = help_text(verb)
        parts = [f"# prosl {verb}\n\n{text[0].upper()}{text[1:]}.\n\n```text\n{printed}\n```\n"]
        parts += [f"## prosl {verb} {each}\n\n```text\n{help_text(verb, each)}\n```\n" for each in subcommands(printed)]
        yield f"cli/{verb}.md", "\n".join(parts)


def help_text(*command: str) -> str:
    """What `prosl COMMAND --help` prints."""
    from prosl_lightning.cli import main

    os.environ["COLUMNS"] = _WIDTH
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return text.getvalue().strip()


def subcommands(printed: str) -> list[str]:
    """Names of the subcommands that a help text lists."""
    _, _, listed = printed.partition("Available subcommands:")
    return re.findall(r"^    (\w[\w-]*)(?: |$)", listed, flags=re.MULTILINE)


def notebook_pages() -> Iterator[tuple[str, str | bytes]]:
    """Each notebook with its outputs as Markdown, its pictures as files, and a list of them."""
    listed = []
    for name in NOTEBOOKS:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        text, pictures = render(notebook, name)
        title = text.removeprefix("# ").partition("\n")[0]
        listed.append(f"* [{title}]({name}.md)")
        yield f"notebooks/{name}.md", text
        yield from ((f"notebooks/{file}", content) for file, content in pictures.items())
    about = (
        "They run as they are, without data, in a minute or less each; the scripts and notebooks lie in `notebooks/`."
    )
    yield "notebooks/index.md", f"# Notebooks\n\n{about}\n\n" + "\n".join(listed) + "\n"


def render(notebook: dict, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        code = "\n".join(line for line in source.splitlines() if not line.startswith("%")).strip("\n")
        if code:
            parts.append(f"```python\n{code}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Figure {len(pictures)}]({file})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n", pictures


def public_names() -> str:
    """Everything that `from prosl_lightning import ...` gives, with the first line of its docstring."""
    package = importlib.import_module("prosl_lightning")
    rows = []
    for name in sorted(set(package.__all__) - {"__version__"}, key=str.lower):
        thing = getattr(package, name)
        first = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", first)
        rows.append(f"| [`{name}`][{thing.__module__}.{name}] | {plain} |")
    return (
        "# Reference\n\nThe names that `from prosl_lightning import NAME` gives. The pages of this part go on to all "
        "modules that are meant to be used from Python.\n\n| Name | What it is |\n|---|---|\n" + "\n".join(rows) + "\n"
    )
