"""A server that speaks the HTTP API of a provider, for the vendors' tests: it answers as it is told to, and notes."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

KEY = "re_or_SG.0123456789abcdef"


class Answer(NamedTuple):
    """What the server says."""

    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class Request(NamedTuple):
    """What the server was asked."""

    line: str
    headers: dict[str, str]
    body: Any


class Vendor:
    """Asks `rules` for the answer to each request, or the next of `scripted`, or says nothing for a while."""

    def __init__(self, rules: Callable[[Request], Answer]) -> None:
        self.rules = rules
        self.scripted: list[Answer] = []
        self.silent = self.failed = False
        self.requests: list[Request] = []
        self.url = ""
        self.close: Callable[[], None] = lambda: None

    def fail(self, failure: str, **answers: Answer) -> None:
        """Go away, fall silent, or answer everything with one of these."""
        self.failed = True
        if failure == "away":
            self.close()
        elif failure == "silent":
            self.silent = True
        else:
            self.rules = lambda _: answers[failure]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.silent:
            time.sleep(2.5)
        return self.scripted.pop(0) if self.scripted else self.rules(request)


@contextmanager
def serving(vendor: Vendor) -> Iterator[Vendor]:
    """Serve on a free port until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = vendor.answer(Request(f"{self.command} {self.path}", headers, json.loads(body or b"null")))
            content = b"" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in (("Content-Type", "application/json"), *answer.headers):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        vendor.url = f"http://127.0.0.1:{server.server_port}"
        vendor.close = server.server_close
        try:
            yield vendor
        finally:
            server.shutdown()
            thread.join()
