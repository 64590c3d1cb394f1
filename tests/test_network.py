"""The interface that gloo uses between nodes, where the host's name resolves to an address of the host alone."""

import socket
import sys

import pytest

from fastaugself import network
from fastaugself.errors import UsageError

TWO_NODES = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="interfaces are listed on Linux alone")


@pytest.fixture
def node(monkeypatch):
    """Sets what the host's name resolves to, the interfaces, and the address towards the master."""
    monkeypatch.delenv(network.VARIABLE, raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "node1")

    def is_(resolved, interfaces, towards):
        def resolve(host, port, **_):
            if host != "node1" or resolved is None:
                raise socket.gaierror("Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (resolved, 0))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(network, "_is_here", lambda family, address: True)
        monkeypatch.setattr(network, "interfaces", lambda: interfaces)
        monkeypatch.setattr(network, "address_towards", lambda host, port: towards if host == "node0" else None)

    yield is_
    network.os.environ.pop(network.VARIABLE, None)  # what the code under test has set


SEVERAL = {"eth0": "192.0.2.7", "ib0": "10.1.0.7", "docker0": "172.17.0.1"}


@pytest.mark.parametrize("resolved", ["127.0.0.1", "127.0.1.1", "::1", None])
def test_a_name_that_resolves_to_loopback_gives_the_interface_towards_the_master(node, resolved):
    node(resolved, SEVERAL, "10.1.0.7")
    assert network.choose_gloo_interface(TWO_NODES) == "ib0"
    assert network.os.environ[network.VARIABLE] == "ib0"


@pytest.mark.parametrize("towards", ["127.0.0.1", None])
def test_on_the_master_itself_the_only_interface_is_chosen(node, towards):
    """Its own name may be MASTER_ADDR, and the way there is loopback."""
    node("127.0.1.1", {"eth0": "192.0.2.7"}, towards)
    assert network.choose_gloo_interface(TWO_NODES) == "eth0"


def test_between_several_interfaces_the_user_must_choose_and_the_remedy_works(node, monkeypatch):
    node("127.0.1.1", SEVERAL, "127.0.0.1")
    with pytest.raises(UsageError) as caught:
        network.choose_gloo_interface(TWO_NODES)
    assert str(caught.value) == (
        "the host name node1 resolves to 127.0.1.1, where other nodes cannot reach this one; set GLOO_SOCKET_IFNAME to "
        "the interface that connects the nodes, one of: eth0 (192.0.2.7), ib0 (10.1.0.7), docker0 (172.17.0.1)"
    )
    assert network.VARIABLE not in network.os.environ
    assert network.choose_gloo_interface(TWO_NODES | {network.VARIABLE: "ib0"}) is None


@pytest.mark.parametrize(
    ("resolved", "environment"),
    [
        ("192.0.2.7", TWO_NODES),  # an address that other nodes can reach
        ("127.0.1.1", TWO_NODES | {"LOCAL_WORLD_SIZE": "16"}),  # one node
        ("127.0.1.1", {}),  # one process
        ("127.0.1.1", {"WORLD_SIZE": "2"}),  # not torchrun: nothing says that there are several nodes
    ],
)
def test_nothing_is_set_where_gloo_finds_its_way(node, resolved, environment):
    node(resolved, SEVERAL, "10.1.0.7")
    assert network.choose_gloo_interface(environment) is None
    assert network.VARIABLE not in network.os.environ


def test_an_address_that_is_not_this_machines_is_passed_over_as_gloo_does(monkeypatch):
    def resolved(*addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: found)
        return network.own_address()

    assert resolved("203.0.113.9", "127.0.0.1") == "127.0.0.1"  # an address of documentation, which no machine has
    assert resolved("203.0.113.9") is None


def test_the_interfaces_of_this_machine_have_addresses_that_can_be_bound():
    found = network.interfaces()
    assert "lo" not in found and set(found) <= {name for _, name in socket.if_nameindex()}
    for address in found.values():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.bind((address, 0))
        assert network.address_towards(address, 29500) == address  # the way to itself
    assert network.address_towards("127.0.0.1", 29500) == "127.0.0.1"
    assert network.address_towards("no.such.host.invalid", 29500) is None
