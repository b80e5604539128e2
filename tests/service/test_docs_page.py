"""The docs page asks nothing of the internet."""

import re
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from app.errors import CODES


class Links(HTMLParser):
    """Every address an HTML page makes a browser fetch, and whether it has script or style of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href", "data-openapi") and value]
        self.inline += (tag == "script" and "src" not in dict(attrs)) or tag == "style"


@pytest.mark.parametrize("page", ["/docs", "/docs/errors"])
def test_no_address_leads_outside(client: TestClient, page: str) -> None:
    answer = client.get(page)
    links = Links()
    links.feed(answer.text)
    assert len(links.found) >= 3
    assert not re.search(r"https?:|//", re.sub(r"<!DOCTYPE[^>]*>", "", answer.text))
    assert links.inline == 0
    for address in links.found:
        if not address.startswith("#"):
            assert client.get(address).status_code == 200, address


def test_the_policy_lets_nothing_else_run(client: TestClient) -> None:
    policy = dict(part.split(" ", 1) for part in client.get("/docs").headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"


def test_the_bare_address_leads_there(client: TestClient) -> None:
    answer = client.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


def test_swagger_ui_is_whole(client: TestClient) -> None:
    script = client.get("/docs/static/swagger/swagger-ui-bundle.js")
    assert len(script.content) > 1_000_000
    assert "SwaggerUIBundle" in script.text
    assert "validatorUrl: null" in client.get("/docs/static/docs.js").text  # else its badge would ask a public server


def test_every_error_has_its_place(client: TestClient) -> None:
    page = client.get("/docs/errors").text
    assert all(f'<tr id="{code}">' in page for code in CODES)


def test_the_files_beside_are_not_a_way_in(client: TestClient) -> None:
    for path in ("/docs/static/../docs.py", "/docs/static/%2e%2e/docs.py", "/docs/static/swagger/../../core.py"):
        assert client.get(path).status_code == 404
