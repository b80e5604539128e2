"""The yardstick of `serving.py`: a FastAPI `async def` route that answers every POST to / with the bytes of a file.

    python bench/noop.py FILE --port 9000

The same loop and HTTP parser as `gatecast serve`, no access log, the request's body not read.
"""

import argparse
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    body, app = options.file.read_bytes(), FastAPI()

    @app.post("/")
    async def answer() -> Response:
        return Response(body, media_type="application/json")

    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
