// swift-tools-version: 6.0
import PackageDescription

// The native library. Apple's systems link the XCFramework that scripts/build-ios makes (a release names its archive by
// address and checksum instead); Linux, where the tests run, links the shared library that cargo has built.
#if os(Linux)
    let native: [Target] = [
        .systemLibrary(name: "VMessKitFFI", path: "ios/check/VMessKitFFI"),
        .target(name: "NetworkExtension", path: "ios/check/NetworkExtension"),
        .target(name: "Network", path: "ios/check/Network"),
        .target(name: "Security", path: "ios/check/Security"),
        .target(name: "os", path: "ios/check/os"),
        .target(name: "SwiftUI", path: "ios/check/SwiftUI"),
    ]
    let system: [Target.Dependency] = ["NetworkExtension", "Network", "Security", "os"]
    // The sample, which is an Xcode project of its own elsewhere.
    let sample: [Target] = [
        .executableTarget(
            name: "Sample",
            dependencies: ["VMessKitVPN", "NetworkExtension", "SwiftUI"],
            path: "ios/sample/App",
            exclude: ["Info.plist", "Sample.entitlements"]
        ),
        .target(
            name: "SampleTunnel",
            dependencies: ["VMessKitVPN"] + system,
            path: "ios/sample/Tunnel",
            exclude: ["Info.plist", "SampleTunnel.entitlements"]
        ),
        .testTarget(
            name: "SampleTests",
            dependencies: ["Sample", "SampleTunnel", "VMessKitVPN", "NetworkExtension", "SwiftUI"],
            path: "ios/sample/Tests"
        ),
    ]
#else
    let native: [Target] = [
        .binaryTarget(name: "VMessKitFFI", path: "target/ios/VMessKitFFI.xcframework")
    ]
    let system: [Target.Dependency] = []
    let sample: [Target] = []
#endif

let package = Package(
    name: "VMessKit",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [
        // The tunnel alone.
        .library(name: "VMessKit", targets: ["VMessKit"]),
        // And a VPN: the packet tunnel provider, and what an app manages it with.
        .library(name: "VMessKitVPN", targets: ["VMessKitVPN"]),
    ],
    targets: native + sample + [
        .target(
            name: "VMessKitCore",
            dependencies: ["VMessKitFFI"],
            path: "bindings/swift",
            exclude: ["VMessKitFFI.h", "VMessKitFFI.modulemap"]
        ),
        .target(
            name: "VMessKit",
            dependencies: ["VMessKitCore"],
            path: "ios/VMessKit/Sources/VMessKit",
            resources: [.copy("PrivacyInfo.xcprivacy")]
        ),
        .target(
            name: "VMessKitVPN",
            dependencies: ["VMessKit"] + system,
            path: "ios/VMessKit/Sources/VMessKitVPN"
        ),
        .testTarget(
            name: "VMessKitTests",
            dependencies: ["VMessKit", "VMessKitCore"],
            path: "ios/VMessKit/Tests/VMessKitTests"
        ),
        .testTarget(
            name: "VMessKitVPNTests",
            dependencies: ["VMessKitVPN", "VMessKit"] + system,
            path: "ios/VMessKit/Tests/VMessKitVPNTests"
        ),
    ]
)
