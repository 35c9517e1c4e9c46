"""A small OCI registry on loopback, which counts what is asked of it and can be told to misbehave."""

import contextlib
import http.server
import re
import threading
import time

from .images import INDEX, MANIFEST, digest

MANIFEST_PATH = re.compile(r"^/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)$")
BLOB_PATH = re.compile(r"^/v2/(?P<name>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})$")


class Registry:
    """Serves `images`, keyed `name:tag`. Faults are sets of digests, each applied as its name says."""

    def __init__(self):
        self.images = {}
        self.requests = []
        self.corrupt = set()
        self.cut_once = set()
        self.slow = set()
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def asked_for(self, text):
        """How many GET requests had `text` in their path."""
        with self._lock:
            return sum(1 for method, path in self.requests if method == "GET" and text in path)

    def manifest(self, name, reference):
        """The media type and the bytes of a manifest or an index; None when there is none."""
        image = self.images.get(f"{name}:{reference}")
        if image:
            return INDEX, image.index()
        for key, image in self.images.items():
            if key.rpartition(":")[0] != name:
                continue
            if image.manifest["digest"] == reference:
                return MANIFEST, image.blobs[reference]
            if digest(image.index()) == reference:
                return INDEX, image.index()
        return None

    def blob(self, wanted):
        for image in self.images.values():
            if wanted in image.blobs:
                return image.blobs[wanted]
        return None

    @contextlib.contextmanager
    def counted(self):
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self._lock:
                self.at_once -= 1

    def note(self, method, path):
        with self._lock:
            self.requests.append((method, path))


@contextlib.contextmanager
def serving():
    """A registry and the port that it listens on."""
    registry = Registry()
    handler = type("BoundHandler", (Handler,), {"registry": registry})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry, server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry = None

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        self.registry.note(self.command, self.path)
        if self.path.rstrip("/") == "/v2":
            return self.send(200, "application/json", b"{}", with_body)
        if match := MANIFEST_PATH.match(self.path):
            found = self.registry.manifest(match["name"], match["reference"])
            if not found:
                return self.missing("MANIFEST_UNKNOWN", with_body)
            return self.send(200, *found, with_body, {"Docker-Content-Digest": digest(found[1])})
        if match := BLOB_PATH.match(self.path):
            return self.send_blob(match["digest"], with_body)
        return self.missing("NAME_UNKNOWN", with_body)

    def send_blob(self, wanted, with_body):
        registry = self.registry
        content = registry.blob(wanted)
        if content is None:
            return self.missing("BLOB_UNKNOWN", with_body)
        if wanted in registry.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        with registry.counted():
            if wanted in registry.slow:
                self.wait_for_company()
            if wanted in registry.cut_once:
                registry.cut_once.discard(wanted)
                return self.send_half(content)
            return self.send_range(content, with_body)

    def wait_for_company(self):
        """Holds a blob back until another is asked for too, or long enough to tell that none will be."""
        end = time.monotonic() + 3
        while self.registry.most_at_once < 2 and time.monotonic() < end:
            time.sleep(0.01)

    def send_range(self, content, with_body):
        wanted = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if not start:
            return self.send(200, "application/octet-stream", content, with_body)
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return self.send(206, "application/octet-stream", content[start:], with_body, span)

    def send_half(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def missing(self, code, with_body):
        body = b'{"errors":[{"code":"%s","message":"unknown"}]}' % code.encode()
        return self.send(404, "application/json", body, with_body)

    def send(self, status, media_type, body, with_body, headers=None):
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_):
        """The tests ask the registry; nobody reads its log."""
