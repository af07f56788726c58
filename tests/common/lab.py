"""A small network laboratory: namespaces, processes and servers for the demo, the benchmark and the system tests.

The script that uses it runs in a network namespace of its own, the *world*: `enter()` sees to that. The world holds the
servers, on addresses of its loopback device. An *app* namespace holds a tun device as its only way out. Nothing here
touches the machine's own network, and everything is gone when the script ends: a namespace lives as long as its
processes, and every process is ended with the script.
"""

import atexit
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

WORLD4, WORLD6 = "10.77.0.1", "fd77::1"
TUN4, TUN6, TUN_DNS = "172.19.0.1", "fd19::1", "172.19.0.2"
USER = "b831381d-6324-4d53-ad4f-8cda48b30811"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOST = os.path.join(ROOT, "target", "host", "vmesskit")
TICKS = os.sysconf("SC_CLK_TCK")
PROCESSES = []
FOLDERS = []
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NET, _NEW_USER = 0x40000000, 0x10000000  # CLONE_NEWNET, CLONE_NEWUSER of unshare(2)


class LabError(Exception):
    """Something that the laboratory needs is missing or broke; the text says what and what to do."""


def enter():
    """Moves this script into a network namespace of its own, as root of a user namespace where it is not root."""
    for number in SIGNALS:
        signal.signal(number, _leave)
    user, group = os.geteuid(), os.getegid()
    try:
        if user != 0 or not _unshare(_NEW_NET):
            if not _unshare(_NEW_NET | _NEW_USER):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
                with open(f"/proc/self/{name}", "w") as f:
                    f.write(text)
    except OSError as error:
        raise LabError(f"cannot make a network namespace ({error.strerror}): run as root, or allow user namespaces") from None
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{WORLD4}/32", "dev", "lo")
    subprocess.run(["ip", "addr", "add", f"{WORLD6}/128", "dev", "lo", "nodad"], capture_output=True)
    # Thousands of connections a second from one address to one port leave as many ports in TIME-WAIT, and each connect()
    # searches them all for a free one: 5 ms of the connecting process's time after 14,000. They are reused after a second
    # here, as the kernel does by itself on 127.0.0.1.
    try:
        with open("/proc/sys/net/ipv4/tcp_tw_reuse", "w") as f:
            f.write("1")
    except OSError:
        print("lab: TIME-WAIT ports are not reused here, so figures of connections a second are too low", file=sys.stderr)


def _unshare(flags):
    """Leaves the namespaces that `flags` name for new ones, and tells whether that went well."""
    return _LIBC.unshare(flags) == 0


def _leave(number, _frame):
    """Ends the script on the first signal that asks for it; what follows must not disturb the cleaning up."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def run(*argv, **kwargs):
    """Runs a command to its end and returns its output; raises a `LabError` with its words when it fails."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, preexec_fn=_die_with_parent, **kwargs)
    if done.returncode != 0:
        raise LabError(f"`{' '.join(map(str, argv))}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _die_with_parent():
    _LIBC.prctl(1, signal.SIGKILL)


def spawn(argv, log=None, **kwargs):
    """Starts a process that ends with this script. `log`: a path that takes its output."""
    out = open(log, "wb") if log else subprocess.DEVNULL
    kwargs.setdefault("stdout", out)
    kwargs.setdefault("stderr", subprocess.STDOUT)
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    child = subprocess.Popen(list(map(str, argv)), preexec_fn=_die_with_parent, **kwargs)
    child.log = log
    PROCESSES.append(child)
    return child


def end(child, number=signal.SIGTERM, timeout=10):
    """Ends a process and returns its exit status."""
    if child.poll() is None:
        child.send_signal(number)
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child in PROCESSES:
        PROCESSES.remove(child)
    return child.returncode


def end_all():
    """Ends every process that this script started."""
    for child in reversed(list(PROCESSES)):
        end(child, timeout=3)


@atexit.register
def _clean_up():
    """Leaves nothing behind: first the processes, then the folders that they write to."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_all()
    for path in FOLDERS:
        shutil.rmtree(path, ignore_errors=True)


def last_words(lines=15):
    """The ends of the logs of the processes that still run."""
    words = []
    for program, path in ((child.args[0], child.log) for child in PROCESSES if child.log):
        with open(path, errors="replace") as f:
            words += [f"-- {os.path.basename(program)}: {os.path.basename(path)}", *f.read().splitlines()[-lines:]]
    return "\n".join(words)


def wait_for(what, probe, timeout=10.0):
    """Waits until `probe()` is true."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if probe():
            return
        time.sleep(0.02)
    raise LabError(f"{what}: not within {timeout:g} s")


def listening(port, host="127.0.0.1"):
    """Whether a TCP server listens there."""
    try:
        socket.create_connection((host, port), 0.5).close()
        return True
    except OSError:
        return False


def free_port():
    """A port that is free at the moment, for TCP and, as SOCKS inbounds take both, for UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def cpu_seconds(pid):
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def thread_seconds(pid, prefix):
    """User and system time of each thread of a process whose name begins so."""
    seconds = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as f:
            name, fields = f.read().split("(", 1)[1].rsplit(")", 1)
        if name.startswith(prefix):
            seconds.append(sum(map(int, fields.split()[11:13])) / TICKS)
    return seconds


def memory_mib(pid, field="VmRSS"):
    """Resident memory of a process in MiB; `VmHWM` is its peak."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return 0.0


def wakeups(pid):
    """How often the threads of a process have gone to sleep so far (voluntary context switches)."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("voluntary"))
    return total


class Scratch:
    """A folder for configs and logs that goes with the script."""

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="vmesskit-lab-")
        FOLDERS.append(self.path)

    def file(self, name):
        return os.path.join(self.path, name)

    def json(self, name, value):
        with open(self.file(name), "w") as f:
            json.dump(value, f, indent=1)
        return self.file(name)


class App:
    """A namespace for ordinary programs, whose only way out is a tun device."""

    def __init__(self):
        self.holder = spawn(["unshare", "-n", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")

        def moved():
            try:
                return os.readlink(f"/proc/{self.holder.pid}/ns/net") != own
            except OSError:
                return False

        wait_for("the app namespace", moved)
        self.prefix = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *argv, **kwargs):
        """Runs a command inside; see `run`."""
        return run(*self.prefix, *argv, **kwargs)

    def spawn(self, argv, **kwargs):
        """Starts a process inside; see `spawn`."""
        return spawn([*self.prefix, *argv], **kwargs)

    def adopt(self, name, mtu, v6=True):
        """Takes the tun device `name` out of the world and makes it the default route."""
        run("ip", "link", "set", name, "netns", self.holder.pid)
        self.run("ip", "link", "set", name, "mtu", mtu, "txqueuelen", 500)
        self.run("ip", "addr", "add", f"{TUN4}/30", "dev", name)
        # The kernel's own router solicitations are packets for the tunnel too, and would count as its wake-ups.
        quiet = f"echo 0 >/proc/sys/net/ipv6/conf/{name}/router_solicitations"
        self.run("sh", "-c", quiet if v6 else f"echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        self.run("ip", "link", "set", name, "up")
        self.run("ip", "route", "add", "default", "dev", name)
        if v6:
            self.run("ip", "addr", "add", f"{TUN6}/126", "dev", name, "nodad")
            self.run("ip", "-6", "route", "add", "default", "dev", name)


def make_tun(name, mtu):
    """Makes a tun device in the world, for a program to attach to."""
    run("ip", "tuntap", "add", "dev", name, "mode", "tun")
    run("ip", "link", "set", name, "mtu", mtu)


def drop_tun(name):
    """Removes a tun device that never left the world, if it is there."""
    subprocess.run(["ip", "link", "del", name], capture_output=True)


def v2ray(scratch, name, config, port, listen="127.0.0.1"):
    """Starts a real V2Ray, waits until it listens on `port`, and returns the process."""
    program = shutil.which("v2ray")
    if not program:
        raise LabError("`v2ray` is missing: install the Debian package v2ray")
    process = spawn([program, "-config", scratch.json(f"{name}.json", config)], scratch.file(f"{name}.log"))
    wait_for(f"V2Ray ({name})", lambda: process.poll() is not None or listening(port, listen))
    if process.poll() is not None:
        raise LabError(f"V2Ray ({name}) ended: " + open(scratch.file(f"{name}.log")).read()[-500:])
    return process


def v2ray_server(scratch, port, clients=None, listen="127.0.0.1"):
    """Starts a real V2Ray with a VMess inbound and returns the process."""
    return v2ray(scratch, f"server-{port}", server_config(port, clients, listen), port, listen)


def v2ray_client(scratch, port, outbound):
    """Starts a real V2Ray with a SOCKS inbound and one outbound, and returns the process."""
    config = {"log": {"loglevel": "warning", "access": "none"}, "inbounds": [socks_inbound(port)], "outbounds": [outbound]}
    return v2ray(scratch, f"client-{port}", config, port)


def server_config(port, clients=None, listen="127.0.0.1", **settings):
    """A config with a VMess inbound and a freedom outbound, for V2Ray and for us."""
    clients = [{"id": USER, "alterId": 0}] if clients is None else clients
    inbound = {"listen": listen, "port": port, "protocol": "vmess", "settings": {"clients": clients, **settings}}
    return {"log": {"loglevel": "warning", "access": "none"}, "inbounds": [inbound],
            "outbounds": [{"protocol": "freedom", "settings": {}}]}


def vmess_outbound(port, security="aes-128-gcm", user=USER, address="127.0.0.1", **more):
    """A VMess outbound as V2Ray's JSON has it."""
    users = [{"id": user, "alterId": 0, "security": security, **more}]
    return {"protocol": "vmess", "tag": "proxy", "settings": {"vnext": [{"address": address, "port": port, "users": users}]}}


def socks_inbound(port, **settings):
    """A SOCKS inbound as V2Ray's JSON has it."""
    return {"listen": "127.0.0.1", "port": port, "protocol": "socks", "tag": "socks",
            "settings": {"auth": "noauth", "udp": True, **settings}}


class Host:
    """Our desktop host, with a config and perhaps a tun device."""

    def __init__(self, scratch, config, tun=None, extra=(), program=HOST, name="host", wait=True):
        if not os.path.exists(program):
            raise LabError(f"{os.path.relpath(program, ROOT)} is missing: run scripts/build-desktop")
        self.log = scratch.file(f"{name}.log")
        argv = [program, "-config", scratch.json(f"{name}.json", config), *(["-tun", tun] if tun else []), *extra]
        self.process = spawn(argv, self.log)
        self.pid = self.process.pid
        if wait:
            self.ready(config)

    def ready(self, config):
        """Waits until it has started."""
        ports = [i["port"] for i in config.get("inbounds", []) if isinstance(i.get("port"), int)]

        def up():
            if self.process.poll() is not None:
                raise LabError("the host ended: " + self.output()[-800:])
            return "vmesskit: connect" in self.output() and all(listening(p) for p in ports)

        wait_for("the start of the host", up)

    def output(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def stop(self):
        """Stops it as a user would and returns its exit status."""
        return end(self.process, signal.SIGTERM)
