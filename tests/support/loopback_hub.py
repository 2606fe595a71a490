"""A model hub on loopback: the endpoints that huggingface_hub calls, over files in a folder, with faults on request.

It speaks the real protocol (repository info, tree, HEAD and GET of files with ranges, error codes in headers), so what
is tested is the real client against it. Large files (safetensors, parquet, archives) are listed as LFS objects with
their sha256, small ones by their git blob id, as on the hub.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".gz", ".bin", ".pth")
ROUTE = re.compile(
    r"/(?P<api>api/)?(?P<kind>models/|datasets/)?(?P<id>[^/]+/[^/]+)/(?P<what>revision|tree|resolve)/(?P<revision>[^/]+)(/(?P<path>.*))?"
)


@dataclass
class Repository:
    """One repository at one commit: a folder of files. `token`: who may read it, None for everyone."""

    folder: Path
    commit: str
    token: str | None = None
    branches: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def knows(self, revision: str) -> bool:
        return revision in (self.commit, *self.branches)


@dataclass
class Fault:
    """What goes wrong with requests whose path matches `pattern`, `times` times.

    kind: "drop" cuts the connection in mid-file, "short" announces and sends half of the bytes, "flip" changes one bit,
    a number is an HTTP status.
    """

    pattern: str
    kind: str | int
    times: int = 1
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)


class Hub:
    """The running server: its address, its repositories, the faults that are left, and every request it got."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str | None] = []
        self.next_page: str | None = None
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, kind: str, id: str, repository: Repository) -> None:
        self.repositories[f"{kind}s/{id}"] = repository

    def fault(self, *arguments: object, **options: object) -> None:
        self.faults.append(Fault(*arguments, **options))

    def due(self, method: str, path: str) -> Fault | None:
        """The first fault for this request, one time less of it left."""
        with self.lock:
            for fault in self.faults:
                if fault.times and method == fault.method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that serves until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree(repository: Repository) -> list[dict]:
    entries = []
    for name in repository.files():
        content = (repository.folder / name).read_bytes()
        entry = {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        entries.append(entry)
    return entries


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            with hub.lock:
                hub.requests.append((self.command, path))
                hub.tokens.append(self.headers.get("Authorization"))
            fault = hub.due(self.command, path)
            if fault and isinstance(fault.kind, int):
                return self.send(fault.kind, b"{}", fault.headers)
            route = ROUTE.fullmatch(path)
            if route is None:
                return self.refuse(404, "RepoNotFound")
            repository = hub.repositories.get(f"{route['kind'] or 'models/'}{route['id']}")
            if repository is None:
                return self.refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
            if not repository.knows(route["revision"]):
                return self.refuse(404, "RevisionNotFound")
            if route["what"] == "revision":
                return self.send_json({"id": route["id"], "sha": repository.commit, "private": False, "siblings": []})
            if route["what"] == "tree":
                further = {"Link": f'<{hub.next_page}>; rel="next"'} if hub.next_page else {}
                return self.send_json(_tree(repository), further)
            return self.file(repository, route["path"], fault)

        def file(self, repository: Repository, name: str, fault: Fault | None) -> None:
            if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
                return self.refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
            if name not in repository.files():
                return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": repository.commit})
            content = (repository.folder / name).read_bytes()
            large = name.endswith(LARGE)
            etag = hashlib.sha256(content).hexdigest() if large else blob_id(content)
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
            if large:
                headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            kind = fault.kind if fault else None
            if kind == "flip":
                content = content[:-1] + bytes([content[-1] ^ 1])
            if kind == "short":
                content = content[: len(content) // 2]
            self.send_range(content, headers, drop=kind == "drop")

        def send_range(self, content: bytes, headers: dict[str, str], drop: bool) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            if start:
                headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            self.send(206 if start else 200, content[start:], headers, drop)

        def send_json(self, value: object, headers: dict[str, str] | None = None) -> None:
            self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

        def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
            self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code} | (headers or {}))

        def send(self, status: int, body: bytes, headers: dict[str, str], drop: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if drop else body)
            if drop:
                self.close_connection = True

    return Handler
