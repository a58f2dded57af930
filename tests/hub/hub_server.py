"""A hub on loopback that speaks Hugging Face's protocol, keeps everything in memory, and can be made to fail.

Two HTTP servers: the hub, and the storage host that it redirects large files to, under another name, so that a token
that follows the redirect is seen. Facts of the protocol: huggingface_hub's client, and git-lfs' batch API.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_writerWRITERwriter0000000000"
READ_TOKEN = "hf_readerREADERreader0000000000"
_LFS = (".safetensors", ".ckpt", ".bin")


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Commit:
    oid: str
    files: dict[str, bytes]
    title: str


@dataclass
class Repository:
    private: bool | None  # None is not said
    commits: dict[str, Commit]
    refs: dict[str, str]
    gated: bool = False

    def at(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests that match ``where`` (method and path).

    ``kind`` is ``status`` (value: code), ``cut`` (after value bytes of the body), ``stall`` (value seconds after the
    headers), ``bytes`` (one is flipped), ``short`` (the announced length is too large by value), ``digest`` (a wrong
    digest is announced), ``size`` (so is a wrong size), ``hang`` (until the server is told to go on), ``names`` (the
    given headers replace the answer's own), ``answer`` (status value, the given headers, and ``body``), ``drip`` (one
    byte of the body each value seconds), ``endless`` (zeros after the body, until nobody listens), ``raw`` (``body``
    and nothing else goes over the wire), ``trickle`` (so it does, one byte each value seconds).
    """

    where: str
    kind: str
    value: float = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HubServer:
    """The hub. ``requests`` has every request's method, path and authorization; ``faults`` what is to go wrong.

    ``pages`` are plain files that the storage host serves.
    """

    def __init__(self, *, part_size: int | None = None) -> None:
        self.part_size = part_size
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.storage_requests: list[tuple[str, str, str | None]] = []
        self.faults: list[Fault] = []
        self.go_on = threading.Event()
        # Told "before" and "after" each request's work, with its number; may end whoever asks.
        self.on_request: Callable[[str, int], None] = lambda moment, number: None
        self._numbers = count(1)
        self.listing_extra: list[str] = []
        self.pages: dict[str, bytes] = {}
        self._oids = count(1)
        self._lock = threading.RLock()
        self._hub = _serve(self, is_storage=False)
        self._storage = _serve(self, is_storage=True)
        self.url = f"http://127.0.0.1:{self._hub.server_address[1]}"
        self.storage_url = f"http://localhost:{self._storage.server_address[1]}"

    def close(self) -> None:
        self.go_on.set()
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def forget(self) -> None:
        self.faults.clear()
        self.requests.clear()
        self.storage_requests.clear()
        self.listing_extra.clear()
        self.pages.clear()
        self.go_on.clear()
        self.on_request = lambda moment, number: None
        self._numbers = count(1)

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False, branch: str = "main") -> str:
        """Put files into a repository as if they had been pushed; return the commit."""
        with self._lock:
            repository = self.repositories.setdefault(name, self._new(private))
            return self.commit(repository, branch, files, "pushed").oid

    def commit(self, repository: Repository, branch: str, files: dict[str, bytes], title: str) -> Commit:
        made = Commit(hashlib.sha1(b"%d" % next(self._oids)).hexdigest(), files, title)
        repository.commits[made.oid] = made
        repository.refs[branch] = made.oid
        return made

    def _new(self, private: bool) -> Repository:
        repository = Repository(private, {}, {})
        self.commit(repository, "main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return repository

    def fault(self, method_and_path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.where, method_and_path):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def hub_server(**options) -> Iterator[HubServer]:
    server = HubServer(**options)
    try:
        yield server
    finally:
        server.close()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_) -> None:
        """Clients are killed here; their broken connections are no news."""


def _serve(hub: HubServer, *, is_storage: bool) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "is_storage": is_storage})
    server = _Quiet(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


class _Answer(Exception):  # noqa: N818  (raised to end a request, not to report an error)
    def __init__(self, status: int, body: bytes | dict | list = b"", **headers: str) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _refuse(status: int, code: str, message: str) -> _Answer:
    return _Answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    is_storage: bool

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  (http.server's names)

    def _handle(self) -> None:
        content = self._body()
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path), parse_qs(parts.query)
        seen = self.hub.storage_requests if self.is_storage else self.hub.requests
        seen.append((self.command, self.path, self.headers.get("Authorization")))
        number = next(self.hub._numbers)
        try:
            self.hub.on_request("before", number)
        except ConnectionAbortedError:  # nobody is there to be served any more
            self.close_connection = True
            return
        fault = self.hub.fault(f"{self.command} {self.route}")
        if fault is not None and fault.kind == "hang":
            self.hub.go_on.wait(60)
        if fault is not None and fault.kind == "status":
            self._send(_Answer(int(fault.value), {"error": "made to fail"}, **fault.headers), None)
            return
        if fault is not None and fault.kind == "answer":
            self._send(_Answer(int(fault.value or 200), fault.body, **fault.headers), None)
            return
        if fault is not None and fault.kind in ("raw", "trickle"):
            self._send_raw(fault)
            return
        try:
            with self.hub._lock:
                self._storage(content) if self.is_storage else self._route(content)
            answer = _Answer(404, {"error": f"no route {self.command} {self.route}"})
        except _Answer as given:
            answer = given
        with contextlib.suppress(ConnectionAbortedError):
            self.hub.on_request("after", number)
        self._send(answer, fault)

    def _send_raw(self, fault: Fault) -> None:
        self.close_connection = True
        step = 1 if fault.kind == "trickle" else 1 << 16
        try:
            for start in range(0, len(fault.body), step):
                self.wfile.write(fault.body[start : start + step])
                self.wfile.flush()
                if fault.value and self.hub.go_on.wait(fault.value):
                    return
        except OSError:
            pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: _Answer, fault: Fault | None) -> None:
        body = answer.body
        kind = fault.kind if fault is not None else ""
        if kind == "bytes" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        length = len(body) + (int(fault.value) if kind == "short" else 0)
        if kind == "digest":
            answer.headers |= {"ETag": f'"{"0" * 64}"', "X-Linked-Etag": f'"{"0" * 64}"'}
        if kind == "size":
            answer.headers["X-Linked-Size"] = str(int(answer.headers["X-Linked-Size"]) + 1)
        if kind == "names":
            answer.headers |= fault.headers
        if kind == "endless":
            answer.headers["Content-Length"] = str(1 << 50)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(length))
        if kind in ("cut", "short", "stall"):
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if kind == "cut":
                self.wfile.write(body[: int(fault.value)])
                self.wfile.flush()
                self.connection.close()
                return
            if kind == "stall":
                half = len(body) // 2
                self.wfile.write(body[:half])
                self.wfile.flush()
                self.hub.go_on.wait(fault.value)
                body = body[half:]
            if kind == "drip":
                for each in body:
                    self.wfile.write(bytes([each]))
                    self.wfile.flush()
                    if self.hub.go_on.wait(fault.value):
                        return
                return
            self.wfile.write(body)
            while kind == "endless" and not self.hub.go_on.is_set():
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True

    # ---- who may do what

    def _user(self) -> str | None:
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not given:
            return None
        if given not in (TOKEN, READ_TOKEN):
            raise _refuse(401, "", "Invalid credentials in Authorization header")
        return given

    def _writer(self) -> None:
        user = self._user()
        if user is None:
            raise _refuse(401, "", "Invalid username or password.")
        if user == READ_TOKEN:
            raise _refuse(403, "", "You don't have the rights to write to this repository")

    def _repository(self, name: str) -> Repository:
        user = self._user()
        found = self.hub.repositories.get(name)
        if found is None or (found.private and user is None):
            raise _refuse(401 if user is None else 404, "RepoNotFound", "Repository not found")
        return found

    def _commit(self, name: str, revision: str) -> Commit:
        found = self._repository(name).at(revision)
        if found is None:
            raise _refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    # ---- the hub

    def _route(self, content: bytes) -> None:
        for pattern, handle in _ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {self.route}")
            if found is not None:
                getattr(self, handle)(content, **found.groupdict())

    def whoami(self, content: bytes) -> None:
        if self._user() is None:
            raise _refuse(401, "", "Invalid username or password.")
        role = "write" if self._user() == TOKEN else "read"
        raise _Answer(
            200,
            {"type": "user", "name": "me", "orgs": [{"name": "org"}], "auth": {"accessToken": {"role": role}}},
        )

    def validate(self, content: bytes) -> None:
        raise _Answer(200, {"errors": [], "warnings": []})

    def create(self, content: bytes) -> None:
        self._writer()
        asked = json.loads(content)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.repositories:
            raise _Answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        self.hub.repositories[name] = self.hub._new(asked.get("visibility") == "private" or bool(asked.get("private")))
        raise _Answer(200, {"url": f"{self.hub.url}/{name}", "id": name, "name": name})

    def branch(self, content: bytes, name: str, branch: str) -> None:
        self._writer()
        repository = self._repository(name)
        if branch in repository.refs:
            raise _Answer(409, {"error": f"Reference already exists: {branch}"})
        repository.refs[branch] = repository.refs["main"]
        raise _Answer(200, {})

    def list(self, content: bytes) -> None:
        wanted = self.query.get("filter", [])
        found = []
        for name, repository in self.hub.repositories.items():
            card = repository.at("main").files.get("README.md", b"").decode()
            if not repository.private and all(f"- {tag}" in card for tag in wanted):
                found.append({"id": name, "modelId": name, "tags": wanted, "private": False})
        raise _Answer(200, found)

    def info(self, content: bytes, name: str, revision: str | None = None) -> None:
        commit = self._commit(name, revision or "main")
        siblings = []
        for path, data in sorted(commit.files.items()):
            entry = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}
            if path.endswith(_LFS):
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        siblings += [{"rfilename": path, "size": 1, "blobId": "0" * 40} for path in self.hub.listing_extra]
        told = {"id": name, "modelId": name, "sha": commit.oid, "siblings": siblings, "tags": []}
        raise _Answer(200, told | {"private": self._repository(name).private})

    def tree(self, content: bytes, name: str, revision: str) -> None:
        commit = self._commit(name, revision)
        entries = []
        for path, data in sorted(commit.files.items()):
            entry = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
            if path.endswith(_LFS):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        raise _Answer(200, entries)

    def preupload(self, content: bytes, name: str, revision: str) -> None:
        self._writer()
        present = self._commit(name, revision).files
        answers = []
        for file in json.loads(content)["files"]:
            path = file["path"]
            is_lfs = path.endswith(_LFS)
            held = present.get(path)
            oid = None if held is None else sha256(held) if is_lfs else git_sha1(held)
            mode = "lfs" if is_lfs else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise _Answer(200, {"files": answers})

    def batch(self, content: bytes, name: str) -> None:
        self._writer()
        objects = []
        for wanted in json.loads(content)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            answer = {"oid": oid, "size": size}
            if oid not in self.hub.objects:
                answer["actions"] = {
                    "upload": self._upload(oid, size),
                    "verify": {"href": f"{self.hub.url}/{name}.git/verify"},
                }
            objects.append(answer)
        raise _Answer(200, {"transfer": "multipart" if self.hub.part_size else "basic", "objects": objects})

    def _upload(self, oid: str, size: int) -> dict:
        step = self.hub.part_size
        if step is None or size <= step:
            return {"href": f"{self.hub.storage_url}/put/{oid}?X-Signature=secret"}
        parts = range(1, -(-size // step) + 1)
        urls = {
            f"{number:05d}": f"{self.hub.storage_url}/put/{oid}?part={number}&X-Signature=secret" for number in parts
        }
        return {"href": f"{self.hub.url}/complete/{oid}", "header": {"chunk_size": str(step), **urls}}

    def complete(self, content: bytes, oid: str) -> None:
        told = json.loads(content)["parts"]
        held = self.hub.parts.get(oid, {})
        data = b"".join(held[part["partNumber"]] for part in told)
        etags = [hashlib.md5(held[part["partNumber"]]).hexdigest() for part in told]
        if etags != [part["etag"].strip('"') for part in told] or sha256(data) != oid:
            raise _Answer(400, {"error": "the parts are not the file"})
        self.hub.objects[oid] = data
        raise _Answer(200, {})

    def verify(self, content: bytes, name: str) -> None:
        told = json.loads(content)
        if len(self.hub.objects.get(told["oid"], b"")) != told["size"]:
            raise _Answer(404, {"error": "not there"})
        raise _Answer(200, {})

    def commits(self, content: bytes, name: str, revision: str) -> None:
        self._writer()
        repository = self._repository(name)
        parent = self._commit(name, revision)
        lines = [json.loads(line) for line in content.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, parent.oid):
            raise _Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(parent.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _Answer(400, {"error": f"LFS object {value['oid']} was never uploaded"})
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        branch = revision
        if self.query.get("create_pr"):
            branch = f"refs/pr/{sum(ref.startswith('refs/pr/') for ref in repository.refs) + 1}"
        made = self.hub.commit(repository, branch, files, header["summary"])
        url = f"{self.hub.url}/{name}"
        raise _Answer(
            200,
            {
                "success": True,
                "commitOid": made.oid,
                "commitUrl": f"{url}/commit/{made.oid}",
                "pullRequestUrl": f"{url}/discussions/{branch.rpartition('/')[2]}",
            },
        )

    def resolve(self, content: bytes, name: str, revision: str, path: str) -> None:
        commit = self._commit(name, revision)
        data = commit.files.get(path)
        if data is None:
            raise _Answer(
                404, b"Entry not found", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found",
                X_Repo_Commit=commit.oid,
            )  # fmt: skip
        headers = {"X_Repo_Commit": commit.oid, "Accept_Ranges": "bytes"}
        if not path.endswith(_LFS):
            raise _Answer(200, data, ETag=f'"{git_sha1(data)}"', **headers)
        self.hub.objects[sha256(data)] = data
        location = f"{self.hub.storage_url}/get/{sha256(data)}?X-Signature=secret"
        raise _Answer(
            302, b"", Location=location, X_Linked_Etag=f'"{sha256(data)}"', X_Linked_Size=str(len(data)), **headers
        )

    # ---- the storage host

    def _storage(self, content: bytes) -> None:
        oid = self.route.rpartition("/")[2]
        if self.command == "PUT":
            if "part" in self.query:
                self.hub.parts.setdefault(oid, {})[int(self.query["part"][0])] = content
            elif sha256(content) == oid:
                self.hub.objects[oid] = content
            else:
                raise _Answer(400, {"error": "the body is not the object"})
            raise _Answer(200, b"", ETag=f'"{hashlib.md5(content).hexdigest()}"')
        data = self.hub.pages.get(self.route, self.hub.objects.get(oid))
        if data is None:
            raise _Answer(404)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            raise _Answer(200, data, Accept_Ranges="bytes")
        start = int(wanted.group(1))
        end = int(wanted.group(2)) + 1 if wanted.group(2) else len(data)
        raise _Answer(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}")


_NAME = r"(?P<name>[^/]+/[^/]+?)"
_ROUTES = [
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/validate-yaml", "validate"),
    (r"POST /api/repos/create", "create"),
    (r"GET /api/models", "list"),
    (rf"POST /api/models/{_NAME}/branch/(?P<branch>.+)", "branch"),
    (rf"POST /api/models/{_NAME}/preupload/(?P<revision>.+)", "preupload"),
    (rf"POST /api/models/{_NAME}/commit/(?P<revision>.+)", "commits"),
    (rf"GET /api/models/{_NAME}/revision/(?P<revision>.+)", "info"),
    (rf"GET /api/models/{_NAME}/tree/(?P<revision>[^/]+)(?:/.*)?", "tree"),
    (rf"GET /api/models/{_NAME}", "info"),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", "batch"),
    (rf"POST /{_NAME}\.git/verify", "verify"),
    (r"POST /complete/(?P<oid>.+)", "complete"),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/(?P<revision>refs/pr/\d+|[^/]+)/(?P<path>.+)", "resolve"),
]


def wait_for(condition, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it never happened")
        time.sleep(0.02)
