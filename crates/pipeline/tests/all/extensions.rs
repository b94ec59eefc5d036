//! Extensions: which start, in which order, and what `health_check` says.

use crate::support::peer::{Answer, Peer};
use crate::support::{one_pipeline, run, service, wait_for};
use pipeline::telemetry::Metrics;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn with_health_check(settings: &str, exporter: &str, exporter_id: &str) -> String {
    let yaml = one_pipeline("{}", "", exporter, exporter_id);
    let service = "service:\n  extensions: [health_check]\n  shutdown_timeout: 500ms\n";
    format!(
        "extensions: {{health_check: {settings}, health_check/unused: {{endpoint: 'localhost:1'}}}}\n{}",
        yaml.replace("service:\n", service)
    )
}

async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

fn head_and_body(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap(), body)
}

#[tokio::test]
async fn health_is_good_while_the_pipelines_run_and_bad_while_they_stop() {
    let peer = Peer::http(vec![Answer {
        delay: Duration::from_mins(1),
        ..Answer::default()
    }])
    .await;
    let port = free_port();
    let exporter = format!(
        "{{endpoint: 'http://127.0.0.1:{}', sending_queue: {{batch: null}}}}",
        peer.port
    );
    let settings = format!("{{endpoint: '127.0.0.1:{port}'}}");
    let yaml = with_health_check(&settings, &exporter, "otlp_http");
    let stopping = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&stopping);
    run(&yaml, |_| async {
        wait_for(|| peer.seen().len() == 1).await;
        let answer = get(port, "/").await.unwrap();
        let (head, body) = head_and_body(&answer);
        assert_eq!(head, "HTTP/1.1 200 OK");
        assert!(
            body.starts_with(r#"{"status":"Server available","uptime_seconds":"#),
            "{body}"
        );
        // The request that is stuck holds up the stop for half a second.
        tokio::spawn(async move {
            while let Some(answer) = get(port, "/").await {
                if answer.starts_with("HTTP/1.1 503 ") {
                    *seen.lock().unwrap() = Some(answer);
                    return;
                }
            }
        });
    })
    .await;
    let answer = stopping.lock().unwrap().take().unwrap();
    assert_eq!(
        head_and_body(&answer).1,
        r#"{"status":"Server not available"}"#
    );
    assert!(get(port, "/").await.is_none(), "still listening");
}

#[tokio::test]
async fn path_and_bodies_of_the_health_check_can_be_chosen() {
    let port = free_port();
    let settings = format!(
        "{{endpoint: '127.0.0.1:{port}', path: /up, response_body: {{healthy: fine, unhealthy: bad}}}}"
    );
    let yaml = with_health_check(&settings, "{path: /dev/null}", "file");
    run(&yaml, |_| async move {
        for (path, head, body) in [
            ("/up", "HTTP/1.1 200 OK", "fine"),
            (
                "/",
                "HTTP/1.1 404 Not Found",
                "there is nothing at this path\n",
            ),
        ] {
            wait_for_answer(port).await;
            let answer = get(port, path).await.unwrap();
            assert_eq!(head_and_body(&answer), (head, body));
        }
    })
    .await;
}

async fn wait_for_answer(port: u16) {
    while !get(port, "/up").await.unwrap().contains(" 200 ") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_extension_that_cannot_start_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let settings = format!("{{endpoint: '127.0.0.1:{port}'}}");
    let yaml = with_health_check(&settings, "{path: /dev/null}", "file");
    let error = service(&yaml, &Metrics::default())
        .run(std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot start extension health_check");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")),
        "{source}"
    );
}
