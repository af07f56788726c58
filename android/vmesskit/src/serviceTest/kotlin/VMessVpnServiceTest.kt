package org.vmesskit.test

import android.app.NotificationManager
import android.app.Service
import android.content.ComponentName
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.net.ConnectivityManager
import android.net.LinkAddress
import android.net.LinkProperties
import android.net.NetworkCapabilities
import android.net.VpnService
import android.os.Looper
import android.os.PowerManager
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.filterIsInstance
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ServiceController
import org.robolectric.annotation.Config
import org.robolectric.shadow.api.Shadow
import org.robolectric.shadows.ShadowVpnService
import org.vmesskit.Event
import org.vmesskit.LogLevel
import org.vmesskit.State
import org.vmesskit.TunnelOptions
import org.vmesskit.VMessException
import org.vmesskit.android.VMessVpnService
import org.vmesskit.android.VpnController
import org.vmesskit.host.VpnConfiguration
import org.vmesskit.host.VpnSession
import java.lang.ref.WeakReference
import java.net.InetAddress
import kotlin.time.Duration.Companion.seconds

/** An app's service. What it is to run is said by the test. */
class TestVpnService : VMessVpnService() {
    val stopped: MutableList<VMessException?> = java.util.Collections.synchronizedList(mutableListOf())

    override suspend fun configuration(): VpnConfiguration = asked()

    override fun onStopped(error: VMessException?) {
        stopped += error
    }

    companion object {
        @Volatile
        var asked: suspend () -> VpnConfiguration = { error("no test has said it") }
    }
}

/** The service, with the bindings that ship, the real library, and a descriptor that packets pass. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], shadows = [VpnShadow::class, BuilderShadow::class, DescriptorShadow::class])
class VMessVpnServiceTest {
    private val payload = ByteArray(500) { it.toByte() }
    private val controllers = mutableListOf<ServiceController<TestVpnService>>()

    @Before
    fun fresh() {
        BuilderShadow.made.clear()
        BuilderShadow.permitted = true
        VpnShadow.protects = true
        VpnShadow.lockdown = false
    }

    @After
    fun over() {
        controllers.forEach { controller ->
            runCatching { controller.destroy() }
            eventually { controller.get().session.state.value.let { it is State.Stopped || it == State.Idle } }
        }
    }

    @Test
    fun packetsGoInAndOut() {
        EchoServer().use { echo ->
            val service = started { VpnConfiguration(Configs.redirected(echo.port), session = "Test") }
            service.awaits(State.Connected)
            val device = BuilderShadow.made.single()
            assertTrue(device.pair.send(Packets.udp(TcpClient.CLIENT, 4_000, "192.0.2.9", 7, payload)))
            val reply = device.pair.receive { Packets.protocol(it) == Packets.UDP }
            assertNotNull(reply)
            assertTrue(Packets.isSound(reply!!))
            assertArrayEquals(payload, Packets.payload(reply))
            val client = TcpClient(device.pair, 40_000, "192.0.2.9", 80)
            assertTrue(client.connect())
            assertArrayEquals(payload, client.exchange(payload))
            assertTrue("each socket was protected", shadow(service).sockets.size >= 2)
            assertEquals("Test", device.name)
        }
    }

    @Test
    fun theDeviceIsSetUpFromTheConfig() {
        val tun = """{"mtu": 1400, "excludedRoutes": ["198.51.100.0/24"], "metered": false,
            "apps": {"deny": ["org.example.bank", "missing.app"]}}"""
        val service = started { VpnConfiguration(Configs.redirected(9, tun), bypassLan = true) }
        service.awaits(State.Connected)
        val device = BuilderShadow.made.single()
        assertEquals(1_400, device.deviceMtu)
        assertEquals(listOf("172.19.0.1/30", "fd19:0:0:0:0:0:0:1/126"), device.addresses)
        assertTrue(device.routes.containsAll(listOf("0.0.0.0/0", "172.19.0.2/32")))
        assertTrue(device.excluded.containsAll(listOf("198.51.100.0/24", "192.168.0.0/16")))
        assertEquals(listOf("172.19.0.2"), device.dns)
        assertEquals(listOf("org.example.bank"), device.denied)
        assertEquals(false, device.countsAsMetered)
        assertEquals("a tunnel that carries IPv6 lets none pass beside", emptyList<Int>(), device.families)
        assertTrue(service.session.logs.lines.value.any { "missing.app is not installed" in it.text })
    }

    @Test
    fun appsThatAreAllMissingLetNobodyIn() {
        val service = started { VpnConfiguration(Configs.redirected(9), allowApps = listOf("missing.app")) }
        eventually { service.stopped.isNotEmpty() }
        assertTrue(service.stopped.single() is VMessException.ConfigInvalid)
        assertTrue(BuilderShadow.made.isEmpty())
    }

    @Test
    fun itIsInTheForegroundFirst() {
        val service = started { VpnConfiguration(Configs.redirected(9)) }
        assertNotNull("before anything else", shadowOf(service).lastForegroundNotification)
        assertEquals(ServiceInfo.FOREGROUND_SERVICE_TYPE_SYSTEM_EXEMPTED, service.foregroundServiceType)
        val notifications = service.getSystemService(Context.NOTIFICATION_SERVICE) as NotificationManager
        val channel = shadowOf(service).lastForegroundNotification.channelId
        assertNotNull("the notification is shown", notifications.getNotificationChannel(channel))
        service.awaits(State.Connected)
        service.session.stop()
        eventually { service.stopped.isNotEmpty() }
        assertTrue(shadowOf(service).isForegroundStopped)
        assertTrue(shadowOf(service).isStoppedBySelf)
    }

    @Test
    fun aRefusedForegroundIsGoneWithout() {
        val controller = controller { VpnConfiguration(Configs.redirected(9)) }
        shadowOf(controller.get()).setThrowInStartForeground(IllegalStateException("not now"))
        controller.get().onStartCommand(Intent(), 0, 1)
        controller.get().awaits(State.Connected)
    }

    @Test
    fun theSystemStartsItWithoutAnything() {
        for (intent in listOf(null, Intent(), Intent(VpnService.SERVICE_INTERFACE))) {
            val controller = controller { VpnConfiguration(Configs.redirected(9)) }
            assertEquals(Service.START_STICKY, controller.get().onStartCommand(intent, 0, 1))
            controller.get().awaits(State.Connected)
        }
    }

    @Test
    fun revokingAndDestroyingOnlyAsk() {
        for (end in listOf<(TestVpnService) -> Unit>({ it.onRevoke() }, { it.onDestroy() })) {
            val service = started { VpnConfiguration(Configs.redirected(9)) }
            service.awaits(State.Connected)
            val began = System.nanoTime()
            end(service)
            assertTrue("it does not wait", System.nanoTime() - began < 1_000_000_000L)
            eventually { service.session.state.value is State.Stopped }
            assertTrue("nobody holds the device", BuilderShadow.made.last().pair.deviceCloses())
        }
    }

    @Test
    fun aStopDuringAStartLeavesNothing() {
        repeat(15) { moment ->
            val service = started { VpnConfiguration(Configs.redirected(9)) }
            Thread.sleep(moment.toLong())
            service.onStartCommand(Intent().setAction(VMessVpnService.ACTION_STOP), 0, 2)
            eventually { service.stopped.isNotEmpty() }
            assertNull(service.stopped.single())
            assertNull(service.session.tunnel)
        }
        BuilderShadow.made.forEach { assertTrue(it.pair.deviceCloses()) }
    }

    @Test
    fun aStopWithoutAStartEndsTheService() {
        val service = controller { VpnConfiguration(Configs.redirected(9)) }.get()
        service.onStartCommand(Intent().setAction(VMessVpnService.ACTION_STOP), 0, 1)
        assertTrue(shadowOf(service).isStoppedBySelf)
        assertEquals(State.Idle, service.session.state.value)
    }

    @Test
    fun anotherStartTakesChangesOver() {
        var configuration = VpnConfiguration(Configs.redirected(9))
        val service = started { configuration }
        service.awaits(State.Connected)
        configuration = configuration.copy(denyApps = listOf("org.example.bank"))
        service.onStartCommand(Intent(), 0, 2)
        eventually { BuilderShadow.made.size == 2 }
        assertEquals(listOf("org.example.bank"), BuilderShadow.made[1].denied)
        assertTrue("the old one closes", BuilderShadow.made[0].pair.deviceCloses())
        assertEquals(State.Connected, service.session.state.value)
    }

    @Test
    fun withoutThePermissionItSaysSo() {
        BuilderShadow.permitted = false
        val service = started { VpnConfiguration(Configs.redirected(9)) }
        eventually { service.stopped.isNotEmpty() }
        assertTrue(service.stopped.single() is VMessException.NotPermitted)
        assertTrue(shadowOf(service).isStoppedBySelf)
    }

    @Test
    fun underLockdownItTriesAgain() {
        VpnShadow.lockdown = true
        BuilderShadow.permitted = false
        val service = started { VpnConfiguration(Configs.redirected(9)) }
        eventually { service.session.state.value is State.Degraded }
        assertFalse(shadowOf(service).isStoppedBySelf)
        BuilderShadow.permitted = true
        service.awaits(State.Connected)
    }

    @Test
    fun aSocketThatIsNotProtectedIsAnError() {
        VpnShadow.protects = false
        val service = started { VpnConfiguration(Configs.vmess(closedPort(), tun = true)) }
        service.awaits(State.Connecting)
        val error = runBlocking { runCatching { service.session.tunnel!!.check() }.exceptionOrNull() }
        assertTrue("$error", error is VMessException.ProtectFailed)
    }

    @Test
    fun theBestNetworkIsFollowed() {
        val service = started { VpnConfiguration(Configs.vmess(closedPort(), tun = true)) }
        service.awaits(State.Connecting)
        val manager = service.getSystemService(Context.CONNECTIVITY_SERVICE) as ConnectivityManager
        val callback = shadowOf(manager).networkCallbacks.single()
        val network = manager.activeNetwork!!
        val link = LinkProperties()
        link.interfaceName = "lo"
        link.setLinkAddresses(listOf(Shadow.newInstance(LinkAddress::class.java, arrayOf(InetAddress::class.java, Int::class.java), arrayOf(InetAddress.getByName("192.0.2.7"), 24))))
        val taken = CompletableDeferred<String>()
        val listener = CoroutineScope(Dispatchers.Default).launch(start = CoroutineStart.UNDISPATCHED) {
            service.session.events.filterIsInstance<Event.NetworkChanged>().collect {
                taken.complete(it.network.addresses.single())
            }
        }
        callback.onAvailable(network)
        callback.onCapabilitiesChanged(network, NetworkCapabilities().also(::good))
        callback.onLinkPropertiesChanged(network, link)
        assertEquals(listOf(network), shadow(service).underlying.last())
        assertEquals("192.0.2.7", runBlocking { withTimeout(20.seconds) { taken.await() } })
        listener.cancel()
        callback.onLost(network)
        assertEquals(emptyList<Any>(), shadow(service).underlying.last())
        service.awaits(State.NoNetwork)
        service.onDestroy()
        assertTrue(shadowOf(manager).networkCallbacks.isEmpty())
    }

    @Test
    fun dozeAndMemoryAreTold() {
        val service = started {
            VpnConfiguration(Configs.redirected(9), TunnelOptions(log = LogLevel.DEBUG))
        }
        service.awaits(State.Connected)
        val power = service.getSystemService(Context.POWER_SERVICE) as PowerManager
        for ((idle, told) in listOf(true to "goes to sleep", false to "awake")) {
            shadowOf(power).setIsDeviceIdleMode(idle)
            service.sendBroadcast(Intent(PowerManager.ACTION_DEVICE_IDLE_MODE_CHANGED))
            eventually { service.session.logs.lines.value.any { told in it.text } }
        }
        for (level in listOf(5, 10, 15, 20, 40, 60, 80)) service.onTrimMemory(level)
        assertEquals(State.Connected, service.session.state.value)
    }

    @Test
    @Config(sdk = [28])
    fun anOlderAndroidAsksForTheBestNetwork() {
        val service = started { VpnConfiguration(Configs.vmess(closedPort(), tun = true)) }
        service.awaits(State.Connecting)
        val manager = service.getSystemService(Context.CONNECTIVITY_SERVICE) as ConnectivityManager
        val callback = shadowOf(manager).networkCallbacks.single()
        val network = manager.activeNetwork!!
        callback.onAvailable(network)
        assertEquals(listOf(network), shadow(service).underlying.last())
        service.onDestroy()
        assertTrue(shadowOf(manager).networkCallbacks.isEmpty())
    }

    /**
     * The bindings' handle map holds the platform where no collector looks, and the platform the session; the service is
     * behind that weakly. It goes while its tunnel runs, after a stop, and after its end.
     */
    @Test
    fun aServiceThatIsLetGoIsCollected() {
        val ends = mapOf<String, (TestVpnService) -> Unit>(
            "runs" to { },
            "stopped" to { it.session.stop() },
            "destroyed" to { it.onDestroy() },
        )
        for ((name, end) in ends) {
            val (service, session) = letGo(end, awaitsTheEnd = name != "runs")
            assertTrue("somebody holds a service that $name", isCollected(service))
            if (name == "runs") assertEquals("its tunnel runs on", State.Connected, session.state.value)
            session.stop()
            eventually { session.state.value is State.Stopped }
        }
    }

    /** The counter-check of the test above: one strong reference is seen. */
    @Test
    fun aServiceThatIsHeldIsNot() {
        val (service, _) = letGo({ it.onDestroy() }, awaitsTheEnd = true)
        val held = service.get()
        assertFalse(isCollected(service, tries = 5))
        assertNotNull(held)
    }

    /** A service that was connected, and that nothing of the tests holds any more. */
    private fun letGo(
        end: (TestVpnService) -> Unit,
        awaitsTheEnd: Boolean,
    ): Pair<WeakReference<TestVpnService>, VpnSession> {
        TestVpnService.asked = { VpnConfiguration(Configs.redirected(9)) }
        val service = Robolectric.buildService(TestVpnService::class.java).create().get()
        service.onStartCommand(Intent(), 0, 1)
        service.awaits(State.Connected)
        end(service)
        if (awaitsTheEnd) eventually { service.session.state.value is State.Stopped }
        shadowOf(Looper.getMainLooper()).idle()
        // A builder is an inner class of the service's.
        BuilderShadow.made.clear()
        return WeakReference(service) to service.session
    }

    private fun isCollected(reference: WeakReference<*>, tries: Int = 100): Boolean = (0 until tries).any {
        System.gc()
        System.runFinalization()
        Thread.sleep(20)
        reference.get() == null
    }

    @Test
    @Config(sdk = [28])
    fun anOlderAndroidCutsRoutesOut() {
        val service = started { VpnConfiguration(Configs.redirected(9), bypassLan = true) }
        service.awaits(State.Connected)
        val device = BuilderShadow.made.single()
        assertTrue(device.excluded.isEmpty())
        assertFalse("0.0.0.0/0" in device.routes)
        assertTrue("172.19.0.2/32" in device.routes)
    }

    @Test
    fun aControllerSeesTheSession() {
        val controller = controller { VpnConfiguration(Configs.redirected(9)) }
        val service = controller.get()
        val application = RuntimeEnvironment.getApplication()
        val name = ComponentName(application, TestVpnService::class.java)
        shadowOf(application).setComponentNameAndServiceForBindService(name, service.onBind(Intent()))
        ShadowVpnService.setPrepareResult(null)
        VpnController(application, TestVpnService::class.java).use { hold ->
            shadowOf(Looper.getMainLooper()).idle()
            assertNull("the permission is there", hold.prepare())
            hold.start()
            assertEquals(name, shadowOf(application).nextStartedService.component)
            service.onStartCommand(Intent(), 0, 1)
            service.awaits(State.Connected)
            assertEquals(State.Connected, hold.session.value!!.state.value)
            hold.stop()
            eventually { service.stopped.isNotEmpty() }
        }
    }

    private fun good(capabilities: NetworkCapabilities) {
        shadowOf(capabilities).addCapability(NetworkCapabilities.NET_CAPABILITY_INTERNET)
        shadowOf(capabilities).addCapability(NetworkCapabilities.NET_CAPABILITY_NOT_VPN)
        shadowOf(capabilities).addCapability(NetworkCapabilities.NET_CAPABILITY_VALIDATED)
    }

    private fun controller(asked: suspend () -> VpnConfiguration): ServiceController<TestVpnService> {
        TestVpnService.asked = asked
        return Robolectric.buildService(TestVpnService::class.java).create().also { controllers += it }
    }

    private fun started(asked: suspend () -> VpnConfiguration): TestVpnService =
        controller(asked).get().also { it.onStartCommand(Intent(), 0, 1) }

    private fun TestVpnService.awaits(state: State) {
        val reached = runBlocking { withTimeout(20.seconds) { session.state.first { it == state || it is State.Stopped } } }
        assertEquals(state, reached)
        shadowOf(Looper.getMainLooper()).idle()
    }

    private fun shadow(service: TestVpnService): VpnShadow = Shadow.extract(service)

    /** Waits for what comes by way of other threads and of the main one. */
    private fun eventually(condition: () -> Boolean): Unit = runBlocking {
        withTimeout(20.seconds) {
            while (!condition()) {
                shadowOf(Looper.getMainLooper()).idle()
                delay(10)
            }
        }
    }
}
