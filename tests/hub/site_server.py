"""Modelers, GitCode and ModelScope on loopback: a proxy that their real clients are told of, and TLS behind it.

The clients go to the hubs' own addresses; ``HTTPS_PROXY`` leads every one of them here, and ``REQUESTS_CA_BUNDLE``
names the authority that made the certificate. So what they would reach in the world is seen by its name, and nothing
leaves this machine. Facts of the two protocols: the clients' code (openmind_hub 1.3.0, modelscope_hub 0.5.1).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from hub_server import Commit, HubServer, Repository, _Answer, _Handler, git_sha1, sha256

TOKEN = "site-WRITERwriter0000000000"
OTHER_TOKEN = "site-READERreader0000000000"
_LFS = (".safetensors", ".ckpt", ".bin")

OPENMIND_HOSTS = ("modelers.cn", "hub.gitcode.com", "api.gitcode.com")
CDN, OBS = "cdn.modelers.cn", "xcit.obs.myhuaweicloud.com"
OSS, LFS_HOST = "xcit.oss-cn.aliyuncs.com", "lfs.modelscope.cn"
ELSEWHERE = "files.example.com"
_NAMES = [
    "modelers.cn",
    "*.modelers.cn",
    "*.gitcode.com",
    "modelscope.cn",
    "*.modelscope.cn",
    "evilmodelers.cn",
    OBS,
    OSS,
    ELSEWHERE,
]


def authority(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a certificate for every host above; return the authority's file and the server's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name: str, key, issuer_name: str, issuer_key, *, is_authority: bool):
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in _NAMES]), False)
        return made.sign(issuer_key, hashes.SHA256())

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    root = certificate("test authority", keys[0], "test authority", keys[0], is_authority=True)
    leaf = certificate("modelers.cn", keys[1], "test authority", keys[0], is_authority=False)
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(root.public_bytes(pem))
    private = keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(private + leaf.public_bytes(pem))
    return folder / "authority.pem", folder / "server.pem"


class SiteServer(HubServer):
    """The hubs. ``requests`` has (``host method path``, path, token) of each request; ``connected`` the hosts."""

    def __init__(self, folder: Path) -> None:
        self.authority, certificate = authority(folder)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate)
        self.connected: list[str] = []
        self.licenses_refused = False
        self.sites: dict[str, dict[str, Repository]] = {}
        super().__init__()
        self.forget_all()

    def forget_all(self) -> None:
        self.forget()
        self.connected.clear()
        self.objects.clear()
        self.licenses_refused = False
        self.sites = {scheme: {} for scheme in ("modelers", "gitcode", "modelscope")}

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self._hub.server_address[1]}"

    def put(self, site: str, name: str, files: dict[str, bytes], branch: str | None = None) -> str:
        """Put files into a model as if they had been pushed; return the commit."""
        repository = self.sites[site].setdefault(name, Repository(False, {}, {}))
        self.objects |= {sha256(data): data for path, data in files.items() if path.endswith(_LFS)}
        return self.commit(repository, branch or default_branch(site), files, "pushed").oid

    def at(self, site: str, name: str, revision: str | None = None) -> Commit:
        return self.sites[site][name].at(revision or default_branch(site))

    def asked(self, host: str) -> list[str]:
        """What a host was asked for: method and path."""
        return [said.partition(" ")[2] for said, _, _ in self.requests if said.startswith(f"{host} ")]


def default_branch(site: str) -> str:
    return "master" if site == "modelscope" else "main"


@contextmanager
def site_server(folder: Path) -> Iterator[SiteServer]:
    import hub_server

    original = hub_server._Handler
    hub_server._Handler = _SiteHandler
    try:
        server = SiteServer(folder)
    finally:
        hub_server._Handler = original
    try:
        yield server
    finally:
        server.close()


class _SiteHandler(_Handler):
    hub: SiteServer
    host = ""

    def do_CONNECT(self) -> None:  # noqa: N802  (http.server's name)
        self.host = self.path.rpartition(":")[0]
        self.hub.connected.append(self.host)
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.hub.tls.wrap_socket(self.connection, server_side=True)
        except (OSError, ssl.SSLError):
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    do_DELETE = _Handler.do_GET  # noqa: N815

    def do_GET(self) -> None:  # noqa: N802
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _handle(self) -> None:
        if not self.host:  # asked without a proxy: ModelScope's protocol at an endpoint of one's own
            self.host = "modelscope.cn"
        content = self._body()
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path), parse_qs(parts.query)
        asked = f"{self.command} {self.route}"
        if "FilePath" in self.query:
            asked += f"?{self.query['FilePath'][0]}"
        self.hub.requests.append((f"{self.host} {asked}", self.path, self._given()))
        fault = self.hub.fault(f"{self.host} {asked}")
        if fault is not None and fault.kind == "hang":
            self.hub.go_on.wait(60)
        if fault is not None and fault.kind == "status":
            self._send(
                _Answer(int(fault.value), {"code": "made_to_fail", "Message": "made to fail"}, **fault.headers), None
            )
            return
        if fault is not None and fault.kind == "answer":
            self._send(_Answer(int(fault.value or 200), fault.body, **fault.headers), None)
            return
        self.fault = fault
        try:
            with self.hub._lock:
                self._route(content)
            answer = _Answer(404, {"code": "no_route", "Message": f"no route {asked}"})
        except _Answer as given:
            answer = given
        self._send(answer, fault if fault is None or fault.kind != "digest" else None)

    def _given(self) -> str | None:
        return self.headers.get("Authorization") or self.headers.get("Cookie")

    def _user(self) -> str | None:
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not given:
            return None
        if given not in (TOKEN, OTHER_TOKEN):
            raise _Answer(401, {"code": "bad_token", "Message": "no such token"})
        return given

    def _writer(self) -> None:
        if self._user() is None:
            raise _Answer(401, {"code": "unauthorized", "Message": "not logged in"})
        if self._user() == OTHER_TOKEN:
            raise _Answer(403, {"code": "forbidden", "Message": "no right to write"})

    @property
    def site(self) -> str:
        return (
            "modelers" if self.host.endswith("modelers.cn") else "gitcode" if "gitcode" in self.host else "modelscope"
        )

    def _repository(self, name: str) -> Repository:
        found = self.hub.sites[self.site].get(name)
        if found is None or (found.private and self._user() is None):
            raise _Answer(404, {"code": "repo_not_found", "Message": "no such model"})
        return found

    def _commit(self, name: str, revision: str) -> Commit:
        found = self._repository(name).at(revision)
        if found is None:
            raise _Answer(404, {"code": "ref_not_exist", "Message": "no such revision"})
        return found

    def _route(self, content: bytes) -> None:
        if self.host in (CDN, OBS, OSS, LFS_HOST, ELSEWHERE, "evilmodelers.cn"):
            self._storage(content)
        for pattern, handle in _OPENMIND if self.host in OPENMIND_HOSTS else _MODELSCOPE:
            found = re.fullmatch(pattern, f"{self.command} {self.route}")
            if found is not None:
                getattr(self, handle)(content, **found.groupdict())

    # ---- openmind_hub

    def om_create(self, content: bytes) -> None:
        self._writer()
        asked = _json(content)
        name = f"{asked['owner'].replace('%2F', '/')}/{asked['name']}"
        if name in self.hub.sites[self.site]:
            raise _Answer(400, {"code": "duplicate_creating"})
        repository = Repository(asked["visibility"] == "private", {}, {})
        self.hub.sites[self.site][name] = repository
        self.hub.commit(repository, "main", {"README.md": b"---\nlicense: apache-2.0\n---\n"}, "initial commit")
        raise _Answer(201, {"data": {"id": 1}})

    def om_info(self, content: bytes, name: str) -> None:
        visibility = "private" if self._repository(name).private else "public"
        owner, _, model = name.rpartition("/")
        raise _Answer(200, {"data": {"id": "1", "owner": owner, "name": model, "visibility": visibility}})

    def om_branch(self, content: bytes, name: str) -> None:
        self._writer()
        asked, repository = _json(content), self._repository(name)
        if asked["branch"] in repository.refs:
            raise _Answer(400, {"code": "branch_exists"})
        repository.refs[asked["branch"]] = repository.refs[asked["base_branch"]]
        raise _Answer(201, {"data": {}})

    def om_license(self, content: bytes) -> None:
        text = base64.b64decode(_json(content)["content"]).decode()
        raise _Answer(200, {"data": not self.hub.licenses_refused and "license:" in text})

    def om_preupload(self, content: bytes, name: str) -> None:
        self._writer()
        self._commit(name, _json(content)["branch"])
        files = [
            {"path": each["path"], "type": "lfs" if each["path"].endswith(_LFS) else "regular"}
            for each in _json(content)["files"]
        ]
        raise _Answer(200, {"data": {"files": files}})

    def om_batch(self, content: bytes, name: str) -> None:
        self._writer()
        objects = []
        for each in _json(content)["objects"]:
            part = {"index": 1, "size": each["size"]}
            if each["oid"] in self.hub.objects:
                part["etag"] = "there"
            else:
                part["href"] = f"https://{OBS}/put/{each['oid']}?X-Signature=secret"
            verify = {"href": f"https://{self.host}/api/v1/file/{name}/verify", "params": {"upload_id": each["oid"]}}
            objects.append({**each, "actions": {"parts": [part], "verify": verify}})
        raise _Answer(200, {"data": {"objects": objects}})

    def om_verify(self, content: bytes, name: str) -> None:
        whole = self.query["upload_id"][0] in self.hub.objects
        raise _Answer(200 if whole else 400, {"code": "" if whole else "not_whole"})

    def om_upload(self, content: bytes, name: str) -> None:
        self._writer()
        asked, repository = _json(content), self._repository(name)
        files = dict(self._commit(name, asked["ref"]).files)
        for each in asked["files"]:
            if each["operation"] == "delete":
                files.pop(each["path"])
                continue
            data = base64.b64decode(each["content"])
            pointer = (
                re.search(rb"oid sha256:([0-9a-f]{64})", data) if data.startswith(b"version https://git-lfs") else None
            )
            files[each["path"]] = self.hub.objects[pointer.group(1).decode()] if pointer else data
        made = self.hub.commit(repository, asked["ref"], files, asked["title"])
        raise _Answer(201, {"data": [{"commit_url": f"https://{self.host}/{name}", "commit_oid": made.oid}]})

    def om_tree(self, content: bytes, name: str) -> None:
        commit = self._commit(name, self.query["ref"][0])
        folder = self.query.get("path", [""])[0]
        files, folders = [], set()
        for path, data in commit.files.items():
            inside = path.removeprefix(f"{folder}/") if folder else path
            if folder and inside == path:
                continue
            if "/" in inside:
                folders.add(f"{folder}/{inside.partition('/')[0]}".strip("/"))
                continue
            is_lfs = path.endswith(_LFS)
            digest = sha256(data) if is_lfs else git_sha1(data)
            if self.fault is not None and self.fault.kind == "digest" and is_lfs:
                digest = "0" * 64
            files.append({"type": "file", "path": path, "size": len(data), "etag": digest, "is_lfs": is_lfs})
        files += [{"type": "dir", "path": each} for each in sorted(folders)]
        head = {"created": "2026-01-01T00:00:00Z", "commit_sha": commit.oid, "message": commit.title}
        raise _Answer(200, {"data": {"last_commit": {"commit": head}, "tree": files}})

    def om_media(self, content: bytes, name: str, revision: str, path: str) -> None:
        data = self._commit(name, revision).files.get(path)
        if data is None:
            raise _Answer(404, {"code": "branch_or_path_not_found"})
        if not path.endswith(_LFS):
            self._ranged(data)
        raise _Answer(302, b"", Location=f"https://{CDN}/get/{sha256(data)}?X-Signature=secret")

    def om_list(self, content: bytes) -> None:
        owner, part = self.query.get("owner", [None])[0], self.query.get("name", [""])[0]
        found = [
            name
            for name in self.hub.sites[self.site]
            if (owner is None or name.startswith(f"{owner}/")) and part in name
        ]
        models = [{"id": name, "owner": name.partition("/")[0], "name": name.partition("/")[2]} for name in found]
        raise _Answer(200, {"data": {"models": models}})

    # ---- modelscope_hub

    def ms_create(self, content: bytes) -> None:
        self._writer()
        asked = _json(content)
        name = f"{asked['Path']}/{asked['Name']}"
        if name in self.hub.sites["modelscope"]:
            raise _Answer(400, {"Code": 10010101001, "Message": "exists already", "Success": False})
        if asked["License"] != asked["License"].lower():
            raise _Answer(400, {"Code": 400, "Message": "not a licence's identifier", "Success": False})
        repository = Repository(asked["Visibility"] == 1, {}, {})
        self.hub.sites["modelscope"][name] = repository
        self.hub.commit(
            repository, "master", {"README.md": b"---\nlicense: Apache License 2.0\n---\n"}, "initial commit"
        )
        raise _Answer(200, {"Code": 200, "Data": {"Id": 1}, "Success": True})

    def ms_info(self, content: bytes, name: str) -> None:
        raise _Answer(200, {"success": True, "data": {"id": name, "private": self._repository(name).private}})

    def ms_files(self, content: bytes, name: str) -> None:
        commit = self._commit(name, self.query["Revision"][0])
        files = []
        for path, data in commit.files.items():
            digest = sha256(data)
            if self.fault is not None and self.fault.kind == "digest" and path.endswith(_LFS):
                digest = "0" * 64
            files.append(
                {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Size": len(data), "Sha256": digest}
            )
        raise _Answer(200, {"Code": 200, "Data": {"Files": files}, "Success": True})

    def ms_file(self, content: bytes, name: str) -> None:
        path = self.query["FilePath"][0]
        data = self._commit(name, self.query["Revision"][0]).files.get(path)
        if data is None:
            raise _Answer(404, {"Code": 404, "Message": "no such file"})
        if not path.endswith(_LFS):
            self._ranged(data)
        raise _Answer(302, b"", Location=f"https://{OSS}/get/{sha256(data)}?X-Signature=secret")

    def ms_revisions(self, content: bytes, name: str) -> None:
        branches = [{"Revision": branch} for branch in self._repository(name).refs]
        raise _Answer(200, {"Code": 200, "Data": {"RevisionMap": {"Branches": branches, "Tags": []}}})

    def ms_batch(self, content: bytes, name: str) -> None:
        self._writer()
        needed = [each for each in _json(content)["objects"] if each["oid"] not in self.hub.objects]
        objects = [
            {**each, "actions": {"upload": {"href": f"https://{LFS_HOST}/put/{each['oid']}?X-Signature=secret"}}}
            for each in needed
        ]
        raise _Answer(200, {"Code": 200, "Data": {"objects": objects}})

    def ms_commit(self, content: bytes, name: str, branch: str) -> None:
        self._writer()
        asked, repository = _json(content), self._repository(name)
        files = dict(self._commit(name, branch).files)
        for each in asked["actions"]:
            if each["action"] == "delete":
                files.pop(each["path"])
            elif each["type"] == "lfs":
                files[each["path"]] = self.hub.objects[each["sha256"]]
            else:
                files[each["path"]] = base64.b64decode(each["content"])
        self.hub.commit(repository, branch, files, asked["commit_message"])
        raise _Answer(200, {"Code": 200, "Data": {}, "Success": True})

    def ms_list(self, content: bytes) -> None:
        owner, part = self.query.get("owner", [None])[0], self.query.get("search", [""])[0]
        found = [
            name
            for name in self.hub.sites["modelscope"]
            if (owner is None or name.startswith(f"{owner}/")) and part in name
        ]
        size, number = int(self.query["page_size"][0]), int(self.query["page_number"][0])
        page = [{"id": name} for name in found[size * (number - 1) : size * number]]
        data = {"models": page, "total_count": len(found), "page_number": number, "page_size": size}
        raise _Answer(200, {"success": True, "data": data})

    # ---- the storage hosts

    def _storage(self, content: bytes) -> None:
        oid = self.route.rpartition("/")[2]
        if self.command == "PUT":
            if sha256(content) != oid:
                raise _Answer(400, {"error": "the body is not the object"})
            self.hub.objects[oid] = content
            raise _Answer(200, b"", ETag=f'"{hashlib.md5(content).hexdigest()}"')
        data = self.hub.pages.get(self.route, self.hub.objects.get(oid))
        if data is None:
            raise _Answer(404)
        self._ranged(data)

    def _ranged(self, data: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            raise _Answer(200, data, Accept_Ranges="bytes")
        start = int(wanted.group(1))
        end = int(wanted.group(2)) + 1 if wanted.group(2) else len(data)
        raise _Answer(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}")


def _json(content: bytes) -> dict:
    import json

    return json.loads(content)


_NAME = r"(?P<name>[^/]+/[^/]+?(?:/[^/]+?)?)"
_OPENMIND = [
    (r"POST /api/v1/model", "om_create"),
    (r"GET /api/v1/model", "om_list"),
    (rf"GET /api/v1/model/{_NAME}", "om_info"),
    (rf"POST /api/v1/branch/model/{_NAME}", "om_branch"),
    (r"POST /api/v1/file/license_check", "om_license"),
    (rf"POST /api/v1/file/{_NAME}/pre_upload", "om_preupload"),
    (rf"POST /api/v1/file/{_NAME}/info/lfs/objects/batch", "om_batch"),
    (rf"POST /api/v1/file/{_NAME}/verify", "om_verify"),
    (rf"POST /api/v1/file/{_NAME}/upload", "om_upload"),
    (rf"GET /api/v1/file/{_NAME}/(?P<revision>[^/]+)/media/(?P<path>.+)", "om_media"),
    (rf"GET /api/v1/file/{_NAME}", "om_tree"),
]
_MODELSCOPE = [
    (r"POST /api/v1/models", "ms_create"),
    (r"GET /openapi/v1/models", "ms_list"),
    (rf"GET /openapi/v1/models/{_NAME}", "ms_info"),
    (rf"GET /api/v1/models/{_NAME}/repo/files", "ms_files"),
    (rf"GET /api/v1/models/{_NAME}/repo", "ms_file"),
    (rf"GET /api/v1/models/{_NAME}/revisions", "ms_revisions"),
    (rf"POST /api/v1/repos/models/{_NAME}/info/lfs/objects/batch", "ms_batch"),
    (rf"POST /api/v1/repos/models/{_NAME}/commit/(?P<branch>.+)", "ms_commit"),
]
