"""What this process may send to whom: the hub's token goes to the hub alone.

A hub's answer may name where its next page lies, and huggingface_hub asks there with the same headers, token included,
whatever host that is. Redirects are not concerned: the library itself takes the token away when they leave the host.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from leap_repro.hub.repository import endpoint

if TYPE_CHECKING:
    import httpx2


@cache
def guard_token() -> None:
    """Let every request of this process that leaves the hub's host go without the token; once for a process."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def guarded() -> httpx2.Client:
        client = default_client_factory()
        hooks = client.event_hooks
        client.event_hooks = hooks | {"request": [*hooks.get("request", []), _keep_token_at_home]}
        return client

    set_client_factory(guarded)


def _keep_token_at_home(request: httpx2.Request) -> None:
    home = urlsplit(endpoint())
    if (request.url.scheme, request.url.netloc.decode()) != (home.scheme, home.netloc.rpartition("@")[2]):
        request.headers.pop("authorization", None)
