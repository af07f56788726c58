/// Bytes a second, from two looks at the counters.
struct Rates: Equatable {
    let up: UInt64
    let down: UInt64

    /// The rates between two looks; nil if the second one is not the later one of the same tunnel.
    init?(from before: [String: UInt64], to now: [String: UInt64]) {
        guard let began = before["uptimeMillis"], let ended = now["uptimeMillis"], ended > began else { return nil }
        let rate: (String) -> UInt64? = { name in
            guard let first = before[name], let last = now[name], last >= first else { return nil }
            return (last - first) * 1000 / (ended - began)
        }
        guard let up = rate("uplinkBytes"), let down = rate("downlinkBytes") else { return nil }
        (self.up, self.down) = (up, down)
    }

    var text: String { "up \(up / 1024) KiB/s, down \(down / 1024) KiB/s" }
}
