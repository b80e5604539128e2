"""The docs page, without the internet: Swagger UI's files come from the installed `fastapi-offline`, ours lie here."""

import re
from html import escape
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from app.errors import CODES

OURS = Path(__file__).parent / "static"
SWAGGER = Path(fastapi_offline.__file__).parent / "static"
# Swagger UI sets style attributes and draws its icons from data: URLs; no script but the two files named may run.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{root}/docs/static/icon.svg" type="image/svg+xml">
{styles}
</head>
<body>
{body}
</body>
</html>
"""


def install_docs(app: FastAPI) -> None:
    """`/docs`, `/docs/errors` and the files they need; the bare address leads there."""
    app.mount("/docs/static/swagger", StaticFiles(directory=SWAGGER), name="swagger")
    app.mount("/docs/static", StaticFiles(directory=OURS), name="docs")

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> RedirectResponse:
        """Whoever opens the server's bare address in a browser wants the page that says what is here."""
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = escape(request.scope.get("root_path", ""))
        body = (
            f'<header class="top"><a href="{root}/docs">Gatecast</a><nav><a href="{root}/docs/errors">Errors</a>'
            f'<a href="{root}/openapi.json">openapi.json</a></nav></header>\n<main id="swagger-ui"></main>\n'
            f'<script src="{root}/docs/static/swagger/swagger-ui-bundle.js"></script>\n'
            f'<script src="{root}/docs/static/docs.js" data-openapi="{root}/openapi.json"></script>'
        )
        return _page(root, "Gatecast API", body, "swagger/swagger-ui.css", "docs.css")

    @app.get("/docs/errors", include_in_schema=False)
    async def error_page(request: Request) -> HTMLResponse:
        root = escape(request.scope.get("root_path", ""))
        rows = "\n".join(
            f'<tr id="{code}"><td><a href="#{code}"><code>{code}</code></a></td><td>{kind.status}</td>'
            f"<td>{_marked(kind.meaning)}</td><td>{_marked(kind.next_step)}</td></tr>"
            for code, kind in sorted(CODES.items(), key=lambda item: (item[1].status, item[0]))
        )
        body = (
            f'<header class="top"><a href="{root}/docs">Gatecast</a><nav><a href="{root}/docs">API</a></nav></header>\n'
            '<main class="errors">\n<h1>Errors</h1>\n<p>Every refusal is a problem document (RFC 9457). Its <code>type'
            "</code> ends with one of these codes, its <code>detail</code> is a sentence about the case at hand, and "
            "its <code>errors</code> say where, with a hint. Its <code>instance</code> is the request's id: the "
            "server's log has a line with it.</p>\n<table>\n<thead><tr><th>Code</th><th>Status</th>"
            f"<th>What it means</th><th>What to do</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</main>"
        )
        return _page(root, "Gatecast errors", body, "docs.css")


def _marked(text: str) -> str:
    """A sentence as HTML: what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _page(root: str, title: str, body: str, *styles: str) -> HTMLResponse:
    links = "\n".join(f'<link rel="stylesheet" href="{root}/docs/static/{style}">' for style in styles)
    return HTMLResponse(
        PAGE.format(title=title, root=root, styles=links, body=body), headers={"Content-Security-Policy": POLICY}
    )
