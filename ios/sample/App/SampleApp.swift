import SwiftUI

@main
struct SampleApp: App {
    @StateObject private var model = VpnModel()

    var body: some Scene {
        WindowGroup { ContentView(model: model) }
    }
}
