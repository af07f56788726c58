"""What breaks, and what the app and the host are told."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time

import lab
import rig

READ_ALL = """
import socket, sys
total = 0
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    s.settimeout(40)
    s.sendall(b"GET /big HTTP/1.1\\r\\nHost: w\\r\\n\\r\\n")
    while piece := s.recv(65536):
        total += len(piece)
        if total == len(piece): print("flowing", flush=True)
    print("fin", flush=True)
except ConnectionResetError:
    print("reset", flush=True)
except TimeoutError:
    print("timeout", flush=True)
"""


def read_all(app, port=80):
    """Starts a download inside the namespace whose end is printed: fin, reset or timeout."""
    return app.spawn([sys.executable, "-c", READ_ALL, lab.WORLD4, str(port)], stdout=subprocess.PIPE)


def a_server_that_is_gone_resets_the_app():
    """Nothing listens: a reset within the deadline, and the host says which stage failed."""
    world = rig.World(v2ray=False)
    host, app = world.tun_host()
    start = time.monotonic()
    child = read_all(app)
    got, took = child.stdout.read(), time.monotonic() - start
    assert got == b"reset\n" and took < 10, (got, took)
    assert "connect" in host.output() and "refused" in host.output().lower(), host.output()[-800:]
    assert host.stop() == 0


def a_wrong_id_is_named():
    """A real V2Ray drains an unknown user: silence, then an event with the likely causes, then a reset."""
    world = rig.World()
    wrong = lab.vmess_outbound(world.port, user="11111111-2222-4333-8444-555555555555")
    host, app = world.tun_host(world.tun_config(wrong))
    # 4 kB are more than the server drains, so it closes at once.
    push = ("import socket, sys\nfor _ in range(4):\n    s = socket.create_connection((sys.argv[1], 80), 20); s.settimeout(20)\n"
            "    try:\n        s.sendall(b'x' * 8000); print(s.recv(10) or b'fin')\n    except ConnectionResetError:\n        print('reset')")
    assert app.run(sys.executable, "-c", push, lab.WORLD4).split() == ["reset"] * 4
    text = host.output()
    assert "refuses us" in text and "know the id" in text and "clock is off" in text, text[-800:]
    assert host.stop() == 0


def a_server_that_stays_silent_is_reported():
    """A server that reads and never answers: flows live on, one event says what is likely."""
    world = rig.World(v2ray=False)
    silent = socket.create_server(("127.0.0.1", world.port))
    host, app = world.tun_host()
    push = ("import socket, sys, time\nheld = []\nfor _ in range(4):\n    s = socket.create_connection((sys.argv[1], 80), 20); s.sendall(b'x'); held.append(s)\ntime.sleep(60)")
    app.spawn([sys.executable, "-c", push, lab.WORLD4])
    lab.wait_for("the event", lambda: "does not answer; likely" in host.output(), 45)
    time.sleep(5)
    assert host.output().count("does not answer; likely") == 1
    silent.close()


def a_server_that_dies_mid_stream_resets_the_app():
    """A cut stream must never look like a whole one, even where it was cut between two records.

    That takes a server that is known to end its streams properly, so one whole stream comes first.
    """
    world = rig.World(files=(("small", 20_000), ("big", 512 << 20)))
    host, app = world.tun_host()
    assert rig.fetch_digest(app.prefix, f"http://{lab.WORLD4}/small", "-H", "Connection: close") == world.digests["small"]
    child = read_all(app)
    assert child.stdout.readline() == b"flowing\n"
    world.server.send_signal(signal.SIGKILL)
    assert child.stdout.readline() == b"reset\n"
    # And it comes back by itself.
    world.server.wait()
    lab.v2ray_server(world.scratch, world.port)
    until = time.monotonic() + 40
    while True:
        try:
            assert rig.fetch_digest(app.prefix, f"http://{lab.WORLD4}/small", seconds=5) == world.digests["small"]
            break
        except lab.LabError:
            assert time.monotonic() < until, "no recovery within 40 s"
            time.sleep(0.5)
    assert host.stop() == 0


def few_file_descriptors():
    """Out of descriptors: no spin, no crash, and connections work again when some are free."""
    world = rig.World()
    port = lab.free_port()
    config = {"log": {"loglevel": "info"}, "inbounds": [lab.socks_inbound(port)], "outbounds": [lab.vmess_outbound(world.port)]}
    script = 'ulimit -n 64; exec "$0" "$@"'
    path = world.scratch.json("few.json", config)
    child = lab.spawn(["bash", "-c", script, lab.HOST, "-config", path], world.scratch.file("few.log"))
    lab.wait_for("the host", lambda: lab.listening(port))
    held = []
    for _ in range(120):
        try:
            s = socket.create_connection(("127.0.0.1", port), 2)
            s.sendall(b"\x05\x01\x00")
            held.append(s)
        except OSError:
            pass
    time.sleep(1)
    before = lab.cpu_seconds(child.pid)
    time.sleep(2)
    assert lab.cpu_seconds(child.pid) - before < 0.5, "it spins"
    for s in held:
        s.close()

    def works():
        try:
            return rig.fetch_digest([], f"http://{lab.WORLD4}/small", "--socks5", f"127.0.0.1:{port}", seconds=5) == world.digests["small"]
        except lab.LabError:
            return False

    lab.wait_for("connections to work again", works, 15)
    assert lab.end(child) == 0


def a_dead_link_grows_no_memory():
    """Thousands of attempts against a server that is not there."""
    world = rig.World(v2ray=False)
    host, app = world.tun_host()
    push = ("import socket, sys, time\nuntil = time.time() + 6\nn = 0\nwhile time.time() < until:\n    try:\n        s = socket.create_connection((sys.argv[1], 80), 2); s.sendall(b'x' * 1000); s.recv(1)\n"
            "    except OSError:\n        pass\n    n += 1\nprint(n)")
    app.run(sys.executable, "-c", push.replace("+ 6", "+ 1"), lab.WORLD4)
    before = lab.memory_mib(host.pid)
    assert int(app.run(sys.executable, "-c", push, lab.WORLD4)) > 100
    assert lab.memory_mib(host.pid) - before < 3, f"from {before:.1f} to {lab.memory_mib(host.pid):.1f} MiB"
    assert host.stop() == 0


def a_tun_device_that_goes_away_ends_the_host():
    world = rig.World(v2ray=False)
    host, app = world.tun_host()
    app.run("ip", "link", "del", "vmk0")
    try:
        status = host.process.wait(5)
    except subprocess.TimeoutExpired:
        raise AssertionError("the host goes on without its tun device") from None
    assert status == 1 and "tun" in host.output().lower(), host.output()[-500:]


CASES = [a_server_that_is_gone_resets_the_app, a_wrong_id_is_named, a_server_that_stays_silent_is_reported,
         a_server_that_dies_mid_stream_resets_the_app, few_file_descriptors, a_dead_link_grows_no_memory,
         a_tun_device_that_goes_away_ends_the_host]
