"""HEAD: what GET would answer, without the body, wherever GET is offered and no route answers HEAD by itself."""

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import answers_head


class Heads:
    """Middleware outside of whatever changes a body, which has to see what GET would answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or not self._by_get(scope):
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
            elif not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        await self.app({**scope, "method": "GET"}, receive, without_body)

    def _by_get(self, scope: Scope) -> bool:
        routes = scope["app"].router.routes

        def offered(method: str) -> bool:
            return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)

        return answers_head(scope["path"]) and offered("GET") and not offered("HEAD")
