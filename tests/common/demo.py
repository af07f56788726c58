"""The demo behind `scripts/demo`: real packets through a real tun, our stack and VMess to a server, ours or V2Ray's."""

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lab

PARALLEL = """
import concurrent.futures as c, hashlib, socket, sys
host, count, want = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def fetch(_):
    for attempt in range(3):  # V2Ray 4.34 leaves about one short connection in a thousand unanswered
        try:
            with socket.create_connection((host, 80), 10) as s:
                s.settimeout(10)
                s.sendall(b"GET /small HTTP/1.1\\r\\nHost: world\\r\\nConnection: close\\r\\n\\r\\n")
                data = b""
                while piece := s.recv(65536):
                    data += piece
            if hashlib.sha256(data.split(b"\\r\\n\\r\\n", 1)[1]).hexdigest() == want:
                return True
        except OSError:
            pass
    return False
with c.ThreadPoolExecutor(count) as pool:
    print(sum(pool.map(fetch, range(count))))
"""
ECHO = """
import os, socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5); s.connect((sys.argv[1], 7))
for size in (1, 512, 1200, 1900):
    data = os.urandom(size); s.send(data)
    assert s.recv(4096) == data, size
print("ok")
"""
SERVERS = {"vmesskit": "our own server", "v2ray": "V2Ray"}
# Takes back the line that is being rewritten; a log has no such lines.
CLEAR = "\r\033[K" if sys.stdout.isatty() else ""


class Demo:
    """The steps of the demo and the table that they fill."""

    def __init__(self, args):
        self.args, self.rows, self.failed = args, [], 0
        self.scratch = lab.Scratch()
        self.size = args.mib << 20
        self.folder = self.scratch.file("pages")
        os.mkdir(self.folder)
        self.big, self.small = self.random_file("big", self.size), self.random_file("small", 20_000)

    def random_file(self, name, size):
        """Writes `size` random bytes and returns their SHA-256."""
        digest, block = hashlib.sha256(), os.urandom(1 << 20)
        with open(os.path.join(self.folder, name), "wb") as f:
            while size > 0:
                piece = block[: min(size, len(block))]
                f.write(piece)
                digest.update(piece)
                size -= len(piece)
                block = block[7:] + block[:7]
        return digest.hexdigest()

    def start(self):
        """Starts the servers, the host and the namespace of the programs."""
        lab.spawn([sys.executable, os.path.join(os.path.dirname(__file__), "servers.py"), self.folder])
        lab.spawn(["iperf3", "-s", "-B", lab.WORLD4])
        lab.wait_for("the web server", lambda: lab.listening(80, lab.WORLD4))
        self.start_server(10000)
        config = {
            "log": {"loglevel": "info"},
            "inbounds": [{"protocol": "tun", "tag": "tun"}],
            "outbounds": [lab.vmess_outbound(10000, self.args.security)],
            "dns": {"servers": [lab.WORLD4]},
        }
        lab.make_tun("vmk0", self.args.mtu)
        self.host = lab.Host(self.scratch, config, tun="vmk0", extra=("-stats", "1"))
        self.app = lab.App()
        self.app.adopt("vmk0", self.args.mtu)

    def start_server(self, port):
        """Starts the server behind the tunnel: our own, or a real V2Ray."""
        if self.args.server == "v2ray":
            lab.v2ray_server(self.scratch, port)
        else:
            lab.Host(self.scratch, lab.server_config(port), name="server")

    def step(self, name, job):
        """Runs one step, times it, and shows the host's own progress line meanwhile."""
        done = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(name, done))
        cpu, start = lab.cpu_seconds(self.host.pid), time.monotonic()
        watcher.start()
        try:
            amount, note = job()
            verdict = "OK"
        except (lab.LabError, OSError, AssertionError, ValueError, KeyError, TypeError) as error:
            amount, note, verdict = 0, str(error)[:200], "FAILED"
            self.failed += 1
        finally:
            done.set()
            watcher.join()
        seconds, cpu = time.monotonic() - start, lab.cpu_seconds(self.host.pid) - cpu
        rate = f"{amount * 8 / seconds / 1e9:.2f} Gbit/s" if amount else ""
        per_gb = f"{cpu / amount * 1e9:.2f}" if amount else ""
        self.rows.append((name, verdict, rate, per_gb, note))
        print(f"{CLEAR}  {verdict:6} {name:28} {rate:14} {note}", flush=True)

    def watch(self, name, done):
        """Shows what the host says of itself, once a second."""
        while not done.wait(1.0):
            text = f"  ...    {name}: {(self.progress() or ['...'])[-1]}"
            if CLEAR:
                print(CLEAR + text[: shutil.get_terminal_size().columns - 1], end="", flush=True)
            else:
                print(text, flush=True)

    def progress(self):
        """The progress lines of the host so far."""
        return [line[7:] for line in self.host.output().splitlines() if line.startswith("stats: ")]

    def connections(self):
        """What the host's next progress line says of the connections that it has carried."""
        seen = len(self.progress())
        lab.wait_for("a progress line of the host", lambda: len(self.progress()) > seen, 3)
        tcp, udp, failed = re.search(r"tcp \d+ of (\d+), udp \d+ of (\d+), .*failed dials (\d+)", self.progress()[-1]).groups()
        return f"{tcp} TCP, {udp} UDP; failed dials to the server: {failed}"

    def curl(self, *args):
        return self.app.run("curl", "-sS", "--max-time", "60", *args)

    def download(self, host):
        path = self.scratch.file("got")
        self.curl("-o", path, f"http://{host}/big")
        with open(path, "rb") as f:
            assert hashlib.file_digest(f, "sha256").hexdigest() == self.big, "the checksum differs"
        return self.size, "checksum equal"

    def upload(self, host):
        got = self.curl("-T", os.path.join(self.folder, "big"), f"http://{host}/up")
        assert got == self.big, "the checksum differs"
        return self.size, "checksum equal"

    def iperf(self, *args):
        text = self.app.run("iperf3", "-c", lab.WORLD4, "-t", "5", "-J", *args)
        return json.loads(text)["end"]["sum_received"]["bytes"], "iperf3, 8 flows, 5 s"

    def udp(self, host):
        assert self.app.run(sys.executable, "-c", ECHO, host).strip() == "ok"
        return 0, "1 to 1900 bytes echoed"

    def dns(self):
        names = {"a.demo.test": "A", "b.demo.test": "AAAA"}
        got = [self.app.run("dig", "+short", "+time=3", f"@{lab.TUN_DNS}", n, t).strip() for n, t in names.items()]
        assert got == [lab.WORLD4, lab.WORLD6], f"dig said {got}"
        return 0, "dig through the in-tunnel address"

    def parallel(self, count=200):
        got = int(self.app.run(sys.executable, "-c", PARALLEL, lab.WORLD4, str(count), self.small))
        assert got == count, f"{got} of {count}"
        return 0, f"{got} of {count} whole"

    def ping(self):
        text = self.app.run("ping", "-c", "3", "-i", "0.2", "-W", "2", lab.WORLD4)
        assert " 0% packet loss" in text, text
        return 0, "{} ms on average".format(re.search(r"= [\d.]+/([\d.]+)/", text)[1])

    def run(self):
        v4, v6 = lab.WORLD4, f"[{lab.WORLD6}]"
        self.step("DNS over UDP", self.dns)
        self.step("ping (answered by our stack)", self.ping)
        self.step("UDP echo, IPv4", lambda: self.udp(lab.WORLD4))
        self.step("UDP echo, IPv6", lambda: self.udp(lab.WORLD6))
        self.step("download, IPv4", lambda: self.download(v4))
        self.step("upload, IPv4", lambda: self.upload(v4))
        self.step("download, IPv6", lambda: self.download(v6))
        self.step("200 connections at once", self.parallel)
        self.step("8 downloads", lambda: self.iperf("-P", "8", "-R"))
        self.step("8 uploads", lambda: self.iperf("-P", "8"))

    def table(self):
        """Prints the closing table and the verdict; returns the exit status."""
        try:
            connections = self.connections()
        except lab.LabError as error:
            connections, self.failed = str(error), self.failed + 1
        resident, peak = lab.memory_mib(self.host.pid), lab.memory_mib(self.host.pid, "VmHWM")
        status = self.host.stop()
        print(f"\n  {'step':28} {'result':7} {'throughput':14} {'CPU s/GB':9} note")
        for name, verdict, rate, per_gb, note in self.rows:
            print(f"  {name:28} {verdict:7} {rate:14} {per_gb:9} {note}")
        print(f"\n  resident memory: {resident:.1f} MiB, peak {peak:.1f} MiB\n  connections:     {connections}")
        print(f"  stopped:         by SIGTERM, with status {status}")
        if status != 0:
            self.failed += 1
        if self.failed:
            print(f"\nFAILED: {self.failed} of {len(self.rows) + 1}. The host said:\n{self.host.output()[-2000:]}")
        else:
            print(f"\nOK: every packet went tun -> stack -> VMess -> {SERVERS[self.args.server]} and back.")
        return 1 if self.failed else 0


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--mtu", type=int, default=16000)
    parser.add_argument("--mib", type=int, default=512, help="size of the download and the upload")
    parser.add_argument("--security", default="auto")
    parser.add_argument("--server", choices=SERVERS, default="vmesskit", help="the server behind the tunnel")
    args = parser.parse_args()
    try:
        lab.enter()
        demo = Demo(args)
        demo.start()
        print(f"tun device vmk0, MTU {args.mtu} -> our stack -> VMess ({args.security}) -> {SERVERS[args.server]} -> the servers\n")
        demo.run()
        return demo.table()
    except (lab.LabError, OSError) as error:
        print(f"{CLEAR}FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{CLEAR}demo: interrupted; cleaning up", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
