"""What a process holds: pages that nothing uses any more go back to the system."""

import ctypes
import sys


def give_back() -> None:
    """Hand back what was freed inside the heap. glibc keeps it in case as much is wanted again, which after the largest
    tensors is some ten megabytes a stage of training; a call takes a millisecond or two. Nothing elsewhere."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps less
        if trim is not None:
            trim(0)
