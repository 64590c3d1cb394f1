"""The network interface between nodes, for gloo.

gloo binds to the address that the host's own name resolves to. Many systems resolve it to 127.0.1.1 or 127.0.0.1, which
works on one node, and which no other node can reach. NCCL looks at the interfaces instead.
"""

import ipaddress
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping

from .errors import UsageError

log = logging.getLogger(__name__)

VARIABLE = "GLOO_SOCKET_IFNAME"
_GET_FLAGS, _GET_ADDRESS = 0x8913, 0x8915  # SIOCGIFFLAGS and SIOCGIFADDR of Linux
_UP, _LOOPBACK = 0x1, 0x8  # IFF_UP and IFF_LOOPBACK


def choose_gloo_interface(environment: Mapping[str, str] = os.environ) -> str | None:
    """Sets GLOO_SOCKET_IFNAME for this process where gloo would bind to an address of this node alone.

    That is the interface towards MASTER_ADDR, or else the only one there is. environment: that of torchrun. Returns the
    name of the interface, or None if nothing had to be set: one node, the variable is set, or the host's name resolves
    to an address that other nodes can reach.

    Raises UsageError if there are several interfaces and nothing to choose by.
    """
    world = int(environment.get("WORLD_SIZE", 1))
    if environment.get(VARIABLE) or world <= int(environment.get("LOCAL_WORLD_SIZE", world)):
        return None
    address = own_address()
    if (address and not ipaddress.ip_address(address).is_loopback) or sys.platform != "linux":
        return None
    found = interfaces()
    towards = address_towards(environment.get("MASTER_ADDR", ""), int(environment.get("MASTER_PORT", 1)))
    names = [name for name, own in found.items() if own == towards] or [*found]
    if len(names) != 1:
        listed = ", ".join(f"{name} ({own})" for name, own in found.items()) or "none with an IPv4 address"
        raise UsageError(
            f"the host name {socket.gethostname()} resolves to {address or 'nothing'}, where other nodes cannot reach "
            f"this one; set {VARIABLE} to the interface that connects the nodes, one of: {listed}"
        )
    os.environ[VARIABLE] = names[0]
    log.info("network   gloo uses %s, because the host name resolves to %s", names[0], address or "nothing")
    return names[0]


def own_address() -> str | None:
    """The address that gloo takes: the first that this host's name resolves to and that can be bound; None without one.

    gloo's fall-back is loopback then.
    """
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    return next((str(address[0]) for family, *_, address in found if _is_here(family, str(address[0]))), None)


def _is_here(family: int, address: str) -> bool:
    """Whether `address` is one of this host's, so that a socket can be bound to it."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listening:
            listening.bind((address, 0))
    except OSError:
        return False
    return True


def address_towards(host: str, port: int) -> str | None:
    """This node's IPv4 address on the way to `host`, from the routing table: nothing is sent. None without a way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def interfaces() -> dict[str, str]:
    """The IPv4 addresses of the interfaces that are up, by name, without loopback (Linux)."""
    import fcntl

    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                (flags,) = struct.unpack_from("H", fcntl.ioctl(any_socket.fileno(), _GET_FLAGS, request), 16)
                address = fcntl.ioctl(any_socket.fileno(), _GET_ADDRESS, request)[20:24]
            except OSError:  # no IPv4 address
                continue
            if flags & _UP and not flags & _LOOPBACK:
                found[name] = socket.inet_ntoa(address)
    return found
