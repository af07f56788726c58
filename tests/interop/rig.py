"""What the system tests share: a world with servers, a host, and the programs that use it."""

import hashlib
import os
import socket
import struct
import subprocess
import sys

import lab

SERVERS = os.path.join(lab.ROOT, "tests", "common", "servers.py")


class World:
    """The servers behind the tunnel, and a V2Ray server in front of them."""

    def __init__(self, v2ray=True, files=(("small", 20_000), ("big", 64 << 20)), clients=None):
        self.scratch = lab.Scratch()
        self.folder = self.scratch.file("pages")
        os.mkdir(self.folder)
        self.digests = {name: self.page(name, size) for name, size in files}
        lab.spawn([sys.executable, SERVERS, self.folder])
        lab.wait_for("the web server", lambda: lab.listening(80, lab.WORLD4))
        self.port = lab.free_port()
        self.server = lab.v2ray_server(self.scratch, self.port, clients) if v2ray else None

    def page(self, name, size):
        """Writes a file of random bytes for the web server and returns its SHA-256."""
        data = os.urandom(min(size, 1 << 20)) * (size // min(size, 1 << 20))
        with open(os.path.join(self.folder, name), "wb") as f:
            f.write(data)
        return hashlib.sha256(data).hexdigest()

    def tun_config(self, outbound=None, **more):
        """A config with a tun inbound and one outbound."""
        return {"log": {"loglevel": "debug"}, "inbounds": [{"protocol": "tun", "tag": "tun", **more.pop("tun", {})}],
                "outbounds": [outbound or lab.vmess_outbound(self.port)], "dns": {"servers": [lab.WORLD4]}, **more}

    def tun_host(self, config=None, mtu=1500, extra=(), name="vmk0"):
        """Starts the host on a new tun device and returns it with the namespace of the programs."""
        lab.make_tun(name, mtu)
        host = lab.Host(self.scratch, config or self.tun_config(), tun=name, extra=extra)
        app = lab.App()
        app.adopt(name, mtu)
        return host, app

    def socks_host(self, outbound=None, extra=(), **more):
        """Starts the host with a SOCKS inbound and returns it with the port."""
        port = lab.free_port()
        config = {"log": {"loglevel": "debug"}, "inbounds": [lab.socks_inbound(port)],
                  "outbounds": [outbound or lab.vmess_outbound(self.port)], **more}
        return lab.Host(self.scratch, config, extra=extra), port


def curl(prefix, *args, seconds=60):
    """Runs curl and returns what it printed."""
    return lab.run(*prefix, "curl", "-sS", "--max-time", seconds, *args)


def fetch_digest(prefix, url, *args, seconds=60):
    """Downloads `url` and returns the SHA-256 of what came."""
    # curl outlives the shell, for its sockets to be seen.
    script = f'set -o pipefail; curl -sS --max-time {seconds + 10} "$@" | sha256sum'
    try:
        return lab.run(*prefix, "bash", "-c", script, "curl", *args, url, timeout=seconds).split()[0]
    except subprocess.TimeoutExpired:
        sockets = lab.run(*prefix, "ss", "-tnmio", "state", "connected", "exclude", "time-wait")
        raise lab.LabError(f"{url} had not come after {seconds} s. The sockets then:\n{sockets}") from None


def upload_digest(prefix, path, url, *args, seconds=60):
    """Uploads a file and returns the SHA-256 that the server computed."""
    return curl(prefix, "-T", path, *args, url, seconds=seconds)


def open_fds(pid):
    """How many file descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def established(port):
    """How many connections to a local TCP port are established (client ends)."""
    return len(lab.run("ss", "-Htn", "state", "established", "dport", f"= :{port}").splitlines())


def ports_towards(ports):
    """Which of these local TCP ports somebody has a connection to, or has just closed one."""
    lines = lab.run("ss", "-Htan").splitlines()
    peers = {int(line.split()[4].rsplit(":", 1)[1]) for line in lines if not line.startswith("LISTEN")}
    return sorted(peers & set(ports))


def socks_connect(port, host, target):
    """A TCP connection to `host`:`target` through a SOCKS port."""
    s = socket.create_connection(("127.0.0.1", port), 5)
    s.sendall(b"\x05\x01\x00")
    assert s.recv(2) == b"\x05\x00"
    s.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(host) + struct.pack(">H", target))
    assert s.recv(10)[:2] == b"\x05\x00"
    return s


def read_all(s):
    """Everything until the end of the peer's direction."""
    got = b""
    while piece := s.recv(65536):
        got += piece
    return got


class SocksUdp:
    """A SOCKS5 UDP association."""

    def __init__(self, port):
        self.control = socket.create_connection(("127.0.0.1", port), 5)
        self.control.sendall(b"\x05\x01\x00")
        assert self.control.recv(2) == b"\x05\x00"
        self.control.sendall(b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
        reply = self.control.recv(64)
        assert reply[:2] == b"\x05\x00", reply
        self.relay = ("127.0.0.1", struct.unpack(">H", reply[8:10])[0])
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(5)

    def exchange(self, host, port, data):
        """Sends a datagram and returns the payload of the next one that comes."""
        head = b"\x00\x00\x00\x01" + socket.inet_aton(host) + struct.pack(">H", port)
        self.socket.sendto(head + data, self.relay)
        return self.socket.recv(65535)[10:]
