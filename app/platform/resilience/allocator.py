"""What glibc's allocator keeps of what was given back to it. Other C libraries have no such settings, and no need.

By itself it learns from the first large block that such blocks are usual, and from then on takes them from the heap,
which it seldom shortens. A password's hash takes 19 MiB for 20 ms: a worker would weigh as much more from then on.
"""

import ctypes

MMAP_THRESHOLD, MMAP_BYTES = (
    -3,
    1_048_576,
)  # mallopt(3): larger blocks go back to the kernel at once; and it learns no more
TRIM_THRESHOLD, TRIM_BYTES = -1, 1_048_576  # of free memory at the end of the heap


def give_memory_back() -> None:
    """For the whole process, from now on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(TRIM_THRESHOLD, TRIM_BYTES)
