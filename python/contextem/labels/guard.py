"""What stands between the browsers and the server: every request that is not one of its own page is refused.

A page of another site can have the name of its own server point to this machine; but then Host tells that name.  It can
make a browser send something here; but then Origin tells whose page it is.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any

BODY = 1 << 20
"""Most bytes of a request."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer that does not say otherwise: the page has no use for anything from elsewhere."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Guard:
    """Lets through what was sent to this server, by its own page, and is not too long.

    Parameters
    ----------
    app : callable
        What answers.
    hosts : iterable of str
        Names of this server; ``"*"`` stands for all addresses in numbers, which no name server can turn elsewhere.
    """

    def __init__(self, app: App, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer, or refuse to."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("expected HTTP, got a web socket")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = {name for name, _ in message["headers"]}
                more = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message["headers"], *(each for each in more if each[0] not in told)]
            await send(message)

        received = [(name, text.decode("latin-1")) for name, text in scope["headers"]]
        refusal = self._refusal(scope["method"], received)
        body = b""
        while refusal is None and scope["method"] not in ("GET", "HEAD"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > BODY:
                refusal = _too_long(len(body))
            if not message.get("more_body", False):
                break
        if refusal is not None:
            status, sentence = refusal
            answer = json.dumps({"detail": sentence}).encode()
            told = {"content-type": "application/json", "content-length": str(len(answer)), "connection": "close"}
            named = [(name.encode(), text.encode()) for name, text in told.items()]
            await send_with_headers({"type": "http.response.start", "status": status, "headers": named})
            await send_with_headers({"type": "http.response.body", "body": answer})
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send_with_headers)

    def _refusal(self, method: str, headers: list[tuple[bytes, str]]) -> tuple[int, str] | None:
        """Return status and sentence of what is wrong before the body is read."""
        hosts = [text.lower() for name, text in headers if name == b"host"]
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return 403, "Host: expected a name of this server; open the page by the address that it printed"
        for name, text in headers:
            if name == b"origin" and text.lower().partition("://")[2] != hosts[0]:
                return 403, "Origin: expected the page of this server, got another one"
            if name == b"sec-fetch-site" and text == "cross-site" and method != "GET":
                return 403, "Sec-Fetch-Site: expected the page of this server, got another one"
            if name == b"content-length" and text.isdigit() and int(text[:20]) > BODY:
                return _too_long(int(text[:20]))
        if method == "POST":
            kinds = [text.partition(";")[0].strip().lower() for name, text in headers if name == b"content-type"]
            if kinds != ["application/json"]:
                return 415, "Content-Type: expected application/json, got something else"
        return None

    def _is_known(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        name = name if colon and port.isdigit() else host
        if name in self.hosts:
            return True
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return False
        return "*" in self.hosts


def _too_long(length: int) -> tuple[int, str]:
    return 413, f"body: expected at most {BODY} bytes, got {length} or more; send fewer actions at once"
