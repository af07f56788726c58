@preconcurrency import Dispatch
import Foundation
import VMessKit
import XCTest

/// The longest that a test waits for what must come, in seconds.
let patience: TimeInterval = 20

/// What a call throws, which it must.
func failure<Result>(
    file: StaticString = #filePath, line: UInt = #line, _ call: () async throws -> Result
) async -> VMessError {
    do {
        let answer = try await call()
        XCTFail("it answered \(answer)", file: file, line: line)
    } catch let error as VMessError {
        return error
    } catch {
        XCTFail("it threw \(error)", file: file, line: line)
    }
    return VMessError(.unknown(code: 0), "")
}

/// The first value that is one of those looked for; nil if the stream ends, or after the patience.
func first<Element: Sendable>(
    in stream: AsyncStream<Element>, where wanted: @escaping @Sendable (Element) -> Bool
) async -> Element? {
    await withTaskGroup(of: Element?.self) { group in
        group.addTask { await stream.first(where: wanted) }
        group.addTask {
            try? await Task.sleep(nanoseconds: UInt64(patience * 1e9))
            return nil
        }
        defer { group.cancelAll() }
        return await group.next() ?? nil
    }
}

/// Waits until something holds.
func eventually(file: StaticString = #filePath, line: UInt = #line, _ holds: () async -> Bool) async {
    let deadline = Date().addingTimeInterval(patience)
    while await !holds() {
        guard Date() < deadline else { return XCTFail("it never came to hold", file: file, line: line) }
        try? await Task.sleep(nanoseconds: 10_000_000)
    }
}

/// A network that is as good as any.
func network(_ id: UInt64) -> NetworkInfo {
    NetworkInfo(
        id: id, index: 0, addresses: ["192.0.2.7"], dns: ["192.0.2.1"], hasV4: true, hasV6: false, nat64Prefix: nil,
        metered: false, validated: true, captivePortal: false)
}

/// A platform that counts the sockets that it was asked to protect, and does `protect` with them.
final class TestPlatform: Platform, @unchecked Sendable {
    private let lock = NSLock()
    private var count = 0
    private let protect: @Sendable (Int32) throws -> Void

    init(_ protect: @escaping @Sendable (Int32) throws -> Void = { _ in }) {
        self.protect = protect
    }

    var sockets: Int { lock.withLock { count } }

    func protectSocket(_ fd: Int32) throws {
        lock.withLock { count += 1 }
        try protect(fd)
    }
}

/// What a platform of the tests throws.
struct Refusal: Error, CustomStringConvertible {
    let description: String
}
