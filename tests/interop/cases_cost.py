"""What a connection costs: packets before its first payload is at its target, and memory while it is idle."""

import contextlib
import socket
import struct
import threading
import time

import certificates
import lab
import rig
from cases_matrix import HTTP
from cases_ws import EARLY, WS, Chain, upgrade, ws

# Name, what is inside, whether TLS is around it, and how many segments with data carry everything up to the first payload:
# one for it and the VMess header; one for an upgrade that has to be answered first; one for TLS to begin with, whose last
# message leaves with what follows.
WAYS = [
    ("tcp", {"network": "tcp"}, False, 1),
    ("http header", HTTP, False, 1),
    ("tls", {"network": "tcp"}, True, 2),
    ("ws", WS, False, 2),
    ("ws with early data", ws(**EARLY), False, 1),
    ("ws with early data in the path", ws(maxEarlyData=2048), False, 1),
    ("ws+tls", WS, True, 3),
    ("ws+tls with early data", ws(**EARLY), True, 2),
    ("httpupgrade", upgrade(), False, 2),
    ("httpupgrade+tls", upgrade(), True, 3),
]
QUESTION = b"q" * 600
# Name, what is inside of TLS, and the most KiB of resident memory that an idle connection has at either end.
IDLE = [("tls", {"network": "tcp"}, 14), ("ws+tls", WS, 16)]
CONNECTIONS = 300


class Relay:
    """Passes bytes on between a client and a server, and has the client's end of each connection."""

    def __init__(self, server):
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepted = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            self.accepted.append(client)
            server = socket.create_connection(("127.0.0.1", self.server))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self.move, args=ends, daemon=True).start()

    @staticmethod
    def move(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def segments(connection):
    """How many segments with data have come on a TCP connection: `tcpi_data_segs_in`."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return struct.unpack_from("=I", info, 152)[0]


def the_first_payload_leaves_in_as_few_packets_as_can_be():
    for name, inside, tls, least in WAYS:
        chain = Chain(inside, True, tls)
        relay = Relay(chain.port)
        chain.port = relay.port
        host, port = chain.client(inside, ours=True, tls=tls)
        # The first connection may wait for what later ones know.
        for round_ in range(2):
            with socket.create_server((lab.WORLD4, 0)) as listener:
                app = rig.socks_connect(port, *listener.getsockname())
                app.sendall(QUESTION)
                listener.settimeout(5)
                target, _ = listener.accept()
                target.settimeout(5)
                got = b""
                while len(got) < len(QUESTION):
                    got += target.recv(4096)
                used = segments(relay.accepted[-1])
                assert got == QUESTION and used == least, (name, round_, used)
                app.close()
                target.close()
        assert host.stop() == 0
        lab.end_all()


class Echo:
    """Answers one byte on each connection, and keeps it open."""

    def __init__(self):
        self.listener = socket.create_server((lab.WORLD4, 0), backlog=CONNECTIONS)
        self.address = self.listener.getsockname()
        self.kept = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.kept.append(connection)
                connection.sendall(connection.recv(1))


def idle(port, target, count):
    """Opens connections through a SOCKS port, each of which has moved a byte both ways."""
    apps = [rig.socks_connect(port, *target) for _ in range(count)]
    for app in apps:
        app.sendall(b"x")
    assert all(app.recv(1) == b"x" for app in apps)
    return apps


def an_idle_connection_holds_little_memory():
    for name, inside, most in IDLE:
        chain = Chain(inside, True, tls=True)
        host, port = chain.client(inside, ours=True, tls=True)
        echo = Echo()
        # What all connections share is taken by the first ones.
        apps = idle(port, echo.address, 20)
        before = [lab.memory_mib(process.pid) for process in (host, chain.server)]
        apps += idle(port, echo.address, CONNECTIONS)
        time.sleep(2)
        for end, process, shared in zip(("client", "server"), (host, chain.server), before):
            each = (lab.memory_mib(process.pid) - shared) * 1024 / CONNECTIONS
            assert each <= most, (name, end, each)
        for connection in (*apps, *echo.kept, echo.listener):
            connection.close()
        assert host.stop() == 0
        lab.end_all()


CASES = [the_first_payload_leaves_in_as_few_packets_as_can_be, an_idle_connection_holds_little_memory]
