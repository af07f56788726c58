import Foundation

/// Gives every subscriber the same values in the same order. One that is behind loses the oldest, never the newest.
final class EventHub<Element: Sendable>: Sendable {
    private struct State {
        var subscribers: [UInt64: AsyncStream<Element>.Continuation] = [:]
        var nextId: UInt64 = 0
        var latest: Element?
        var isFinished = false
    }

    private let state: Locked<State>
    private let replaysLatest: Bool
    private let capacity: Int

    /// Makes a hub that hands out what comes from now on.
    ///
    /// - Parameter capacity: how many values a subscriber may be behind.
    init(capacity: Int) {
        state = Locked(State())
        replaysLatest = false
        self.capacity = capacity
    }

    /// Makes a hub that hands out the newest value first, beginning with `initial`.
    init(initial: Element, capacity: Int) {
        state = Locked(State(latest: initial))
        replaysLatest = true
        self.capacity = capacity
    }

    /// The newest value.
    var latest: Element? {
        state.withLock { $0.latest }
    }

    /// A stream that belongs to its caller alone; it begins when this is called, and ends when the hub does.
    func stream() -> AsyncStream<Element> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: Element.self, bufferingPolicy: .bufferingNewest(capacity))
        let id: UInt64? = state.withLock { state in
            if replaysLatest, let latest = state.latest { continuation.yield(latest) }
            guard !state.isFinished else { return nil }
            state.nextId += 1
            state.subscribers[state.nextId] = continuation
            return state.nextId
        }
        guard let id else {
            continuation.finish()
            return stream
        }
        continuation.onTermination = { [weak self] _ in
            self?.state.withLock { $0.subscribers[id] = nil }
        }
        return stream
    }

    /// Hands a value to everybody.
    func send(_ element: Element) {
        // Under the lock, so that all see one order: yielding never waits and calls nobody back.
        state.withLock { state in
            state.latest = element
            for subscriber in state.subscribers.values { subscriber.yield(element) }
        }
    }

    /// Ends every stream, once what they hold has been taken.
    func finish() {
        let subscribers = state.withLock { state in
            state.isFinished = true
            defer { state.subscribers = [:] }
            return Array(state.subscribers.values)
        }
        subscribers.forEach { $0.finish() }
    }
}
