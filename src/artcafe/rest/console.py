"""The web console at `/console`: three files, held in memory, with a content security policy of their own.

The page names script and style with `?v=` and a digest of their content. Such an address is cached for ever; without it, or with
another digest, a browser asks each time and gets 304 if it has the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from artcafe.rest.dependencies import RestSettings, settings_of

router = APIRouter(prefix="/console", include_in_schema=False)

PAGE: Final = "index.html"
SCRIPT: Final = "app.js"
STYLE: Final = "app.css"
_VERSION_CHARS: Final = 16
_MEDIA_TYPES: Final = {PAGE: "text/html", SCRIPT: "text/javascript", STYLE: "text/css"}

FOREVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, and the digest of its content."""

    content: bytes
    version: str
    media_type: str


@lru_cache(maxsize=1)
def static_files() -> dict[str, StaticFile]:
    """Return the files by name. The page refers to the digests of the others."""
    script, style = _read(SCRIPT), _read(STYLE)
    page = _content(PAGE)
    for name, file in ((SCRIPT, script), (STYLE, style)):
        page = page.replace(f'"/console/{name}"'.encode(), f'"/console/{name}?v={file.version}"'.encode())
    return {PAGE: _file(PAGE, page), SCRIPT: script, STYLE: style}


def _read(name: str) -> StaticFile:
    return _file(name, _content(name))


def _content(name: str) -> bytes:
    return (resources.files("artcafe.console") / "static" / name).read_bytes()


def _file(name: str, content: bytes) -> StaticFile:
    return StaticFile(content, hashlib.sha256(content).hexdigest()[:_VERSION_CHARS], _MEDIA_TYPES[name])


@lru_cache(maxsize=4)
def content_policy(settings: RestSettings) -> str:
    """Return the page's policy: its own script and style, and connections to this listener, the gateway and the issuer only."""
    urls = (settings.gateway_url, settings.issuer, settings.console_token_origin)
    origins = [f"{at.scheme}://{at.netloc}" for at in (urlsplit(url) for url in urls if url is not None)]
    reachable = " ".join(dict.fromkeys(["'self'", *origins]))
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            f"connect-src {reachable}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


@router.get("")
async def read_console(request: Request) -> Response:
    """Return the console's page. No token is required."""
    return _answer(request, PAGE)


@router.get("/")
async def redirect_to_console(request: Request) -> Response:
    """Redirect to the page. A browser keeps the fragment, which has the code of a sign-in or the address of a screen."""
    query = request.url.query
    return RedirectResponse(f"/console?{query}" if query else "/console")


@router.get("/app.js")
async def read_script(request: Request) -> Response:
    """Return the console's script."""
    return _answer(request, SCRIPT)


@router.get("/app.css")
async def read_style(request: Request) -> Response:
    """Return the console's style sheet."""
    return _answer(request, STYLE)


def _answer(request: Request, name: str) -> Response:
    file = static_files()[name]
    is_named = request.query_params.get("v") == file.version
    headers = {
        "Cache-Control": FOREVER if is_named else "no-cache",
        "Content-Security-Policy": content_policy(settings_of(request)),
        "ETag": f'"{file.version}"',
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
