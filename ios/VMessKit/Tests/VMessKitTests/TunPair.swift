import Foundation
import VMessKit

/// A real descriptor that behaves as a tun device, and its other end, where the kernel would be: whole packets.
final class TunPair: @unchecked Sendable {
    /// What the library gets.
    let device: Int32
    /// The kernel's end.
    let kernel: Int32
    private var isOpen = true

    init() {
        var pair: [Int32] = [-1, -1]
        precondition(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &pair) == 0)
        (device, kernel) = (pair[0], pair[1])
    }

    deinit { close() }

    func handle(_ ownership: FdOwnership = .owned) -> TunHandle {
        TunHandle(fd: device, mtu: 1500, ownership: ownership, framing: .rawIp)
    }

    /// Sends a packet; false if nobody is at the other end.
    @discardableResult
    func send(_ packet: [UInt8]) -> Bool {
        packet.withUnsafeBytes { Glibc.send(kernel, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            == packet.count
    }

    /// The first packet that is one of those looked for; nil after `timeout` seconds, empty when the device's end is
    /// closed. Called from tests that may wait.
    func receive(timeout: TimeInterval = 5, where wanted: ([UInt8]) -> Bool = { _ in true }) -> [UInt8]? {
        let deadline = Date().addingTimeInterval(timeout)
        while true {
            let left = deadline.timeIntervalSinceNow * 1000
            var ready = pollfd(fd: kernel, events: Int16(POLLIN), revents: 0)
            guard left > 0, poll(&ready, 1, Int32(left) + 1) > 0 else { return nil }
            var packet = [UInt8](repeating: 0, count: 65_536)
            let length = recv(kernel, &packet, packet.count, 0)
            guard length > 0 else { return [] }
            packet.removeLast(packet.count - length)
            if wanted(packet) { return packet }
        }
    }

    /// Whether every descriptor of the device's end is closed, which may take a moment.
    func deviceCloses(timeout: TimeInterval = 5) -> Bool {
        receive(timeout: timeout) { _ in false } == []
    }

    func close() {
        if isOpen { _ = Glibc.close(kernel) }
        isOpen = false
    }
}

/// What the process holds.
enum Process {
    /// Whether it is an open descriptor.
    static func isOpen(_ fd: Int32) -> Bool { fcntl(fd, F_GETFD) >= 0 }

    /// How many descriptors there are.
    static var descriptors: Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? -1 }

    /// How many threads of the library there are; their names start with `vmk-`.
    static var threads: Int {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
        return tasks.filter { task in
            (try? String(contentsOfFile: "/proc/self/task/\(task)/comm", encoding: .utf8))?.hasPrefix("vmk-") ?? false
        }.count
    }
}
