"""A Hugging Face hub of one model on this machine, for the tests that fetch: the few answers that fetching takes."""

import contextlib
import hashlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

REPO, COMMIT = "someone/tiny", "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers about `server.files`, with the faults that the server's attributes name."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body: bool):
        path = urlsplit(self.path).path
        self.server.seen.append(path)
        token, private = self.headers.get("Authorization"), self.server.private
        if self.server.status:
            self.send(self.server.status, b"", {"X-Error-Message": "not now"}, body)
        elif token and self.server.refuses_tokens:
            self.send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"}, body)
        elif path.startswith(f"/api/models/{REPO}") and not private:
            self.send(200, json.dumps(self.info()).encode())
        elif path.startswith(f"/{REPO}/resolve/main/") and not private and self.name() in self.server.files:
            content = self.server.files[self.name()]
            headers = {"ETag": f'"{self.digest(self.name())}"', "X-Repo-Commit": COMMIT}
            if self.server.cut:
                content = content[: len(content) // 2]
            self.send(200, content, headers, body, len(self.server.files[self.name()]))
        else:
            error = "EntryNotFound" if "/resolve/" in path else "RepoNotFound"
            self.send(401 if private else 404, b"", {"X-Error-Code": error, "X-Error-Message": "not found"}, body)

    def name(self) -> str:
        return urlsplit(self.path).path.removeprefix(f"/{REPO}/resolve/main/")

    def digest(self, name: str) -> str:
        return self.server.claims.get(name) or hashlib.sha256(self.server.files[name]).hexdigest()

    def info(self) -> dict:
        files = []
        for name, content in self.server.files.items():
            lfs = {"sha256": self.digest(name), "size": len(content), "pointerSize": 134}
            large = name.endswith((".safetensors", ".bin"))
            files.append({"rfilename": name, "blobId": "0" * 40, **({"lfs": lfs} if large else {})})
        return {"id": REPO, "sha": COMMIT, "siblings": files, "tags": [], "private": False}

    def send(self, status: int, content: bytes, headers: dict | None = None, body: bool = True, length: int = -1):
        self.send_response(status)
        length = len(content) if length < 0 else length
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(files: dict[str, bytes], certificate: Path | None = None) -> Iterator[http.server.ThreadingHTTPServer]:
    """A running hub with the files of REPO; `seen` has the paths that were asked for, `fetched()` the files."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.seen, server.claims, server.cut = files, [], {}, False
    server.status, server.refuses_tokens, server.private = 0, False, False
    server.fetched = lambda: {p.removeprefix(f"/{REPO}/resolve/main/") for p in server.seen if "/resolve/" in p}
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
