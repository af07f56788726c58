import Foundation

/// Finds the descriptor of the device that the system has made for a packet tunnel: no public call tells it, so every
/// descriptor is asked whether it is connected to the kernel control that makes such devices.
public enum Utun {
    /// The kernel control's name.
    static let controlName = "com.apple.net.utun_control"
    private static let searched: Range<Int32> = 0..<1024

    /// What the kernel says of descriptors.
    struct Kernel: Sendable {
        /// The peer's address (`sockaddr_ctl`) as bytes; nil if it has none.
        var peer: @Sendable (Int32) -> [UInt8]?
        /// The number of a kernel control by its name, asked on a descriptor (`CTLIOCGINFO`).
        var control: @Sendable (Int32, String) -> UInt32?
    }

    /// The descriptor, which stays the system's; nil if there is none.
    public static func find() -> Int32? { find(.live) }

    static func find(_ kernel: Kernel) -> Int32? {
        searched.first { fd in
            // struct sockaddr_ctl: length, family (AF_SYSTEM), AF_SYS_CONTROL, then the number of the control.
            guard let peer = kernel.peer(fd), peer.count >= 8, peer[1] == 32 else { return false }
            let number = peer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self) }
            return kernel.control(fd, controlName) == number
        }
    }
}

extension Utun.Kernel {
    /// The kernel itself. Both structures are laid out by hand: the SDK for iOS lacks their header.
    static let live = Utun.Kernel(
        peer: { fd in
            var address = [UInt8](repeating: 0, count: 128)
            var length = socklen_t(address.count)
            let found = address.withUnsafeMutableBytes { raw in
                raw.withMemoryRebound(to: sockaddr.self) { getpeername(fd, $0.baseAddress!, &length) == 0 }
            }
            return found ? Array(address.prefix(Int(length))) : nil
        },
        control: { fd, name in
            // struct ctl_info: the number, then the name in 96 bytes.
            var info = [UInt8](repeating: 0, count: 100)
            info.replaceSubrange(4..<(4 + name.utf8.count), with: name.utf8)
            // CTLIOCGINFO: _IOWR('N', 3, struct ctl_info).
            let request: UInt = 0xc064_4e03
            guard info.withUnsafeMutableBytes({ ioctl(fd, request, $0.baseAddress!) }) == 0 else { return nil }
            return info.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
        }
    )
}
