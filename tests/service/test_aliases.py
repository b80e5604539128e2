"""Aliases over HTTP: move under a tag, roll back, remove, and the record of it all."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

CHAMPION = "/v1/models/fuel/aliases/champion"
CHALLENGER = "/v1/models/fuel/aliases/challenger"


@pytest.fixture(autouse=True)
def three_versions(publish: Callable[..., int]) -> None:
    for promote in ("if_better", "never", "never"):
        publish("fuel", promote=promote)


def test_an_alias_is_shown_with_its_tag(client: TestClient) -> None:
    answer = client.get(CHAMPION)
    assert answer.status_code == 200
    assert answer.json() == {"model": "fuel", "alias": "champion", "version": 1}
    assert client.get(CHAMPION, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    client.put(CHAMPION, json={"version": 2})
    assert client.get(CHAMPION, headers={"If-None-Match": answer.headers["etag"]}).json()["version"] == 2


def test_an_alias_is_made_and_moved(client: TestClient) -> None:
    made = client.put(CHALLENGER, json={"version": 2, "reason": "a try"})
    assert (made.status_code, made.json()["version"], made.headers["location"]) == (201, 2, CHALLENGER)
    moved = client.put(CHALLENGER, json={"version": 3})
    assert (moved.status_code, moved.json()["version"]) == (200, 3)
    assert made.headers["etag"] != moved.headers["etag"]
    assert client.get("/v1/models/fuel").json()["aliases"] == {"challenger": 3, "champion": 1}


def test_pointing_where_it_points_already_is_no_move(client: TestClient) -> None:
    before = client.get(CHAMPION).headers["etag"]
    assert client.put(CHAMPION, json={"version": 1}).headers["etag"] == before
    assert len(client.get(f"{CHAMPION}/moves").json()["moves"]) == 1


def test_a_stale_tag_is_refused_and_a_missing_one_is_not(client: TestClient) -> None:
    tag = client.get(CHAMPION).headers["etag"]
    assert client.put(CHAMPION, json={"version": 2}, headers={"If-Match": tag}).status_code == 200
    stale = client.put(CHAMPION, json={"version": 3}, headers={"If-Match": tag})
    assert stale.status_code == 412
    assert stale.headers["content-type"] == "application/problem+json"
    assert stale.json()["status"] == 412
    assert client.get(CHAMPION).json()["version"] == 2
    assert client.put(CHAMPION, json={"version": 3}).status_code == 200
    assert client.delete(CHALLENGER, headers={"If-Match": tag}).status_code == 404


def test_a_tag_of_a_removed_alias_does_not_fit_its_successor(client: TestClient) -> None:
    tag = client.put(CHALLENGER, json={"version": 2}).headers["etag"]
    assert client.delete(CHALLENGER).status_code == 204
    assert client.get(CHALLENGER).status_code == 404
    again = client.put(CHALLENGER, json={"version": 2})
    assert again.status_code == 201
    assert again.headers["etag"] != tag
    assert client.put(CHALLENGER, json={"version": 3}, headers={"If-Match": tag}).status_code == 412


def test_create_only(client: TestClient) -> None:
    only = {"If-None-Match": "*"}
    assert client.put(CHALLENGER, json={"version": 2}, headers=only).status_code == 201
    assert client.put(CHALLENGER, json={"version": 3}, headers=only).status_code == 412
    assert client.put("/v1/models/fuel/aliases/x", json={"version": 2}, headers={"If-Match": "*"}).status_code == 412


def test_a_version_that_is_not_there(client: TestClient) -> None:
    answer = client.put(CHAMPION, json={"version": 9})
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["pointer"] == "/version"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/version"),
        ({"version": 0}, "/version"),
        ({"version": 2**31}, "/version"),
        ({"version": 1, "reson": "typo"}, "/reson"),
        ({"version": 1, "reason": "nul \x00 byte"}, "/reason"),
        ({"version": 1, "reason": "x" * 2001}, "/reason"),
    ],
)
def test_what_cannot_be_understood(client: TestClient, body: dict[str, object], pointer: str) -> None:
    answer = client.put(CHAMPION, json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("alias", ["1", "123", "-x", "a" * 64, "a b", "ä"])
def test_names_an_alias_cannot_have(client: TestClient, alias: str) -> None:
    assert client.put(f"/v1/models/fuel/aliases/{alias}", json={"version": 1}).status_code == 422


def test_rolling_back_goes_where_the_last_move_came_from(client: TestClient) -> None:
    client.put(CHAMPION, json={"version": 2})
    client.put(CHAMPION, json={"version": 3})
    back = client.post(f"{CHAMPION}/rollback", json={"reason": "too wide"})
    assert (back.status_code, back.json()["version"]) == (200, 2)
    assert back.headers["etag"] == client.get(CHAMPION).headers["etag"]
    # A rollback is a move too: rolled back twice, it is where it was.
    assert client.post(f"{CHAMPION}/rollback").json()["version"] == 3
    found = client.get(f"{CHAMPION}/moves").json()["moves"]
    assert [(move["from"], move["to"]) for move in found] == [(2, 3), (3, 2), (2, 3), (1, 2), (None, 1)]
    assert [move["reason"] for move in found] == ["rollback", "too wide", "", "", "first version"]
    assert {move["actor"] for move in found} == {"anonymous", "worker"}
    assert all(move["at"].endswith("Z") or "+" in move["at"] for move in found)


def test_a_rollback_sent_twice_with_one_key_goes_back_once(client: TestClient) -> None:
    client.put(CHAMPION, json={"version": 2})
    key = {"Idempotency-Key": "once"}
    first = client.post(f"{CHAMPION}/rollback", json={}, headers=key)
    second = client.post(f"{CHAMPION}/rollback", json={}, headers=key)
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert client.get(CHAMPION).json()["version"] == 1


def test_nothing_to_roll_back_to(client: TestClient) -> None:
    assert client.post(f"{CHAMPION}/rollback").status_code == 409  # set once
    client.put(CHALLENGER, json={"version": 2})
    client.put(CHALLENGER, json={"version": 3})
    assert client.delete("/v1/models/fuel/versions/2").status_code == 204
    gone = client.post(f"{CHALLENGER}/rollback")
    assert gone.status_code == 409
    assert "deleted" in gone.json()["detail"]
    assert client.post("/v1/models/fuel/aliases/nope/rollback").status_code == 404
    stale = client.post(f"{CHALLENGER}/rollback", headers={"If-Match": '"0"'})
    assert stale.status_code == 412


def test_the_champion_is_not_removed_and_others_are(client: TestClient) -> None:
    assert client.delete(CHAMPION).status_code == 409
    client.put(CHALLENGER, json={"version": 2})
    assert client.delete(CHALLENGER).status_code == 204
    assert client.delete(CHALLENGER).status_code == 404
    found = client.get(f"{CHALLENGER}/moves").json()["moves"]
    assert [(move["from"], move["to"]) for move in found] == [(2, None), (None, 2)]
    assert client.get("/v1/models/fuel/aliases/never/moves").status_code == 404


def test_moves_come_in_pages(client: TestClient) -> None:
    for version in (2, 3, 1, 2):
        client.put(CHAMPION, json={"version": version})
    seen, token = [], None
    while True:
        answer = client.get(f"{CHAMPION}/moves", params={"page_size": 2} | ({"page_token": token} if token else {}))
        seen += [move["to"] for move in answer.json()["moves"]]
        token = answer.json()["next_page_token"]
        assert ('rel="next"' in answer.headers.get("link", "")) == (token is not None)
        if token is None:
            break
    assert seen == [2, 1, 3, 2, 1]


def test_an_alias_in_the_path_stands_for_its_model(client: TestClient) -> None:
    client.put(CHALLENGER, json={"version": 3})
    answer = client.put("/v1/models/fuel@challenger/aliases/champion", json={"version": 3})
    assert (answer.status_code, answer.json()["model"]) == (200, "fuel")
    assert client.put("/v1/models/fuel@nope/aliases/champion", json={"version": 3}).status_code == 404
