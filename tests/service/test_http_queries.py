"""A query parameter that a route does not know is refused: misspelt, it would do nothing in silence."""

import pytest
from fastapi.testclient import TestClient

FILE = "ds,y\n2026-01-01,1\n2026-01-02,2\n2026-01-03,3\n"


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/jobs?stat=running", "stat"),
        ("GET", "/v1/datasets?foo=1", "foo"),
        ("GET", "/v1/datasets/shop/series?serch=P", "serch"),
        ("GET", "/v1/datasets/shop/series/shop/points?form=2026-01-02", "form"),
        ("DELETE", "/v1/datasets/shop?forced=true", "forced"),
        ("POST", "/v1/datasets/shop/revisions?mod=upsert", "mod"),
    ],
)
def test_a_misspelt_parameter_is_refused_by_name(client: TestClient, method: str, path: str, name: str) -> None:
    client.post("/v1/datasets/shop/revisions", content=FILE, headers={"Content-Type": "text/csv"}).raise_for_status()
    answer = client.request(
        method, path, content=FILE if method == "POST" else None, headers={"Content-Type": "text/csv"}
    )
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]
    assert client.get("/v1/datasets/shop").json()["points"] == 3


def test_probes_take_what_they_are_given_and_answer_head(client: TestClient) -> None:
    assert client.get("/healthz?now=1").status_code == 200
    assert client.head("/healthz").status_code == 200
    assert client.head("/readyz").status_code == 200


def test_an_empty_answer_has_no_content_type(client: TestClient) -> None:
    client.post("/v1/datasets", json={"name": "shop"}).raise_for_status()
    answer = client.delete("/v1/datasets/shop")
    assert (answer.status_code, answer.content, "content-type" in answer.headers) == (204, b"", False)


def test_a_known_parameter_is_taken(client: TestClient) -> None:
    path = "/v1/datasets/local/revisions?time_zone=Europe/Berlin&mode=append"
    answer = client.post(path, content=FILE, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 201, answer.text
    points = client.get("/v1/datasets/local/series/local/points", headers={"Accept": "application/vnd.apache.parquet"})
    assert client.get("/v1/datasets?page_size=5").status_code == 200
    again = client.post("/v1/datasets/copy/revisions", content=points.content, headers=dict(points.headers))
    assert (again.status_code, again.json()["digest"]) == (201, answer.json()["digest"]), again.text
    assert client.get("/v1/datasets/copy").json()["time_zone"] == "Europe/Berlin"
