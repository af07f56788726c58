import VMessKitCore

/// How a tunnel is started.
public typealias TunnelOptions = VMessKitCore.Options
/// A tun descriptor and what may be done with it.
public typealias TunHandle = VMessKitCore.TunHandle
/// Whose a tun descriptor is.
public typealias FdOwnership = VMessKitCore.FdOwnership
/// How packets are framed on a tun descriptor.
public typealias Framing = VMessKitCore.Framing
/// How a tun device is to be set up.
public typealias TunSettings = VMessKitCore.TunSettings
/// The network below the tunnel.
public typealias NetworkInfo = VMessKitCore.NetworkInfo
/// How short memory is.
public typealias MemoryPressure = VMessKitCore.MemoryPressure
/// Counters since the start, and gauges.
public typealias TunnelStats = VMessKitCore.Stats
/// One open connection.
public typealias ConnectionInfo = VMessKitCore.ConnectionInfo
/// A user of a VMess inbound.
public typealias UserInfo = VMessKitCore.UserInfo
/// A user to be added to a VMess inbound.
public typealias NewUser = VMessKitCore.NewUser
/// A counter that the config's policy asks for.
public typealias Counter = VMessKitCore.Counter
/// What a check of the path to the server has proved.
public typealias CheckReport = VMessKitCore.CheckReport
/// What a reload has changed.
public typealias ReloadReport = VMessKitCore.ReloadReport
/// One finding in a config.
public typealias Diagnostic = VMessKitCore.Diagnostic
/// How grave a finding is.
public typealias Severity = VMessKitCore.Severity
/// One line of the log.
public typealias LogLine = VMessKitCore.LogLine
/// How grave a line of the log is.
public typealias LogLevel = VMessKitCore.LogLevel
/// TCP or UDP.
public typealias Transport = VMessKitCore.Network
/// What to measure.
public typealias MeasureRequest = VMessKitCore.MeasureRequest
/// What a subscription holds.
public typealias Subscription = VMessKitCore.Subscription
/// One server of a subscription.
public typealias SubscribedServer = VMessKitCore.SubscribedServer
