"""Schedules: jobs that are asked for again and again, on the clock of their dataset."""

import hashlib
from typing import Annotated, Any

from fastapi import Body, Path, Request, Response

from app.api.jobs import ACCEPTED, accepted
from app.api.schemas.common import NAME
from app.api.schemas.jobs import JobOut, ask_of
from app.api.schemas.schedules import ScheduleChangeIn, ScheduleIn, ScheduleOut, SchedulesOut
from app.http import routers
from app.http.idempotency import IDEMPOTENT, idempotent
from app.http.pages import DEFAULT_SIZE, PageSize, PageToken, bad_token, decode_token, encode_token, next_link
from app.http.problems import problems
from app.http.sessions import AppSettings, JobEngine, ReadSession, WriteSession
from app.services import datasets, firing, schedules
from app.services.firing import Around

router = routers.router("Jobs", "/v1/schedules")

SchedulePath = Annotated[str, Path(pattern=NAME, description="Name of the schedule.", examples=["nightly"])]
CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"description": "The schedule.", "schema": {"type": "string"}}}}
}
EXAMPLES: Any = {
    "retrain": {
        "summary": "Train anew every night at three",
        "value": {
            "name": "nightly",
            "cron": "0 3 * * *",
            "dataset": "gasoline",
            "job": {"kind": "train", "model": "fuel", "preset": "fast", "config": {"horizon": 12}},
        },
    },
}
CHANGES: Any = {
    "pause": {"summary": "Pause it", "value": {"paused": True}},
    "resume": {"summary": "Let it go on, at another time", "value": {"paused": False, "cron": "30 4 * * 1-5"}},
}


@router.post(
    "",
    status_code=201,
    summary="Create a schedule",
    response_model=ScheduleOut,
    responses=CREATED | problems(404, 409, 503),
    dependencies=[IDEMPOTENT],
)
def create_schedule(
    *,
    wanted: Annotated[ScheduleIn, Body(openapi_examples=EXAMPLES)],
    request: Request,
    session: WriteSession,
    settings: AppSettings,
    engine: JobEngine,
) -> Response:
    """Asks for a job whenever `cron` says so. What would be refused now as a job is refused as a schedule. The workers
    fire it, each time once however many they are; a time that passes while none runs is made up for once when the next
    one starts, not once for each. It goes with its dataset when that is deleted."""
    ask, around = ask_of(wanted.job, wanted.dataset), Around(settings, engine, request.app.state.versions)

    def make() -> tuple[int, dict[str, str], dict[str, Any]]:
        dataset = datasets.get(session, wanted.dataset)
        firing.plan(session, ask, around)
        row = schedules.create(session, wanted.name, wanted.cron, dataset, firing.document(ask))
        return 201, {"Location": f"/v1/schedules/{row.name}"}, ScheduleOut.of(row, dataset).model_dump(mode="json")

    return idempotent(request, session, hashlib.sha256(wanted.model_dump_json().encode()).hexdigest(), make)


@router.get("", summary="List schedules", responses=problems())
def list_schedules(
    request: Request,
    response: Response,
    session: ReadSession,
    page_size: PageSize = DEFAULT_SIZE,
    page_token: PageToken = None,
) -> SchedulesOut:
    """All schedules by name, with when each fires next and what came of the last time."""
    after = None
    if page_token is not None:
        match decode_token(request, page_token):
            case [str(value)] if len(value) <= 63:
                after = value
            case _:
                raise bad_token()
    rows, last = schedules.list_page(session, after, page_size)
    token = encode_token(request, [last]) if last else None
    response.headers.update(next_link(request, token))
    return SchedulesOut(schedules=[ScheduleOut.of(*row) for row in rows], next_page_token=token)


@router.get("/{schedule}", summary="Show a schedule", responses=problems(404))
def show_schedule(schedule: SchedulePath, session: ReadSession) -> ScheduleOut:
    """When it fires next, and what came of the last time."""
    return ScheduleOut.of(*schedules.get(session, schedule))


@router.patch("/{schedule}", summary="Pause or change a schedule", responses=problems(404))
def change_schedule(
    schedule: SchedulePath,
    wanted: Annotated[ScheduleChangeIn, Body(openapi_examples=CHANGES)],
    session: WriteSession,
) -> ScheduleOut:
    """Pauses it, lets it go on, or gives it another `cron`. What it misses while it is paused is not made up for."""
    return ScheduleOut.of(*schedules.change(session, schedule, wanted.paused, wanted.cron))


@router.delete("/{schedule}", status_code=204, summary="Delete a schedule", responses=problems(404))
def delete_schedule(schedule: SchedulePath, session: WriteSession) -> None:
    """Deletes a schedule. Jobs that it has asked for stay."""
    schedules.remove(session, schedule)


@router.post(
    "/{schedule}/run",
    status_code=202,
    summary="Run a schedule's job now",
    response_model=JobOut,
    responses=ACCEPTED | problems(404, 409, 429, 503),
    dependencies=[IDEMPOTENT],
)
def run_schedule(
    schedule: SchedulePath, request: Request, session: WriteSession, settings: AppSettings, engine: JobEngine
) -> Response:
    """Asks for its job at once, also while it is paused. When it fires next stays as it is."""
    around = Around(settings, engine, request.app.state.versions)
    return idempotent(request, session, "", lambda: accepted(*firing.run_now(session, schedule, around)))
