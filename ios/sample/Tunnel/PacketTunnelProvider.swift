import VMessKitVPN

/// All that an extension must write: the configuration is where the app has left it.
final class PacketTunnelProvider: VMessPacketTunnelProvider {}
