"""A quick look at the UniFFI scaffolding from a language that needs no compiler: real traffic through two tunnels, a tun
that is a socket pair, events, errors, callbacks, measuring and subscriptions. Run by scripts/test-python, which generates
the module and says where it is."""

import asyncio
import os
import socket
import struct
import sys
import threading
import unittest

sys.path.insert(0, os.environ["VMESSKIT_PYTHON"])

import vmesskit_uniffi as vmess  # noqa: E402  (found by the line above)

ID = "b831381d-6324-4d53-ad4f-8cda48b30811"
QUIET = '{"outbounds": [{"protocol": "blackhole"}]}'


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def serve(work):
    """A TCP server on the loopback that does `work` with each connection; returns its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(client):
        with client:
            try:
                work(client)
            except OSError:
                pass

    def all_of_them():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=all_of_them, daemon=True).start()
    return listener.getsockname()[1]


def echo(client):
    while data := client.recv(65536):
        client.sendall(data)


def server_config(port):
    return f"""{{"inbounds": [{{"protocol": "vmess", "tag": "door", "listen": "127.0.0.1", "port": {port},
        "settings": {{"clients": [{{"id": "{ID}", "email": "ann@example.com"}}]}}}}],
        "outbounds": [{{"protocol": "freedom"}}]}}"""


def client_config(server, socks=None):
    inbound = f'{{"protocol": "socks", "listen": "127.0.0.1", "port": {socks}}}' if socks else ""
    return f"""{{"inbounds": [{inbound}], "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [
        {{"address": "127.0.0.1", "port": {server}, "users": [{{"id": "{ID}"}}]}}]}}}}]}}"""


def exchange(socks, port, data):
    """Sends data through a SOCKS inbound to a port of the loopback, and returns what comes back."""
    with socket.create_connection(("127.0.0.1", socks), timeout=20) as client:
        client.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", port))
        head = b""
        while len(head) < 12:
            head += client.recv(12 - len(head))
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        back = bytearray()
        while len(back) < len(data):
            piece = client.recv(65536)
            if not piece:
                break
            back += piece
        return bytes(back)


class Refusing(vmess.Platform):
    """Refuses every socket."""

    def __init__(self):
        self.asked = 0

    def protect_socket(self, fd):
        os.fstat(fd)
        self.asked += 1
        raise vmess.PlatformError.Refused("not today")

    def resolve(self, host, network):
        return None

    def find_owner(self, network, source, destination):
        return None


class Smoke(unittest.IsolatedAsyncioTestCase):
    async def test_traffic_passes_our_client_and_our_server(self):
        door, socks, port = free_port(), free_port(), serve(echo)
        server = vmess.Tunnel(server_config(door), vmess.Options(), None)
        client = vmess.Tunnel(client_config(door, socks), vmess.Options(), None)
        await server.start(None)
        await client.start(None)
        data = os.urandom(2_000_000)
        back = await asyncio.to_thread(exchange, socks, port, data)
        self.assertEqual(back, data)
        self.assertGreaterEqual(client.stats().uplink_bytes, len(data))
        self.assertEqual([user.email for user in server.users("door")], ["ann@example.com"])
        report = await client.check(10_000)
        self.assertGreater(report.latency_micros, 0)
        self.assertFalse((await client.reload(client_config(door, socks))).tun_changed)

        states = []
        await client.stop(10_000)
        while (event := await client.next_event()) is not None:
            if event.is_state_changed() or event.is_STATE_CHANGED():
                states.append(type(event.state).__name__)
        self.assertIn("STOPPED", states[-1].upper())
        await server.stop(10_000)

    async def test_a_tun_answers(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handle = vmess.TunHandle(
            fd=theirs.fileno(), mtu=1500, ownership=vmess.FdOwnership.BORROWED, framing=vmess.Framing.RAW_IP
        )
        tunnel = vmess.Tunnel(QUIET, vmess.Options(), None)
        await tunnel.start(handle)
        echo_request = bytearray(b"\x08\x00\x00\x00\x00\x07\x00\x01vmesskit")
        echo_request[2:4] = checksum(echo_request)
        packet = bytearray(b"\x45\x00\x00\x24\x00\x01\x00\x00\x40\x01\x00\x00")
        packet += socket.inet_aton("172.19.0.5") + socket.inet_aton("192.0.2.1")
        packet[10:12] = checksum(packet)
        ours.settimeout(20)
        ours.send(packet + echo_request)
        reply = await asyncio.to_thread(ours.recv, 1500)
        self.assertEqual((reply[12:16], reply[20], reply[28:]), (socket.inet_aton("192.0.2.1"), 0, b"vmesskit"))
        await tunnel.stop(10_000)
        theirs.getsockname()
        ours.close()
        theirs.close()

    async def test_errors_have_their_texts(self):
        with self.assertRaises(vmess.TunnelError.Failed) as invalid:
            vmess.Tunnel('{"outbounds": [{"protocol": "vmes"}]}', vmess.Options(), None)
        self.assertEqual(invalid.exception.path, "outbounds[0].protocol")
        self.assertIn("vmess", invalid.exception.hint)
        host = Refusing()
        tunnel = vmess.Tunnel(client_config(free_port()), vmess.Options(), host)
        await tunnel.start(None)
        with self.assertRaises(vmess.TunnelError.Failed) as refused:
            await tunnel.check(10_000)
        self.assertIn("PROTECT_FAILED", type(refused.exception.kind).__name__.upper())
        self.assertEqual((refused.exception.reason, host.asked), ("not today", 1))
        await tunnel.stop(10_000)
        with self.assertRaises(vmess.TunnelError.Failed) as over:
            await tunnel.start(None)
        self.assertIn("STOPPED", type(over.exception.kind).__name__.upper())

    async def test_servers_are_measured_and_subscriptions_read(self):
        web = serve(lambda client: client.recv(4096) and client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n"))
        door = free_port()
        server = vmess.Tunnel(server_config(door), vmess.Options(), None)
        await server.start(None)
        request = vmess.MeasureRequest(
            configs=[client_config(door), client_config(free_port())],
            url=f"http://127.0.0.1:{web}/",
            timeout_millis=10_000,
            parallel=2,
        )
        good, dead = await vmess.measure(request, None)
        self.assertTrue(good.error is None and good.latency_micros > 0)
        self.assertTrue(dead.latency_micros is None and dead.error.text)
        await server.stop(10_000)
        found = vmess.parse_subscription(f"vmess://{ID}@a.example:1#a\nss://b\n".encode())
        self.assertEqual([server.name for server in found.servers], ["a"])
        self.assertEqual([finding.path for finding in found.diagnostics], ["line 2"])
        self.assertTrue(vmess.version())


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", bytes(data)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


if __name__ == "__main__":
    unittest.main(verbosity=2)
