import Foundation
import XCTest

@testable import VMessKit

final class AppMessagesTests: XCTestCase {
    private let session = VpnSession(host: QuietHost(), tracker: NetworkTracker())

    func testEveryRequestPassesAndIsVersioned() throws {
        let requests: [AppRequest] = [
            .status, .stats, .connections, .logs(since: 7), .reload, .select(group: "g", tag: "t"),
        ]
        for request in requests {
            let data = try AppMessages.encode(request)
            XCTAssertEqual(try AppMessages.decode(AppRequest.self, from: data), request)
            let fields = try XCTUnwrap(JSONSerialization.jsonObject(with: data) as? [String: Any])
            XCTAssertEqual(fields["version"] as? Int, AppMessages.version)
        }
    }

    func testAnotherVersionIsToldAsSuch() {
        // Whatever the other version has in its body.
        for text in [#"{"version": 2, "body": {"new": 1}}"#, #"{"version": 0}"#] {
            XCTAssertThrowsError(try AppMessages.decode(AppRequest.self, from: Data(text.utf8))) {
                XCTAssertEqual(($0 as? VMessError)?.kind, .unsupported)
            }
        }
    }

    func testWhatIsNoMessageIsRefused() async throws {
        for text in ["", "x", "{}", #"{"version": 1, "body": {"dance": {}}}"#] {
            let answer = await AppMessages.answer(Data(text.utf8), of: session)
            guard case .failed(let message) = try AppMessages.decode(AppResponse.self, from: answer) else {
                return XCTFail("\(text) was answered")
            }
            XCTAssertEqual(message.error.kind, .misuse)
        }
    }

    func testTheSizeIsLimited() async throws {
        let long = String(repeating: "x", count: AppMessages.limit)
        XCTAssertThrowsError(try AppMessages.encode(AppRequest.select(group: long, tag: ""))) {
            XCTAssertEqual(($0 as? VMessError)?.kind, .resourceLimit(what: "message size"))
        }
        let answer = await AppMessages.answer(Data(count: AppMessages.limit + 1), of: session)
        guard case .failed(let message) = try AppMessages.decode(AppResponse.self, from: answer) else {
            return XCTFail("it was answered")
        }
        XCTAssertEqual(message.error.kind, .resourceLimit(what: "message size"))
    }

    func testALongLogIsCutToItsNewestLines() async throws {
        let line = LogLine(level: .info, unixMillis: 0, text: String(repeating: "x", count: 2000))
        session.logs.add([LogLine](repeating: line, count: 500))
        let answer = await AppMessages.answer(try AppMessages.encode(AppRequest.logs(since: 0)), of: session)
        XCTAssertLessThanOrEqual(answer.count, AppMessages.limit)
        guard case .logs(let lines) = try AppMessages.decode(AppResponse.self, from: answer) else {
            return XCTFail("no log")
        }
        XCTAssertEqual(lines.last?.number, 500)
        XCTAssertGreaterThan(lines.count, 50)
    }

    func testWithoutATunnelTheAnswerSaysSo() async throws {
        for request in [AppRequest.status, .stats, .connections, .reload, .select(group: "g", tag: "t")] {
            let answer = await AppMessages.answer(try AppMessages.encode(request), of: session)
            guard case .failed(let message) = try AppMessages.decode(AppResponse.self, from: answer) else {
                return XCTFail("\(request) was answered")
            }
            XCTAssertEqual(message.error.kind, .notRunning, "\(request)")
            XCTAssertFalse(message.error.hint.isEmpty)
        }
    }

    func testEveryErrorComesOverWhole() throws {
        let kinds: [VMessError.Kind] = [
            .serverUnreachable(stage: .tls), .clockSkew(seconds: -90), .resourceLimit(what: "memory"),
            .timeout(what: "resolve"), .notPermitted, .hostFailed, .notRunning, .unknown(code: 77),
        ]
        for kind in kinds {
            let error = VMessError(kind, "text", hint: "hint", reason: "reason", path: "path")
            let data = try AppMessages.encode(AppResponse.failed(ErrorMessage(error)))
            guard case .failed(let message) = try AppMessages.decode(AppResponse.self, from: data) else {
                return XCTFail("no error")
            }
            XCTAssertEqual(message.error, error)
        }
    }
}

/// A host that is never asked.
private final class QuietHost: VpnHost {
    func configuration() async throws -> VpnConfiguration { throw VMessError(.hostFailed, "nobody asks") }
    func apply(_ plan: TunPlan) async throws {}
    func device(_ plan: TunPlan) throws -> any TunDevice { throw VMessError(.hostFailed, "nobody asks") }
    func reassert(_ isReasserting: Bool) {}
    func log(_ level: LogLevel, _ text: String) {}
    func ended(_ error: VMessError) {}
}
