"""Servers of Debian's, asked by clients of this machine. With ANYARCH_PACKAGES=all."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.real.starting import PATIENCE, anyarch_run
from tests.real.test_packages import all_packages, environment

pytestmark = all_packages

NGINX: Final = """
worker_processes 2; pid nginx.pid; error_log stderr; user root root;
events { worker_connections 64; }
http {
    access_log off; sendfile on; gzip on; gzip_types text/plain;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
    scgi_temp_path t5; types { text/html html; text/plain txt; }
    server {
        listen 127.0.0.1:PORT; root site;
        location /again/ { proxy_pass http://127.0.0.1:PORT/; }
    }
}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    root: Path, command: list[str], folder: Path, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that accepts connections; it is told to end."""
    server = subprocess.Popen(
        [*anyarch_run("-L", str(root)), *command],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + 60 * PATIENCE
        while server.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                break
            time.sleep(0.1)
        yield server
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=60 * PATIENCE)
        print(errors.decode(errors="replace"))


def get(port: int, path: str, **headers: str) -> bytes:
    """What a server answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=60 * PATIENCE) as answer:
        body: bytes = answer.read()
        packed = answer.headers["Content-Encoding"] == "gzip"
        return gzip.decompress(body) if packed else body


def fill(folder: Path) -> bytes:
    """Files to be served; the larger one's contents."""
    folder.mkdir()
    text = b"".join(b"%d\n" % n for n in range(100_000))
    (folder / "numbers.txt").write_bytes(text)
    (folder / "index.html").write_text("<p>hello</p>\n")
    return text


def test_nginx(interactive_root: Path, tmp_path: Path) -> None:
    port = free_port()
    text = fill(tmp_path / "site")
    (tmp_path / "nginx.conf").write_text(NGINX.replace("PORT", str(port)))
    command = ["/usr/sbin/nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    command += ["-g", "daemon off;"]
    with serving(interactive_root, command, tmp_path, port) as server:
        assert get(port, "/") == b"<p>hello</p>\n"
        assert get(port, "/again/numbers.txt", **{"Accept-Encoding": "gzip"}) == text
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: get(port, "/numbers.txt"), range(32)))
        assert answers == [text] * 32
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "/nothing")
        title = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert title.startswith(b"nginx: master process /usr/sbin/nginx")
        before = (tmp_path / "nginx.pid").read_text()
        os.kill(server.pid, signal.SIGHUP)  # new workers take over
        assert get(port, "/") == b"<p>hello</p>\n"
        assert (tmp_path / "nginx.pid").read_text() == before == f"{server.pid}\n"
    assert server.returncode == 0


def test_pythons_http_server(large_root: Path, tmp_path: Path) -> None:
    port = free_port()
    text = fill(tmp_path / "site")
    command = ["/usr/bin/python3.13", "-m", "http.server", "--bind", "127.0.0.1"]
    command += ["-d", str(tmp_path / "site"), str(port)]
    with serving(large_root, command, tmp_path, port) as server:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: get(port, "/numbers.txt"), range(8)))
        assert answers == [text] * 8
        assert get(port, "/") == b"<p>hello</p>\n"
    assert server.returncode == -signal.SIGTERM
