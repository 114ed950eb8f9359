"""The page of every error for a browser, at the address that the `type` of a problem names."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from html import escape
from typing import Final

from fastapi import APIRouter, Response

from artcafe.errors import REGISTRY, ArtcafeError
from artcafe.rest.problems import ERROR_PAGE, title

router = APIRouter()

STYLE: Final = """
:root { color-scheme: light dark; --text: #1d2327; --dim: #5b656d; --line: #d9dee2; --mark: #fff4cf; --page: #fff }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8eb; --dim: #9aa5ad; --line: #333c43; --mark: #3d3413; --page: #14191d }
}
body { margin: 0 auto; padding: 2rem 1.25rem 40vh; max-width: 46rem; color: var(--text); background: var(--page);
  font: 1rem/1.6 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { margin: 0; font-size: 1.6rem }
h2 { margin: 0; font: 600 1.05rem/1.6 ui-monospace, monospace }
h2 a { color: inherit; text-decoration: none }
h2 a:hover { text-decoration: underline }
section { margin: 0 -.75rem; padding: .9rem .75rem; border-bottom: 1px solid var(--line) }
section:target { background: var(--mark) }
p { margin: .3rem 0 }
.facts { color: var(--dim); font-size: .875rem }
"""

PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Errors of ArtCafe</title>
<style>{style}</style>
</head>
<body>
<h1>Errors of ArtCafe</h1>
<p>An error has a code, which is stable and for programs, and a text for people. Words in <em>italics</em> stand for values. If a
retry can help, the same request can succeed a little later. The <code>request_id</code> of a problem finds it in the server's
log.</p>
{sections}
</body>
</html>
"""

SECTION: Final = """\
<section id="{code}">
<h2><a href="#{code}" title="{title}">{code}</a></h2>
<p>{text}</p>
<p class="facts">{facts}</p>
</section>"""

HEADERS: Final = {
    "cache-control": "public, max-age=3600",
    # The style is named by its hash: neither another one nor any script can run.
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


@router.get(ERROR_PAGE, include_in_schema=False)
async def read_errors() -> Response:
    """Return the page. No token is required, and it is the same for everybody."""
    return Response(page(), media_type="text/html", headers=HEADERS)


@cache
def page() -> str:
    """Return the page of every error that the server has, sorted by code."""
    kinds = [kind for _, kind in sorted(REGISTRY.items()) if kind.__module__.startswith("artcafe.")]
    return PAGE.format(style=STYLE, sections="\n".join(map(_section, kinds)))


def _section(kind: type[ArtcafeError]) -> str:
    text = readable_text(kind, r"<em>\1</em>", escape)
    return SECTION.format(code=kind.code, title=title(kind.code), text=text, facts=" · ".join(_facts(kind)))


def _facts(kind: type[ArtcafeError]) -> list[str]:
    facts = [f"HTTP {kind.status}"] if has_status(kind) else []
    facts += [f"close code {kind.close}"] if kind.close is not None else []
    return [*facts, "a retry can help" if kind.temporary else "a retry is answered alike"]


def has_status(kind: type[ArtcafeError]) -> bool:
    """Return whether an error occurs in HTTP answers: its class, or one between it and the root, sets a status."""
    return any("status" in vars(each) for each in kind.__mro__ if each is not ArtcafeError)


def readable_text(kind: type[ArtcafeError], mark: str, escaped: Callable[[str], str] = str) -> str:
    """Return the error's text with its placeholders replaced by `mark`, in which `\\1` is a placeholder's name. A text of
    placeholders only is followed by the class's docstring."""
    text = re.sub(r"\{(\w+)[^}]*\}", mark, escaped(kind.text.replace("\n ", ";")))
    is_bare = not re.search(r"\w", re.sub(r"\{[^}]*\}", "", kind.text))
    return f"{text} ({escaped(re.split(r'[.;]', kind.__doc__ or '')[0])})" if is_bare else text
