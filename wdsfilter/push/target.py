"""Where on the hub a data set goes: ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from wdsfilter.errors import OutputError
from wdsfilter.locations import shown

_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([^/@]+))?(?:/(.*))?")


@dataclass(frozen=True, slots=True)
class Target:
    """A folder (empty for the whole) of a data set's branch."""

    repo: str
    revision: str = "main"
    folder: str = ""

    def __str__(self) -> str:
        return f"hf://datasets/{self.repo}@{self.revision}{'/' if self.folder else ''}{self.folder}"

    def path(self, name: str) -> str:
        """Where a file of the output lies in the data set."""
        return f"{self.folder}/{name}" if self.folder else name


def parse_target(url: str) -> Target:
    """Raises OutputError where ``url`` names no data set of the hub's."""
    match = _URL.fullmatch(url)
    if match is None:
        raise OutputError(f"{shown(url)}: expected hf://datasets/OWNER/NAME, @BRANCH and /FOLDER may follow")
    return Target(match[1], unquote(match[2] or "main"), (match[3] or "").strip("/"))
