"""The benchmark behind `scripts/bench`: every candidate in turn, several times over, medians and ratios."""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import lab
import carried
import chart

BENCH = os.path.join(lab.ROOT, "target", "bench")
LOADGEN = os.path.join(BENCH, "loadgen")
RECORDS = os.path.join(lab.ROOT, "target", "release", "examples", "records")
PEERS = os.path.join(os.environ.get("PEERS", os.path.join(lab.ROOT, ".cache", "peers")), "bin")
SERVER, SINK = 11000, 12000
PARTS = ["socks", "rate", "memory", "tun", "idle", "stall", "records", "server", "shards", "carried"]
SHOES_HOP = """      client_chain:
        - address: 127.0.0.1:{port}
          protocol:
            type: vmess
            cipher: aes-128-gcm
            user_id: {user}
"""


def loadgen(prefix, *args, timeout=180):
    """Runs the load generator and returns its one JSON line, or `None` if it failed."""
    done = subprocess.run([*prefix, LOADGEN, *map(str, args)], capture_output=True, text=True, timeout=timeout)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None


class Candidate:
    """A tunnel client under test: one or several processes between the load and the V2Ray server."""

    def __init__(self, name, scratch):
        self.name, self.scratch, self.processes = name, scratch, []

    def cpu(self):
        return sum(lab.cpu_seconds(p.pid) for p in self.processes)

    def rss(self, field="VmRSS"):
        return sum(lab.memory_mib(p.pid, field) for p in self.processes)

    def wakeups(self):
        return sum(lab.wakeups(p.pid) for p in self.processes)

    def spawn(self, argv):
        self.processes.append(lab.spawn(argv, self.scratch.file(f"{self.name}.log")))

    def stop(self):
        for process in self.processes:
            lab.end(process, timeout=3)
        self.processes = []

    # What a SOCKS candidate starts.
    def socks(self, port, server=SERVER):
        outbound, inbound = lab.vmess_outbound(server), lab.socks_inbound(port)
        config = {"log": {"loglevel": "warning"}, "inbounds": [inbound], "outbounds": [outbound]}
        if self.name == "shoes":
            hop = SHOES_HOP.format(port=SERVER, user=lab.USER)
            text = f"- address: 127.0.0.1:{port}\n  protocol:\n    type: socks\n  rules:\n    - masks: 0.0.0.0/0\n      action: allow\n{hop}"
            self.spawn([os.path.join(PEERS, "shoes"), "--no-reload", self.write("shoes.yaml", text)])
        elif self.name == "v2ray":
            self.spawn(["v2ray", "-config", self.scratch.json("v2ray.json", config)])
        else:
            self.spawn([lab.HOST, "-config", self.scratch.json("ours.json", config)])
        lab.wait_for(self.name, lambda: lab.listening(port))
        time.sleep(0.3)

    # What a tun candidate starts; the device is moved into `app`.
    def tun(self, app, name, mtu, memory=None):
        if self.name == "shoes":
            hop = SHOES_HOP.format(port=SERVER, user=lab.USER)
            text = (f"- device_name: {name}\n  address: 172.18.0.1\n  netmask: 255.255.255.252\n  mtu: {mtu}\n"
                    f"  rules:\n    - masks: 0.0.0.0/0\n      action: allow\n{hop}")
            self.spawn([os.path.join(PEERS, "shoes"), "--no-reload", self.write("shoes-tun.yaml", text)])
        elif self.name == "tun2proxy+v2ray":
            port = 11077
            config = {"log": {"loglevel": "warning"}, "inbounds": [lab.socks_inbound(port)], "outbounds": [lab.vmess_outbound(SERVER)]}
            self.spawn(["v2ray", "-config", self.scratch.json("t2p.json", config)])
            lab.wait_for("v2ray", lambda: lab.listening(port))
            lab.make_tun(name, mtu)
            self.spawn([os.path.join(PEERS, "tun2proxy-bin"), "--proxy", f"socks5://127.0.0.1:{port}", "--tun", name,
                        "--mtu", mtu, "--tcp-mss", mtu - 40, "--max-sessions", 4000, "--dns", "direct", "-v", "error"])
        else:
            lab.make_tun(name, mtu)
            config = {"log": {"loglevel": "warning"}, "inbounds": [{"protocol": "tun", "tag": "tun"}], "outbounds": [lab.vmess_outbound(SERVER)]}
            extra = ["-memory", memory] if memory else []
            self.spawn([lab.HOST, "-config", self.scratch.json("ours-tun.json", config), "-tun", name, *extra])
        lab.wait_for(f"{self.name}'s tun device", lambda: os.path.exists(f"/sys/class/net/{name}") or in_sys(name))
        time.sleep(1.0)
        app.adopt(name, mtu, v6=False)
        lab.wait_for(f"{self.name}'s tunnel", lambda: loadgen(app.prefix, "get", f"{lab.WORLD4}:{SINK}", "direct", 1, 1000))

    def write(self, name, text):
        with open(self.scratch.file(name), "w") as f:
            f.write(text)
        return self.scratch.file(name)


def in_sys(name):
    """Whether a network device exists in this namespace (sysfs may show another one's)."""
    return subprocess.run(["ip", "link", "show", name], capture_output=True).returncode == 0


class Bench:
    """All rounds of all parts, and the figures that they left."""

    def __init__(self, args):
        self.args, self.figures = args, {}
        self.scratch = lab.Scratch()
        self.devices = 0

    def note(self, part, who, **values):
        for key, value in values.items():
            if value is not None:
                self.figures.setdefault(part, {}).setdefault(key, {}).setdefault(who, []).append(value)

    def transfer(self, candidate, part, prefix, via, kind, flows):
        """One transfer: throughput and CPU seconds per GB of the candidate's processes."""
        total = self.args.mib << 20
        before = candidate.cpu()
        got = loadgen(prefix, kind, f"{lab.WORLD4}:{SINK}", via, flows, total // flows)
        if not got:
            print(f"  {candidate.name}: {part} {kind}{flows} failed", flush=True)
            return
        cost = (candidate.cpu() - before) / got["bytes"] * 1e9
        self.note(part, candidate.name, **{f"{kind}{flows} Gbit/s": got["gbps"], f"{kind}{flows} CPU s/GB": cost})

    def socks(self):
        """SOCKS -> VMess, download and upload, one flow and eight."""
        for name in ("ours", "v2ray", "shoes"):
            candidate = Candidate(name, self.scratch)
            candidate.socks(11080)
            for kind in ("get", "put"):
                for flows in (1, 8):
                    self.transfer(candidate, "socks", [], "127.0.0.1:11080", kind, flows)
            candidate.stop()

    def rate(self):
        """SOCKS -> VMess, new connections: how many a second, and CPU for each."""
        for name in ("ours", "v2ray", "shoes"):
            candidate = Candidate(name, self.scratch)
            candidate.socks(11081)
            before = candidate.cpu()
            got = loadgen([], "rate", f"{lab.WORLD4}:{SINK}", "127.0.0.1:11081", 16, 3)
            if got and got["done"]:
                cost = (candidate.cpu() - before) / got["done"] * 1e6
                self.note("rate", name, **{"connections/s": got["per_second"], "CPU us a connection": cost, "failed": got["failed"]})
            ping = loadgen([], "ping", f"{lab.WORLD4}:{SINK}", "127.0.0.1:11081", 1.5)
            if ping:
                self.note("rate", name, **{"round trip p50 us": ping["p50_us"]})
            candidate.stop()

    def hold(self, prefix, via, count, verb="hold", seconds=300):
        child = subprocess.Popen([*prefix, LOADGEN, verb, f"{lab.WORLD4}:{SINK}", via, str(count), str(seconds)], stdout=subprocess.PIPE, text=True)
        lab.PROCESSES.append(child)
        held = json.loads(child.stdout.readline())["held"]
        if held < count * 0.99:
            print(f"  only {held} of {count} connections held", flush=True)
        time.sleep(1.0)
        return child, held

    def memory(self):
        """SOCKS -> VMess, resident memory: fresh, with one flow, with 1000 idle ones; wake-ups with those."""
        for name in ("ours", "v2ray", "shoes"):
            candidate = Candidate(name, self.scratch)
            candidate.socks(11082)
            fresh = candidate.rss()
            child, _ = self.hold([], "127.0.0.1:11082", 1)
            one = candidate.rss()
            lab.end(child)
            child, held = self.hold([], "127.0.0.1:11082", 1000)
            idle = candidate.rss()
            self.note("memory", name, **{"fresh MiB": fresh, "1 flow MiB": one, "1000 idle MiB": idle,
                                         "KiB an idle flow": (idle - fresh) * 1024 / max(held, 1)})
            lab.end(child)
            candidate.stop()

    def device(self):
        self.devices += 1
        return f"vmb{self.devices}"

    def tun(self):
        """tun -> VMess on a plain descriptor, down and up, at several MTUs."""
        for mtu in (1500, 9000, 16000):
            names = ("ours", "shoes", "tun2proxy+v2ray") if mtu < 16000 else ("ours",)
            for name in names:
                candidate, app = Candidate(name, self.scratch), lab.App()
                try:
                    candidate.tun(app, self.device(), mtu)
                    for kind in ("get", "put"):
                        for flows in (1, 8):
                            self.transfer(candidate, f"tun {mtu}", app.prefix, "direct", kind, flows)
                    self.note(f"tun {mtu}", name, **{"resident MiB after": candidate.rss()})
                except lab.LabError as error:
                    print(f"  {name} at {mtu}: {error}", flush=True)
                finally:
                    candidate.stop()
                    lab.end(app.holder)

    def idle(self):
        """tun -> VMess with 1000 idle flows: memory for each, wake-ups, and one busy flow beside them."""
        for name in ("ours", "shoes"):
            candidate, app = Candidate(name, self.scratch), lab.App()
            try:
                candidate.tun(app, self.device(), 1500)
                fresh = candidate.rss()
                alone = loadgen(app.prefix, "get", f"{lab.WORLD4}:{SINK}", "direct", 1, self.args.mib << 19)
                child, held = self.hold(app.prefix, "direct", 1000)
                time.sleep(2.0)
                resident, before = candidate.rss(), candidate.wakeups()
                time.sleep(10.0)
                woken = candidate.wakeups() - before
                beside = loadgen(app.prefix, "get", f"{lab.WORLD4}:{SINK}", "direct", 1, self.args.mib << 19)
                if alone and beside:
                    self.note("idle", name, **{"one flow beside 1000 idle, alone = 1": beside["gbps"] / alone["gbps"]})
                self.note("idle", name, **{"KiB an idle flow": (resident - fresh) * 1024 / max(held, 1), "wake-ups in 10 s": woken,
                                           "fresh MiB": fresh, "1000 idle MiB": resident})
                lab.end(child)
            except lab.LabError as error:
                print(f"  {name} idle: {error}", flush=True)
            finally:
                candidate.stop()
                lab.end(app.holder)

    def stall(self):
        """tun -> VMess with 1000 flows whose programs do not read, within a limit of 32 MiB."""
        candidate, app = Candidate("ours", self.scratch), lab.App()
        candidate.tun(app, self.device(), 1500, memory=32)
        child, _ = self.hold(app.prefix, "direct", 1000, verb="stall")
        time.sleep(4.0)
        self.note("stall", "ours", **{"peak MiB, 1000 stalled, limit 32": candidate.rss("VmHWM")})
        lab.end(child)
        candidate.stop()
        lab.end(app.holder)

    def records(self):
        """The codec against a real V2Ray server at several record sizes: upload, CPU seconds per GB of both ends."""
        for size in (2048, 4096, 8192, 16305):
            before = lab.cpu_seconds(self.front.pid)
            done = subprocess.run([RECORDS, f"127.0.0.1:{SERVER}", lab.USER, f"{lab.WORLD4}:{SINK}", str(size), str(self.args.mib << 20)],
                                  capture_output=True, text=True)
            if done.returncode == 0:
                got = json.loads(done.stdout)
                server = (lab.cpu_seconds(self.front.pid) - before) / got["bytes"] * 1e9
                self.note("records", f"{size} bytes", **{"Gbit/s": got["gbps"], "client CPU s/GB": got["cpu_per_gb"], "server CPU s/GB": server})
            else:
                print("  records:", done.stderr.strip(), flush=True)

    def serve(self, name, prefix=()):
        """Starts the VMess server of a candidate, our client in front of it, and returns both."""
        candidate, client = Candidate(name, self.scratch), Candidate("ours", self.scratch)
        program = ["v2ray"] if name == "v2ray" else [lab.HOST]
        port, socks = SERVER + 1, 11083
        candidate.spawn([*prefix, *program, "-config", self.scratch.json(f"serve-{name}.json", lab.server_config(port))])
        lab.wait_for(name, lambda: lab.listening(port))
        client.socks(socks, port)
        return candidate, client, f"127.0.0.1:{socks}"

    def server(self):
        """VMess server, behind our client: CPU of the server alone, a byte and a connection; memory with 1000 idle."""
        for name in ("ours", "v2ray"):
            candidate, client, via = self.serve(name)
            fresh = candidate.rss()
            for kind in ("get", "put"):
                for flows in (1, 8):
                    self.transfer(candidate, "server", [], via, kind, flows)
            self.connections(candidate, "server", via)
            client.stop()
            candidate.stop()
            candidate, client, via = self.serve(name)
            child, _ = self.hold([], via, 1000)
            self.note("server", name, **{"fresh MiB": fresh, "1000 idle MiB": candidate.rss()})
            lab.end(child)
            client.stop()
            candidate.stop()

    def carried(self):
        """VMess on TLS and what rides on that, client and server."""
        carried.measure(self)

    def candidate(self, name):
        return Candidate(name, self.scratch)

    def connections(self, candidate, part, via):
        """New connections: CPU for each of the candidate's processes."""
        before = candidate.cpu()
        got = loadgen([], "rate", f"{lab.WORLD4}:{SINK}", via, 16, 3)
        if got and got["done"]:
            cost = (candidate.cpu() - before) / got["done"] * 1e6
            self.note(part, candidate.name, **{"CPU us a connection": cost, "failed": got["failed"]})

    def shards(self):
        """Our VMess server on one core and on two: connections a second, throughput of eight downloads, and how evenly the
        system deals clients out. With two cores the load itself takes what a second shard could use: the figures of both
        are the same then, and show that sharing costs nothing."""
        for name, cores in (("1 shard", "0"), ("2 shards", "0,1")):
            candidate, client, via = self.serve("ours", ("taskset", "-c", cores))
            rate = loadgen([], "rate", f"{lab.WORLD4}:{SINK}", via, 16, 3)
            busy = lab.thread_seconds(candidate.processes[0].pid, "vmk-shard")
            get = loadgen([], "get", f"{lab.WORLD4}:{SINK}", via, 8, self.args.mib << 17)
            if rate and get:
                cost = sum(busy) / rate["done"] * 1e6
                self.note("shards", name, **{"connections/s": rate["per_second"], "CPU us a connection": cost, "get8 Gbit/s": get["gbps"],
                                             "the busiest shard's part": max(busy) / max(sum(busy), 1e-9)})
            client.stop()
            candidate.stop()

    def run(self):
        lab.spawn([LOADGEN, "serve", f"{lab.WORLD4}:{SINK}"])
        lab.wait_for("the load server", lambda: lab.listening(SINK, lab.WORLD4))
        self.front = lab.v2ray_server(self.scratch, SERVER)
        parts = self.args.only or PARTS
        for round_ in range(self.args.reps):
            for part in parts:
                start = time.monotonic()
                getattr(self, part)()
                print(f"# round {round_ + 1} of {self.args.reps}: {part}, {time.monotonic() - start:.0f} s", flush=True)


def medians(figures):
    return {part: {key: {who: statistics.median(values) for who, values in row.items()} for key, row in rows.items()}
            for part, rows in figures.items()}


def report(result):
    """Prints a table a part; ratios are to the first other candidate's median."""
    for part, rows in result["medians"].items():
        names = list(dict.fromkeys(who for row in rows.values() for who in row))
        print(f"\n{part:28}" + "".join(f"{name:>18}" for name in names) + ("   ours / next" if "ours" in names and len(names) > 1 else ""))
        for key, row in rows.items():
            line = f"{key:28}" + "".join(f"{row[name]:18.2f}" if name in row else f"{'-':>18}" for name in names)
            others = [name for name in names if name != "ours" and name in row]
            if "ours" in row and others and row[others[0]]:
                line += f"   {row['ours'] / row[others[0]]:.2f} of {others[0]}"
            print(line)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--mib", type=int, default=600, help="size of a transfer")
    parser.add_argument("--only", default=[], type=lambda text: text.split(","), help=",".join(PARTS))
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.only) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    if args.publish and args.only:
        parser.error("--publish takes the whole run, without --only")
    try:
        lab.enter()
        bench = Bench(args)
        bench.run()
    except lab.LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: interrupted; cleaning up", file=sys.stderr)
        return 130
    result = {"cores": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release(), "reps": args.reps, "mib": args.mib,
              "medians": medians(bench.figures), "samples": bench.figures}
    with open(os.path.join(BENCH, "result.json"), "w") as f:
        json.dump(result, f, indent=1)
    with open(os.path.join(BENCH, "result.svg"), "w") as f:
        f.write(chart.draw(result["medians"]))
    report(result)
    if args.publish:
        results = os.path.join(lab.ROOT, "tests", "bench", "results")
        os.makedirs(results, exist_ok=True)
        for name in ("result.json", "result.svg"):
            shutil.copy(os.path.join(BENCH, name), results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
