"""Docstrings of this package as Markdown: roles such as :class:`X` become references, `text::` blocks become code.

An extension of griffe, which reads the docstrings. A role that names nothing in the package is reported, so a strict
build fails; one that names something without a page of its own, a helper, becomes plain code.
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

import griffe

_ROLE = re.compile(r":(?P<role>class|func|meth|mod|attr|data|exc):`(?P<short>~?)(?P<name>[\w.]+)`")
_MATHS = re.compile(r":math:`([^`]+)`")
_BLOCK = re.compile(
    r"^(?P<indent>[ ]*)(?P<text>\S.*)?(?<!:)::\n\n(?P<code>(?:(?P=indent)[ ]{4}.*\n?|[ ]*\n)+)", re.MULTILINE
)


class Roles(griffe.Extension):
    """Rewrites every docstring once the whole package is known."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Go through all objects of the package."""
        everything = list(_objects(pkg))
        index: dict[str, set[str]] = {}
        known = {each.path: each.path for each in everything if not each.is_alias}
        known |= {each.path: each.target_path for each in everything if each.is_alias}
        for path in known.values():
            *_, parent, name = ["", *path.split(".")]
            index.setdefault(name, set()).add(path)
            index.setdefault(f"{parent}.{name}", set()).add(path)
        for each in everything:
            if not each.is_alias and each.docstring:
                each.docstring.value = as_markdown(each.docstring.value, each, index, known)


def _objects(module: griffe.Object) -> Any:
    """An object and all that it holds; what it has imported as an alias."""
    yield module
    for member in module.members.values():
        if member.is_alias:
            yield member
        else:
            yield from _objects(member)


def as_markdown(text: str, where: griffe.Object, index: dict[str, set[str]], known: dict[str, str]) -> str:
    """One docstring without reST; `Example:` becomes the section that the parser knows, `Examples:`."""

    def reference(found: re.Match[str]) -> str:
        path = resolve(found["name"], where, index, known)
        shown = found["name"].rsplit(".", 1)[-1] if found["short"] else found["name"]
        if path is None and not _assigned(found["name"], where):
            griffe.get_logger("griffe").warning(f"{where.path}: {found[0]} names nothing in the package")
        if path is None:
            return f"`{shown}`"
        return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'

    plain = _BLOCK.sub(_fenced, _MATHS.sub(r"`\1`", _ROLE.sub(reference, text)))
    return re.sub(r"^( *)Example:$", r"\1Examples:", plain, flags=re.MULTILINE)


def resolve(name: str, where: griffe.Object, index: dict[str, set[str]], known: dict[str, str]) -> str | None:
    """The path of what a role names: as visible where it stands, else the only one of that name in the package."""
    scopes, scope = [name], where
    while scope is not None:
        scopes.append(f"{scope.path}.{name}")
        scope = scope.parent
    for path in scopes:
        if path in known:
            target = known[path]
            return known.get(target, target)  # an alias of an alias
    public = {path for path in index.get(name, set()) if "._" not in path and path in known}
    return public.pop() if len(public) == 1 else None


def _assigned(name: str, where: griffe.Object) -> bool:
    """Whether the module assigns this name in a way the parser passes over, such as `A, B = 1, 2`."""
    return bool(re.search(rf"^[\w, ]*\b{re.escape(name)}\b[\w, ]*=", "\n".join(where.module.lines), re.MULTILINE))


def _fenced(found: re.Match[str]) -> str:
    """A literal block as a fenced one, highlighted where it is Python."""
    indent, code = found["indent"], textwrap.dedent(found["code"]).strip("\n")
    try:
        ast.parse(code)
        language = "python"
    except SyntaxError:
        language = "yaml"
    text = f"{found['text'] or ''}".rstrip()
    body = textwrap.indent(f"```{language}\n{code}\n```", indent)
    return f"{indent}{text}:\n\n{body}\n" if text else f"{body}\n"
