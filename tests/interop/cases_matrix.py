"""The matrix of transport x security x TCP, UDP and mux: V2Ray's clients on our server, our clients on V2Ray's."""

import os

import certificates
import lab
import rig
from cases_ws import WS, Chain

HTTP = {"network": "tcp", "tcpSettings": {"header": {
    "type": "http",
    "request": {"version": "1.1", "method": "GET", "path": ["/a", "/b"], "headers": {"Host": ["front.test"], "Accept": ["*/*"]}},
    "response": {"version": "1.1", "status": "200", "reason": "OK", "headers": {"Content-Type": ["text/html"]}}}}}
H2 = {"network": "http", "httpSettings": {"path": "/h2", "host": [certificates.NAME]}}
# Name, what is inside, and whether TLS is around it. A transport is one line.
TRANSPORTS = [
    ("tcp", {"network": "tcp"}, False),
    ("http header", HTTP, False),
    ("tls", {"network": "tcp"}, True),
    ("ws", WS, False),
    ("ws+tls", WS, True),
    ("h2+tls", H2, True),
]
SECURITIES = ("aes-128-gcm", "chacha20-poly1305", "none", "zero")
DATAGRAMS = (1, 100, 1400, 1900)


def run(ours_serves):
    for name, inside, tls in TRANSPORTS:
        world = Chain(inside, ours_serves, tls)
        for security in SECURITIES:
            # zero has nothing to tell datagrams or sessions apart with.
            for mux in (None,) if security == "zero" else (None, 8):
                what = (name, security, "mux" if mux else "")
                client, port = world.client(inside, not ours_serves, mux, security, tls)
                exchange(world.world, port, what, udp=security != "zero")
                if ours_serves:
                    lab.end(client)
                else:
                    assert client.stop() == 0, what
        if ours_serves:
            assert world.server.stop() == 0, name
        lab.end_all()


def exchange(world, port, what, udp):
    """A download, an upload and datagrams, byte-exact, and short exchanges one after another."""
    proxy = ("--socks5", f"127.0.0.1:{port}")
    assert rig.fetch_digest([], f"http://{lab.WORLD4}/page", *proxy) == world.digests["page"], what
    path = os.path.join(world.folder, "page")
    assert rig.upload_digest([], path, f"http://{lab.WORLD4}/up", *proxy) == world.digests["page"], what
    for _ in range(5):
        assert rig.fetch_digest([], f"http://{lab.WORLD4}/small", *proxy) == world.digests["small"], what
    if udp:
        flow = rig.SocksUdp(port)
        for size in DATAGRAMS:
            data = os.urandom(size)
            assert flow.exchange(lab.WORLD4, 7, data) == data, (*what, size)


def every_transport_and_security_of_v2rays_clients_on_ours():
    run(ours_serves=True)


def every_transport_and_security_of_ours_on_v2rays_servers():
    run(ours_serves=False)


CASES = [
    every_transport_and_security_of_v2rays_clients_on_ours,
    every_transport_and_security_of_ours_on_v2rays_servers,
]
