package org.vmesskit.test

/** An app's TCP connection, spoken by hand through a tun: no options, no retransmission, one segment at a time. */
class TcpClient(private val tun: TunPair, private val port: Int, private val server: String, private val serverPort: Int) {
    private var sequence = 1_000u
    private var acknowledged = 0u

    /** Shakes hands; false if it is refused. */
    fun connect(): Boolean {
        send(Packets.SYN)
        val answer = next() ?: return false
        if (answer.flags != Packets.SYN or Packets.ACK) return false
        sequence += 1u
        acknowledged = answer.sequence + 1u
        send(Packets.ACK)
        return true
    }

    /** Sends data and collects as much of the answer. */
    fun exchange(data: ByteArray): ByteArray {
        send(Packets.ACK, data)
        sequence += data.size.toUInt()
        val received = java.io.ByteArrayOutputStream()
        while (received.size() < data.size) {
            val segment = next() ?: break
            if (segment.flags and Packets.RST != 0) break
            if (segment.payload.isEmpty() || segment.sequence != acknowledged) continue
            received.write(segment.payload)
            acknowledged += segment.payload.size.toUInt()
            send(Packets.ACK)
        }
        return received.toByteArray()
    }

    /** Whether the connection has been reset. */
    fun isReset(): Boolean {
        while (true) {
            val segment = next() ?: return false
            if (segment.flags and Packets.RST != 0) return true
        }
    }

    private fun send(flags: Int, payload: ByteArray = ByteArray(0)) {
        val segment = Segment(sequence, acknowledged, flags, payload)
        check(tun.send(Packets.tcp(CLIENT, port, server, serverPort, segment)))
    }

    private fun next(): Segment? = tun.receive { packet ->
        Packets.protocol(packet) == Packets.TCP && Packets.destinationPort(packet) == port && Packets.isSound(packet)
    }?.let(Packets::segment)

    companion object {
        /** The device's own address, by default. */
        const val CLIENT: String = "172.19.0.1"
    }
}
