package org.vmesskit.test

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import org.vmesskit.LogLevel
import org.vmesskit.LogLine
import org.vmesskit.MemoryPressure
import org.vmesskit.TunSettings
import org.vmesskit.Tunnel
import org.vmesskit.VMessException
import org.vmesskit.host.Backoff
import org.vmesskit.host.LogBuffer
import org.vmesskit.host.MemoryLevels
import org.vmesskit.host.NetworkCapabilitiesFacts
import org.vmesskit.host.NetworkLinkFacts
import org.vmesskit.host.NetworkTracker
import org.vmesskit.host.Prefix
import org.vmesskit.host.TunPlan
import org.vmesskit.host.VpnConfiguration
import java.net.InetAddress
import kotlin.time.Duration.Companion.seconds

class PrefixTest {
    @Test
    fun readsNetworksAndAddresses() {
        assertEquals("10.0.0.0/8", Prefix.parse("10.1.2.3/8").network.toString())
        assertEquals(Prefix.parse("fd00::/8"), Prefix.parse("fd12:3456::1/8").network)
        assertEquals(32, Prefix.parse("192.0.2.1").length)
        for (text in listOf("", "example.org", "1.2.3", "1.2.3.4/33", "1.2.3.4/x", "::/129", "300.1.1.1")) {
            assertThrows<VMessException.Misuse>(text) { Prefix.parse(text) }
        }
    }

    @Test
    fun takesNetworksOut() {
        val all = Prefix.parse("0.0.0.0/0")
        val rest = all.without(listOf(Prefix.parse("10.0.0.0/8")))
        assertEquals(8, rest.size)
        assertTrue(rest.none { InetAddress.getByName("10.9.9.9") in it })
        assertTrue(rest.any { InetAddress.getByName("11.0.0.0") in it })
        assertEquals(listOf(all), all.without(listOf(Prefix.parse("::/0"))))
        assertEquals(emptyList<Prefix>(), Prefix.parse("10.1.0.0/16").without(listOf(Prefix.parse("10.0.0.0/8"))))
    }

    @Test
    fun whatIsLeftCoversEveryOtherAddressOnce() {
        val random = java.util.Random(7)
        repeat(50) {
            val out = List(1 + random.nextInt(5)) {
                val bytes = ByteArray(4).also(random::nextBytes)
                Prefix(InetAddress.getByAddress(bytes), 1 + random.nextInt(32)).network
            }
            val rest = Prefix.parse("0.0.0.0/0").without(out)
            repeat(200) {
                val address = InetAddress.getByAddress(ByteArray(4).also(random::nextBytes))
                val expected = if (out.any { address in it }) 0 else 1
                assertEquals(expected, rest.count { address in it }, "$address in $rest")
            }
        }
    }
}

class TunPlanTest {
    private val settings: TunSettings = Tunnel(Configs.redirected(9)).use { it.tunSettings()!! }

    @Test
    fun theConfigIsTheOnlySource() {
        val plan = plan(VpnConfiguration("{}", session = "Test"))
        assertEquals("Test", plan.session)
        assertEquals(listOf("172.19.0.1/30", "fd19::1/126").map(Prefix::parse), plan.addresses)
        assertEquals(listOf(InetAddress.getByName("172.19.0.2")), plan.dns)
        assertTrue(plan.routes.containsAll(listOf("0.0.0.0/0", "::/0", "172.19.0.2/32").map(Prefix::parse)))
        assertNull(plan.metered)
    }

    @Test
    fun aLanIsExcludedOrCutOut() {
        val configuration = VpnConfiguration("{}", bypassLan = true)
        val excluding = plan(configuration)
        assertTrue(Prefix.parse("192.168.0.0/16") in excluding.excluded)
        val cutting = plan(configuration, canExclude = false)
        assertTrue(cutting.excluded.isEmpty())
        val reached = { text: String -> cutting.routes.any { InetAddress.getByName(text) in it } }
        assertFalse(reached("192.168.1.1"))
        assertFalse(reached("fe80::1"))
        assertTrue(reached("192.0.2.1"))
        assertTrue(reached("2001:db8::1"))
        assertTrue(reached("172.19.0.2"), "the DNS server inside the tunnel is none of the LAN's")
        assertFalse(reached("172.19.0.9"))
    }

    @Test
    fun appListsExcludeEachOther() {
        val both = VpnConfiguration("{}", allowApps = listOf("a"), denyApps = listOf("b"))
        assertThrows<VMessException.ConfigInvalid> { plan(both) }
        val mixed = settings.copy(denyApps = listOf("b"))
        assertThrows<VMessException.ConfigInvalid> {
            TunPlan.of(mixed, VpnConfiguration("{}", allowApps = listOf("a")), true)
        }
        assertEquals(listOf("b", "c"), TunPlan.of(mixed, VpnConfiguration("{}", denyApps = listOf("c")), true).denyApps)
    }

    @Test
    fun ipv6PassesBesideOnlyATunnelWithoutIt() {
        val configuration = VpnConfiguration("{}", bypassIpv6 = true)
        assertFalse(plan(configuration).bypassIpv6)
        val without = settings.copy(addresses = listOf("172.19.0.1/30"))
        assertTrue(TunPlan.of(without, configuration, true).bypassIpv6)
        assertFalse(TunPlan.of(without, VpnConfiguration("{}"), true).bypassIpv6)
    }

    @Test
    fun aConfigurationTellsNoSecret() {
        assertFalse(Configs.ID in "${VpnConfiguration(Configs.vmess(1))}")
    }

    private fun plan(configuration: VpnConfiguration, canExclude: Boolean = true) =
        TunPlan.of(settings, configuration, canExclude)
}

class NetworkTrackerTest {
    private val tracker = NetworkTracker()
    private val good = NetworkCapabilitiesFacts(isVpn = false, metered = true, validated = true, captivePortal = false)
    private val link = NetworkLinkFacts(
        3,
        listOf("192.0.2.7", "fe80::1", "2001:db8::7").map(InetAddress::getByName),
        listOf(InetAddress.getByName("192.0.2.1")),
        InetAddress.getByName("64:ff9b::"),
    )

    @Test
    fun aNetworkCountsWhenAllIsKnown() {
        tracker.available(1)
        tracker.capabilities(1, good)
        assertNull(tracker.network.value)
        tracker.link(1, link)
        val network = tracker.network.value!!
        assertEquals(listOf("192.0.2.7", "2001:db8:0:0:0:0:0:7"), network.addresses)
        assertEquals(listOf(true, true, true, true), listOf(network.hasV4, network.hasV6, network.metered, network.validated))
        assertEquals("64:ff9b:0:0:0:0:0:0", network.nat64Prefix)
        Tunnel(Configs.QUIET).use { it.networkChanged(network) }
    }

    @Test
    fun flagsAreFollowed() {
        tracker.link(1, link)
        tracker.capabilities(1, good.copy(validated = false, captivePortal = true))
        assertTrue(tracker.network.value!!.captivePortal)
        tracker.capabilities(1, good)
        assertFalse(tracker.network.value!!.captivePortal)
    }

    @Test
    fun theBetterNetworkTakesOverAndTheOldOnesEndIsNone() {
        tracker.link(1, link)
        tracker.capabilities(1, good)
        tracker.available(2)
        assertEquals(1uL, tracker.network.value!!.id, "the old one holds until the new one is known")
        tracker.capabilities(2, good)
        tracker.link(2, link)
        tracker.lost(1)
        assertEquals(2uL, tracker.network.value!!.id)
        tracker.lost(2)
        assertNull(tracker.network.value)
    }

    @Test
    fun aVpnNeverCounts() {
        tracker.link(1, link)
        tracker.capabilities(1, good.copy(isVpn = true))
        assertNull(tracker.network.value)
    }
}

class SmallPartsTest {
    @Test
    fun memoryLevels() {
        val expected = mapOf(
            0 to null, 5 to MemoryPressure.LOW, 10 to MemoryPressure.LOW, 15 to MemoryPressure.CRITICAL, 20 to null,
            40 to MemoryPressure.LOW, 60 to MemoryPressure.LOW, 80 to MemoryPressure.CRITICAL,
        )
        for ((level, pressure) in expected) assertEquals(pressure, MemoryLevels.pressure(level), "$level")
    }

    @Test
    fun backoffDoublesToItsLimit() {
        val backoff = Backoff(1.seconds, 5.seconds)
        assertEquals(listOf(1, 2, 4, 5, 5).map { it.seconds }, List(5) { backoff.next() })
        backoff.reset()
        assertEquals(1.seconds, backoff.next())
    }

    @Test
    fun theNewestLinesAreKept() {
        val buffer = LogBuffer(3)
        val line = { text: String -> LogLine(LogLevel.INFO, 0, text) }
        buffer.add(listOf(line("a"), line("b")))
        buffer.add(listOf(line("c"), line("d")))
        assertEquals(listOf("b", "c", "d"), buffer.lines.value.map { it.text })
    }
}
