/// A TCP segment without options.
struct Segment {
    static let fin: UInt8 = 1
    static let syn: UInt8 = 2
    static let rst: UInt8 = 4
    static let ack: UInt8 = 16

    var sequence: UInt32
    var acknowledged: UInt32
    var flags: UInt8
    var payload: [UInt8] = []
}

/// IPv4 packets, made and read by hand.
enum Packets {
    static let icmp: UInt8 = 1
    static let tcp: UInt8 = 6
    static let udp: UInt8 = 17

    /// An echo request.
    static func ping(from: String, to: String, payload: [UInt8]) -> [UInt8] {
        var message: [UInt8] = [8, 0, 0, 0, 0, 77, 0, 1] + payload
        put(checksum(message), into: &message, at: 2)
        return ip(icmp, from, to, message)
    }

    /// A datagram.
    static func udp(from: String, port: UInt16, to: String, toPort: UInt16, payload: [UInt8]) -> [UInt8] {
        var datagram = bytes(port) + bytes(toPort) + bytes(UInt16(8 + payload.count)) + [0, 0] + payload
        put(checksum(pseudo(udp, from, to, datagram) + datagram), into: &datagram, at: 6)
        return ip(udp, from, to, datagram)
    }

    /// A segment.
    static func tcp(from: String, port: UInt16, to: String, toPort: UInt16, _ segment: Segment) -> [UInt8] {
        var body = bytes(port) + bytes(toPort)
        body += bytes(UInt16(segment.sequence >> 16)) + bytes(UInt16(segment.sequence & 0xffff))
        body += bytes(UInt16(segment.acknowledged >> 16)) + bytes(UInt16(segment.acknowledged & 0xffff))
        body += [0x50, segment.flags, 0xff, 0xff, 0, 0, 0, 0] + segment.payload
        put(checksum(pseudo(tcp, from, to, body) + body), into: &body, at: 16)
        return ip(tcp, from, to, body)
    }

    static func proto(_ packet: [UInt8]) -> UInt8? { packet.count >= 20 && packet[0] >> 4 == 4 ? packet[9] : nil }

    static func source(_ packet: [UInt8]) -> String { packet[12..<16].map(String.init).joined(separator: ".") }

    /// What follows the IPv4 header.
    static func body(_ packet: [UInt8]) -> [UInt8] { Array(packet[(Int(packet[0] & 15) * 4)...]) }

    /// The payload of a datagram.
    static func payload(_ packet: [UInt8]) -> [UInt8] { Array(body(packet).dropFirst(8)) }

    /// Whether the checksum of the IPv4 header and that of what it carries are right.
    static func isSound(_ packet: [UInt8]) -> Bool {
        guard checksum(Array(packet[..<20])) == 0 else { return false }
        let body = body(packet)
        if packet[9] == icmp { return checksum(body) == 0 }
        let destination = packet[16..<20].map(String.init).joined(separator: ".")
        return checksum(pseudo(packet[9], source(packet), destination, body) + body) == 0
    }

    static func segment(_ packet: [UInt8]) -> Segment {
        let body = body(packet)
        let number: (Int) -> UInt32 = { body[$0..<($0 + 4)].reduce(0) { $0 << 8 | UInt32($1) } }
        return Segment(
            sequence: number(4), acknowledged: number(8), flags: body[13],
            payload: Array(body[(Int(body[12] >> 4) * 4)...]))
    }

    static func destinationPort(_ packet: [UInt8]) -> UInt16 {
        let body = body(packet)
        return UInt16(body[2]) << 8 | UInt16(body[3])
    }

    private static func ip(_ proto: UInt8, _ from: String, _ to: String, _ body: [UInt8]) -> [UInt8] {
        var header: [UInt8] = [0x45, 0] + bytes(UInt16(20 + body.count)) + [0, 7, 0x40, 0, 64, proto, 0, 0]
        header += address(from) + address(to)
        put(checksum(header), into: &header, at: 10)
        return header + body
    }

    private static func address(_ text: String) -> [UInt8] { text.split(separator: ".").compactMap { UInt8($0) } }

    private static func pseudo(_ proto: UInt8, _ from: String, _ to: String, _ body: [UInt8]) -> [UInt8] {
        address(from) + address(to) + [0, proto] + bytes(UInt16(body.count))
    }

    private static func bytes(_ number: UInt16) -> [UInt8] { [UInt8(number >> 8), UInt8(number & 0xff)] }

    private static func put(_ number: UInt16, into bytes: inout [UInt8], at index: Int) {
        bytes[index] = UInt8(number >> 8)
        bytes[index + 1] = UInt8(number & 0xff)
    }

    private static func checksum(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for i in stride(from: 0, to: bytes.count, by: 2) {
            sum += UInt32(bytes[i]) << 8 | (i + 1 < bytes.count ? UInt32(bytes[i + 1]) : 0)
        }
        while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
        return ~UInt16(sum)
    }
}

/// An app's TCP connection, spoken by hand through a tun: no options, no retransmission, one segment at a time.
final class TcpClient {
    /// The device's own address, by default.
    static let address = "172.19.0.1"

    private let tun: TunPair
    private let port: UInt16
    private let server: String
    private var sequence: UInt32 = 1000
    private var acknowledged: UInt32 = 0

    init(_ tun: TunPair, port: UInt16, server: String) {
        (self.tun, self.port, self.server) = (tun, port, server)
    }

    /// Shakes hands; false if it is refused.
    func connect() -> Bool {
        send(Segment.syn)
        guard let answer = next(), answer.flags == Segment.syn | Segment.ack else { return false }
        sequence += 1
        acknowledged = answer.sequence &+ 1
        send(Segment.ack)
        return true
    }

    /// Sends data and collects as much of the answer.
    func exchange(_ data: [UInt8]) -> [UInt8] {
        send(Segment.ack, data)
        sequence += UInt32(data.count)
        var received: [UInt8] = []
        while received.count < data.count {
            guard let segment = next(), segment.flags & Segment.rst == 0 else { break }
            if segment.payload.isEmpty || segment.sequence != acknowledged { continue }
            received += segment.payload
            acknowledged = acknowledged &+ UInt32(segment.payload.count)
            send(Segment.ack)
        }
        return received
    }

    /// Whether the connection is reset.
    func isReset() -> Bool {
        while let segment = next() {
            if segment.flags & Segment.rst != 0 { return true }
        }
        return false
    }

    private func send(_ flags: UInt8, _ payload: [UInt8] = []) {
        let segment = Segment(sequence: sequence, acknowledged: acknowledged, flags: flags, payload: payload)
        tun.send(Packets.tcp(from: TcpClient.address, port: port, to: server, toPort: 80, segment))
    }

    private func next() -> Segment? {
        tun.receive { packet in
            Packets.proto(packet) == Packets.tcp && Packets.destinationPort(packet) == port && Packets.isSound(packet)
        }.flatMap { $0.isEmpty ? nil : Packets.segment($0) }
    }
}
