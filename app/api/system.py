"""The server about itself: alive, ready, and what it has to work with."""

from importlib.metadata import version

from fastapi import Request

from app.api.schemas.system import AliveOut, QueueOut, ReadyOut, SystemOut, WorkerOut
from app.errors import Unavailable
from app.http import ready
from app.http.problems import problems
from app.http.routers import probes
from app.http.sessions import AppSettings, ReadSession, database
from app.services import jobs

router = probes("System")
VERSION = version("gatecast")


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Is the process alive", response_description="It is.")
async def healthz() -> AliveOut:
    """Answers as long as the process can answer at all; touches neither database nor disk. Needs no key."""
    return AliveOut()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Can it do its work", response_description="It can.", responses=problems(503))
def readyz(request: Request, settings: AppSettings) -> ReadyOut:
    """Answers 200 when the database answers, its tables are this program's and the model store can be written; else
    503, with one entry in `errors` for each thing that is missing. Needs no key."""
    if found := ready.complaints(settings, database(request)):
        raise Unavailable("; ".join(complaint.message for complaint in found) + ".", code="not-ready", errors=found)
    return ReadyOut()


@router.get("/v1/system", summary="What the server has to work with", responses=problems())
def system(session: ReadSession) -> SystemOut:
    """The program's version, the living workers with their devices, and how many jobs wait and run. No worker listed
    means that jobs will wait: start one with `gatecast worker`."""
    workers = [WorkerOut.model_validate(worker) for worker in jobs.workers(session)]
    devices = [device for worker in workers for device in worker.devices]
    return SystemOut(version=VERSION, devices=devices, workers=workers, queue=QueueOut(**jobs.queue_counts(session)))
