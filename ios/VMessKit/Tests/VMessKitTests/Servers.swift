import Foundation

/// A listening or bound loopback socket and its port.
private struct LoopbackSocket {
    let fd: Int32
    let port: UInt16

    /// Takes the port; nil if somebody else has it.
    init?(_ type: __socket_type, port: UInt16 = 0) {
        let made = socket(AF_INET, Int32(type.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(made, $0, length) == 0 && getsockname(made, $0, &length) == 0
            }
        }
        guard bound, type != SOCK_STREAM || listen(made, 50) == 0 else {
            Glibc.close(made)
            return nil
        }
        fd = made
        self.port = UInt16(bigEndian: address.sin_port)
    }
}

/// A TCP server that does `work` with each connection on a thread of its own, and then closes it.
final class TcpServer: @unchecked Sendable {
    let port: UInt16
    private let fd: Int32

    convenience init(_ work: @escaping @Sendable (Int32) -> Void) {
        self.init(LoopbackSocket(SOCK_STREAM)!, work)
    }

    fileprivate init(_ socket: LoopbackSocket, _ work: @escaping @Sendable (Int32) -> Void) {
        (self.port, fd) = (socket.port, socket.fd)
        let listener = socket.fd
        Thread.detachNewThread {
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { return }
                Thread.detachNewThread {
                    work(connection)
                    Glibc.close(connection)
                }
            }
        }
    }

    deinit {
        // Closing alone would leave the thread in accept.
        shutdown(fd, Int32(SHUT_RDWR))
        Glibc.close(fd)
    }

    /// Reads once.
    static func readOnce(_ connection: Int32) {
        var bytes = [UInt8](repeating: 0, count: 4096)
        _ = recv(connection, &bytes, bytes.count, 0)
    }

    /// Answers what is no TLS, and reads to the end.
    static func talk(_ connection: Int32) {
        answer(connection, "HTTP/1.1 400 Bad Request\r\n\r\n")
        swallow(connection)
    }

    /// A web server that has no content to give.
    static func giveNothing(_ connection: Int32) {
        answer(connection, "HTTP/1.1 204 No Content\r\n\r\n")
    }

    private static func answer(_ connection: Int32, _ text: String) {
        readOnce(connection)
        let bytes = Array(text.utf8)
        _ = send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// Reads to the end, and says nothing.
    static func swallow(_ connection: Int32) {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        while recv(connection, &bytes, bytes.count, 0) > 0 {}
    }

    /// Sends back what comes.
    static func echo(_ connection: Int32) {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        while true {
            let length = recv(connection, &bytes, bytes.count, 0)
            guard length > 0, send(connection, bytes, length, Int32(MSG_NOSIGNAL)) == length else { return }
        }
    }
}

/// Echoes TCP and UDP on one loopback port, while it lives.
final class EchoServer: @unchecked Sendable {
    let port: UInt16
    private let tcp: TcpServer
    private let udp: Int32

    init() {
        var (socket, stream): (LoopbackSocket, LoopbackSocket?)
        repeat {
            socket = LoopbackSocket(SOCK_DGRAM)!
            stream = LoopbackSocket(SOCK_STREAM, port: socket.port)
            if stream == nil { Glibc.close(socket.fd) }
        } while stream == nil
        (port, udp) = (socket.port, socket.fd)
        tcp = TcpServer(stream!, TcpServer.echo)
        let bound = socket.fd
        Thread.detachNewThread {
            var bytes = [UInt8](repeating: 0, count: 65_536)
            while true {
                var from = sockaddr_storage()
                var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
                let answered = withUnsafeMutablePointer(to: &from) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                        let length = recvfrom(bound, &bytes, bytes.count, 0, address, &size)
                        guard length > 0 else { return false }
                        return sendto(bound, bytes, length, 0, address, size) == length
                    }
                }
                guard answered else { return }
            }
        }
    }

    deinit {
        shutdown(udp, Int32(SHUT_RDWR))
        Glibc.close(udp)
    }
}

/// A time server whose clock is ahead of ours, while it lives.
final class TimeServer: @unchecked Sendable {
    let port: UInt16
    private let fd: Int32

    init(ahead: Int) {
        let socket = LoopbackSocket(SOCK_DGRAM)!
        (port, fd) = (socket.port, socket.fd)
        let bound = socket.fd
        Thread.detachNewThread {
            var bytes = [UInt8](repeating: 0, count: 512)
            while true {
                var from = sockaddr_storage()
                var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
                let answered = withUnsafeMutablePointer(to: &from) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                        guard recvfrom(bound, &bytes, bytes.count, 0, address, &size) >= 48 else { return false }
                        // The seconds since 1900, in the first four of eight bytes.
                        let seconds = UInt32(truncatingIfNeeded: Int(time(nil)) + ahead + 2_208_988_800).bigEndian
                        let now = withUnsafeBytes(of: seconds, Array.init) + [0, 0, 0, 0]
                        var answer = [UInt8](repeating: 0, count: 48)
                        answer[0..<2] = [0x24, 2]
                        answer[24..<32] = bytes[40..<48]
                        answer.replaceSubrange(32..<48, with: now + now)
                        return sendto(bound, answer, answer.count, 0, address, size) == answer.count
                    }
                }
                guard answered else { return }
            }
        }
    }

    deinit {
        shutdown(fd, Int32(SHUT_RDWR))
        Glibc.close(fd)
    }
}

/// A port that nobody listens on.
func closedPort() -> UInt16 {
    let socket = LoopbackSocket(SOCK_STREAM)!
    Glibc.close(socket.fd)
    return socket.port
}

/// Configs that the tests share.
enum Configs {
    static let id = "b831381d-6324-4d53-ad4f-8cda48b30811"

    /// No tun, and nothing to dial.
    static let quiet = #"{"outbounds": [{"protocol": "blackhole"}]}"#

    /// A tun with `settings` whose traffic goes to a loopback port, whatever its address.
    static func redirected(_ port: UInt16, settings: String = "{}") -> String {
        """
        {"inbounds": [{"protocol": "tun", "settings": \(settings)}],
         "outbounds": [{"protocol": "freedom", "settings": {"redirect": "127.0.0.1:\(port)"}}]}
        """
    }

    /// A VMess server on a loopback port, behind a tun if `tun`.
    static func vmess(_ port: UInt16, tun: Bool = false, id: String = id) -> String {
        """
        {"inbounds": [\(tun ? #"{"protocol": "tun"}"# : "")], "outbounds": [{"protocol": "vmess", "settings": {"vnext": [
            {"address": "127.0.0.1", "port": \(port), "users": [{"id": "\(id)"}]}]}}]}
        """
    }

    /// A VMess server that carries everything to a loopback port.
    static func server(_ port: UInt16, redirect: UInt16) -> String {
        """
        {"inbounds": [{"protocol": "vmess", "tag": "server", "listen": "127.0.0.1", "port": \(port),
            "settings": {"clients": [{"id": "\(id)", "email": "ann@example.com"}]}}],
         "outbounds": [{"protocol": "freedom", "settings": {"redirect": "127.0.0.1:\(redirect)"}}]}
        """
    }

    /// A SOCKS proxy on a loopback port.
    static func socks(_ port: UInt16) -> String {
        """
        {"inbounds": [{"protocol": "socks", "listen": "127.0.0.1", "port": \(port)}],
         "outbounds": [{"protocol": "freedom"}]}
        """
    }
}

/// Takes a loopback port while it lives.
final class TakenPort {
    let port: UInt16
    private let fd: Int32

    init() {
        let socket = LoopbackSocket(SOCK_STREAM)!
        (port, fd) = (socket.port, socket.fd)
    }

    deinit { Glibc.close(fd) }
}
