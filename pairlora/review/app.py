"""A small web app for this machine alone: the report's own pages, with buttons that take decisions down.

Whoever opens it needs the token of its URL, which becomes a cookie; a decision needs the page's own token in a header as
well, which no other site's page can read or send.
"""

import asyncio
import mimetypes
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field

from pairlora.errors import ConfigError, MissingExtraError, UnsafeUrlError
from pairlora.records import AdapterRecord, Record, Review
from pairlora.review.decisions import ReviewDesk, describe_review

try:
    import uvicorn
    from fastapi import Depends, FastAPI, HTTPException, Request, Response
    from fastapi.responses import RedirectResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ModuleNotFoundError as error:
    raise MissingExtraError("`pairlora review serve` needs a web server: pip install 'pairlora[review]'") from error

HOST = "127.0.0.1"
COOKIE = "pairlora-review"
PLAIN = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
EMPTY_TOKEN = b'<meta name="review-token" content="">'


class Decision(Record):
    """What a page sends: a pair of the run, and what is decided on it."""

    pair_id: str
    verdict: Literal["accept", "reject"]
    strength: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    comment: str = Field(default="", max_length=4000)


class Door:
    """Who may come in: browsers that bring the cookie, and decisions that bring the token of a page as well."""

    def __init__(self, token: str):
        self._token = token
        self.page_token = secrets.token_urlsafe(32)

    def check_token(self, given: str) -> None:
        """Refuse a wrong token."""
        if not _is_equal(given, self._token):
            raise HTTPException(403, "open the URL that `pairlora review serve` printed")

    def check_cookie(self, request: Request) -> None:
        """Refuse a browser that never brought the token."""
        self.check_token(request.cookies.get(COOKIE, ""))

    def check_page(self, request: Request) -> None:
        """Refuse what no page of ours sent: another site's page can bring the cookie along, and neither read nor send the header."""
        self.check_cookie(request)
        if not _is_equal(request.headers.get("x-review-token", ""), self.page_token):
            raise HTTPException(403, "a decision comes from the report's own page; load it again")


def _is_equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode(), expected.encode())


def make_app(desk: ReviewDesk, *, reviewer: str, token: str) -> FastAPI:
    """The app for one run; `reviewer` signs all decisions."""
    app = FastAPI(title="pairlora review", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # a name that resolves to us is no door
    door = Door(token)

    @app.get("/")
    def enter(request: Request, token: str = "") -> Response:
        answer = RedirectResponse(f"/runs/{desk.run_id}/report/index.html", 303)
        if not token:
            door.check_cookie(request)
            return answer
        door.check_token(token)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer

    @app.get("/reviews", dependencies=[Depends(door.check_page)])
    def list_decisions() -> list[dict[str, Any]]:
        return [show_review(reviews[-1]) for reviews in desk.read().values()]

    @app.post("/reviews", dependencies=[Depends(door.check_page)])
    def decide(decision: Decision) -> dict[str, Any]:
        try:
            return show_review(desk.decide(reviewer=reviewer, **decision.model_dump()))
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error

    @app.get("/adapters/{fingerprint}/{role}.safetensors", dependencies=[Depends(door.check_cookie)])
    def download(fingerprint: str, role: Literal["content", "style"]) -> Response:
        return Response(rebuild_adapter(desk, fingerprint, role), media_type="application/octet-stream", headers=PLAIN)

    @app.get("/{key:path}", dependencies=[Depends(door.check_cookie)])
    def show(key: str) -> Response:
        return show_file(desk, key, door.page_token)

    return app


def show_file(desk: ReviewDesk, key: str, page_token: str) -> Response:
    """A file of a report, or one that it links; pages get the token with which they may send decisions."""
    try:
        data = desk.store.read_shown(key)
    except UnsafeUrlError:
        data = None
    if data is None:
        raise HTTPException(404, "there is no such file in the report")
    kind = mimetypes.guess_type(key)[0] or ("text/plain" if key.endswith(".log") else "application/octet-stream")
    if kind == "text/html":
        data = data.replace(EMPTY_TOKEN, EMPTY_TOKEN.replace(b'""', f'"{page_token}"'.encode()), 1)
    return Response(data, media_type=kind, headers=PLAIN)


def rebuild_adapter(desk: ReviewDesk, fingerprint: str, role: str) -> bytes:
    """The file of an adapter of the run that stock diffusers loads."""
    from pairlora.adapters.masters import rebuild_file  # not above: torch takes seconds, and most reviews download nothing
    from pairlora.adapters.routing import Role

    record = desk.store.read_marker("adapter", fingerprint, AdapterRecord) if fingerprint in desk.fingerprints.values() else None
    if record is None:
        raise HTTPException(404, "the run has no such adapter")
    return rebuild_file(desk.store, record, Role(role))


def show_review(review: Review) -> dict[str, Any]:
    """A decision as the page shows it."""
    return {"pair_id": review.pair_id, "verdict": review.verdict, "words": describe_review(review)}


def serve_reviews(desk: ReviewDesk, *, reviewer: str, port: int, tell: Callable[[str], object]) -> None:
    """Serve until interrupted, on loopback alone; `tell` is given the URL to open. ConfigError where the port is taken."""
    if desk.store.read_shown(f"runs/{desk.run_id}/report/index.html") is None:
        raise ConfigError(f"run {desk.run_id} has no report yet; `pairlora report` builds it")
    token = secrets.token_urlsafe(32)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"port {port} cannot be used ({error.strerror}); choose another --port") from error
        listener.listen()  # so that whoever opens the URL at once waits instead of being refused
        server = uvicorn.Server(uvicorn.Config(make_app(desk, reviewer=reviewer, token=token), log_level="warning", access_log=False))
        tell(f"http://{HOST}:{listener.getsockname()[1]}/?token={token}")
        with suppress(KeyboardInterrupt):
            asyncio.run(server.serve(sockets=[listener]))
