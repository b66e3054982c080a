"""An SFTP server on loopback, paramiko's own, that spoils what it is told to.

Of a file that is ``longer`` than it is so many bytes are missing at its end.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
from paramiko import SFTPAttributes, SFTPServer

from tests.proxy import NO_ANSWER, Fault

USER, PASSWORD = "somebody", "hush-password"


class _Door(paramiko.ServerInterface):  # type: ignore[misc]
    """Lets in who has the password, as long as it is valid."""

    def __init__(self, fault: Callable[[str, str], Fault]) -> None:
        self._fault = fault

    def check_auth_password(self, username: str, password: str) -> Any:
        valid = self._fault("LOGIN", "").status == 200 and (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if valid else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> Any:
        return paramiko.OPEN_SUCCEEDED


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    """The files of a folder; each one that is opened takes a fault."""

    def __init__(self, server: _Door, root: Path, fault: Callable[[str, str], Fault], transport: Any) -> None:
        super().__init__(server)
        self._root = root
        self._fault = fault
        self._transport = transport

    def open(self, path: str, flags: int, attr: Any) -> Any:
        fault = self._fault("OPEN", path)
        if fault.status == NO_ANSWER:
            self._transport.close()
        if fault.status != 200:
            return SFTPServer.convert_errno(13) if fault.status in (401, 403) else paramiko.SFTP_FAILURE
        try:
            data = (self._root / path.lstrip("/")).read_bytes()
        except OSError as error:
            return SFTPServer.convert_errno(error.errno or 0)
        return _File(data, fault, self._transport)

    def stat(self, path: str) -> Any:
        if self._fault("STAT", path).status != 200:
            return paramiko.SFTP_PERMISSION_DENIED
        try:
            return SFTPAttributes.from_stat(os.stat(self._root / path.lstrip("/")))
        except OSError as error:
            return SFTPServer.convert_errno(error.errno or 0)

    lstat = stat

    def list_folder(self, path: str) -> list[Any]:
        folder = self._root / path.lstrip("/")
        return [SFTPAttributes.from_stat(entry.stat(), entry.name) for entry in os.scandir(folder)]


class _File(paramiko.SFTPHandle):  # type: ignore[misc]
    def __init__(self, data: bytes, fault: Fault, transport: Any) -> None:
        super().__init__()
        self._data = data[: len(data) - abs(fault.longer)]
        self._size = len(self._data) + max(fault.longer, 0)
        self._fault = fault
        self._transport = transport
        self._begun = False

    def stat(self) -> Any:
        found = SFTPAttributes()
        found.st_size = self._size
        return found

    def read(self, offset: int, length: int) -> Any:
        if not self._begun:
            self._begun = True
            self._fault.meanwhile()
            time.sleep(self._fault.stall)
        cut = self._fault.cut
        if cut is not None and offset + length > cut:
            length = cut - offset
            if length <= 0:
                self._transport.close()
                return paramiko.SFTP_FAILURE
        return self._data[offset : offset + length] or paramiko.SFTP_EOF


@contextmanager
def sftp_server(root: Path, fault: Callable[[str, str], Fault]) -> Iterator[str]:
    """``HOST:PORT`` of a server over ``root``; ``fault`` is asked with LOGIN, STAT or OPEN, and a path."""
    key = paramiko.ECDSAKey.generate()
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[Any] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                transport.set_subsystem_handler("sftp", SFTPServer, _Files, root, fault, transport)
                transports.append(transport)
                with suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=_Door(fault))

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for transport in transports:
            transport.close()
