"""WebSocket and HTTP upgrade: V2Ray at either end, nginx in between, our own pair for what V2Ray 4 lacks."""

import concurrent.futures
import os
import shutil
import socket
import time

import certificates
import lab
import rig

SMALL = f"http://{lab.WORLD4}/small"
WS = {"network": "ws", "wsSettings": {"path": "/ray", "headers": {"Host": "front.test"}}}
EARLY = {"maxEarlyData": 2048, "earlyDataHeaderName": "Sec-WebSocket-Protocol"}


def ws(**more):
    return {"network": "ws", "wsSettings": {**WS["wsSettings"], **more}}


def upgrade(**more):
    return {"network": "httpupgrade", "httpupgradeSettings": {"path": "/up", "host": "front.test", **more}}


class Chain:
    """The world behind a VMess server, ours or V2Ray's, on a transport, and clients of either kind in front of it."""

    def __init__(self, stream, ours, tls=False):
        self.world = rig.World(v2ray=False, files=(("small", 20_000), ("page", 2 << 20), ("big", 64 << 20)))
        self.scratch = self.world.scratch
        self.port = lab.free_port()
        config = lab.server_config(self.port)
        config["log"]["loglevel"] = "debug"
        config["inbounds"][0]["streamSettings"] = certificates.server(self.scratch, stream) if tls else stream
        if ours:
            self.server = lab.Host(self.scratch, config, name="server")
        else:
            self.server = lab.v2ray(self.scratch, "server", config, self.port)

    def through_nginx(self):
        """Puts nginx in front of the server."""
        self.port = nginx(self.scratch, f"proxy_pass http://127.0.0.1:{self.port};")

    def client(self, stream, ours, mux=None, security="aes-128-gcm", tls=False):
        """Starts a client and returns its process and the port of its SOCKS inbound."""
        stream = certificates.client(self.scratch, stream) if tls else stream
        outbound = {**lab.vmess_outbound(self.port, security), "streamSettings": stream}
        if mux:
            outbound["mux"] = {"enabled": True, "concurrency": mux}
        if ours:
            host, port = self.world.socks_host(outbound)
            return host, port
        port = lab.free_port()
        return lab.v2ray_client(self.scratch, port, outbound), port

    def both_ways(self, port, what):
        """A download, an upload, datagrams, and many small exchanges through a SOCKS port."""
        proxy = ("--socks5", f"127.0.0.1:{port}")
        digests = self.world.digests
        assert rig.fetch_digest([], f"http://{lab.WORLD4}/big", *proxy) == digests["big"], what
        path = os.path.join(self.world.folder, "big")
        assert rig.upload_digest([], path, f"http://{lab.WORLD4}/up", *proxy) == digests["big"], what
        udp = rig.SocksUdp(port)
        for size in (1, 100, 1400, 1900):
            data = os.urandom(size)
            assert udp.exchange(lab.WORLD4, 7, data) == data, (what, size)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            got = list(pool.map(lambda _: rig.fetch_digest([], SMALL, *proxy), range(100)))
        assert got.count(digests["small"]) == 100, what


def nginx(scratch, location):
    """Starts nginx with one location and returns its port."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if not program:
        raise lab.LabError("`nginx` is missing: install the Debian package nginx-light")
    port, folder = lab.free_port(), scratch.file("nginx")
    os.makedirs(folder, exist_ok=True)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(f"{folder}/nginx.conf", "w") as f:
        f.write(f"""user root; daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; {temporary}
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_http_version 1.1; proxy_read_timeout 300s;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_set_header Host $host;
        {location} }} }} }}""")
    lab.spawn([program, "-p", folder, "-c", f"{folder}/nginx.conf"], f"{folder}/log")
    lab.wait_for("nginx", lambda: lab.listening(port))
    return port


def v2ray_clients_on_our_websocket():
    chain = Chain(WS, ours=True)
    for security in ("aes-128-gcm", "chacha20-poly1305", "none"):
        client, port = chain.client(WS, ours=False, security=security)
        chain.both_ways(port, security)
        lab.end(client)
    client, port = chain.client(WS, ours=False, mux=8)
    chain.both_ways(port, "mux")
    chain.through_nginx()
    client, port = chain.client(WS, ours=False)
    chain.both_ways(port, "nginx")
    lab.end(client)
    assert chain.server.stop() == 0


def our_clients_on_v2rays_websocket():
    chain = Chain(WS, ours=False)
    for security in ("aes-128-gcm", "chacha20-poly1305", "none"):
        host, port = chain.client(WS, ours=True, security=security)
        chain.both_ways(port, security)
        assert host.stop() == 0
    host, port = chain.client(WS, ours=True, mux=8)
    chain.both_ways(port, "mux")
    assert host.stop() == 0
    chain.through_nginx()
    host, port = chain.client(WS, ours=True)
    chain.both_ways(port, "nginx")
    assert host.stop() == 0


def our_own_pair_with_early_data():
    for stream in (ws(**EARLY), ws(maxEarlyData=2048), ws(path="/ray?ed=2048"), ws(heartbeatPeriod=1), upgrade()):
        chain = Chain(stream, ours=True)
        for front in ("alone", "nginx"):
            if front == "nginx":
                chain.through_nginx()
            host, port = chain.client(stream, ours=True)
            chain.both_ways(port, (stream, front))
            assert host.stop() == 0
        assert chain.server.stop() == 0
        lab.end_all()


def a_slow_answer_survives_the_half_close_on_websocket():
    for ours, stream, front in ((True, WS, False), (True, ws(**EARLY), True), (False, WS, True), (True, upgrade(), False)):
        chain = Chain(stream, ours)
        if front:
            chain.through_nginx()
        _host, port = chain.client(stream, ours=True)
        with socket.create_server((lab.WORLD4, 0)) as listener:
            client = rig.socks_connect(port, *listener.getsockname())
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            listener.settimeout(5)
            target, _ = listener.accept()
            target.settimeout(5)
            if ours:
                assert rig.read_all(target) == b"question"
            else:
                assert target.recv(100) == b"question"
            # V2Ray waits for no more than a second.
            time.sleep(2 if ours else 0.5)
            target.sendall(b"answer")
            target.close()
            assert rig.read_all(client) == b"answer", (ours, stream, front)
        lab.end_all()


def wrong_answers_to_an_upgrade_are_named():
    world = rig.World(v2ray=False)
    for location, words in (("return 404;", "HTTP 404"), ("return 301 https://elsewhere.test/;", "HTTP 301"),
                            ("return 403 'go away';", "HTTP 403"),
                            ("default_type text/html; return 200 '<html></html>';", "a web page")):
        front = nginx(world.scratch, location)
        for stream in (WS, ws(**EARLY), upgrade()):
            outbound = {**lab.vmess_outbound(front), "streamSettings": stream}
            host, port = world.socks_host(outbound)
            started = time.monotonic()
            try:
                rig.curl([], "--socks5", f"127.0.0.1:{port}", SMALL)
                raise AssertionError("it worked")
            except lab.LabError:
                pass
            assert time.monotonic() - started < 5, (location, stream)
            lab.wait_for("the error's words", lambda: words in host.output() and "upgrade" in host.output())
            assert host.stop() == 0
        lab.end_all()


CASES = [
    v2ray_clients_on_our_websocket,
    our_clients_on_v2rays_websocket,
    our_own_pair_with_early_data,
    a_slow_answer_survives_the_half_close_on_websocket,
    wrong_answers_to_an_upgrade_are_named,
]
