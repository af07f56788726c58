// swift-tools-version: 6.0
import PackageDescription

// The native library. Apple's systems link the XCFramework, whose address and checksum scripts/build-ios --release writes
// here; Linux, where the tests run, links the shared library that cargo has built.
#if os(Linux)
    let native: [Target] = [
        .systemLibrary(name: "VMessKitFFI", path: "ios/check/VMessKitFFI"),
    ]
#else
    let native: [Target] = [
        .binaryTarget(name: "VMessKitFFI", path: "target/ios/VMessKitFFI.xcframework")
    ]
#endif

let package = Package(
    name: "VMessKit",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [
        // The tunnel alone.
        .library(name: "VMessKit", targets: ["VMessKit"]),
    ],
    targets: native + [
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
        .testTarget(
            name: "VMessKitTests",
            dependencies: ["VMessKit", "VMessKitCore"],
            path: "ios/VMessKit/Tests/VMessKitTests"
        ),
    ]
)
