package org.vmesskit.test

import com.sun.jna.Library
import com.sun.jna.Native
import org.vmesskit.ffi.FdOwnership
import org.vmesskit.ffi.Framing
import org.vmesskit.ffi.TunHandle

/** What the tests ask of the C library. */
interface LibC : Library {
    fun socketpair(domain: Int, type: Int, protocol: Int, pair: IntArray): Int
    fun send(fd: Int, bytes: ByteArray, length: Long, flags: Int): Long
    fun recv(fd: Int, bytes: ByteArray, length: Long, flags: Int): Long
    fun close(fd: Int): Int
    fun fcntl(fd: Int, command: Int): Int
    fun poll(fds: IntArray, count: Long, timeout: Int): Int
    fun open(path: String, flags: Int): Int

    companion object {
        val C: LibC = Native.load("c", LibC::class.java)
    }
}

/** A real descriptor that behaves as a tun device, and its other end, where the kernel would be: whole packets. */
class TunPair : AutoCloseable {
    /** What the library gets. */
    val device: Int

    /** The kernel's end. */
    val kernel: Int
    private var open = true

    init {
        val pair = IntArray(2)
        check(LibC.C.socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0)
        device = pair[0]
        kernel = pair[1]
    }

    fun handle(ownership: FdOwnership = FdOwnership.OWNED): TunHandle =
        TunHandle(device, 1500u, ownership, Framing.RAW_IP)

    /** Sends a packet; false if nobody is at the other end. */
    fun send(packet: ByteArray): Boolean =
        LibC.C.send(kernel, packet, packet.size.toLong(), MSG_NOSIGNAL) == packet.size.toLong()

    /** The next packet; null after [timeout] milliseconds, empty when the device's end is closed. */
    fun receive(timeout: Int = 5_000): ByteArray? {
        val ready = intArrayOf(kernel, POLLIN)
        if (LibC.C.poll(ready, 1, timeout) <= 0) return null
        val packet = ByteArray(65_536)
        val length = LibC.C.recv(kernel, packet, packet.size.toLong(), 0)
        return packet.copyOf(length.coerceAtLeast(0).toInt())
    }

    /** The first packet that is one of those looked for. */
    fun receive(timeout: Int = 5_000, wanted: (ByteArray) -> Boolean): ByteArray? {
        val deadline = System.nanoTime() + timeout * 1_000_000L
        while (true) {
            val left = ((deadline - System.nanoTime()) / 1_000_000L).toInt()
            val packet = (if (left > 0) receive(left) else null) ?: return null
            if (packet.isEmpty()) return null
            if (wanted(packet)) return packet
        }
    }

    /** Whether every descriptor of the device's end is closed, which may take a moment. */
    fun deviceCloses(timeout: Int = 5_000): Boolean {
        val deadline = System.nanoTime() + timeout * 1_000_000L
        while (System.nanoTime() < deadline) {
            val packet = receive(50)
            if (packet != null && packet.isEmpty()) return true
        }
        return false
    }

    override fun close() {
        if (open) LibC.C.close(kernel)
        open = false
    }

    companion object {
        private const val AF_UNIX = 1
        private const val SOCK_SEQPACKET = 5
        private const val MSG_NOSIGNAL = 0x4000
        private const val POLLIN = 1

        /** Whether [fd] is an open descriptor. */
        fun isOpen(fd: Int): Boolean = LibC.C.fcntl(fd, 1) >= 0

        /** How many descriptors the process has. */
        fun descriptors(): Int = java.io.File("/proc/self/fd").list()!!.size

        /** How many threads of the library the process has; their names start with `vmk-`. */
        fun threads(): Int = java.io.File("/proc/self/task").listFiles()!!.count { task ->
            runCatching { java.io.File(task, "comm").readText().startsWith("vmk-") }.getOrDefault(false)
        }
    }
}
