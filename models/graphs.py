"""What a graph from elsewhere may not hold, read from its bytes before anything loads it: the file is a protobuf
message (onnx.proto3), and the fields that lead to nodes and tensors are walked. No onnx: an API process has none."""

from collections.abc import Iterator
from typing import NamedTuple

DEEP = 16  # messages inside messages; exported graphs take six
OTHER = b"ORTM"  # in bytes 4 to 8: ONNX Runtime's own format, whatever else the bytes may be
DOMAINS = ("", "ai.onnx")  # of the operators that every ONNX runtime has


class _Field(NamedTuple):
    number: int
    content: memoryview | int  # a nested message or text, or a number


# Message -> field -> what the field holds. A field that is not named here leads to no node and no tensor.
_INTO = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {4: "operator", 5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "subgraph", 10: "tensor", 11: "subgraph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external", 14: "location"},
}
# What is refused wherever it stands. A loop's body is a graph of its own: without one, what a run costs is bounded by
# the sizes of tensors, and no input can keep it going for ever.
_REFUSED = {
    "training": "no training steps",
    "function": "no functions of its own",
    "subgraph": "no loops and branches",
    "external": "all data inside the file",
}


def check_graph(content: bytes) -> None:
    """Raises ValueError where the bytes are no ONNX graph of standard operators alone with all data inside: what names
    other files, brings operators or functions of its own, loops or branches is refused unseen."""
    if content[4:8] == OTHER:
        raise ValueError("expected an ONNX graph, got bytes in ONNX Runtime's own format")
    found = set(_walk(memoryview(content), "model", 0))
    if "graph" not in found or "node" not in found:
        raise ValueError("expected an ONNX graph, got other bytes")


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    """The kinds of the messages in a message. Raises ValueError as `check_graph`."""
    if depth > DEEP:
        raise ValueError(f"expected at most {DEEP} messages inside each other")
    for number, content in _fields(message):
        inner = _INTO[kind].get(number)
        if inner is None:
            continue
        if inner in _REFUSED:
            raise ValueError(f"expected {_REFUSED[inner]}, got some")
        if inner == "location" and content != 0:
            raise ValueError(f"expected {_REFUSED['external']}, got a tensor that is elsewhere")
        if inner == "domain" and (isinstance(content, int) or bytes(content).decode("utf-8", "replace") not in DOMAINS):
            raise ValueError(f"expected operators of ONNX itself, got one of another domain ({_shown(content)})")
        if inner in _INTO:
            if isinstance(content, int):
                raise ValueError("expected an ONNX graph, got other bytes")
            yield inner
            yield from _walk(content, inner, depth + 1)


def _shown(content: memoryview | int) -> str:
    return repr(content if isinstance(content, int) else bytes(content[:60]).decode("utf-8", "replace"))


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of one message, in order. Raises ValueError where it is not a whole one."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        number, form = tag >> 3, tag & 7
        if form == 0:
            value, at = _number(message, at)
            yield _Field(number, value)
            continue
        if form == 2:
            size, at = _number(message, at)
        elif form in (1, 5):
            size = 8 if form == 1 else 4
        else:
            raise ValueError("expected an ONNX graph, got other bytes")
        if size > len(message) - at:
            raise ValueError("expected a whole ONNX graph, it ends early")
        if form == 2:
            yield _Field(number, message[at : at + size])
        at += size


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length (seven bits a byte, the lowest first), and where the next thing begins."""
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ValueError("expected an ONNX graph, got other bytes")
