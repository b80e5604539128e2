"""Datasets over HTTP: made, listed, shown, changed, deleted."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.services import datasets

CSV = {"Content-Type": "text/csv"}
DAYS = "key,timestamp,value\na,2026-01-01,1\na,2026-01-02,2\nb,2026-01-03,3\n"


def upload(client: TestClient, name: str, body: str, **query: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/datasets/{name}/revisions", content=body, params=query, headers=CSV)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_dataset_is_made_and_shown(client: TestClient) -> None:
    body = {"name": "Gas.1", "frequency": "H", "time_zone": "Europe/Berlin", "bounds": {"min": 0}, "description": "x"}
    made = client.post("/v1/datasets", json=body)
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/datasets/Gas.1"
    shown = client.get("/v1/datasets/Gas.1")
    assert shown.json() == made.json()
    assert shown.headers["etag"] == made.headers["etag"]
    created = made.json().pop("created_at")
    assert created.endswith("Z")
    assert made.json() == {
        "name": "Gas.1",
        "frequency": "h",
        "time_zone": "Europe/Berlin",
        "revision": None,
        "series": 0,
        "points": 0,
        "start": None,
        "end": None,
        "covariates": [],
        "bounds": {"min": 0, "max": None},
        "description": "x",
        "created_at": created,
    }


def test_totals_are_those_of_the_newest_revision(client: TestClient) -> None:
    upload(client, "d", DAYS, time_zone="America/New_York")
    shown = client.get("/v1/datasets/d").json()
    assert (shown["frequency"], shown["revision"], shown["series"], shown["points"]) == ("D", 1, 2, 3)
    assert (shown["start"], shown["end"]) == ("2026-01-01T00:00:00-05:00", "2026-01-03T00:00:00-05:00")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "a b"}, "/name"),
        ({"name": "x" * 64}, "/name"),
        ({"name": "d", "frequency": "fortnight"}, "/frequency"),
        ({"name": "d", "time_zone": "Mars/Olympus"}, "/time_zone"),
        ({"name": "d", "bounds": {"min": 1, "max": 1}}, "/bounds"),
        ({"name": "d", "bounds": {"low": 1}}, "/bounds/low"),
        ({"name": "d", "freq": "h"}, "/freq"),
        ({}, "/name"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused_with_a_pointer(
    client: TestClient, body: dict[str, Any], pointer: str
) -> None:
    answer = client.post("/v1/datasets", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert client.get("/v1/datasets").json()["datasets"] == []


def test_a_name_is_taken_once_and_case_counts(client: TestClient) -> None:
    assert client.post("/v1/datasets", json={"name": "d"}).status_code == 201
    again = client.post("/v1/datasets", json={"name": "d"})
    assert (again.status_code, again.json()["type"]) == (409, "/docs/errors#dataset-exists")
    assert client.post("/v1/datasets", json={"name": "D"}).status_code == 201


def test_a_repeated_creation_gets_the_first_answer(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/datasets", json={"name": "d"}, headers=headers)
    again = client.post("/v1/datasets", json={"name": "d"}, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    other = client.post("/v1/datasets", json={"name": "e"}, headers=headers)
    assert other.status_code == 422


def test_pages_go_through_all_names_once(client: TestClient) -> None:
    names = sorted(["b", "A", "a", "Z9", "c.x", "c-x", "c_x"])
    for name in names:
        client.post("/v1/datasets", json={"name": name})
    seen: list[str] = []
    url = "/v1/datasets?page_size=3"
    while url:
        page = client.get(url)
        seen += [dataset["name"] for dataset in page.json()["datasets"]]
        link = page.headers.get("link")
        assert (link is None) == (page.json()["next_page_token"] is None)
        url = link[1 : link.index(">")] if link else ""
    assert seen == names
    assert client.get("/v1/datasets?page_token=x").status_code == 422
    assert client.get("/v1/datasets?page_size=0").status_code == 422


def test_bounds_and_description_change_and_the_tag_with_them(client: TestClient) -> None:
    tag = client.post("/v1/datasets", json={"name": "d", "bounds": {"min": 0}}).headers["etag"]
    assert client.get("/v1/datasets/d", headers={"If-None-Match": tag}).status_code == 304
    changed = client.patch("/v1/datasets/d", json={"description": "hello"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["bounds"]) == (200, {"min": 0, "max": None})
    stale = client.patch("/v1/datasets/d", json={"bounds": None}, headers={"If-Match": tag})
    assert (stale.status_code, client.get("/v1/datasets/d").json()["bounds"]) == (412, {"min": 0, "max": None})
    cleared = client.patch("/v1/datasets/d", json={"bounds": None})
    assert (cleared.json()["bounds"], cleared.json()["description"]) == (None, "hello")
    assert cleared.headers["etag"] not in (tag, changed.headers["etag"])
    assert client.get("/v1/datasets/d").headers["etag"] == cleared.headers["etag"]
    assert client.patch("/v1/datasets/d", json={"frequency": "h"}).status_code == 422
    upload(client, "d", DAYS)
    assert client.get("/v1/datasets/d").headers["etag"] != cleared.headers["etag"]


def test_deleting_takes_everything_and_frees_the_name(client: TestClient) -> None:
    upload(client, "d", DAYS)
    tag = client.get("/v1/datasets/d").headers["etag"]
    upload(client, "d", "key,timestamp,value\na,2026-01-03,9\n")
    assert client.delete("/v1/datasets/d", headers={"If-Match": tag}).status_code == 412
    assert client.delete("/v1/datasets/d").status_code == 204
    for path in ("", "/series", "/revisions/1", "/revisions/1/audit", "/series/a/points"):
        assert client.get(f"/v1/datasets/d{path}").status_code == 404
    assert client.delete("/v1/datasets/d").status_code == 404
    assert upload(client, "d", DAYS)["revision"] == 1


def test_a_dataset_behind_an_alias_is_kept_unless_forced(
    client: TestClient, database: Database, publish: Callable[..., int]
) -> None:
    upload(client, "d", DAYS)
    with database.read("default") as session:
        dataset_id = datasets.get(session, "d").id
    publish("fuel", dataset_id=dataset_id, dataset="d", revision=1)
    refused = client.delete("/v1/datasets/d")
    assert (refused.status_code, refused.json()["type"]) == (409, "/docs/errors#dataset-in-use")
    assert "fuel@champion" in refused.json()["detail"]
    publish("fuel", promote="always")  # the alias now points to a version that was trained on something else
    assert client.delete("/v1/datasets/d").status_code == 204
    upload(client, "d", DAYS)
    with database.read("default") as session:
        dataset_id = datasets.get(session, "d").id
    publish("fuel", promote="always", dataset_id=dataset_id, dataset="d", revision=1)
    assert client.delete("/v1/datasets/d").status_code == 409
    assert client.delete("/v1/datasets/d?force=true").status_code == 204
    assert client.get("/v1/models/fuel/versions/3").json()["dataset"] == "d"
