"""Covariates in a question: accepted and checked, and said when they change nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.db.tables import ColumnRow
from app.services import datasets

URL = "/v1/forecasts"
TARGET = [float(step % 7) for step in range(20)]


@pytest.fixture(autouse=True)
def in_place(publish: Callable[..., int], stored: Callable[..., int], database: Database) -> None:
    """A version trained on a dataset with a numeric future column, a past one and a static text column."""
    stored("shop", {"a": TARGET, "b/c": TARGET})
    with database.write("default") as session:
        row = datasets.get(session, "shop")
        for name, role, kind in (
            ("price", "future", "number"),
            ("visits", "past", "number"),
            ("region", "static", "category"),
        ):
            session.add(ColumnRow(dataset_id=row.id, name=name, role=role, kind=kind, categories=[]))
        dataset_id = row.id
    publish("sales", dataset_id=dataset_id, dataset="shop")


def post(client: TestClient, **body: Any) -> Any:
    return client.post(URL, json={"model": "sales", "horizon": 2, **body})


def sent(**covariates: Any) -> list[dict[str, Any]]:
    return [{"key": "a", "start": "2026-01-05", "target": TARGET, **covariates}]


def test_known_ones_are_taken_and_said_to_change_nothing(client: TestClient) -> None:
    plain = post(client, inputs=sent()).json()
    answer = post(
        client,
        inputs=sent(
            past_covariates={"visits": [*[1.0] * 18, None, "NaN"], "price": [2] * 20},
            future_covariates={"price": [3, 4.5, 5]},
            static_covariates={"region": "north"},
        ),
    ).json()
    assert [warning["code"] for warning in answer["warnings"]] == ["covariates_ignored"]
    assert "'price', 'region', 'visits'" in answer["warnings"][0]["message"]
    assert answer["forecasts"] == plain["forecasts"]


def test_unknown_ones_are_a_warning(client: TestClient) -> None:
    columns = {f"x{place}": [1.0] * 20 for place in range(7)}
    answer = post(client, inputs=sent(past_covariates=columns)).json()
    assert [warning["code"] for warning in answer["warnings"]] == ["unknown_covariates"]
    assert "(and 2 more)" in answer["warnings"][0]["message"]


def test_what_is_known_of_a_stored_series_future(client: TestClient) -> None:
    answer = post(client, dataset="shop", future_covariates={"a": {"price": [1, 2]}, "b/c": {"moon": [0, True]}})
    assert {warning["code"] for warning in answer.json()["warnings"]} == {"covariates_ignored", "unknown_covariates"}
    for future, pointer in (
        ({"a": {"price": [1]}}, "/future_covariates/a/price"),
        ({"b/c": {"x/y~z": []}}, "/future_covariates/b~1c/x~1y~0z"),
        ({"zz": {"price": [1, 2]}}, "/future_covariates/zz"),
        ({"a": {"price": [1, "high"]}}, "/future_covariates/a/price/1"),
        ({"a": {"price": [1, {}]}}, "/future_covariates/a/price/1"),
        ({"a": {"price": 1}}, "/future_covariates/a/price"),
    ):
        refused = post(client, dataset="shop", future_covariates=future)
        assert refused.status_code == 422, future
        assert refused.json()["errors"][0]["pointer"] == pointer
    some = post(client, dataset="shop", series=["a"], future_covariates={"b/c": {"price": [1, 2]}})
    assert some.status_code == 422


def test_wrong_lengths_and_kinds_are_refused_with_their_place(client: TestClient) -> None:
    for covariates, pointer in (
        ({"past_covariates": {"visits": [1.0] * 19}}, "/inputs/0/past_covariates/visits"),
        ({"past_covariates": {"visits": [1.0] * 21}}, "/inputs/0/past_covariates/visits"),
        ({"future_covariates": {"price": [1.0]}}, "/inputs/0/future_covariates/price"),
        ({"past_covariates": {"visits": [*[1.0] * 19, "many"]}}, "/inputs/0/past_covariates/visits/19"),
        ({"static_covariates": {"region": ["north"]}}, "/inputs/0/static_covariates/region"),
        ({"static_covariates": {"region": {}}}, "/inputs/0/static_covariates/region"),
    ):
        answer = post(client, inputs=sent(**covariates))
        assert answer.status_code == 422, covariates
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_history_that_ends_in_missing_values_keeps_its_covariates_checked(client: TestClient) -> None:
    target = [*TARGET, None]
    inputs = [{"key": "a", "target": target, "past_covariates": {"visits": [1.0] * len(target)}}]
    answer = post(client, inputs=inputs)
    assert answer.status_code == 200
    assert np.isfinite(answer.json()["forecasts"][0]["mean"]).all()
