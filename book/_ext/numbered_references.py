"""References by number (``numref``), for which a build reads each page once.

Sphinx unpickles the whole page that such a reference points to, for each of them; on this book, with its hundreds of
references and pages of tables, that took as long as everything else.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.domains.std import StandardDomain
from sphinx.environment import BuildEnvironment


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_domain(NumberedReferences, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class PagesReadOnce:
    """The environment of a build, whose pages are only looked at."""

    def __init__(self, env: BuildEnvironment) -> None:
        self._env = env
        self.get_doctree = cache(env.get_doctree)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


class NumberedReferences(StandardDomain):
    """Sphinx's own domain, with such an environment for references by number."""

    _pages: PagesReadOnce | None = None

    def resolve_xref(
        self, env: BuildEnvironment, fromdocname: str, builder: Builder, typ: str, target: str, node: pending_xref,
        contnode: nodes.Element,
    ) -> nodes.Element | None:  # fmt: skip
        if typ == "numref":  # resolved when all pages have been written
            self._pages = self._pages or PagesReadOnce(env)
            env = self._pages  # type: ignore[assignment]
        return super().resolve_xref(env, fromdocname, builder, typ, target, node, contnode)
