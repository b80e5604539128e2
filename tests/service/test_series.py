"""Series: listed by pages, searched, erased from every revision."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.errors import Conflict, Invalid, NotFound
from app.services import datasets

CSV = {"Content-Type": "text/csv"}


def upload(client: TestClient, body: str, **query: Any) -> dict[str, Any]:
    answer = client.post("/v1/datasets/d/revisions", content="key,timestamp,value\n" + body, params=query, headers=CSV)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def listed(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        answer = client.get("/v1/datasets/d/series", params=query | token)
        assert answer.status_code == 200, answer.text
        found += answer.json()["series"]
        if (following := answer.json()["next_page_token"]) is None:
            return found
        token = {"page_token": following}


def test_a_series_is_said_with_its_ends_and_gaps(client: TestClient) -> None:
    upload(
        client, "a,2026-01-01,1\na,2026-01-05,2\nb,2026-01-02,\nb,2026-01-03,\n", frequency="D", time_zone="Asia/Tokyo"
    )
    assert listed(client) == [
        {
            "key": "a",
            "start": "2026-01-01T00:00:00+09:00",
            "end": "2026-01-05T00:00:00+09:00",
            "points": 2,
            "missing": 3,
        },
        {"key": "b", "start": None, "end": None, "points": 0, "missing": 0},
    ]
    shown = client.get("/v1/datasets/d").json()
    assert (shown["series"], shown["points"]) == (2, 2)


KEYS = ["10%", "1_0", "A", "B", "a", "aB", "b/x", "b_", "z", "Ä", "ä", "日本"]


@pytest.mark.parametrize("size", [1, 5, 12, 1000])
def test_pages_go_through_all_keys_in_the_order_of_their_code_points(client: TestClient, size: int) -> None:
    upload(client, "".join(f"{key},2026-01-01,1\n" for key in KEYS[::-1]), frequency="D")
    assert [one["key"] for one in listed(client, page_size=size)] == KEYS


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("b", ["B", "aB", "b/x", "b_"]),
        ("B", ["B", "aB", "b/x", "b_"]),
        ("%", ["10%"]),
        ("_", ["1_0", "b_"]),
        ("本", ["日本"]),
    ],
)
def test_search_finds_parts_of_keys(client: TestClient, search: str, found: list[str]) -> None:
    upload(client, "".join(f"{key},2026-01-01,1\n" for key in KEYS), frequency="D")
    assert [one["key"] for one in listed(client, search=search, page_size=2)] == found


def test_a_page_is_full_where_series_have_gone(client: TestClient) -> None:
    upload(client, "".join(f"k{n:03},2026-01-01,1\n" for n in range(60)), frequency="D")
    upload(client, "".join(f"k{n:03},2026-01-01,1\n" for n in range(0, 60, 20)), mode="replace")
    page = client.get("/v1/datasets/d/series?page_size=2").json()
    assert [one["key"] for one in page["series"]] == ["k000", "k020"]
    assert [one["key"] for one in listed(client, page_size=2)] == ["k000", "k020", "k040"]


def test_lists_that_make_no_sense(client: TestClient) -> None:
    assert client.get("/v1/datasets/d/series").status_code == 404
    client.post("/v1/datasets", json={"name": "d"})
    assert listed(client) == []
    assert client.get("/v1/datasets/d/series/a/points").status_code == 409
    for query in ("page_token=x", "page_size=1001", "search=%00"):
        assert client.get(f"/v1/datasets/d/series?{query}").status_code == 422


# ---------------------------------------------------------------- read for the core


def test_series_are_read_in_the_order_asked_for(client: TestClient, database: Database) -> None:
    upload(client, "a,2026-01-01,1\nb,2026-01-02,2\nc,2026-01-03,3\n", frequency="D")
    upload(client, "d,2026-01-01,4\n")
    with database.read("default") as session:
        dataset = datasets.get(session, "d")
        assert [one.key for one in datasets.read_series(session, dataset)] == ["a", "b", "c", "d"]
        assert [one.key for one in datasets.read_series(session, dataset, keys=["c", "a", "c"])] == ["c", "a", "c"]
        assert [one.key for one in datasets.read_series(session, dataset, revision=1)] == ["a", "b", "c"]
        with pytest.raises(NotFound, match="'d', 'x'") as refused:
            datasets.read_series(session, dataset, revision=1, keys=["d", "a", "x"])
        assert refused.value.error_count == 2
        with pytest.raises(Invalid, match="got 3"):
            datasets.read_series(session, dataset, revision=3)


def test_an_empty_dataset_has_no_series_to_read(client: TestClient, database: Database) -> None:
    client.post("/v1/datasets", json={"name": "d", "frequency": "D"})
    with database.read("default") as session, pytest.raises(Conflict, match="empty"):
        datasets.read_series(session, datasets.get(session, "d"))


# ---------------------------------------------------------------- erased


def totals(client: TestClient, revision: int) -> tuple[int, int]:
    shown = client.get(f"/v1/datasets/d/revisions/{revision}").json()
    return shown["series"], shown["points"]


def test_an_erased_series_is_gone_from_every_revision_and_total(client: TestClient) -> None:
    upload(client, "a,2026-01-01,1\na,2026-01-09,2\nb,2026-01-03,3\n", frequency="D")
    upload(client, "b,2026-01-04,4\n")
    upload(client, "a,2026-01-09,\nc,2026-01-02,5\n", mode="upsert")
    upload(client, "b,2026-01-03,3\n", mode="replace")
    upload(client, "a,2026-01-08,6\n")
    assert [totals(client, n) for n in range(1, 6)] == [(2, 3), (2, 4), (3, 4), (1, 1), (2, 2)]
    tag = client.get("/v1/datasets/d").headers["etag"]
    assert client.delete("/v1/datasets/d/series/a").status_code == 204
    assert [totals(client, n) for n in range(1, 6)] == [(1, 1), (1, 2), (2, 3), (1, 1), (1, 1)]
    for revision in range(1, 6):
        assert client.get(f"/v1/datasets/d/series/a/points?revision={revision}").status_code == 404
    shown = client.get("/v1/datasets/d")
    assert shown.headers["etag"] != tag
    assert (shown.json()["start"], shown.json()["end"]) == ("2026-01-03T00:00:00+00:00", "2026-01-03T00:00:00+00:00")
    assert client.delete("/v1/datasets/d/series/a").status_code == 404
    assert upload(client, "a,2026-01-01,7\n")["inserted"] == 1
    assert client.get("/v1/datasets/d").json()["start"] == "2026-01-01T00:00:00+00:00"
