"""A data set's repository on the hub: what it holds, and commits to it.

Credentials are the hub library's own: ``HF_TOKEN`` or ``hf auth login``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from wdsfilter import __version__, remote
from wdsfilter.errors import OutputError
from wdsfilter.push.target import Target
from wdsfilter.retry import persist, status_of
from wdsfilter.summary import file_sha256

T = TypeVar("T")
Content = Path | bytes


class Hub:
    """The repository of a target. Raises OutputError where the hub does not do what it is asked."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._api = HfApi(endpoint=constants.ENDPOINT, library_name="wdsfilter", library_version=__version__)

    def create(self, *, public: bool) -> None:
        """Make the repository and the branch, where they are not there."""
        repo, revision = self._target.repo, self._target.revision
        try:
            self._ask(lambda: self._api.repo_info(repo, repo_type="dataset"))
        except RepositoryNotFoundError:
            self._ask(
                lambda: self._api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
            )
        if revision != "main":
            self._ask(
                lambda: self._api.create_branch(repo, branch=revision, repo_type="dataset", exist_ok=True)
            )

    def head(self) -> str:
        """The branch's last commit."""
        info = self._ask(
            lambda: self._api.repo_info(
                self._target.repo, repo_type="dataset", revision=self._target.revision
            )
        )
        return str(info.sha)

    def files(self, commit: str) -> dict[str, RepoFile]:
        """All files of the target's folder, by their path in the repository."""

        def listed() -> dict[str, RepoFile]:
            entries = self._api.list_repo_tree(
                self._target.repo,
                self._target.folder or None,
                recursive=True,
                revision=commit,
                repo_type="dataset",
            )
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        try:
            return self._ask(listed)
        except EntryNotFoundError:  # an empty folder is none
            return {}

    def read(self, path: str, commit: str) -> bytes:
        """A small file's bytes; none where it is not there."""
        location = f"hf://datasets/{self._target.repo}@{commit}/{path}"
        try:
            return self._ask(lambda: bytes(_read(location)))
        except (FileNotFoundError, EntryNotFoundError):
            return b""

    def commit(self, files: Mapping[str, Content], message: str, parent: str | None = None) -> None:
        """Add or replace ``files``, by their path in the repository, all of them or none.

        With ``parent`` only where that is still the branch's last commit.
        """

        def once() -> None:  # operations remember what became of them: each try has its own
            operations = [
                CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
                for path, content in files.items()
            ]
            self._api.create_commit(
                self._target.repo,
                operations,
                commit_message=message,
                repo_type="dataset",
                revision=self._target.revision,
                parent_commit=parent,
            )

        self._ask(once)

    def _ask(self, request: Callable[[], T]) -> T:
        try:
            return persist(request)
        except (RepositoryNotFoundError, EntryNotFoundError, FileNotFoundError) as error:
            if isinstance(error, RevisionNotFoundError):
                raise OutputError(f"{self._target}: there is no such branch") from error
            raise
        except Exception as error:  # the library's, its HTTP client's, the system's
            hint = "; log in with `hf auth login`, or set HF_TOKEN, for a token that may write there"
            cause = error.__cause__ if type(error) is RuntimeError else None  # of an upload
            said = cause if isinstance(cause, Exception) else error
            why = f"{remote.reason(said)}{hint if status_of(error) in (401, 403) else ''}"
            raise OutputError(f"{self._target}: {why}") from error


def _read(location: str) -> bytes:
    store, path = remote.filesystem(location)
    found: bytes = store.cat_file(path)
    return found


def is_same(file: RepoFile | None, content: Content, sha256: str | None = None) -> bool:
    """Whether a file of the repository has these bytes, by the hash that the hub knows: git's, or a large file's.

    ``sha256`` is that of ``content``, where it is known.
    """
    if file is None:
        return False
    if file.lfs is not None:
        known = sha256 or (hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else None)
        return bool(file.lfs.sha256 == (known or file_sha256(Path(str(content)))))
    data = content if isinstance(content, bytes) else content.read_bytes()
    blob = b"blob %d\0" % len(data) + data
    return bool(file.blob_id == hashlib.sha1(blob, usedforsecurity=False).hexdigest())
