//! TLS between our exporters and our receiver, and what it must never do.

use crate::support::peer::Peer;
use crate::support::{count, free_port, lost, run_until, service, total};
use pipeline::telemetry::{Metrics, Sample};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};

/// A folder with an authority (`NAME.pem`) and what it has signed.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    /// Signs a certificate for a name, into `NAME.pem` and `NAME.key`.
    fn sign(&self, file: &str, name: &str) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// An exporter with these TLS settings that sends one span to a receiver with those.
struct Pair {
    exporter: &'static str,
    port: u16,
    client: String,
    server: String,
}

impl Pair {
    fn yaml(&self) -> String {
        let Self {
            exporter,
            port,
            client,
            server,
        } = self;
        let (protocol, scheme) = if *exporter == "otlp_grpc" {
            ("grpc", "")
        } else {
            ("http", "https://")
        };
        format!(
            "receivers:\n  feed: {{}}\n  otlp: {{protocols: {{{protocol}: \
             {{endpoint: 'localhost:{port}', tls: {{{server}}}}}}}}}\n\
             exporters:\n  debug: \n  {exporter}: {{endpoint: '{scheme}localhost:{port}', \
             tls: {{{client}}}, retry_on_failure: {RETRY}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             traces/out: {{receivers: [feed], exporters: [{exporter}]}}\n    \
             traces/in: {{receivers: [otlp], exporters: [debug]}}\n"
        )
    }

    /// True: the span arrived; false: it was given up.
    async fn arrives(&self) -> (bool, Vec<Sample>) {
        let summary = run_until(&self.yaml(), |samples| {
            accepted(samples) > 0 || lost(samples, "retries_exhausted") > 0
        })
        .await;
        (accepted(&summary.samples) > 0, summary.samples)
    }
}

const RETRY: &str = "{initial_interval: 20ms, max_interval: 50ms, max_elapsed_time: 300ms}";

/// Spans that came in over a network.
fn accepted(samples: &[Sample]) -> u64 {
    let receiver = [("receiver", "otlp")];
    count(samples, "otelcol_receiver_accepted_spans", &receiver)
}

/// Two authorities: one that the receiver's certificates are from, and one of nobody's.
struct World {
    ours: Authority,
    theirs: Authority,
}

impl World {
    fn new() -> Self {
        let (ours, theirs) = (Authority::new(), Authority::new());
        ours.sign("localhost", "localhost");
        ours.sign("other", "other.test");
        ours.sign("client", "client.test");
        theirs.sign("client", "client.test");
        Self { ours, theirs }
    }

    fn pair(authority: &Authority, file: &str) -> String {
        let cert = quoted(&authority.path(&format!("{file}.pem")));
        let key = quoted(&authority.path(&format!("{file}.key")));
        format!("cert_file: {cert}, key_file: {key}")
    }

    /// A server with the certificate in this file.
    fn server(&self, file: &str) -> String {
        Self::pair(&self.ours, file)
    }

    /// A server that wants a certificate of its clients.
    fn strict(&self) -> String {
        let ca = quoted(&self.ours.path("ca.pem"));
        format!("{}, client_ca_file: {ca}", self.server("localhost"))
    }

    /// A client that believes what our authority has signed.
    fn client(&self) -> String {
        format!("ca_file: {}", quoted(&self.ours.path("ca.pem")))
    }

    /// A client that also shows a certificate of this authority.
    fn known(&self, authority: &Authority) -> String {
        format!("{}, {}", self.client(), Self::pair(authority, "client"))
    }

    /// The client's settings, the server's, and whether a span gets through.
    fn cases(&self) -> Vec<(&'static str, String, String, bool)> {
        let with = |settings: String, more: &str| format!("{settings}, {more}");
        let (localhost, other) = (self.server("localhost"), self.server("other"));
        let stranger = format!("ca_file: {}", quoted(&self.theirs.path("ca.pem")));
        let override_name = with(self.client(), "server_name_override: other.test");
        let anybody = "insecure_skip_verify: true".to_owned();
        let old = with(self.client(), "max_version: '1.2'");
        let old_server = with(localhost.clone(), "max_version: '1.2'");
        let new_server = with(localhost.clone(), "min_version: '1.3'");
        let (ours, theirs) = (self.known(&self.ours), self.known(&self.theirs));
        vec![
            ("a known authority", self.client(), localhost.clone(), true),
            ("an unknown one", stranger, localhost.clone(), false),
            ("what the system knows", String::new(), localhost, false),
            ("anybody", anybody, other.clone(), true),
            ("another name", self.client(), other.clone(), false),
            ("the name that is set", override_name, other, true),
            ("a known client", ours, self.strict(), true),
            ("an unknown client", theirs, self.strict(), false),
            ("a nameless client", self.client(), self.strict(), false),
            ("1.2 only", old.clone(), old_server, true),
            ("1.2 against 1.3", old, new_server, false),
        ]
    }
}

#[tokio::test]
async fn each_side_believes_whom_its_settings_say() {
    for (name, client, server, expected) in World::new().cases() {
        for exporter in ["otlp_grpc", "otlp_http"] {
            let pair = Pair {
                exporter,
                port: free_port(),
                client: client.clone(),
                server: server.clone(),
            };
            let (arrives, samples) = pair.arrives().await;
            assert_eq!(arrives, expected, "{name}, {exporter}");
            if !expected {
                let closed = total(&samples, "deeptrace_receiver_closed_connections");
                assert!(closed > 0, "{name}, {exporter}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_of_plain_text_gets_nothing() {
    for exporter in ["otlp_grpc", "otlp_http"] {
        let peer = if exporter == "otlp_grpc" {
            Peer::grpc(Vec::new()).await
        } else {
            Peer::http(Vec::new()).await
        };
        let scheme = if exporter == "otlp_grpc" {
            ""
        } else {
            "https://"
        };
        let yaml = crate::support::one_pipeline(
            "{}",
            "",
            &format!(
                "{{endpoint: '{scheme}127.0.0.1:{}', tls: {{insecure_skip_verify: true}}, \
                 timeout: 1s, retry_on_failure: {RETRY}}}",
                peer.port
            ),
            exporter,
        );
        run_until(&yaml, |samples| lost(samples, "retries_exhausted") == 1).await;
        assert_eq!(peer.seen().len(), 0, "{exporter}");
    }
}

#[tokio::test]
async fn files_that_have_changed_are_read_again() {
    let (old, new) = (Authority::new(), Authority::new());
    old.sign("server", "localhost");
    new.sign("server", "localhost");
    let pair = |client: &Authority, interval: &str| Pair {
        exporter: "otlp_grpc",
        port: free_port(),
        client: format!("ca_file: {}", quoted(&client.path("ca.pem"))),
        server: format!(
            "cert_file: {}, key_file: {}, reload_interval: {interval}",
            quoted(&old.path("server.pem")),
            quoted(&old.path("server.key"))
        ),
    };
    for (interval, expected) in [("1ns", true), ("1h", false)] {
        let pair = pair(&new, interval);
        let metrics = Metrics::default();
        let yaml = pair.yaml();
        // Opened with the old files, which the client does not believe.
        let running = service(&yaml, &metrics).run(async {
            crate::support::client::wait_for_port(pair.port).await;
            for file in ["server.pem", "server.key"] {
                std::fs::copy(new.path(file), old.path(file)).unwrap();
            }
            crate::support::wait_for(|| {
                let samples = metrics.samples();
                accepted(&samples) > 0 || lost(&samples, "retries_exhausted") > 0
            })
            .await;
        });
        let samples = running.await.unwrap().samples;
        assert_eq!(accepted(&samples) > 0, expected, "{interval}");
        old.sign("server", "localhost");
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_and_are_named() {
    let ours = Authority::new();
    ours.sign("server", "localhost");
    let (cert, key) = (ours.path("server.pem"), ours.path("server.key"));
    let good = format!("cert_file: {}, key_file: {}", quoted(&cert), quoted(&key));
    let swapped = format!("cert_file: {}, key_file: {}", quoted(&key), quoted(&cert));
    let ca = format!("ca_file: {}", quoted(&ours.path("ca.pem")));
    for (client, server, component, expected) in [
        (
            "ca_file: /no/ca",
            good.as_str(),
            "exporter otlp_grpc",
            "tls::ca_file: cannot read /no/ca: ",
        ),
        (
            &ca,
            "cert_file: /no/c, key_file: /no/k",
            "receiver otlp",
            "protocols::grpc::tls::cert_file: cannot read /no/c",
        ),
        (&ca, &swapped, "receiver otlp", "has no certificate in PEM"),
        (
            "ca_pem: nonsense",
            &good,
            "exporter otlp_grpc",
            "tls::ca_pem: has no certificate in PEM",
        ),
    ] {
        let pair = Pair {
            exporter: "otlp_grpc",
            port: free_port(),
            client: client.to_owned(),
            server: server.to_owned(),
        };
        let error = service(&pair.yaml(), &Metrics::default());
        let error = error.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot start {component}"));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(expected), "{source}");
    }
}
