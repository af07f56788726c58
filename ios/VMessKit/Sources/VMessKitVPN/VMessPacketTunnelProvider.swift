import Foundation
import NetworkExtension

@_exported import VMessKit

/// A VPN in an app's packet tunnel extension: subclass it, name the subclass in the extension's Info.plist as
/// `NSExtensionPrincipalClass`, and install a profile with `VMessVPNManager`. A subclass may be empty.
///
/// The system may start it at any time and without options: on demand, at boot, or after it has ended the process.
open class VMessPacketTunnelProvider: NEPacketTunnelProvider {
    /// What runs in the provider.
    public let session: VpnSession

    private let tracker = NetworkTracker()
    private let host: ProviderHost
    private let watchers: [any Watcher]

    public override init() {
        host = ProviderHost()
        let session = VpnSession(host: host, tracker: tracker)
        self.session = session
        watchers = [PathWatcher(tracker, session), MemoryWatcher(session)]
        super.init()
        host.provider = self
    }

    deinit {
        watchers.forEach { $0.stop() }
        session.requestStop()
    }

    /// What is to run: by default, what `VMessVPNManager.install` has stored. Asked on every start, and when the app asks
    /// for a reload: then what has changed is taken over, with the flows that exist kept.
    open func configuration() async throws -> VpnConfiguration {
        try store.load()
    }

    /// Where the app has said that the configuration lies.
    var store: ConfigStore {
        ConfigStore((protocolConfiguration as? NETunnelProviderProtocol)?.providerConfiguration ?? [:])
    }

    /// The tunnel could not go on; the system is told after this. For an app that wants to leave a note.
    open func tunnelEnded(_ error: VMessError) {}

    open override func startTunnel(
        options: [String: NSObject]? = nil, completionHandler: @escaping (Error?) -> Void
    ) {
        watchers.forEach { $0.start() }
        let completion = Unchecked(completionHandler)
        let store = store
        Task { [session] in
            do {
                try await session.start()
                try? store.note(nil)
                completion.value(nil)
            } catch {
                try? store.note(error as? VMessError)
                completion.value(error)
            }
        }
    }

    open override func stopTunnel(with reason: NEProviderStopReason, completionHandler: @escaping () -> Void) {
        watchers.forEach { $0.stop() }
        let completion = Unchecked(completionHandler)
        Task { [session] in
            await session.stop()
            completion.value()
        }
    }

    open override func sleep(completionHandler: @escaping () -> Void) {
        session.sleep(true)
        completionHandler()
    }

    open override func wake() {
        session.sleep(false)
    }

    open override func handleAppMessage(_ messageData: Data, completionHandler: ((Data?) -> Void)? = nil) {
        let completion = Unchecked(completionHandler)
        Task { [session] in
            let answer = await AppMessages.answer(messageData, of: session)
            completion.value?(answer)
        }
    }
}

/// A value of the system's that may go to another thread, though its type does not say so.
struct Unchecked<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) { self.value = value }
}
