"""What glibc's allocator keeps of what was given back to it. Other C libraries have no such settings, and no need.

By itself it learns from the first large block that such blocks are usual, and from then on takes them from the heap,
which it seldom shortens. A password's hash takes 19 MiB for 20 ms: a worker would weigh as much more from then on.
"""

import ctypes

# mallopt(3). Larger blocks than that go back to the kernel at once; and once it is told, it learns no more.
MMAP_THRESHOLD, MMAP_BYTES = -3, 1_048_576
# So much free memory at the end of the heap, and it is shortened.
TRIM_THRESHOLD, TRIM_BYTES = -1, 1_048_576


def give_memory_back() -> None:
    """For the whole process, from now on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(TRIM_THRESHOLD, TRIM_BYTES)
