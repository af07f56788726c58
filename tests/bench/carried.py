"""The parts of the benchmark that ride on a transport: our client and our server in turn beside V2Ray's, on the same one."""

import certificates
import lab

# What is measured: a name, and what is inside of TLS. A transport is one line.
CARRIERS = {
    "tls": {"network": "tcp"},
    "ws+tls": {"network": "ws", "wsSettings": {"path": "/ray"}},
    "h2+tls": {"network": "http", "httpSettings": {"path": "/ray", "host": [certificates.NAME]}},
}
PORT, SOCKS = 11020, 11084


class Pair:
    """A client and a server on a carrier, each ours or V2Ray's."""

    def __init__(self, bench, carrier, client, server):
        self.scratch = bench.scratch
        self.server, self.client = bench.candidate(server), bench.candidate(client)
        inside = CARRIERS[carrier]
        config = lab.server_config(PORT)
        config["inbounds"][0]["streamSettings"] = certificates.server(self.scratch, inside)
        self.start(self.server, config, "server", PORT)
        outbound = {**lab.vmess_outbound(PORT), "streamSettings": certificates.client(self.scratch, inside)}
        config = {"log": {"loglevel": "warning"}, "inbounds": [lab.socks_inbound(SOCKS)], "outbounds": [outbound]}
        self.start(self.client, config, "client", SOCKS)
        self.via = f"127.0.0.1:{SOCKS}"

    def start(self, candidate, config, role, port):
        program = "v2ray" if candidate.name == "v2ray" else lab.HOST
        candidate.spawn([program, "-config", self.scratch.json(f"carried-{role}.json", config)])
        lab.wait_for(f"{candidate.name} ({role})", lambda: lab.listening(port))

    def stop(self):
        self.client.stop()
        self.server.stop()


def measure(bench):
    """Every carrier at both ends: CPU a byte and a new connection, resident memory with 1000 idle connections."""
    for carrier in CARRIERS:
        for role in ("client", "server"):
            for name in ("ours", "v2ray"):
                part = f"{carrier} {role}"
                # A client faces V2Ray's server, as users' do; a server faces our client, which disturbs it the least.
                ends = (name, "v2ray") if role == "client" else ("ours", name)
                pair = Pair(bench, carrier, *ends)
                candidate = getattr(pair, role)
                for kind in ("get", "put"):
                    for flows in (1, 8):
                        bench.transfer(candidate, part, [], pair.via, kind, flows)
                bench.connections(candidate, part, pair.via)
                pair.stop()
                pair = Pair(bench, carrier, *ends)
                candidate = getattr(pair, role)
                fresh = candidate.rss()
                child, held = bench.hold([], pair.via, 1000)
                idle = candidate.rss()
                bench.note(part, name, **{"fresh MiB": fresh, "1000 idle MiB": idle,
                                          "KiB an idle connection": (idle - fresh) * 1024 / max(held, 1)})
                lab.end(child)
                pair.stop()
