"""Container images made of what Debian has installed: no registry is asked, and every run has the same ones.

Each image is one OCI archive, as `longshore image load` takes it. Times and order are fixed, so that the same
packages give the same digests.
"""

import gzip
import hashlib
import io
import json
import pathlib
import platform
import re
import shutil
import subprocess
import tarfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

PASSWD = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"

NGINX_CONF = """\
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
  access_log /dev/stdout;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server {
    listen 80;
    root /usr/share/nginx/html;
    location = /health { return 200 "healthy\\n"; }
    location = /address { return 200 "$server_addr\\n"; }
  }
}
"""
NGINX_PAGE = "<html><head><title>Welcome to nginx!</title></head><body>Welcome to nginx!</body></html>\n"


class Layer:
    """Files of one layer; directories on the way are made as needed."""

    def __init__(self):
        self.entries = {}

    def directory(self, path, mode=0o755):
        self._parents(path)
        self.entries[path] = (tarfile.DIRTYPE, mode, b"", "")

    def file(self, path, content, mode=0o644):
        self._parents(path)
        content = content.encode() if isinstance(content, str) else content
        self.entries[path] = (tarfile.REGTYPE, mode, content, "")

    def link(self, path, target):
        self._parents(path)
        self.entries[path] = (tarfile.SYMTYPE, 0o777, b"", target)

    def program(self, source, path):
        """A program of this machine with the shared libraries that it is linked to."""
        self.file(path, pathlib.Path(source).read_bytes(), 0o755)
        for library in shared_libraries(source):
            self.file(str(library), library.resolve().read_bytes(), 0o755)

    def _parents(self, path):
        for parent in reversed(pathlib.PurePosixPath(path).parents):
            if str(parent) not in (".", "/") and str(parent) not in self.entries:
                self.entries[str(parent)] = (tarfile.DIRTYPE, 0o755, b"", "")

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, (kind, mode, content, target) in sorted(self.entries.items()):
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.type, entry.mode, entry.linkname, entry.size = kind, mode, target, len(content)
                archive.addfile(entry, io.BytesIO(content))
        return out.getvalue()


class Image:
    """Blobs by digest, and which of them is the manifest."""

    def __init__(self, layers, config):
        self.blobs = {}
        tars = [layer.tar() for layer in layers]
        descriptors = [self._add(LAYER, gzip.compress(tar, mtime=0)) for tar in tars]
        root = {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}
        config = {"architecture": ARCHITECTURE, "os": "linux", "config": config, "rootfs": root}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._add(CONFIG, encode(config)),
            "layers": descriptors,
        }
        self.layers = [descriptor["digest"] for descriptor in descriptors]
        self.manifest = self._add(MANIFEST, encode(manifest))

    def _add(self, media_type, content):
        self.blobs[digest(content)] = content
        return {"mediaType": media_type, "digest": digest(content), "size": len(content)}

    def index(self):
        entry = self.manifest | {"platform": {"architecture": ARCHITECTURE, "os": "linux"}}
        # Registries serve many platforms under one tag; the first is one that this machine is not.
        foreign = entry | {"digest": digest(b"foreign"), "platform": {"architecture": "s390x", "os": "linux"}}
        return encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [foreign, entry]})

    def write_archive(self, path, reference):
        """An OCI image layout in a tar file."""
        # The specification's annotation holds the tag alone; containerd's holds the whole name.
        names = {
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
            "io.containerd.image.name": f"docker.io/library/{reference}",
        }
        entry = self.manifest | {"annotations": names}
        files = {
            "oci-layout": encode({"imageLayoutVersion": "1.0.0"}),
            "index.json": encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}),
        }
        files |= {f"blobs/{name.replace(':', '/')}": content for name, content in self.blobs.items()}
        return write_tar(path, files)

    def write_docker_archive(self, path, reference):
        """As `docker save` writes it: layers as plain tars, named by a manifest of Docker's own."""
        manifest = json.loads(self.blobs[self.manifest["digest"]])
        config = manifest["config"]["digest"].partition(":")[2]
        files = {f"{config}.json": self.blobs[manifest["config"]["digest"]]}
        layers = []
        for layer in self.layers:
            layers.append(f"{layer.partition(':')[2]}/layer.tar")
            files[layers[-1]] = gzip.decompress(self.blobs[layer])
        entry = {"Config": f"{config}.json", "RepoTags": [reference], "Layers": layers}
        files["manifest.json"] = encode([entry])
        return write_tar(path, files)


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return path


def busybox():
    """Like the image of that name: the applets, a shell, and nothing else."""
    return Image([busybox_layer()], {"Cmd": ["sh"], "Env": ["PATH=/bin"]})


def nginx():
    """Like the image of that name: a web server on port 80 that logs to its output; and busybox's applets."""
    layer = Layer()
    layer.program(find("nginx"), "/usr/sbin/nginx")
    layer.file("/etc/nginx/nginx.conf", NGINX_CONF)
    layer.file("/usr/share/nginx/html/index.html", NGINX_PAGE)
    for path in ("/run", "/var/log/nginx", "/var/lib/nginx"):
        layer.directory(path)
    config = {
        "Cmd": ["nginx", "-g", "daemon off;"],
        "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }
    return Image([busybox_layer(), layer], config)


def busybox_layer():
    layer = Layer()
    program = find("busybox")
    layer.program(program, "/bin/busybox")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            layer.link(f"/bin/{applet}", "busybox")
    layer.file("/etc/passwd", PASSWD)
    layer.file("/etc/group", GROUP)
    layer.directory("/tmp", 0o1777)
    for path in ("/dev", "/proc", "/sys", "/var"):
        layer.directory(path)
    return layer


def find(program):
    path = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert path, f"{program} is not installed; ./dev test installs it"
    return path


def shared_libraries(program):
    """None for a static program, which ldd refuses."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return [pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", listing)]


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def encode(value):
    return json.dumps(value, sort_keys=True).encode()
