package org.vmesskit.test

import java.net.Inet4Address
import java.net.InetAddress
import java.nio.ByteBuffer

/** IPv4 packets, made and read by hand. */
object Packets {
    const val ICMP: Int = 1
    const val TCP: Int = 6
    const val UDP: Int = 17
    const val FIN: Int = 1
    const val SYN: Int = 2
    const val RST: Int = 4
    const val ACK: Int = 16

    /** An echo request. */
    fun ping(from: String, to: String, id: Int, payload: ByteArray): ByteArray {
        val message = ByteBuffer.allocate(8 + payload.size)
        message.put(8).put(0).putShort(0).putShort(id.toShort()).putShort(1).put(payload)
        message.putShort(2, checksum(message.array(), 0).toShort())
        return ip(ICMP, from, to, message.array())
    }

    /** A datagram. */
    fun udp(from: String, fromPort: Int, to: String, toPort: Int, payload: ByteArray): ByteArray {
        val datagram = ByteBuffer.allocate(8 + payload.size)
        datagram.putShort(fromPort.toShort()).putShort(toPort.toShort()).putShort((8 + payload.size).toShort())
        datagram.putShort(0).put(payload)
        datagram.putShort(6, transportChecksum(UDP, from, to, datagram.array()).toShort())
        return ip(UDP, from, to, datagram.array())
    }

    /** A segment. */
    fun tcp(from: String, fromPort: Int, to: String, toPort: Int, segment: Segment): ByteArray {
        val bytes = ByteBuffer.allocate(20 + segment.payload.size)
        bytes.putShort(fromPort.toShort()).putShort(toPort.toShort()).putInt(segment.sequence.toInt())
        bytes.putInt(segment.acknowledged.toInt()).put(0x50).put(segment.flags.toByte()).putShort(-1)
        bytes.putShort(0).putShort(0).put(segment.payload)
        bytes.putShort(16, transportChecksum(TCP, from, to, bytes.array()).toShort())
        return ip(TCP, from, to, bytes.array())
    }

    fun protocol(packet: ByteArray): Int = if (packet.size >= 20 && packet[0].toInt() shr 4 == 4) packet[9].toInt() else -1

    fun source(packet: ByteArray): String = InetAddress.getByAddress(packet.copyOfRange(12, 16)).hostAddress!!

    /** What follows the IPv4 header. */
    fun body(packet: ByteArray): ByteArray =
        packet.copyOfRange((packet[0].toInt() and 15) * 4, packet.size)

    /** The payload of a datagram. */
    fun payload(packet: ByteArray): ByteArray = body(packet).drop(8).toByteArray()

    /** Whether the checksum of the IPv4 header and that of what it carries are right. */
    fun isSound(packet: ByteArray): Boolean {
        val header = packet.copyOf((packet[0].toInt() and 15) * 4)
        if (checksum(header, 0) != 0) return false
        val body = body(packet)
        if (protocol(packet) == ICMP) return checksum(body, 0) == 0
        val destination = InetAddress.getByAddress(packet.copyOfRange(16, 20)).hostAddress!!
        return transportChecksum(protocol(packet), source(packet), destination, body) == 0
    }

    fun segment(packet: ByteArray): Segment {
        val bytes = ByteBuffer.wrap(body(packet))
        val header = (bytes.get(12).toInt() and 0xf0) shr 2
        return Segment(
            bytes.getInt(4).toUInt(),
            bytes.getInt(8).toUInt(),
            bytes.get(13).toInt() and 0xff,
            bytes.array().copyOfRange(header, bytes.capacity()),
        )
    }

    fun destinationPort(packet: ByteArray): Int = ByteBuffer.wrap(body(packet)).getShort(2).toInt() and 0xffff

    private fun ip(protocol: Int, from: String, to: String, body: ByteArray): ByteArray {
        val packet = ByteBuffer.allocate(20 + body.size)
        packet.put(0x45).put(0).putShort((20 + body.size).toShort()).putShort(7).putShort(0x4000).put(64)
        packet.put(protocol.toByte()).putShort(0).put(address(from)).put(address(to)).put(body)
        packet.putShort(10, checksum(packet.array().copyOf(20), 0).toShort())
        return packet.array()
    }

    private fun address(text: String): ByteArray = (InetAddress.getByName(text) as Inet4Address).address

    private fun transportChecksum(protocol: Int, from: String, to: String, body: ByteArray): Int {
        val pseudo = ByteBuffer.allocate(12).put(address(from)).put(address(to)).put(0).put(protocol.toByte())
        pseudo.putShort(body.size.toShort())
        return checksum(body, sum(pseudo.array()))
    }

    private fun sum(bytes: ByteArray): Int {
        var sum = 0
        for (i in bytes.indices step 2) {
            val low = if (i + 1 < bytes.size) bytes[i + 1].toInt() and 0xff else 0
            sum += ((bytes[i].toInt() and 0xff) shl 8) or low
        }
        return sum
    }

    private fun checksum(bytes: ByteArray, start: Int): Int {
        var sum = start + sum(bytes)
        while (sum > 0xffff) sum = (sum and 0xffff) + (sum shr 16)
        return sum.inv() and 0xffff
    }
}

/** A TCP segment without options. */
class Segment(val sequence: UInt, val acknowledged: UInt, val flags: Int, val payload: ByteArray = ByteArray(0))
