"""SOCKS -> VMess -> a real V2Ray: every security, TCP and UDP, many at once."""

import concurrent.futures
import os
import socket
import time

import lab
import rig

SECURITIES = ("auto", "aes-128-gcm", "chacha20-poly1305", "none", "zero")


def tcp_with_every_security():
    world = rig.World()
    for security in SECURITIES:
        host, port = world.socks_host(lab.vmess_outbound(world.port, security))
        proxy = ("--socks5", f"127.0.0.1:{port}")
        assert rig.fetch_digest([], f"http://{lab.WORLD4}/big", *proxy) == world.digests["big"], security
        path = os.path.join(world.folder, "big")
        assert rig.upload_digest([], path, f"http://{lab.WORLD4}/up", *proxy) == world.digests["big"], security
        assert rig.fetch_digest([], f"http://[{lab.WORLD6}]/small", *proxy) == world.digests["small"], security
        assert host.stop() == 0, security


def udp_with_every_security():
    world = rig.World()
    for security in SECURITIES:
        host, port = world.socks_host(lab.vmess_outbound(world.port, security))
        udp = rig.SocksUdp(port)
        for size in (1, 100, 1400, 1900):
            data = os.urandom(size)
            assert udp.exchange(lab.WORLD4, 7, data) == data, (security, size)
        host.stop()


def a_domain_reaches_the_server_as_a_domain():
    world = rig.World()
    _host, port = world.socks_host()
    assert rig.fetch_digest([], "http://localhost/small", "--socks5-hostname", f"127.0.0.1:{port}") == world.digests["small"]


def several_users_and_servers_take_turns():
    other = "66ad4540-b58c-4ad2-9926-ea63445a9b57"
    world = rig.World(clients=[{"id": lab.USER, "alterId": 0}, {"id": other, "alterId": 0}])
    second = lab.free_port()
    lab.v2ray_server(world.scratch, second)
    users = [{"id": lab.USER, "security": "auto"}, {"id": other, "security": "chacha20-poly1305"}]
    outbound = {"protocol": "vmess", "settings": {"vnext": [
        {"address": "127.0.0.1", "port": world.port, "users": users},
        {"address": "127.0.0.1", "port": second, "users": users[:1]}]}}
    _host, port = world.socks_host(outbound)
    for _ in range(12):
        assert rig.fetch_digest([], f"http://{lab.WORLD4}/small", "--socks5", f"127.0.0.1:{port}") == world.digests["small"]


def two_hundred_at_once():
    world = rig.World()
    _host, port = world.socks_host()

    def fetch(_):
        for _attempt in range(3):  # V2Ray 4.34 leaves about one short connection in a thousand unanswered
            try:
                return rig.fetch_digest([], f"http://{lab.WORLD4}/small", "--socks5", f"127.0.0.1:{port}", seconds=15)
            except lab.LabError:
                pass
        return None

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        got = list(pool.map(fetch, range(200)))
    assert got.count(world.digests["small"]) == 200, f"{got.count(world.digests['small'])} of 200"


def half_close_keeps_the_answer():
    """The client ends its direction first; a slow answer still comes whole."""
    world = rig.World()
    _host, port = world.socks_host()
    listener = socket.create_server((lab.WORLD4, 0))
    client = rig.socks_connect(port, *listener.getsockname())
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    listener.settimeout(5)
    server, _ = listener.accept()
    server.settimeout(5)
    # V2Ray passes a half-close on to the target only when it gives up, so the end itself is not waited for.
    assert server.recv(100) == b"question"
    time.sleep(0.3)
    server.sendall(b"answer")
    server.close()
    client.settimeout(5)
    got = rig.read_all(client)
    assert got == b"answer", got


CASES = [tcp_with_every_security, udp_with_every_security, a_domain_reaches_the_server_as_a_domain,
         several_users_and_servers_take_turns, two_hundred_at_once, half_close_keeps_the_answer]
