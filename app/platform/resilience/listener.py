"""Closing a listening TCP socket without resetting the clients that wait in its queue.

The kernel completes connections before the process accepts them, and close() resets those that it has not accepted yet:
a client has sent its request by then, and a load balancer may not repeat a POST. So new connections are stopped first,
by a packet filter that drops SYN (socket(7), SO_ATTACH_FILTER; needs no privilege), then the queue is emptied, and then
there is nothing left to lose. A dropped SYN is repeated by the client's kernel, and refused by the closed port.
"""

import ctypes
import socket
import struct
import sys

SO_ATTACH_FILTER = 26  # asm-generic/socket.h
TCP_FLAGS_OFFSET = 13
SYN = 0x02
# Classic BPF over the TCP segment: load the flags; if SYN is set return 0 bytes of it (drop), else all.
DROP_SYN = (
    (0x30, 0, 0, TCP_FLAGS_OFFSET),  # ldb [13]
    (0x45, 0, 1, SYN),  # jset #SYN, next, skip one
    (0x06, 0, 0, 0),  # ret #0
    (0x06, 0, 0, 0xFFFFFFFF),  # ret #-1
)


def stop_new_connections(listener: socket.socket) -> None:
    """For every process that shares the socket. Does nothing for Unix sockets, and outside Linux."""
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in DROP_SYN))
    program = struct.pack("HP", len(DROP_SYN), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
