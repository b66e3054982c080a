"""Where bytes lie: a path or a URL, and how it may be shown. Secrets are in URLs; none is ever printed or stored."""

from __future__ import annotations

import re

_URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s/'\"<>]*@)?([^\s'\"<>?]*)(\?[^\s'\"<>]*)?", re.IGNORECASE)
_TOKEN = re.compile(r"\b(?:(?:Bearer|Basic)\s+[\w.~+/=-]+|hf_\w{8,}|(?:AKIA|ASIA)[0-9A-Z]{12,})")


def protocol(location: str) -> str | None:
    """``s3`` of ``s3://bucket/key``; None for a local path."""
    scheme, separator, _ = location.partition("://")
    return scheme if separator else None


def shown(location: str) -> str:
    """``location`` as it may be printed and stored: a URL without its query and user, which may hold secrets."""
    scheme = protocol(location)
    if scheme is None:
        return location
    host, slash, path = location[len(scheme) + 3 :].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def without_secrets(text: str) -> str:
    """A message of somebody else's as it may be shown: no query, no user in its URLs, no token beside them."""
    return _TOKEN.sub("(secret)", _URL.sub(r"\1://\3", text))
