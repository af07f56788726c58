use super::options::{self, Side};
use super::runtime::OnShard;
use super::server::QuicServer;
use super::socket::QuicSocket;
use super::*;
use crate::addr::Host;
use crate::config::Quic;
use crate::engine::Shard;
use crate::transport::Carrier;
use crate::transport::accept::UdpClients;
use crate::transport::dial::DialError;
use crate::transport::protect::Wishes;
use crate::transport::testing::shard;
use crate::transport::tls::{TlsClient, TlsServer};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

type Ours = Box<dyn Carrier>;

fn client(settings: &Quic) -> QuicClient {
    let host = Host::Ip([127, 0, 0, 1].into());
    let tls = TlsClient::new(&unverified(), &host, ALPN).expect("TLS");
    QuicClient::new(settings, Rc::new(tls)).expect("it is there")
}

async fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

async fn open(client: &QuicClient, shard: &Rc<Shard>, server: SocketAddr) -> Result<Ours, DialError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    client.open(shard, &Wishes::default(), deadline, &async || Ok(vec![server])).await
}

async fn write(carrier: &mut Ours, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let n = poll_fn(|cx| carrier.poll_write(cx, &[IoSlice::new(data)])).await?;
        data = &data[n..];
    }
    Ok(())
}

/// Reads until `len` bytes are there, or the end.
async fn read(carrier: &mut Ours, len: usize) -> io::Result<Vec<u8>> {
    let (mut got, mut out) = (Vec::new(), [0; 5000]);
    while got.len() < len {
        let room = out.len().min(len - got.len());
        let n = poll_fn(|cx| {
            ready!(carrier.poll_read_ready(cx))?;
            carrier.poll_read(cx, &mut out[..room])
        });
        match n.await? {
            0 => break,
            n => got.extend_from_slice(&out[..n]),
        }
    }
    Ok(got)
}

/// A stream from one end to the other.
async fn pair(settings: &Quic) -> (Ours, Ours, QuicClient, Box<dyn UdpClients>, Rc<Shard>) {
    let (shard, (socket, address)) = (shard(), socket().await);
    let server = QuicServer::new(settings, None).expect("a server");
    let mut clients = server.listen(&shard, socket).expect("it listens");
    let client = client(settings);
    let mut ours = open(&client, &shard, address).await.expect("connected");
    write(&mut ours, b"hello").await.expect("written");
    let (mut theirs, _) = poll_fn(|cx| clients.poll_next(cx)).await;
    assert_eq!(read(&mut theirs, 5).await.expect("read"), b"hello");
    (ours, theirs, client, clients, shard)
}

#[tokio::test]
async fn bytes_pass_both_ways_to_a_proper_end() {
    let test = async {
        for settings in disguise::tests::all() {
            let (mut ours, mut theirs, _client, _clients, _shard) = pair(&settings).await;
            let data: Vec<u8> = (0..400_000_u32).map(|i| (i * 7 + (i >> 8)) as u8).collect();
            let there = async {
                assert!(read(&mut theirs, usize::MAX).await.expect("a proper end") == data, "{settings:?}");
                write(&mut theirs, &data).await.expect("written");
                poll_fn(|cx| theirs.poll_close(cx)).await.expect("ended");
                // What was written leaves after its stream has been let go.
                drop(theirs);
            };
            let here = async {
                write(&mut ours, &data).await.expect("written");
                poll_fn(|cx| ours.poll_close(cx)).await.expect("ended");
                assert!(read(&mut ours, usize::MAX).await.expect("a proper end") == data, "{settings:?}");
            };
            tokio::join!(here, there);
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn an_abort_is_a_reset_and_a_lost_connection_is_no_end() {
    let test = async {
        let (mut ours, mut theirs, _client, _clients, _shard) = pair(&Quic::default()).await;
        ours.abort();
        drop(ours);
        timeout(Duration::from_secs(5), theirs.reset()).await.expect("it is told");
        let error = read(&mut theirs, 1).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(write(&mut theirs, &[0; 9]).await.is_err(), "nobody reads");

        let (mut ours, theirs, _client, clients, _shard) = pair(&Quic::default()).await;
        drop(clients);
        timeout(Duration::from_secs(5), ours.closed()).await.expect("it is told");
        assert_eq!(read(&mut ours, 1).await.expect_err("lost").kind(), io::ErrorKind::ConnectionReset);
        drop(theirs);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn servers_of_the_drafts_are_understood() {
    let test = async {
        for version in [0xFF00_001D, 0xFF00_0020] {
            let (shard, (socket, address)) = (shard(), socket().await);
            let settings = Quic::default();
            let tls = TlsServer::new(&certificate::tls().expect("randomness"), ALPN).expect("TLS");
            let crypto = QuicServerConfig::try_from(tls.config()).expect("QUIC");
            let mut config = ServerConfig::with_crypto(Arc::new(crypto));
            config.transport_config(options::transport(&shard.pool, 0, Side::Server));
            let mut versions = options::endpoint();
            versions.supported_versions(vec![version]);
            let disguise = disguise::Disguise::new(&settings);
            let under = QuicSocket::new(socket, disguise).expect("a socket");
            let endpoint =
                Endpoint::new_with_abstract_socket(versions, Some(config), under, Arc::new(OnShard))
                    .expect("an endpoint");
            let there = async {
                let connection = endpoint.accept().await.expect("open").await.expect("a handshake");
                let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
                let mut got = [0; 5];
                recv.read_exact(&mut got).await.expect("read");
                send.write_all(&got).await.expect("written");
                connection.closed().await;
            };
            let here = async {
                let client = client(&settings);
                let mut ours = open(&client, &shard, address).await.expect("connected");
                write(&mut ours, b"hello").await.expect("written");
                assert_eq!(read(&mut ours, 5).await.expect("read"), b"hello");
                drop((ours, client));
            };
            tokio::join!(here, there);
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_connection_ends_when_nobody_wants_it_and_not_before() {
    let test = async {
        let (mut ours, mut theirs, client, _clients, shard) = pair(&Quic::default()).await;
        client.network_changed();
        // What is open lives on, on a connection that takes no more.
        write(&mut ours, b"still").await.expect("written");
        assert_eq!(read(&mut theirs, 5).await.expect("read"), b"still");
        write(&mut ours, &[7; 100_000]).await.expect("written");
        poll_fn(|cx| ours.poll_close(cx)).await.expect("ended");
        drop(ours);
        assert_eq!(read(&mut theirs, usize::MAX).await.expect("a proper end").len(), 100_000);
        let error = timeout(Duration::from_secs(5), theirs.reset()).await;
        assert!(error.is_ok(), "the connection ends behind its last stream");
        drop((client, shard));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn runs_of_datagrams_are_opened_where_they_lie() {
    use crate::config::{PacketHeader, QuicSecurity, Secret};
    use crate::entropy::SeededEntropy;
    use quinn::udp::RecvMeta;
    let settings = Quic {
        security: QuicSecurity::Aes128Gcm,
        key: Secret::new("open sesame"),
        header: PacketHeader::Dtls,
    };
    let disguise = disguise::Disguise::new(&settings);
    let (mut entropy, mut run) = (SeededEntropy::new(9), Vec::new());
    let mut writer = disguise.writer(&mut entropy);
    for datagram in [[1; 100].as_slice(), &[2; 100], &[3; 100], &[4; 60]] {
        disguise.seal(datagram, &mut writer, &mut entropy, &mut run);
    }
    // One of them is none of ours.
    let stride = 100 + disguise.overhead();
    run[stride + 50] ^= 1;
    let socket = QuicSocket::new(socket().await.0, disguise).expect("a socket");
    let mut meta = RecvMeta { len: run.len(), stride, ..RecvMeta::default() };
    socket.open(&mut run, &mut meta);
    assert_eq!((meta.len, meta.stride), (260, 100));
    assert_eq!(run[..260], [[1; 100].as_slice(), &[3; 100], &[4; 60]].concat());
    let mut meta = RecvMeta { len: 90, stride: 90, ..RecvMeta::default() };
    socket.open(&mut run[..90], &mut meta);
    assert_eq!((meta.len, meta.stride), (0, 0), "nothing is left");
}

#[tokio::test]
async fn certificates_whose_judgement_may_block_are_judged_before_the_first_stream() {
    use crate::config::{Certificate, CertificateUsage, PemSource, Tls};
    use crate::error::ErrorKind;
    let test = async {
        let (shard, (socket, address)) = (shard(), socket().await);
        let settings = Quic::default();
        let identity = certificate::tls().expect("randomness");
        let server = QuicServer::new(&settings, Some(&identity)).expect("a server");
        let mut clients = server.listen(&shard, socket).expect("it listens");
        // The certificate is its own issuer.
        let trusting = |identity: &Tls| Tls {
            server_name: Some(INTERNAL_NAME.to_owned()),
            disable_system_root: true,
            certificates: vec![Certificate {
                usage: CertificateUsage::Verify,
                chain: identity.certificates[0].chain.clone(),
                key: PemSource::Absent,
            }],
            ..Tls::default()
        };
        let client = |tls: &Tls| {
            let mut tls = TlsClient::new(tls, &Host::Ip([127, 0, 0, 1].into()), ALPN).expect("TLS");
            tls.block();
            QuicClient::new(&settings, Rc::new(tls)).expect("it is there")
        };
        let mut good = open(&client(&trusting(&identity)), &shard, address).await.expect("trusted");
        write(&mut good, b"hello").await.expect("written");
        poll_fn(|cx| clients.poll_next(cx)).await;
        let another = certificate::tls().expect("randomness");
        let error = open(&client(&trusting(&another)), &shard, address).await.err().expect("no trust");
        assert_eq!(error.error.kind, ErrorKind::TlsFailed);
        let stream = timeout(Duration::from_millis(200), poll_fn(|cx| clients.poll_next(cx))).await;
        assert!(stream.is_err(), "it is told nothing");
    };
    LocalSet::new().run_until(test).await;
}
