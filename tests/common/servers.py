"""The servers behind the tunnel, for the demo and the system tests: HTTP, UDP echo and DNS, on the world's addresses.

Run as a program it serves until it is ended: `servers.py FOLDER` offers FOLDER over HTTP on port 80 and answers uploads
with their SHA-256, echoes UDP on port 7, and answers DNS on port 53 (UDP and TCP) with the world's own addresses.
"""

import hashlib
import http.server
import os
import socket
import socketserver
import struct
import sys
import threading

WORLD4, WORLD6 = "10.77.0.1", "fd77::1"


class Pages(http.server.BaseHTTPRequestHandler):
    """GET sends a file of the folder, PUT and POST answer with the SHA-256 of what came."""

    protocol_version = "HTTP/1.1"
    folder = "."

    def do_GET(self):
        path = os.path.join(self.folder, os.path.basename(self.path))
        if not os.path.isfile(path):
            return self.send_error(404)
        with open(path, "rb") as f:
            self.send_response(200)
            self.send_header("Content-Length", str(os.path.getsize(path)))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(f)

    def do_PUT(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        while left:
            data = self.rfile.read1(min(left, 1 << 20))
            if not data:
                return
            digest.update(data)
            left -= len(data)
        body = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT

    def log_message(self, *_):
        pass


class Web(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "world", self.server_address[1]


def dual_udp(port):
    """A UDP socket for IPv4 and IPv6."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    return s


def echo_udp(port):
    """Sends every datagram back to where it came from."""
    s = dual_udp(port)
    while True:
        data, peer = s.recvfrom(65535)
        s.sendto(data, peer)


def answer(query):
    """A DNS answer: the world's address for A and AAAA of any name below `test`, NXDOMAIN for others."""
    end = 12
    labels = []
    while query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]])
        end += query[end] + 1
    kind = struct.unpack(">H", query[end + 1 : end + 3])[0]
    question = query[12 : end + 5]
    known = labels and labels[-1].lower() == b"test"
    data = {1: socket.inet_aton(WORLD4), 28: socket.inet_pton(socket.AF_INET6, WORLD6)}.get(kind) if known else None
    head = query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, 1 if data else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if data else b""
    return head + question + record


def dns_udp(port):
    """Answers queries over UDP."""
    s = dual_udp(port)
    while True:
        query, peer = s.recvfrom(4096)
        try:
            s.sendto(answer(query), peer)
        except (IndexError, struct.error):
            pass


class DnsTcp(socketserver.StreamRequestHandler):
    """Answers queries over TCP."""

    def handle(self):
        while head := self.rfile.read(2):
            reply = answer(self.rfile.read(struct.unpack(">H", head)[0]))
            self.wfile.write(struct.pack(">H", len(reply)) + reply)


class DualTcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main():
    Pages.folder = sys.argv[1]
    web, dns = Web(("::", 80), Pages), DualTcp(("::", 53), DnsTcp)
    jobs = [web.serve_forever, dns.serve_forever, lambda: echo_udp(7), lambda: dns_udp(53)]
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
