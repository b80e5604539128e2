"""`gatecast jobs`: list, show, follow, cancel, retry, delete; and how a job is followed on the screen."""

from typing import Annotated, Any, Literal

import httpx
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.cli.client import ask, checked, connect, failure, follow, pages
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, default_url, err, out, root
from app.cli.show import facts, number, print_json, table

jobs = typer.Typer(help="Background work: list, show, follow, cancel, retry, delete.", invoke_without_command=True)
root.add_typer(jobs, name="jobs", rich_help_panel=CLIENT)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, as `gatecast jobs` lists it.")]
State = Literal["pending", "running", "succeeded", "failed", "cancelled"]
Kind = Literal["train", "tune", "trial", "backtest", "forecast", "shard"]
WIDE = 100  # columns of a terminal that hold all there is to say of a job


def watch(http: httpx.Client, job: str) -> dict[str, Any]:
    """Follow a job with a progress bar and its losses to its end; the job then. Ctrl-C leaves it running."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[losses]}"),
    )
    try:
        with Progress(*columns, console=err) as progress:
            task = progress.add_task("Waiting for a worker", total=None, losses="", speed="")
            for event in follow(http, job):
                if event.kind == "progress":
                    total = event.data["total"] or None
                    at: dict[str, Any] = {"total": total, "completed": event.data["step"], "speed": speed(event.data)}
                    progress.update(task, description=_brief(event.data["message"]), **at)
                elif event.kind == "metric":
                    progress.update(task, losses=losses(_latest(event.data)))
                elif event.kind == "log":
                    progress.console.print(f"  {event.data['message']}", style="dim", highlight=False, markup=False)
                elif event.data["state"] == "succeeded":
                    progress.update(task, description="Done", total=1, completed=1)
    except KeyboardInterrupt:
        err.print(
            f"\nThe job goes on. Follow it: gatecast jobs follow {job}   Stop it: gatecast jobs cancel {job}",
            highlight=False,
        )
        raise
    return ask(http, "GET", f"/v1/jobs/{job}")


def succeeded(job: dict[str, Any]) -> dict[str, Any]:
    """The job's result. Raises Failed with the reason when it did not succeed."""
    if job["state"] == "succeeded":
        return job["result"]
    error = job["error"] or {"detail": f"Try it again with `gatecast jobs retry {job['id']}`.", "type": "#"}
    raise failure(error, f"Job {job['id']} {'was ' if job['state'] == 'cancelled' else 'has '}{job['state']}.")


def losses(metrics: dict[str, Any]) -> str:
    """The latest figures in a few characters."""
    return "  ".join(f"{name} {number(value)}" for name, value in metrics.items() if name != "step")


def speed(progress: dict[str, Any]) -> str:
    """How fast it goes, in a few characters; "" where that is not known."""
    if progress.get("rate"):
        return f"{number(progress['rate'])} {progress['unit']}/s"
    return f"{number(progress['steps_per_s'])} steps/s" if progress.get("steps_per_s") else ""


def _latest(metrics: dict[str, Any]) -> dict[str, Any]:
    """The losses and the held-out score of a training under way: what changes while one watches."""
    names = {"train_loss": "loss", "validation_loss": "held-out", "validation_mase": "MASE"}
    return {short: metrics[name] for name, short in names.items() if name in metrics}


def _brief(message: str) -> str:
    return escape(message if len(message) <= 28 else message[:27] + "…")


@jobs.callback()
def list_when_bare(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_jobs(url=default_url())


@jobs.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only jobs of this kind.")] = None,
    most: Annotated[int, typer.Option(help="Most jobs to show.", min=1, max=10_000)] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show the newest jobs."""
    with connect(url) as http:
        found = pages(http, "/v1/jobs", "jobs", most, state=state, kind=kind)
    if as_json:
        print_json(found)
    elif not found:
        out.print("No jobs.")
    else:
        columns = ["=job", "kind", "state", ">done", "=asked for (UTC)", "of"]
        rows = [
            [
                job["id"],
                job["kind"],
                _state(job),
                f"{job['progress']['fraction']:.0%}",
                job["created_at"][:16].replace("T", " "),
                _subject(job),
            ]
            for job in found
        ]
        if out.width < WIDE:  # the rest would be folded letter by letter
            for row in (columns, *rows):
                del row[4]
        table(None, columns, rows)


def _state(job: dict[str, Any]) -> str:
    """The state; of one that waits, with its place in the queue."""
    return f"{job['state']} ({job['position']})" if job.get("position") else job["state"]


def _subject(job: dict[str, Any]) -> str:
    spec = job["spec"]
    return f"{spec.get('model', '')} on {spec.get('dataset', '')}"


@jobs.command("show")
def show_job(job: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show one job: state, progress, latest figures, result or reason."""
    with connect(url) as http:
        found = ask(http, "GET", f"/v1/jobs/{job}")
    if as_json:
        print_json(found)
        return
    progress, error = found["progress"], found["error"]
    facts(
        found["id"],
        {
            "kind": f"{found['kind']}: {_subject(found)}",
            "state": found["state"],
            "priority": found["priority"],
            "progress": f"{progress['fraction']:.0%} ({progress['message']})",
            "speed": speed(progress) or None,
            "figures": losses(found["metrics"]) or None,
            "attempt": found["attempt"],
            "worker": found["worker"],
            "device": found["device"],
            "asked for": found["created_at"],
            "finished": found["finished_at"],
            "result": found["result"]["href"] if found["result"] else None,
            "why": error["detail"] if error else None,
        },
    )


@jobs.command("follow")
def follow_job(job: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Watch a job until it is done. Ctrl-C stops the watching, not the job."""
    with connect(url) as http:
        done = watch(http, job)
    if as_json:
        print_json(done)
    result = succeeded(done)  # says what went wrong, by the exit status too
    if not as_json:
        out.print(f"Result: {result['href']}", highlight=False)


@jobs.command("cancel")
def cancel_job(job: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Stop a job that waits or runs. It keeps its last checkpoint."""
    with connect(url) as http:
        done = ask(http, "POST", f"/v1/jobs/{job}/cancel")
    if as_json:
        print_json(done)
    else:
        out.print(f"{job} is cancelled. `gatecast jobs retry {job}` goes on from its last checkpoint.", highlight=False)


@jobs.command("delete")
def delete_job(job: JobId, url: Url = DEFAULT_URL) -> None:
    """Delete a job that has ended, with the file or the backtest it made. A version that it made stays."""
    with connect(url) as http:
        checked(http.delete(f"/v1/jobs/{job}"))
    out.print(f"{job} is deleted.", highlight=False)


@jobs.command("retry")
def retry_job(job: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Try a failed or cancelled job again, from its last checkpoint."""
    with connect(url) as http:
        done = ask(http, "POST", f"/v1/jobs/{job}/retry")
    if as_json:
        print_json(done)
    else:
        out.print(f"{job} waits again. Watch it: gatecast jobs follow {job}", highlight=False)
