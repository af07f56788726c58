package org.vmesskit.host

import org.vmesskit.VMessException
import java.math.BigInteger
import java.net.InetAddress

/**
 * An IP network, or an address with the length of its network's prefix.
 *
 * @property address never looked up: made of a literal.
 * @property length of the prefix, in bits.
 */
public class Prefix(public val address: InetAddress, public val length: Int) {
    private val bits = address.address.size * 8

    init {
        if (length !in 0..bits) throw VMessException.Misuse("/$length is no prefix of $address")
    }

    /** The network itself: the bits behind the prefix are 0. */
    public val network: Prefix
        get() = of(first(), length)

    /** Whether every address of [other] is in this one. */
    public operator fun contains(other: Prefix): Boolean =
        bits == other.bits && length <= other.length && number(other.address).shiftRight(bits - length) ==
            number(address).shiftRight(bits - length)

    /** Whether [other] is in this one. */
    public operator fun contains(other: InetAddress): Boolean = contains(Prefix(other, other.address.size * 8))

    /** What is left of this network without [others], as few networks as that takes. */
    public fun without(others: List<Prefix>): List<Prefix> {
        val inside = others.filter { it in this || this in it }
        return when {
            inside.isEmpty() -> listOf(network)
            inside.any { this in it } -> emptyList()
            else -> halves().flatMap { it.without(inside) }
        }
    }

    private fun halves(): List<Prefix> {
        val step = BigInteger.ONE.shiftLeft(bits - length - 1)
        return listOf(of(first(), length + 1), of(first() + step, length + 1))
    }

    private fun first(): BigInteger = number(address).shiftRight(bits - length).shiftLeft(bits - length)

    private fun of(number: BigInteger, length: Int): Prefix {
        val bytes = ByteArray(bits / 8)
        val digits = number.toByteArray().takeLast(bytes.size)
        digits.forEachIndexed { i, digit -> bytes[bytes.size - digits.size + i] = digit }
        return Prefix(InetAddress.getByAddress(bytes), length)
    }

    override fun equals(other: Any?): Boolean = other is Prefix && other.address == address && other.length == length

    override fun hashCode(): Int = address.hashCode() * 31 + length

    override fun toString(): String = "${address.hostAddress}/$length"

    public companion object {
        private val IPV4 = Regex("""\d{1,3}(\.\d{1,3}){3}""")

        /** What is not the internet: the networks of homes and offices, links and groups. */
        public val LOCAL: List<Prefix> = listOf(
            "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
            "fc00::/7", "fe80::/10", "ff00::/8",
        ).map(::parse)

        /**
         * Reads `192.0.2.0/24`; without a length it is one address.
         *
         * @throws VMessException.Misuse for anything else, a name above all: nothing is looked up.
         */
        public fun parse(text: String): Prefix {
            val address = literal(text.substringBefore('/'))
            val length = text.substringAfter('/', "${address.address.size * 8}").toIntOrNull()
                ?: throw VMessException.Misuse("$text has no prefix length")
            return Prefix(address, length)
        }

        /** Reads an address. */
        public fun literal(text: String): InetAddress {
            if (':' !in text && !IPV4.matches(text)) throw VMessException.Misuse("\"$text\" is no IP address")
            return try {
                InetAddress.getByName(text)
            } catch (error: java.net.UnknownHostException) {
                throw VMessException.Misuse("\"$text\" is no IP address", reason = error.message.orEmpty())
            }
        }

        private fun number(address: InetAddress) = BigInteger(1, address.address)
    }
}
