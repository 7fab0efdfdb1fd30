"""A Hub on the loopback: create, preupload, LFS, commit, download; and a network that fails when told to."""

import base64
import hashlib
import json
import os
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs


KINDS = {
    "/api/repos/create": "create",
    "/api/validate-yaml": "validate",
    "/preupload/": "preupload",
    "/info/lfs/objects/batch": "batch",
    "/storage/": "put",
    "/commit/": "commit",
    "/revision/": "info",
    "/tree/": "tree",
    "/paths-info/": "paths_info",
    "/resolve/": "download",
    "/api/datasets/": "info",
}
TOKEN = "hf_" + "onlyForTheLoopback" * 2
LFS = (".safetensors", ".bin", ".png")
NO_PROXY = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
"""Variables with which the loopback is asked directly, whatever the machine's way to the network."""


class Hub(ThreadingHTTPServer):
    """
    `files[repo][path]` is what was committed and `commits[repo]` what was said; `faults[kind]` is what goes wrong with
    the next requests of a kind: a status, `"drop"` (the connection, halfway through a body) or `"lose"` (the answer).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.is_dead = False
        self.faults: dict[str, list[int | str]] = defaultdict(list)
        self.failed = Counter()
        self.asked = Counter()
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, list[str]] = defaultdict(list)
        self.storage: dict[str, bytes] = {}
        self.cards: list[str] = []
        self.bodies: list[bytes] = []
        self.tokens: set[tuple[str, str | None]] = set()

    def __enter__(self):
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_any(self):
        kind = next((kind for part, kind in KINDS.items() if part in self.path), None)
        self.server.asked[kind] += 1
        fault = "drop" if self.server.is_dead else next(iter(self.server.faults[kind]), None)
        if fault and not self.server.is_dead:
            self.server.faults[kind].pop(0)
            self.server.failed[kind] += 1
        if fault == "drop":
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            return self.hang_up()
        body = self.read_body()
        if kind is None:
            return self.answer(404, {})
        if isinstance(fault, int):
            return self.answer(fault, b"<html>Service unavailable</html>", "text/html")
        self.server.bodies.append(body)
        self.server.tokens.add((kind, self.headers.get("Authorization")))
        answer = getattr(self, kind)(body)
        if fault == "lose":
            return self.hang_up()
        self.answer(*answer)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def hang_up(self):
        self.close_connection = True
        self.connection.close()

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(
        self, status: int, content: bytes | dict | list, kind: str = "application/json", headers: dict | None = None
    ):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # What the Hub does

    def create(self, body: bytes):
        wanted = json.loads(body)
        repo = f"{wanted['organization'] or 'me'}/{wanted['name']}"
        status = 409 if repo in self.server.files else 200
        self.server.files.setdefault(repo, {})
        return status, {"url": f"{self.server.url}/{repo}"}

    def validate(self, body: bytes):
        self.server.cards.append(json.loads(body)["content"])
        return 200, {}

    def preupload(self, body: bytes):
        files = self.server.files[self.repo("/api/models/", "/preupload/")]
        modes = []
        for path in (file["path"] for file in json.loads(body)["files"]):
            mode = "lfs" if path.endswith(LFS) else "regular"
            there = {"oid": oid_of(path, files[path])} if path in files else {}
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **there})
        return 200, {"files": modes}

    def batch(self, body: bytes):
        objects = []
        for wanted in json.loads(body)["objects"]:
            href = {"href": f"{self.server.url}/storage/{wanted['oid']}"}
            missing = wanted["oid"] not in self.server.storage
            objects.append({**wanted, **({"actions": {"upload": href}} if missing else {})})
        return 200, {"transfer": "basic", "objects": objects}

    def put(self, body: bytes):
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "not what was announced"}
        self.server.storage[oid] = body
        return 200, {}

    def commit(self, body: bytes):
        repo = self.repo("/api/models/", "/commit/")
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.commits[repo].append(value["summary"])
            elif line["key"] == "file":
                self.server.files[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[repo][value["path"]] = self.server.storage[value["oid"]]
        sha = self.sha(repo)
        return 200, {"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha}

    def info(self, body: bytes):
        repo = self.repo(self.api, "/revision/")
        return 200, {"id": repo, "sha": self.sha(repo)}

    def tree(self, body: bytes):
        return 200, self.entries(self.server.files[self.repo(self.api, "/tree/")])

    def paths_info(self, body: bytes):
        files = self.server.files[self.repo(self.api, "/paths-info/")]
        asked = parse_qs(body.decode()).get("paths", []) if not body.startswith(b"{") else json.loads(body)["paths"]
        return 200, self.entries({path: files[path] for path in asked if path in files})

    def entries(self, files: dict[str, bytes]) -> list[dict]:
        return [
            {"type": "file", "path": path, "size": len(content), "oid": oid_of(path, content)}
            for path, content in files.items()
        ]

    @property
    def api(self) -> str:
        return "/api/datasets/" if self.path.startswith("/api/datasets/") else "/api/models/"

    def download(self, body: bytes):
        repo = self.repo("/datasets/" if self.path.startswith("/datasets/") else "/", "/resolve/")
        path = self.path.partition("/resolve/")[2].partition("/")[2].partition("?")[0]
        if path not in self.server.files[repo]:
            return 404, {}, "application/json", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.sha(repo)}
        content = self.server.files[repo][path]
        headers = {"ETag": f'"{oid_of(path, content)}"', "X-Repo-Commit": self.sha(repo)}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            last = min(int(last or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, content[int(first) : last + 1], "application/octet-stream", headers
        return 200, content, "application/octet-stream", headers

    def repo(self, before: str, after: str) -> str:
        return self.path.removeprefix(before).partition(after)[0]

    def sha(self, repo: str) -> str:
        return hashlib.sha1(str(len(self.server.commits[repo])).encode()).hexdigest()


def oid_of(path: str, content: bytes) -> str:
    """What git calls a file, or LFS."""
    if path.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def environment_of(hub: Hub) -> dict[str, str]:
    """Of a process that talks to this Hub, logged in."""
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return {**os.environ, **settings, "HF_HUB_DISABLE_TELEMETRY": "1", **NO_PROXY}
