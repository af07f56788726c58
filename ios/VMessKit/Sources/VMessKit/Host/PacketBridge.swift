import Dispatch
import Foundation

/// Where packets come from and go to when there is no descriptor: `NEPacketTunnelFlow`, by another name.
public protocol PacketFlow: AnyObject, Sendable {
    /// Answers once, with packets that came in, as soon as there are some.
    func readPackets(_ answer: @escaping @Sendable ([Data]) -> Void)

    /// Takes packets out.
    func writePackets(_ packets: [Data])
}

/// A device made of a packet flow: packets are carried to and from one end of a datagram socket pair, whose other end the
/// tunnel reads and writes as raw IP. For systems on which the device's own descriptor cannot be found; it costs two
/// copies a packet.
public final class PacketBridge: TunDevice, @unchecked Sendable {
    /// The tunnel's end.
    public let fd: Int32
    public let framing: Framing = .rawIp

    private static let batch = 64
    private let ours: Int32
    private let flow: any PacketFlow
    private let mtu: Int
    private let queue = DispatchQueue(label: "org.vmesskit.bridge")
    private let source: any DispatchSourceRead
    private let isOpen = Locked(true)

    /// Makes a device that is up until it is closed.
    ///
    /// - Parameter mtu: the longest packet, in bytes.
    /// - Throws: `VMessError`, `resourceLimit`, if the process has no descriptors left.
    public init(_ flow: any PacketFlow, mtu: Int) throws {
        var pair: [Int32] = [-1, -1]
        #if canImport(Glibc)
            let type = Int32(SOCK_DGRAM.rawValue)
        #else
            let type = SOCK_DGRAM
        #endif
        guard socketpair(AF_UNIX, type, 0, &pair) == 0 else {
            throw VMessError(
                .resourceLimit(what: "file descriptors"), "no socket pair could be made",
                reason: String(cString: strerror(errno)))
        }
        (fd, ours) = (pair[0], pair[1])
        self.flow = flow
        self.mtu = mtu
        for end in pair {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
            // Darwin takes no datagram longer than the send buffer, which is 2 KB unless it is asked for more.
            var size = Int32(512 * 1024)
            setsockopt(end, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
            setsockopt(end, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        let end = ours
        source = DispatchSource.makeReadSource(fileDescriptor: end, queue: queue)
        source.setEventHandler { [weak self] in self?.takeOut() }
        source.setCancelHandler { _ = PacketBridge.close(end) }
        source.resume()
        readOn()
    }

    deinit { close() }

    public func close() {
        let wasOpen = isOpen.withLock { open in
            defer { open = false }
            return open
        }
        guard wasOpen else { return }
        source.cancel()
        _ = PacketBridge.close(fd)
    }

    /// Waits for packets of the flow, without holding the bridge meanwhile.
    private func readOn() {
        flow.readPackets { [weak self] packets in
            guard let self, self.isOpen.withLock({ $0 }) else { return }
            self.queue.async { self.takeIn(packets) }
        }
    }

    /// Gives packets of the flow to the tunnel. What finds the queue full is lost, as on any link.
    private func takeIn(_ packets: [Data]) {
        guard isOpen.withLock({ $0 }) else { return }
        for packet in packets {
            packet.withUnsafeBytes { _ = send(ours, $0.baseAddress, $0.count, 0) }
        }
        readOn()
    }

    /// Gives the tunnel's packets to the flow.
    private func takeOut() {
        var packets: [Data] = []
        while packets.count < PacketBridge.batch {
            var packet = Data(count: mtu)
            let length = packet.withUnsafeMutableBytes { recv(ours, $0.baseAddress, $0.count, 0) }
            guard length > 0 else { break }
            packets.append(packet.prefix(length))
        }
        if !packets.isEmpty { flow.writePackets(packets) }
    }

    private static func close(_ fd: Int32) -> Int32 {
        #if canImport(Glibc)
            Glibc.close(fd)
        #else
            Darwin.close(fd)
        #endif
    }
}
