#!/usr/bin/env python3
"""A guest in a few lines, written from docs/attach.md alone.

It attaches to the host whose socket is the first argument, posts INITIATE_CONTACT
for VMBus 5.3, waits for VERSION_RESPONSE and prints what it says. With a second
argument it asks for that version, in hexadecimal.
"""

import array
import fcntl
import mmap
import os
import select
import socket
import struct
import sys

PAGE = 4096
GPA = 0x7_0000_3000  # where our memory is to be; any page-aligned address will do
SIGNALS, MESSAGES, EVENTS, PAGES = 0, 1, 2, 5  # our pages, two of them for VMBus
HELLO, REPLY, POST = 1, 2, 3
SLOT = PAGE * MESSAGES + 512

F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2


def receive(sock):
    """Returns the next record of the host and its descriptors."""
    fds = array.array("i")
    data, control, flags, _ = sock.recvmsg(2048, socket.CMSG_SPACE(65 * fds.itemsize))
    for level, kind, content in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not data:
        sys.exit("the host closed the socket")
    kind, ident, status, version, length = struct.unpack_from("<IIIHH", data)
    text = data[16 : 16 + length].decode()
    if kind != REPLY or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        sys.exit("the host's record is malformed")
    if status:
        sys.exit(f"status {status}: {text}")
    return ident, list(fds)


def attach(path):
    """Returns the socket, the memory, and the doorbells."""
    fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, PAGES * PAGE)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)
    memory = mmap.mmap(fd, PAGES * PAGE, mmap.MAP_SHARED)

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(5)
    sock.connect(path)
    name = b"python"
    key, value = b"nic.mac", b"00:15:5d:70:79:01"
    options = struct.pack("<HH", len(key), len(value)) + key + value
    hello = struct.pack("<II8sII", HELLO, 1, b"HVATTACH", 1, 1)
    hello += struct.pack("<QHHI", GPA + SIGNALS * PAGE, 1, len(name), len(options))
    hello += struct.pack("<QQ", GPA + MESSAGES * PAGE, GPA + EVENTS * PAGE)
    hello += struct.pack("<QQQ", GPA, PAGES * PAGE, 0)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    sock.sendmsg([hello + name + options], rights)
    os.close(fd)

    ident, bells = receive(sock)
    if ident != 1 or len(bells) != 2:
        sys.exit("the answer to the hello is not for us")
    return sock, memory, bells


def take_message(memory, sock, to_host, to_us):
    """Waits for a message in our slot and returns its payload."""
    while struct.unpack_from("<I", memory, SLOT)[0] == 0:
        ready, _, _ = select.select([to_us, sock], [], [], 5)
        if sock in ready or not ready:
            sys.exit("no message from the host")
        os.read(to_us, 1)
    _, size, _, _, _ = struct.unpack_from("<IBBHQ", memory, SLOT)
    payload = memory[SLOT + 16 : SLOT + 16 + min(size, 240)]
    struct.pack_into("<I", memory, SLOT, 0)
    os.sched_yield()  # the kernel takes a lock here, which is a barrier
    if memory[SLOT + 5] & 1:
        os.write(to_host, b"!")
    return payload


def main():
    version = int(sys.argv[2], 16) if len(sys.argv) > 2 else 0x50003
    sock, memory, (to_host, to_us) = attach(sys.argv[1])

    # Target VP 0, SINT 2, two monitor pages: the last ones of our memory.
    contact = struct.pack("<IIII", 14, 0, version, 0)
    contact += struct.pack("<BBHI", 2, 0, 0, 0)
    contact += struct.pack("<QQ", GPA + 3 * PAGE, GPA + 4 * PAGE)
    sock.send(struct.pack("<IIII", POST, 2, 4, 1) + contact)
    receive(sock)

    answer = take_message(memory, sock, to_host, to_us)
    kind, _, supported, state = struct.unpack_from("<IIBB", answer)
    (connection,) = struct.unpack_from("<I", answer, 12)
    if kind != 15:
        sys.exit(f"message type {kind} is no VERSION_RESPONSE")
    print(f"version {version >> 16}.{version & 0xFFFF} supported {supported} state {state} connection {connection}")


main()
