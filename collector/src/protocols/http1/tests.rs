//! What a user relies on in HTTP/1 spans.

use super::Http1;
use super::head::MAX_HEAD;
use crate::protocols::tests::replay::{Replay, Seen, fixture, play, shown, story};
use crate::protocols::{Audience, Detection, Flow, Loss, MessageKind, Protocol};
use std::collections::BTreeMap;

fn recorded(name: &str) -> Vec<Seen> {
    let mut replay = Replay::new(&Http1);
    fixture(&Http1, name)
        .reads
        .iter()
        .for_each(|read| replay.feed(read.flow, &read.bytes));
    replay.finish()
}

fn request(head: &str) -> Seen {
    let text = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
    play(&Http1, &[('>', text.as_bytes())]).remove(0)
}

fn sides(head: &str) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let message = request(head).message;
    (
        shown(&message, Audience::Client),
        shown(&message, Audience::Server),
    )
}

fn check_story(reads: &[(char, &[u8])], expected: &[&str]) {
    assert_eq!(story(&play(&Http1, reads)), expected);
}

#[test]
fn an_exchange_gives_the_attributes_of_both_sides() {
    let seen = recorded("one_exchange");
    let [request, response] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    let client = shown(&request.message, Audience::Client);
    let address = client["url.full"]
        .strip_prefix("http://127.0.0.1:")
        .unwrap();
    let (port, rest) = address.split_once('/').unwrap();
    assert_eq!(rest, "hello.txt?q=1&sig=REDACTED");
    assert_eq!(client["server.address"], "127.0.0.1");
    assert_eq!(client["server.port"], port);
    assert_eq!(client["http.request.method"], "GET");
    assert_eq!(client["network.protocol.version"], "1.1");
    assert_eq!(client.len(), 5, "{client:?}");
    let server = shown(&request.message, Audience::Server);
    let expected = [
        ("http.request.method", "GET"),
        ("network.protocol.version", "1.1"),
        ("server.address", "127.0.0.1"),
        ("server.port", port),
        ("url.path", "/hello.txt"),
        ("url.query", "q=1&sig=REDACTED"),
        ("url.scheme", "http"),
        ("user_agent.original", "curl/7.88.1"),
    ];
    let shown_server: Vec<(&str, &str)> = server
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    assert_eq!(shown_server, expected);
    assert_eq!(
        shown(&response.message, Audience::Both)["http.response.status_code"],
        "200"
    );
    assert_eq!(response.answers, Some(0));
    let context = request.message.context.unwrap();
    assert_eq!(
        context.trace_id.to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert_eq!(request.message.tokens.len(), 1, "the request id");
}

#[test]
fn pipelined_requests_find_their_responses_in_order() {
    let seen = recorded("pipelined");
    let responses: Vec<&Seen> = seen
        .iter()
        .filter(|seen| seen.flow == Flow::Response)
        .collect();
    let statuses: Vec<String> = responses
        .iter()
        .map(|seen| shown(&seen.message, Audience::Client)["http.response.status_code"].clone())
        .collect();
    assert_eq!(statuses, ["200", "200", "206", "304", "200"]);
    let answers: Vec<Option<usize>> = responses.iter().map(|seen| seen.answers).collect();
    assert_eq!(answers, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(seen[1].message.operation, "HEAD");
    assert!(
        seen[4].message.last && !seen[3].message.last,
        "Connection: close"
    );
}

#[test]
fn a_client_error_is_an_error_on_the_client_side_only() {
    let seen = recorded("error_reply");
    assert_eq!(
        story(&seen),
        [
            "request GET",
            "response 404 404",
            "request POST",
            "response 405 405",
            "request HTTP",
            "response 405 405",
        ]
    );
    assert!(seen.iter().all(|seen| seen.message.server_error.is_none()));
    let failed = recorded("server_error");
    assert_eq!(failed[1].message.client_error.as_deref(), Some("503"));
    assert_eq!(failed[1].message.server_error.as_deref(), Some("503"));
}

#[test]
fn an_unknown_method_is_other_and_keeps_its_name_aside() {
    let (client, _) = sides("brew /pot HTTP/1.1\nHost: a");
    assert_eq!(client["http.request.method"], "_OTHER");
    assert_eq!(client["http.request.method_original"], "brew");
    let lower = request("get / HTTP/1.1\nHost: a").message;
    assert_eq!((&*lower.span_name, &*lower.operation), ("HTTP", "get"));
    let (client, _) = sides("QUERY /pot HTTP/1.1\nHost: a");
    assert_eq!(client["http.request.method"], "QUERY");
    assert!(!client.contains_key("http.request.method_original"));
}

#[test]
fn chunks_are_stepped_over_whatever_they_say() {
    let seen = recorded("chunked");
    assert_eq!(
        story(&seen),
        ["request GET", "response 200", "request GET", "response 200"]
    );
    assert_eq!(
        seen[1].end,
        Some(seen[3].start),
        "the trailer belongs to the first answer"
    );
}

#[test]
fn an_interim_answer_ends_nothing() {
    let seen = recorded("expect_continue");
    assert_eq!(
        story(&seen),
        [
            "request POST",
            "interim 100",
            "response 201",
            "request GET",
            "response 200"
        ]
    );
    assert_eq!(seen[2].answers, Some(0));
}

#[test]
fn a_body_without_a_length_lasts_until_the_connection_closes() {
    let seen = recorded("until_close");
    assert_eq!(story(&seen), ["request GET", "response 200"]);
    check_story(
        &[
            ('>', b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ('<', b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        ],
        &["request GET", "response 200 cut"],
    );
    let cut = play(
        &Http1,
        &[(
            '>',
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        )],
    );
    assert_eq!(story(&cut), ["request POST cut"]);
}

#[test]
fn after_an_upgrade_or_a_tunnel_nothing_is_read() {
    for name in ["upgrade", "connect"] {
        let mut replay = Replay::new(&Http1);
        fixture(&Http1, name)
            .reads
            .iter()
            .for_each(|read| replay.feed(read.flow, &read.bytes));
        replay.feed(Flow::Request, b"GET / HTTP/1.1\r\n\r\n");
        assert!(replay.stopped, "{name}");
        assert_eq!(replay.losses, [], "{name}");
        assert_eq!(replay.finish().len(), 2, "{name}");
    }
    let seen = recorded("upgrade");
    assert_eq!(
        seen[1].message.kind,
        MessageKind::Response,
        "101 answers the request"
    );
}

#[test]
fn a_refused_tunnel_goes_on_as_http() {
    let head =
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno".as_slice();
    check_story(
        &[
            ('>', b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
            ('<', head),
            ('>', b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ('<', b"HTTP/1.1 204 No Content\r\n\r\n"),
        ],
        &[
            "request CONNECT",
            "response 407 407",
            "request GET",
            "response 204",
        ],
    );
}

#[test]
fn answers_without_a_body_are_followed_by_the_next_at_once() {
    let head = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
    let answers = [
        head("200 OK"),
        head("304 Not Modified"),
        "HTTP/1.1 204 No\r\n\r\n".into(),
        head("200 OK") + "hello",
    ];
    let requests = b"HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let seen = play(
        &Http1,
        &[('>', requests), ('<', answers.concat().as_bytes())],
    );
    assert_eq!(
        story(&seen)[4..],
        [
            "response 200",
            "response 304",
            "response 204",
            "response 200"
        ]
    );
}

#[test]
fn an_answer_to_an_unseen_head_does_not_swallow_the_next() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n".as_slice();
    let next = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".as_slice();
    check_story(
        &[('<', head), ('<', next)],
        &["response 200", "response 404 404"],
    );
}

#[test]
fn the_end_of_a_body_is_told_before_its_bytes_are_captured() {
    let mut replay = Replay::new(&Http1);
    replay.feed(Flow::Request, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    replay.feed(
        Flow::Response,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    );
    replay.gap(Flow::Response, 100_000);
    replay.feed(Flow::Request, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    replay.feed(
        Flow::Response,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(replay.losses, []);
    assert_eq!(
        story(&replay.finish()),
        ["request GET", "response 200", "request GET", "response 200"]
    );
}

#[test]
fn lengths_that_disagree_leave_the_message_and_lose_no_later_one() {
    let same =
        b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3, 3\r\n\r\nabc".as_slice();
    let next = b"GET /b HTTP/1.1\r\nHost: b\r\n\r\n".as_slice();
    check_story(
        &[('>', same), ('>', next)],
        &["request POST", "request GET"],
    );
    for broken in [
        "3\r\nContent-Length: 4",
        "-3",
        "+3",
        "3x",
        "99999999999999999999999",
    ] {
        let head = format!("POST /a HTTP/1.1\r\nContent-Length: {broken}\r\n\r\nabc");
        check_story(
            &[('>', head.as_bytes()), ('>', next)],
            &["request POST", "request GET"],
        );
    }
}

#[test]
fn chunked_wins_over_a_length() {
    let head = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\ntransfer-encoding: gzip, Chunked\r\n\r\n"
        .as_slice();
    let body = b"A\r\n0123456789\r\n0\r\n\r\n".as_slice();
    let next = b"GET /b HTTP/1.1\r\n\r\n".as_slice();
    check_story(
        &[('>', head), ('>', body), ('>', next)],
        &["request POST", "request GET"],
    );
}

#[test]
fn bare_line_feeds_and_folded_headers_are_understood() {
    let seen = recorded("bare_lf");
    assert_eq!(
        story(&seen),
        ["request GET", "response 400 400"],
        "nginx refuses the fold"
    );
    let head = "GET / HTTP/1.1\nHost: a\nUser-Agent: one\n\ttwo\n\n";
    let message = play(&Http1, &[('>', head.as_bytes())]).remove(0).message;
    assert_eq!(
        shown(&message, Audience::Server)["user_agent.original"],
        "one two"
    );
    let blank_first = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    check_story(&[('>', blank_first)], &["request GET"]);
}

#[test]
fn a_huge_head_is_read_and_one_past_the_limit_is_given_up() {
    let head = |size: usize| {
        let line = "GET / HTTP/1.1\r\nX: ";
        format!("{line}{}\r\n\r\n", "x".repeat(size - line.len() - 4)).into_bytes()
    };
    let mut replay = Replay::new(&Http1);
    head(MAX_HEAD)
        .chunks(7)
        .for_each(|piece| replay.feed(Flow::Request, piece));
    assert_eq!(replay.losses, []);
    head(MAX_HEAD + 1)
        .chunks(7)
        .for_each(|piece| replay.feed(Flow::Request, piece));
    assert_eq!(replay.losses.first(), Some(&Loss::TooLong));
    replay.feed(Flow::Request, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(story(&replay.finish()), ["request GET", "request GET"]);
}

#[test]
fn a_capture_that_starts_in_mid_stream_finds_its_feet() {
    let seen = recorded("mid_stream");
    let last = story(&seen[seen.len() - 4..]);
    assert_eq!(
        last,
        [
            "request HEAD",
            "response 200",
            "request GET",
            "response 404 404"
        ]
    );
}

#[test]
fn a_request_is_found_right_behind_a_body_without_a_line_end() {
    let mut replay = Replay::new(&Http1);
    replay.gap(Flow::Request, 100);
    replay.feed(
        Flow::Request,
        b"rest of a body}POST /x HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(story(replay.seen()), ["request POST"]);
    assert!(replay.losses.iter().all(|loss| *loss == Loss::MidStream));
    assert_eq!(replay.seen()[0].start, 115);
}

#[test]
fn urls_are_built_from_every_form_of_target() {
    for (head, full, path, address, port) in [
        (
            "GET /a?b=c HTTP/1.1\nHost: h",
            "http://h/a?b=c",
            Some("/a"),
            "h",
            None,
        ),
        (
            "GET / HTTP/1.1\nHost: h:8080",
            "http://h:8080/",
            Some("/"),
            "h",
            Some("8080"),
        ),
        (
            "GET / HTTP/1.1\nHost: [::1]:81",
            "http://[::1]:81/",
            Some("/"),
            "::1",
            Some("81"),
        ),
        (
            "GET http://o/x HTTP/1.1\nHost: h",
            "http://o/x",
            Some("/x"),
            "o",
            Some("80"),
        ),
        (
            "GET https://o HTTP/1.1\nHost: h",
            "https://o",
            Some("/"),
            "o",
            Some("443"),
        ),
        (
            "OPTIONS * HTTP/1.1\nHost: h",
            "http://h",
            Some("*"),
            "h",
            None,
        ),
        (
            "CONNECT o:443 HTTP/1.1\nHost: h",
            "http://o:443",
            None,
            "o",
            Some("443"),
        ),
    ] {
        let (client, server) = sides(head);
        assert_eq!(client["url.full"], full, "{head}");
        assert_eq!(server.get("url.path").map(String::as_str), path, "{head}");
        assert_eq!(client["server.address"], address, "{head}");
        assert_eq!(server["server.address"], address, "{head}");
        assert_eq!(
            client.get("server.port").map(String::as_str),
            port,
            "{head}"
        );
    }
}

#[test]
fn without_a_host_the_client_side_tells_no_url() {
    let (client, server) = sides("GET /a HTTP/1.0");
    assert!(!client.contains_key("url.full") && !client.contains_key("server.address"));
    assert_eq!(
        (&*server["url.path"], &*client["network.protocol.version"]),
        ("/a", "1.0")
    );
    let (client, _) = sides("GET /a HTTP/1.1\nHost: not a host");
    assert!(!client.contains_key("url.full"), "{client:?}");
}

#[test]
fn no_secret_leaves() {
    let head = "GET http://user:hunter2@h/p?X-Amz-Signature=hunter2&X-Amz-Credential=hunter2\
        &X-Amz-Security-Token=hunter2&AWSAccessKeyId=hunter2&Signature=hunter2&sig=hunter2\
        &X-Goog-Signature=hunter2&si%67=hunter2&q=shown HTTP/1.1\n\
        Host: root:hunter2@h\nAuthorization: Basic hunter2\nCookie: id=hunter2\n\
        Proxy-Authorization: hunter2\nX-Api-Key: hunter2\nReferer: http://u:hunter2@h/\n\
        X-Forwarded-Host: u:hunter2@front\nX-Request-Id: hunter2hunter2";
    let message = request(head).message;
    let text = format!("{message:?}");
    assert!(!text.contains("hunter2"), "{text}");
    let client = shown(&message, Audience::Client);
    assert!(
        client["url.full"].starts_with("http://REDACTED:REDACTED@h/p?X-Amz-Signature=REDACTED&")
    );
    assert!(client["url.full"].ends_with("&q=shown"));
    assert_eq!(shown(&message, Audience::Server)["server.address"], "front");
}

#[test]
fn the_first_proxy_tells_the_client_and_the_host() {
    for (headers, client, host, scheme) in [
        (
            "X-Forwarded-For: 1.2.3.4, 5.6.7.8\nX-Forwarded-Host: front",
            Some("1.2.3.4"),
            "front",
            "http",
        ),
        ("X-Forwarded-Proto: https", None, "h", "https"),
        (
            "Forwarded: for=\"[2001:db8::1]:4711\";host=front;proto=https, for=9.9.9.9",
            Some("2001:db8::1"),
            "front",
            "https",
        ),
        (
            "Forwarded: For=1.2.3.4:80\nX-Forwarded-For: 9.9.9.9",
            Some("1.2.3.4"),
            "h",
            "http",
        ),
        (
            "Forwarded: for=unknown\nX-Forwarded-For: 2001:db8::2",
            Some("2001:db8::2"),
            "h",
            "http",
        ),
        ("Forwarded: for=_hidden", None, "h", "http"),
        ("X-Forwarded-For: <script>", None, "h", "http"),
    ] {
        let (own, server) = sides(&format!("GET / HTTP/1.1\nHost: h\n{headers}"));
        assert_eq!(
            server.get("client.address").map(String::as_str),
            client,
            "{headers}"
        );
        assert_eq!(server["server.address"], host, "{headers}");
        assert_eq!(server["url.scheme"], scheme, "{headers}");
        assert!(
            !own.contains_key("client.address") && own["server.address"] == "h",
            "{headers}"
        );
    }
}

#[test]
fn the_last_request_of_a_connection_is_known() {
    for (head, last) in [
        ("GET / HTTP/1.1\nHost: a", false),
        ("GET / HTTP/1.1\nHost: a\nconnection: Upgrade, Close", true),
        ("GET / HTTP/1.0", true),
        ("GET / HTTP/1.0\nConnection: Keep-Alive", false),
    ] {
        assert_eq!(request(head).message.last, last, "{head}");
    }
}

#[test]
fn a_very_long_url_is_cut() {
    let (client, server) = sides(&format!("GET /{} HTTP/1.1\nHost: h", "é".repeat(20_000)));
    assert!(client["url.full"].len() <= 8192 && server["url.path"].len() <= 8192);
}

#[test]
fn only_http_1_is_detected() {
    for (head, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], Detection::Yes(Flow::Request)),
        (b"PROPFIND /dav HTTP/1.1\r\n", Detection::Yes(Flow::Request)),
        (b"HTTP/1.1 200", Detection::NeedMore),
        (b"HTTP/1.1 200 ", Detection::Yes(Flow::Response)),
        (b"HTTP/1.0 404\r\n", Detection::Yes(Flow::Response)),
        (b"G", Detection::NeedMore),
        (b"GET / HTTP/1.1", Detection::NeedMore),
        (b"\r\n", Detection::NeedMore),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detection::No),
        (b"OPTIONS rtsp://h/s RTSP/1.0\r\n", Detection::No),
        (b"INVITE sip:bob@b SIP/2.0\r\n", Detection::No),
        (b"GET /\r\n", Detection::No),
        (b"get key\r\n", Detection::No),
        (b"HTTP/1.1 2x0 OK\r\n", Detection::No),
        (b"\x16\x03\x01", Detection::No),
        (b"*1\r\n$4\r\nPING\r\n", Detection::No),
    ] {
        assert_eq!(Http1.detect(head), expected, "{}", head.escape_ascii());
    }
}

#[test]
fn ids_of_the_target_become_tokens() {
    let tokens = |target: &str| {
        request(&format!("GET {target} HTTP/1.1\nHost: shop"))
            .message
            .tokens
    };
    assert_eq!(tokens("/users/8471?v=2"), tokens("/profiles/8471"));
    assert!(tokens("/users/me").is_empty());
}
