import Dispatch
import Foundation
import Network
import VMessKit

/// What listens to the system while a tunnel is up. Starting twice is starting once.
protocol Watcher: AnyObject {
    func start()

    func stop()
}

/// Tells a session of the network below it.
final class PathWatcher: Watcher {
    private let tracker: NetworkTracker
    private weak var session: VpnSession?
    private var monitor: NWPathMonitor?

    init(_ tracker: NetworkTracker, _ session: VpnSession) {
        self.tracker = tracker
        self.session = session
    }

    func start() {
        guard monitor == nil else { return }
        let monitor = NWPathMonitor()
        monitor.pathUpdateHandler = { [tracker, weak session] path in
            if tracker.update(PathFacts(path)) { session?.networkChanged() }
        }
        monitor.start(queue: DispatchQueue(label: "org.vmesskit.path"))
        self.monitor = monitor
    }

    func stop() {
        monitor?.cancel()
        monitor = nil
    }
}

/// Tells a session how short memory is.
final class MemoryWatcher: Watcher {
    private weak var session: VpnSession?
    #if canImport(Darwin)
        private var source: (any DispatchSourceMemoryPressure)?
    #endif

    init(_ session: VpnSession) {
        self.session = session
    }

    func start() {
        #if canImport(Darwin)
            guard source == nil else { return }
            let source = DispatchSource.makeMemoryPressureSource(eventMask: .all, queue: .global())
            source.setEventHandler { [weak source, weak session] in
                guard let event = source?.data else { return }
                let level = MemoryPressure(warning: event.contains(.warning), critical: event.contains(.critical))
                session?.memoryPressure(level)
            }
            source.resume()
            self.source = source
        #endif
    }

    func stop() {
        #if canImport(Darwin)
            source?.cancel()
            source = nil
        #endif
    }
}

extension MemoryPressure {
    /// What the system's flags mean; neither: as usual again.
    init(warning: Bool, critical: Bool) {
        self = critical ? .critical : warning ? .low : .normal
    }
}

extension PathFacts {
    init(_ path: NWPath) {
        let addresses = InterfaceAddresses.all()
        self.init(
            isSatisfied: path.status == .satisfied,
            interfaces: path.availableInterfaces.map {
                Interface(name: $0.name, index: $0.index, addresses: addresses[$0.name] ?? [])
            },
            hasV4: path.supportsIPv4, hasV6: path.supportsIPv6, isExpensive: path.isExpensive)
    }
}

/// The addresses of this device.
enum InterfaceAddresses {
    /// By the names of their interfaces.
    static func all() -> [String: [String]] {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return [:] }
        defer { freeifaddrs(list) }
        var found: [String: [String]] = [:]
        var next = list
        while let entry = next?.pointee {
            next = entry.ifa_next
            guard let address = entry.ifa_addr, let text = text(address) else { continue }
            found[String(cString: entry.ifa_name), default: []].append(text)
        }
        return found
    }

    /// An address without a zone; nil for what is none of IP.
    private static func text(_ address: UnsafeMutablePointer<sockaddr>) -> String? {
        let family = Int32(address.pointee.sa_family)
        let length: Int
        switch family {
        case AF_INET: length = MemoryLayout<sockaddr_in>.size
        case AF_INET6: length = MemoryLayout<sockaddr_in6>.size
        default: return nil
        }
        var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        guard
            getnameinfo(address, socklen_t(length), &host, socklen_t(host.count), nil, 0, NI_NUMERICHOST) == 0
        else { return nil }
        let bytes = host.prefix { $0 != 0 && $0 != CChar(UInt8(ascii: "%")) }.map { UInt8(bitPattern: $0) }
        return String(decoding: bytes, as: UTF8.self)
    }
}
