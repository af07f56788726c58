/// The newest log lines, numbered from 1 on, for a log view that is opened later and asks for what it has not seen.
public final class LogBuffer: Sendable {
    /// A line and its number.
    public struct Entry: Sendable, Equatable {
        /// Counts from 1 on, without gaps.
        public let number: UInt64
        /// The line.
        public let line: LogLine
    }

    private let capacity: Int
    private let state = Locked((entries: [Entry](), last: UInt64(0)))

    /// Makes a buffer of the newest `capacity` lines.
    public init(capacity: Int = 500) {
        self.capacity = capacity
    }

    /// Adds lines, and forgets the oldest beyond the capacity.
    public func add(_ lines: [LogLine]) {
        state.withLock { state in
            for line in lines {
                state.last += 1
                state.entries.append(Entry(number: state.last, line: line))
            }
            state.entries.removeFirst(max(0, state.entries.count - capacity))
        }
    }

    /// The lines after the number `since`, oldest first; all of them if that number has not been given out, since whoever
    /// asks has it from a process before this one.
    public func entries(since: UInt64 = 0) -> [Entry] {
        state.withLock { state in
            since > state.last ? state.entries : state.entries.filter { $0.number > since }
        }
    }
}
