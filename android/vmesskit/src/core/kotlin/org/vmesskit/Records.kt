package org.vmesskit

/** How a tunnel is started. */
public typealias TunnelOptions = org.vmesskit.ffi.Options

/** A tun descriptor and what may be done with it. */
public typealias TunHandle = org.vmesskit.ffi.TunHandle

/** Whose a tun descriptor is. */
public typealias FdOwnership = org.vmesskit.ffi.FdOwnership

/** How packets are framed on a tun descriptor. */
public typealias Framing = org.vmesskit.ffi.Framing

/** How a tun device is to be set up. */
public typealias TunSettings = org.vmesskit.ffi.TunSettings

/** The network below the tunnel. */
public typealias NetworkInfo = org.vmesskit.ffi.NetworkInfo

/** How short memory is. */
public typealias MemoryPressure = org.vmesskit.ffi.MemoryPressure

/** Counters since the start, and gauges. */
public typealias Stats = org.vmesskit.ffi.Stats

/** One open connection. */
public typealias ConnectionInfo = org.vmesskit.ffi.ConnectionInfo

/** A user of a VMess inbound. */
public typealias UserInfo = org.vmesskit.ffi.UserInfo

/** A user to be added to a VMess inbound. */
public typealias NewUser = org.vmesskit.ffi.NewUser

/** A counter that the config's policy asks for. */
public typealias Counter = org.vmesskit.ffi.Counter

/** What a check of the path to the server has proved. */
public typealias CheckReport = org.vmesskit.ffi.CheckReport

/** What a reload has changed. */
public typealias ReloadReport = org.vmesskit.ffi.ReloadReport

/** One finding in a config. */
public typealias Diagnostic = org.vmesskit.ffi.Diagnostic

/** How grave a finding is. */
public typealias Severity = org.vmesskit.ffi.Severity

/** One line of the log. */
public typealias LogLine = org.vmesskit.ffi.LogLine

/** How grave a line of the log is. */
public typealias LogLevel = org.vmesskit.ffi.LogLevel

/** TCP or UDP. */
public typealias Transport = org.vmesskit.ffi.Network

/** What to measure. */
public typealias MeasureRequest = org.vmesskit.ffi.MeasureRequest

/** What a subscription holds. */
public typealias Subscription = org.vmesskit.ffi.Subscription

/** One server of a subscription. */
public typealias SubscribedServer = org.vmesskit.ffi.SubscribedServer
