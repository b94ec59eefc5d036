//! What a user relies on in Redis spans.

use super::Redis;
use crate::protocols::tests::replay::{Replay, Seen, fixture, play, shown, story};
use crate::protocols::{Audience, Detection, Flow, Loss, MAX_UNREAD, Protocol, words};
use std::collections::BTreeMap;

fn recorded(name: &str) -> Vec<Seen> {
    let mut replay = Replay::new(&Redis);
    fixture(&Redis, name)
        .reads
        .iter()
        .for_each(|read| replay.feed(read.flow, &read.bytes));
    replay.finish()
}

fn command(words: &[&str]) -> Vec<u8> {
    let words: Vec<String> = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()))
        .collect();
    format!("*{}\r\n{}", words.len(), words.concat()).into_bytes()
}

fn attributes(seen: &Seen) -> BTreeMap<String, String> {
    shown(&seen.message, Audience::Client)
}

fn check_story(reads: &[(char, &[u8])], expected: &[&str]) {
    assert_eq!(story(&play(&Redis, reads)), expected);
}

#[test]
fn a_command_gives_its_attributes_and_no_argument() {
    let seen = recorded("one_exchange");
    let expected = [
        ("db.operation.name", "SET"),
        ("db.query.text", "SET ? ?"),
        ("db.system.name", "redis"),
    ];
    let shown = attributes(&seen[0]);
    let shown: Vec<(&str, &str)> = shown
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    assert_eq!(shown, expected);
    assert_eq!(story(&seen), ["request SET", "response"]);
    let text = format!(
        "{:?}",
        seen.iter().map(|seen| &seen.message).collect::<Vec<_>>()
    );
    assert!(
        !text.contains("hunter2") && !text.contains("password"),
        "{text}"
    );
}

#[test]
fn a_long_command_shows_only_its_first_arguments() {
    let many: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let words: Vec<&str> = std::iter::once("mget")
        .chain(many.iter().map(String::as_str))
        .collect();
    let seen = play(&Redis, &[('>', &command(&words))]);
    assert_eq!(
        attributes(&seen[0])["db.query.text"],
        "mget ? ? ? ? ? ? ? ? ..."
    );
    assert_eq!(
        attributes(&seen[0])["db.operation.name"],
        "mget",
        "the case is kept"
    );
}

#[test]
fn pipelined_commands_find_their_replies_in_order() {
    let seen = recorded("pipelined");
    let names: Vec<&str> = seen[..9]
        .iter()
        .map(|seen| &*seen.message.span_name)
        .collect();
    let expected = [
        "SELECT",
        "SET",
        "get",
        "INCR",
        "DEL",
        "RPUSH",
        "LRANGE",
        "CONFIG GET",
        "GET",
    ];
    assert_eq!(names, expected);
    let answers: Vec<Option<usize>> = seen[9..].iter().map(|seen| seen.answers).collect();
    assert_eq!(answers, (0..9).map(Some).collect::<Vec<_>>());
}

#[test]
fn the_database_is_told_once_a_select_made_it_sure() {
    let seen = recorded("pipelined");
    assert!(!attributes(&seen[0]).contains_key("db.namespace"));
    assert_eq!(attributes(&seen[1])["db.namespace"], "3");
    assert!(
        !seen[1].message.span_name.contains('3'),
        "the number is no part of the name"
    );

    let mut replay = Replay::new(&Redis);
    let get = command(&["GET", "k"]);
    let namespaces = |replay: &mut Replay| {
        replay.feed(Flow::Request, &get);
        replay.feed(Flow::Response, b"$-1\r\n");
        let request = &replay.seen()[replay.seen().len() - 2];
        attributes(request).get("db.namespace").cloned()
    };
    replay.feed(Flow::Request, &command(&["select", "7"]));
    replay.feed(Flow::Response, b"+OK\r\n");
    assert_eq!(namespaces(&mut replay).as_deref(), Some("7"));
    replay.feed(Flow::Request, &command(&["SELECT", "99999"]));
    replay.feed(Flow::Response, b"-ERR DB index is out of range\r\n");
    assert_eq!(namespaces(&mut replay), None, "the select failed");
    replay.feed(Flow::Request, &command(&["RESET"]));
    replay.feed(Flow::Response, b"+RESET\r\n");
    assert_eq!(namespaces(&mut replay).as_deref(), Some("0"));
    replay.gap(Flow::Request, 10);
    assert_eq!(namespaces(&mut replay), None, "a select may have been lost");
}

#[test]
fn every_error_is_an_error_on_both_sides() {
    let seen = recorded("error_reply");
    let errors: Vec<&str> = seen
        .iter()
        .filter(|seen| seen.flow == Flow::Response)
        .map(|seen| seen.message.client_error.as_deref().unwrap_or("-"))
        .collect();
    assert_eq!(errors, ["-", "WRONGTYPE", "ERR", "_OTHER", "ERR", "-"]);
    let wrong_type = &seen[3];
    assert_eq!(
        attributes(wrong_type)["db.response.status_code"],
        "WRONGTYPE"
    );
    assert_eq!(
        wrong_type.message.server_error.as_deref(),
        Some("WRONGTYPE")
    );
    assert!(
        attributes(&seen[7]).is_empty(),
        "a script's own words are not a status code"
    );
    check_story(
        &[('<', b"!21\r\nSYNTAX invalid syntax\r\n")],
        &["response SYNTAX"],
    );
}

#[test]
fn values_are_cut_by_length_whatever_they_hold() {
    let seen = recorded("split");
    let expected = ["request SET", "request GET", "request SET", "request GET"];
    let requests: Vec<Seen> = seen
        .iter()
        .filter(|seen| seen.flow == Flow::Request)
        .cloned()
        .collect();
    assert_eq!(story(&requests), expected);
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_huge_value_is_neither_kept_nor_needed() {
    let mut replay = Replay::new(&Redis);
    replay.feed(
        Flow::Request,
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc",
    );
    assert_eq!(
        story(replay.seen()),
        ["request SET cut"],
        "told before its value came"
    );
    replay.gap(Flow::Request, 536_870_912 - 3 + 2);
    replay.feed(Flow::Request, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    replay.feed(Flow::Response, b"+OK\r\n$536870912\r\nabc");
    replay.gap(Flow::Response, 536_870_912 - 3 + 2);
    replay.feed(Flow::Request, b"*1\r\n$4\r\nPING\r\n");
    replay.feed(Flow::Response, b"+PONG\r\n");
    assert_eq!(replay.losses, []);
    assert_eq!(replay.open_requests(), 0);
    let seen = replay.finish();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|seen| seen.end.is_some()));
}

#[test]
fn subscriptions_are_answered_once_and_messages_answer_nothing() {
    assert_eq!(
        story(&recorded("pubsub")),
        [
            "request SUBSCRIBE",
            "response",
            "interim",
            "interim",
            "interim",
            "request PSUBSCRIBE",
            "response",
            "interim",
            "request PING",
            "response",
            "request UNSUBSCRIBE",
            "response",
            "interim",
            "interim",
            "request PUNSUBSCRIBE",
            "response",
            "request GET",
            "response",
        ]
    );
}

#[test]
fn pipelined_subscriptions_are_each_answered_by_their_first_confirmation() {
    let commands = [
        command(&["SUBSCRIBE", "a", "b"]),
        command(&["SUBSCRIBE", "c"]),
    ]
    .concat();
    let confirmed =
        |channel: char, count| format!("*3\r\n$9\r\nsubscribe\r\n$1\r\n{channel}\r\n:{count}\r\n");
    let replies = [confirmed('a', 1), confirmed('b', 2), confirmed('c', 3)].concat();
    let seen = play(&Redis, &[('>', &commands), ('<', replies.as_bytes())]);
    assert_eq!(story(&seen)[2..], ["response", "interim", "response"]);
    assert_eq!(seen[4].answers, Some(1));
}

#[test]
fn a_list_that_looks_like_a_message_is_an_answer_all_the_same() {
    let list = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n".as_slice();
    let get = command(&["LRANGE", "l", "0", "2"]);
    check_story(&[('>', &get), ('<', list)], &["request LRANGE", "response"]);
    check_story(&[('<', list)], &["interim"]);
}

#[test]
fn resp3_is_read_with_pushes_maps_and_attributes() {
    let seen = recorded("resp3");
    let responses = seen.iter().filter(|seen| seen.flow == Flow::Response);
    let kinds: Vec<String> = responses
        .map(|seen| story(std::slice::from_ref(seen)).concat())
        .collect();
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "interim").count(),
        3,
        "{kinds:?}"
    );
    let requests = seen
        .iter()
        .filter(|seen| seen.flow == Flow::Request)
        .count();
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "response").count(),
        requests
    );
    assert!(
        seen.iter()
            .any(|seen| seen.message.span_name == "CLIENT TRACKING")
    );
}

#[test]
fn every_type_of_resp3_is_stepped_over() {
    for reply in [
        "+OK\r\n",
        "-ERR x\r\n",
        ":-1\r\n",
        "$3\r\nabc\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "*-1\r\n",
        "*0\r\n",
        "_\r\n",
        "#t\r\n",
        ",-1.5e3\r\n",
        ",inf\r\n",
        "(34928\r\n",
        "=7\r\ntxt:abc\r\n",
        "!5\r\nERR x\r\n",
        "~2\r\n:1\r\n:2\r\n",
        "%1\r\n+a\r\n*2\r\n:1\r\n%0\r\n",
        "|1\r\n+ttl\r\n:5\r\n$1\r\na\r\n",
        "*2\r\n|1\r\n+a\r\n:1\r\n:1\r\n:2\r\n",
        "$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n",
        "*?\r\n:1\r\n*1\r\n+x\r\n.\r\n",
        "%?\r\n+a\r\n:1\r\n.\r\n",
        "*3\r\n*2\r\n$1\r\na\r\n_\r\n+b\r\n-ERR inside\r\n",
    ] {
        let mut replay = Replay::new(&Redis);
        replay.feed(Flow::Response, reply.as_bytes());
        replay.feed(Flow::Response, b"+NEXT\r\n");
        assert_eq!(replay.losses, [], "{reply:?}");
        let seen = replay.finish();
        let ends: Vec<Option<u64>> = seen.iter().map(|seen| seen.end).collect();
        let end = reply.len() as u64;
        assert_eq!(ends, [Some(end), Some(end + 7)], "{reply:?}");
    }
}

#[test]
fn nesting_without_an_end_is_refused() {
    let mut replay = Replay::new(&Redis);
    replay.feed(Flow::Response, &b"*2\r\n".repeat(1000));
    assert!(replay.losses.contains(&Loss::MidStream));
    let mut replay = Replay::new(&Redis);
    let deep = [b"*1\r\n".repeat(1000), b":1\r\n".to_vec()].concat();
    replay.feed(Flow::Response, &deep);
    assert_eq!(replay.losses, [], "lists in the last place cost nothing");
}

#[test]
fn an_exec_is_named_after_what_it_executes() {
    let seen = recorded("transaction");
    let execs: Vec<(String, Option<String>)> = seen
        .iter()
        .filter(|seen| seen.message.operation == "EXEC")
        .map(|seen| {
            let mut shown = attributes(seen);
            (
                shown["db.operation.name"].clone(),
                shown.remove("db.operation.batch.size"),
            )
        })
        .collect();
    let size = |size: &str| Some(size.to_owned());
    assert_eq!(
        execs,
        [
            ("MULTI SET".into(), size("2")),
            ("MULTI".into(), size("2")),
            ("MULTI LPUSH".into(), None),
        ]
    );
    let aborted: Vec<String> = story(&seen)
        .into_iter()
        .filter(|line| line.contains("EXECABORT"))
        .collect();
    assert_eq!(aborted, ["response EXECABORT"]);
    let alone = play(&Redis, &[('>', &command(&["EXEC"]))]);
    assert_eq!(alone[0].message.span_name, "EXEC", "its MULTI was not seen");
}

#[test]
fn silenced_commands_want_no_answer() {
    let seen = recorded("client_reply");
    assert_eq!(
        story(&seen),
        [
            "oneway CLIENT REPLY",
            "oneway SET",
            "oneway SET",
            "request CLIENT REPLY",
            "response",
            "request GET",
            "response",
            "oneway CLIENT REPLY",
            "oneway SET",
            "request GET",
            "response",
        ]
    );
}

#[test]
fn a_feed_ends_the_reading() {
    let seen = recorded("monitor");
    assert_eq!(
        story(&seen),
        ["request PING", "response", "request MONITOR", "response"]
    );
    let mut replay = Replay::new(&Redis);
    replay.feed(Flow::Request, &command(&["PSYNC", "?", "-1"]));
    replay.feed(
        Flow::Response,
        b"+FULLRESYNC 8de1787ba490483314a4d30f1c628bc5025eb761 0\r\n$5\r\n",
    );
    assert!(replay.stopped);
    let mut replay = Replay::new(&Redis);
    replay.feed(Flow::Request, &command(&["MONITOR"]));
    replay.feed(
        Flow::Response,
        b"-NOAUTH Authentication required.\r\n-ERR x\r\n",
    );
    assert!(!replay.stopped, "it was refused");
}

#[test]
fn inline_commands_are_read() {
    let seen = recorded("inline");
    let expected = [
        "request PING",
        "response",
        "request set",
        "response",
        "request exists",
        "response",
    ];
    assert_eq!(story(&seen), expected);
    assert_eq!(attributes(&seen[2])["db.query.text"], "set ? ?");
    check_story(
        &[('>', b"\r\n*0\r\nCONFIG GET maxmemory\r\n")],
        &["request CONFIG GET"],
    );
}

#[test]
fn a_name_that_is_none_is_not_shown() {
    for name in ["", "\u{1}\u{2}", "two words", &"x".repeat(65)] {
        let seen = play(&Redis, &[('>', &command(&[name, "arg"]))]);
        assert_eq!(seen[0].message.span_name, "redis", "{name}");
        assert!(
            !attributes(&seen[0]).contains_key("db.operation.name"),
            "{name}"
        );
    }
    let seen = play(&Redis, &[('>', &command(&["CONFIG", "hunter2"]))]);
    assert_eq!(seen[0].message.span_name, "CONFIG", "no known subcommand");
    assert!(!format!("{:?}", seen[0].message).contains("hunter2"));
}

#[test]
fn quit_is_the_last_command() {
    let seen = play(&Redis, &[('>', &command(&["quit"]))]);
    assert!(seen[0].message.last);
}

#[test]
fn what_is_left_of_a_cut_reply_answers_nothing() {
    let mut replay = Replay::new(&Redis);
    let range = command(&["LRANGE", "l", "0", "-1"]);
    replay.feed(Flow::Request, &range);
    replay.gap(Flow::Response, 50);
    replay.feed(Flow::Response, b"$1\r\na\r\n$1\r\nb\r\n");
    replay.feed(Flow::Request, &range);
    replay.feed(Flow::Response, b"*1\r\n$1\r\na\r\n");
    assert_eq!(
        story(replay.seen()),
        ["request LRANGE", "request LRANGE", "response"]
    );
    assert_eq!(replay.seen()[2].answers, Some(1));
}

#[test]
fn a_capture_that_starts_in_mid_stream_finds_its_feet() {
    let seen = recorded("mid_stream");
    let last = story(&seen[seen.len() - 6..]);
    assert_eq!(
        last,
        [
            "request GET",
            "response",
            "request HSET",
            "response",
            "request HGETALL",
            "response"
        ]
    );
}

#[test]
fn a_line_that_never_ends_is_given_up() {
    let mut replay = Replay::new(&Redis);
    replay.feed(Flow::Request, b"SET ");
    replay.feed(Flow::Request, &b"x".repeat(MAX_UNREAD));
    assert_eq!(replay.losses.first(), Some(&Loss::TooLong));
    replay.feed(Flow::Request, b"\r\n");
    replay.feed(Flow::Request, &command(&["PING"]));
    assert_eq!(story(&replay.finish()), ["request PING"]);
}

#[test]
fn commands_and_replies_are_told_apart_and_others_are_refused() {
    let request = Detection::Yes(Flow::Request);
    let response = Detection::Yes(Flow::Response);
    for (head, expected) in [
        (&b"*1\r\n$4\r\nPING\r\n"[..], request),
        (b"*2\r\n$3\r\nget\r\n", request),
        (b"*3\r\n$9\r\nFT.SEARCH\r\n", request),
        (b"*2\r\n$3\r\nfoo\r\n$3\r\nbar\r\n", Detection::NeedMore),
        (b"*2\r\n$3\r\nfoo\r\n$3\r\nbar\r\n:1\r\n", response),
        (b"*2\r\n$3\r\nfoo\r\n:1\r\n", response),
        (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", response),
        (b"*2\r\n$9\r\nsubscribe\r\n$1\r\na\r\n", request),
        (b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n", response),
        (b"+OK\r\n", Detection::NeedMore),
        (b"+OK\r\n$1\r\na\r\n", response),
        (b"+PONG\r\n", response),
        (b"-WRONGTYPE Operation\r\n", response),
        (b"-ERR 'Authorization Violation'\r\n", Detection::NeedMore),
        (b":12\r\n", response),
        (b"$5\r\nhello\r\n", response),
        (b"$5\r\nhellooo", Detection::No),
        (b"%2\r\n+a\r\n", response),
        (b"PING\r\n", Detection::NeedMore),
        (b"get key\r\n", Detection::NeedMore),
        (b"get key\r\nhgetall h\r\n", request),
        (b"llen l\r\n", request),
        (b"set key 0 0 5\r\nhello\r\n", Detection::NeedMore),
        (b"gets key\r\n", Detection::No),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Detection::No),
        (b"HTTP/1.1 200 OK\r\n", Detection::No),
        (
            b"INFO {\"server_id\":\"x\"}\r\nPING\r\nSUB a 1\r\n",
            Detection::No,
        ),
        (b"EHLO mail\r\n", Detection::No),
        (b"\x00\x00\x00\x10", Detection::No),
        (b"*x\r\n", Detection::No),
        (b"+\x01\r\n", Detection::No),
    ] {
        assert_eq!(Redis.detect(head), expected, "{}", head.escape_ascii());
    }
}

#[test]
fn ids_of_a_key_become_tokens_and_those_of_passwords_do_not() {
    let tokens = |words: &[&str]| {
        let seen = play(&Redis, &[('>', &command(words))]);
        seen[0].message.tokens.clone()
    };
    let user: Vec<u64> = words::tokens(b"/users/8471").collect();
    assert_eq!(tokens(&["GET", "user:8471"]), user);
    assert_eq!(tokens(&["HSET", "user:8471", "name", "99999"]), user);
    assert!(tokens(&["AUTH", "secret12345"]).is_empty());
    assert!(tokens(&["PING"]).is_empty());
}
