"""Links that lead out of docs/, as GitHub shows them, lead to a page of the site: the same text serves both.

A hook of mkdocs. A text or notebook that has a page is found there; of any other file of the repository that is linked
to, the site gets a page with its content, of a folder one with all its files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pages import NOTEBOOKS, TEXTS  # beside this file; mkdocs lets a hook see its folder

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".cfg": "ini"}
_SHOWN_BYTES = 100_000
_HOOK_FILES = {".md", *_LANGUAGES, ".txt"}


ORIGINS = {
    **TEXTS,
    "notebooks/index.md": "notebooks",
    **{f"notebooks/{name}.md": f"notebooks/{name}.ipynb" for name in NOTEBOOKS},
}
"""Address of a page that stands for a text outside docs/ -> that text."""
PAGES = {origin: uri for uri, origin in ORIGINS.items()}


def origin_of(uri: str) -> str:
    """Where in the repository the text of a page lies."""
    return ORIGINS.get(uri, f"docs/{uri}")


def address(path: str) -> str | None:
    """The site's address of a file or folder of the repository; None where there is no such file."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    target = ROOT / path
    if target.is_dir() or (target.suffix in _HOOK_FILES and target.is_file()):
        return f"files/{path}.md"
    return f"files/{path}" if target.is_file() else None


def rewritten(text: str, uri: str) -> str:
    """A page's text with the links to the repository's files as links of the site; code stays as it is."""
    folder = posixpath.dirname(origin_of(uri))

    def link(found: re.Match[str]) -> str:
        target = address(posixpath.normpath(posixpath.join(folder, found[1])))
        return found[1] if target is None else posixpath.relpath(target, posixpath.dirname(uri) or ".")

    return "".join(part if part.startswith("`") else _LINK.sub(link, part) for part in _CODE.split(text))


def linked(text: str, uri: str) -> Iterator[str]:
    """Files of the repository outside docs/ that a page links to and that have no page of their own."""
    folder = posixpath.dirname(origin_of(uri))
    for part in _CODE.split(text):
        for found in [] if part.startswith("`") else _LINK.findall(part):
            path = posixpath.normpath(posixpath.join(folder, found))
            if not path.startswith("docs/") and path not in PAGES and (ROOT / path).exists():
                yield path


def content(path: str) -> str | bytes:
    """What the site shows of a file or folder of the repository."""
    target = ROOT / path
    if target.is_file() and target.suffix not in _HOOK_FILES:
        return target.read_bytes()
    if target.suffix == ".md":
        return target.read_text(encoding="utf-8")
    files = [target] if target.is_file() else sorted(each for each in target.iterdir() if each.suffix in _LANGUAGES)
    parts = [f"# {path}"]
    for each in files:
        if each.stat().st_size <= _SHOWN_BYTES:
            heading = [] if target.is_file() else [f"## {each.name}"]
            code = f"````{_LANGUAGES.get(each.suffix, 'text')}\n{each.read_text(encoding='utf-8').rstrip()}\n````"
            parts += [*heading, code]
    return "\n\n".join(parts) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside docs/ that a text links to."""
    wanted = {path for page in files.documentation_pages() for path in linked(page.content_string, page.src_uri)}
    for path in sorted(wanted):
        uri = address(path)
        assert uri is not None
        page = File.generated(config, uri, content=content(path))
        page.inclusion = page.inclusion.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page."""
    return rewritten(markdown, page.file.src_uri)
