"""Entity tags: what an answer is a version of, and the headers that ask about it (RFC 9110, sections 8.8 and 13.1)."""

import hashlib

from fastapi import Request

EMPTY = hashlib.sha256()


def tag_of(*parts: bytes | str | int | None) -> str:
    """A tag that changes when any of the parts does."""
    data = [part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass") for part in parts]
    lengths = ",".join([str(len(each)) for each in data])  # so that no two lists of parts look the same
    digest = EMPTY.copy()  # to look the algorithm up takes as long as it does
    digest.update(b"".join([lengths.encode(), b";", *data]))
    return f'"{digest.hexdigest()[:32]}"'


def tags_in(header: str | None) -> frozenset[str] | None:
    """The tags of an `If-Match` or `If-None-Match` header; None when it was not sent."""
    return None if header is None else frozenset(tag.strip() for tag in header.split(",") if tag.strip())


def is_known(request: Request, tag: str) -> bool:
    """Whether the client says it has this version already: then 304 is the whole answer. Weak tags count as equal."""
    known = tags_in(request.headers.get("if-none-match")) or frozenset()
    return "*" in known or tag.removeprefix("W/") in {each.removeprefix("W/") for each in known}
