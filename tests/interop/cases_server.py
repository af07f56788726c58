"""Our VMess server behind a real V2Ray's client and behind our own: headers, securities, mux, UDP, strangers."""

import concurrent.futures
import hashlib
import os
import socket
import time

import lab
import rig

LEGACY = "66ad4540-b58c-4ad2-9926-ea63445a9b57"
STRANGER = "11111111-2222-4333-8444-555555555555"
CLIENTS = [{"id": lab.USER, "alterId": 0, "email": "aead@test"}, {"id": LEGACY, "alterId": 16, "email": "legacy@test"}]
SECURITIES = ("auto", "aes-128-gcm", "chacha20-poly1305", "none")
SMALL = f"http://{lab.WORLD4}/small"


class Served:
    """The world behind a VMess server of ours."""

    def __init__(self, **settings):
        self.world = rig.World(v2ray=False)
        self.scratch, self.digests = self.world.scratch, self.world.digests
        self.port = lab.free_port()
        config = lab.server_config(self.port, CLIENTS, **settings)
        config["log"]["loglevel"] = "debug"
        self.host = lab.Host(self.scratch, config, name="server")

    def v2ray(self, security="auto", user=lab.USER, alter_id=0, mux=None):
        """Starts a V2Ray client and returns the port of its SOCKS inbound."""
        outbound = lab.vmess_outbound(self.port, security, user, alterId=alter_id)
        if mux:
            outbound["mux"] = {"enabled": True, "concurrency": mux}
        port = lab.free_port()
        return lab.v2ray_client(self.scratch, port, outbound), port

    def both_ways(self, port, what):
        """A download, an upload and an exchange of datagrams through a SOCKS port."""
        proxy = ("--socks5", f"127.0.0.1:{port}")
        assert rig.fetch_digest([], f"http://{lab.WORLD4}/big", *proxy) == self.digests["big"], what
        path = os.path.join(self.world.folder, "big")
        assert rig.upload_digest([], path, f"http://{lab.WORLD4}/up", *proxy) == self.digests["big"], what
        udp = rig.SocksUdp(port)
        for size in (1, 100, 1400, 1900):
            data = os.urandom(size)
            assert udp.exchange(lab.WORLD4, 7, data) == data, (what, size)


def v2ray_with_every_security_and_header():
    served = Served()
    for user, alter_id in ((lab.USER, 0), (LEGACY, 0), (LEGACY, 16), (LEGACY, 4)):
        for security in SECURITIES:
            client, port = served.v2ray(security, user, alter_id)
            served.both_ways(port, (alter_id, security))
            lab.end(client)
    assert served.host.stop() == 0


def v2ray_with_mux():
    served = Served()
    for user, alter_id in ((lab.USER, 0), (LEGACY, 16)):
        client, port = served.v2ray("auto", user, alter_id, mux=8)
        served.both_ways(port, ("mux", alter_id))
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            got = list(pool.map(lambda _: rig.fetch_digest([], SMALL, "--socks5", f"127.0.0.1:{port}"), range(120)))
        assert got.count(served.digests["small"]) == 120
        lab.end(client)
    assert served.host.stop() == 0


def ours_with_every_security_and_header():
    served = Served()
    securities = (*SECURITIES, "zero", "aes-128-cfb")
    for user, alter_id in ((lab.USER, 0), (LEGACY, 16)):
        for security in securities:
            for mux in (None, 8):
                outbound = lab.vmess_outbound(served.port, security, user, alterId=alter_id)
                if mux:
                    outbound["mux"] = {"enabled": True, "concurrency": mux}
                host, port = served.world.socks_host(outbound, vmesskit={"allowCfb": True})
                served.both_ways(port, (alter_id, security, mux))
                assert host.stop() == 0
    assert served.host.stop() == 0


def no_connection_is_lost():
    """A thousand connections, forty at a time: V2Ray's server would leave one or two of them unanswered."""
    served = Served()
    _host, port = served.world.socks_host(lab.vmess_outbound(served.port))
    ask = b"GET /small HTTP/1.1\r\nHost: world\r\nConnection: close\r\n\r\n"

    def fetch(_):
        with rig.socks_connect(port, lab.WORLD4, 80) as s:
            s.settimeout(20)
            s.sendall(ask)
            return hashlib.sha256(rig.read_all(s).split(b"\r\n\r\n", 1)[1]).hexdigest()

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        got = list(pool.map(fetch, range(1000)))
    assert got.count(served.digests["small"]) == 1000


def a_slow_answer_survives_the_half_close():
    served = Served()
    _host, port = served.world.socks_host(lab.vmess_outbound(served.port))
    with socket.create_server((lab.WORLD4, 0)) as listener:
        client = rig.socks_connect(port, *listener.getsockname())
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        listener.settimeout(5)
        target, _ = listener.accept()
        target.settimeout(5)
        # Our server passes the end on.
        assert rig.read_all(target) == b"question"
        time.sleep(3)
        target.sendall(b"answer")
        target.close()
        assert rig.read_all(client) == b"answer"


def insecure_encryption_is_refused_on_request():
    served = Served(disableInsecureEncryption=True)
    for security, works in (("aes-128-gcm", True), ("none", False)):
        client, port = served.v2ray(security)
        try:
            done = rig.fetch_digest([], SMALL, "--socks5", f"127.0.0.1:{port}", seconds=5) == served.digests["small"]
        except lab.LabError:
            done = False
        assert done == works, security
        lab.end(client)


def a_stranger_hears_nothing():
    served = Served()
    client, port = served.v2ray(user=STRANGER)
    try:
        rig.fetch_digest([], SMALL, "--socks5", f"127.0.0.1:{port}", seconds=4)
        raise AssertionError("a stranger was served")
    except lab.LabError:
        pass
    lab.end(client)
    # The next one is served as if nothing had happened.
    _client, port = served.v2ray()
    assert rig.fetch_digest([], SMALL, "--socks5", f"127.0.0.1:{port}") == served.digests["small"]


def dynamic_ports_with_v2ray_at_either_end():
    """A detour hands out ports, V2Ray's client follows ours, and ours follows V2Ray's."""
    world = rig.World(v2ray=False)
    low = 21000
    for server, client in (("ours", "ours"), ("ours", "v2ray"), ("v2ray", "ours")):
        # Each pair has ports of its own: what is closing there belongs to no earlier pair.
        first, low = lab.free_port(), low + 100
        config = lab.server_config(first, [{"id": lab.USER, "alterId": 0, "email": "a@test"}], detour={"to": "dynamic"})
        config["inbounds"].append({
            "listen": "127.0.0.1", "port": f"{low}-{low + 20}", "protocol": "vmess", "tag": "dynamic",
            "settings": {"clients": [], "default": {"level": 0, "alterId": 0}},
            "allocate": {"strategy": "random", "concurrency": 2, "refresh": 3}})
        if server == "ours":
            process = lab.Host(world.scratch, config, name="server").process
        else:
            process = lab.v2ray(world.scratch, "detour", config, first)
        if client == "ours":
            app, port = world.socks_host(lab.vmess_outbound(first))
            app = app.process
        else:
            port = lab.free_port()
            app = lab.v2ray_client(world.scratch, port, lab.vmess_outbound(first))
        held, ports = [], []
        while not ports and len(held) < 12:
            assert rig.fetch_digest([], SMALL, "--socks5", f"127.0.0.1:{port}") == world.digests["small"], (server, client)
            # A connection that stays open can be seen.
            held.append(rig.socks_connect(port, lab.WORLD4, 80))
            held[-1].sendall(b"GET /small HTTP/1.1\r\nHost: world\r\n\r\n")
            held[-1].recv(100)
            ports = rig.ports_towards(range(low, low + 21))
        assert ports, f"{client} behind {server}: no connection went to a dynamic port"
        lab.end(app)
        lab.end(process)


def thousands_of_users():
    world = rig.World(v2ray=False)
    clients = [{"id": f"{n:08x}-0000-4000-8000-000000000000", "alterId": 0, "email": f"u{n}@test"} for n in range(5000)]
    port = lab.free_port()
    server = lab.Host(world.scratch, lab.server_config(port, clients), name="server")
    for n in (0, 2500, 4999):
        host, socks = world.socks_host(lab.vmess_outbound(port, user=clients[n]["id"]))
        assert rig.fetch_digest([], SMALL, "--socks5", f"127.0.0.1:{socks}") == world.digests["small"], n
        host.stop()
    assert server.stop() == 0


CASES = [v2ray_with_every_security_and_header, v2ray_with_mux, ours_with_every_security_and_header, no_connection_is_lost,
         a_slow_answer_survives_the_half_close, insecure_encryption_is_refused_on_request, a_stranger_hears_nothing,
         dynamic_ports_with_v2ray_at_either_end, thousands_of_users]
