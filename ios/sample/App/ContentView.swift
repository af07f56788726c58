import SwiftUI
import VMessKitVPN

/// One screen: a link, connect, on demand, rates, why it has ended, and the log.
struct ContentView: View {
    @ObservedObject var model: VpnModel

    var body: some View {
        Form {
            Section("Server") {
                TextField("vmess:// link", text: $model.link)
                    .disableAutocorrection(true)
                Toggle("Connect on demand", isOn: $model.isOnDemand)
            }
            Section("VPN") {
                Button(model.isOn ? "Disconnect" : "Connect") { model.toggle() }
                    .disabled(model.isBusy)
                Text(model.state)
                if let rates = model.rates { Text(rates.text) }
            }
            if let problem = model.problem {
                Section("What is wrong") {
                    Text(problem.text)
                    if !problem.hint.isEmpty { Text(problem.hint).foregroundColor(.secondary) }
                }
            }
            Section("Log") {
                ForEach(model.lines, id: \.number) { line in
                    Text(line.text).font(.caption)
                }
            }
        }
        .task { await model.follow() }
        .onOpenURL { model.link = $0.absoluteString }
        .onChange(of: model.isOnDemand) { _ in model.applyOnDemand() }
    }
}
