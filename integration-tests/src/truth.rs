//! What a request to the demo application causes, as a tree of calls.
//!
//! The services say in their replies what they really called; [`expected`] says what they should
//! have. Both are the same tree, and a trace of the request has one server span per node and one
//! client span per node on its caller's side (see `demo/README.md`).

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One call: who was called, for what, and which calls that caused, in order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Call {
    /// `nginx`, `storefront`, `inventory`, `pricing` or `redis`.
    pub service: String,
    /// Path with query, of HTTP.
    #[serde(default)]
    pub path: String,
    /// HTTP status; 0 for Redis.
    #[serde(default)]
    pub status: u16,
    /// Redis command.
    #[serde(default)]
    pub operation: String,
    /// Redis key.
    #[serde(default)]
    pub key: String,
    /// Who served it, where it says so. Not part of what is expected.
    #[serde(default)]
    pub pid: Option<u32>,
    /// The thread that served it.
    #[serde(default)]
    pub tid: Option<u32>,
    /// What it called, in order.
    #[serde(default)]
    pub calls: Vec<Call>,
}

impl Call {
    /// Reads a reply of the storefront, which came through nginx.
    pub fn from_reply(body: &str) -> Result<Self> {
        let storefront: Self =
            serde_json::from_str(body).with_context(|| format!("reading the reply {body:?}"))?;
        let (path, status) = (storefront.path.clone(), storefront.status);
        Ok(http("nginx", &path, status, vec![storefront]))
    }

    /// The tree without what differs from run to run.
    #[must_use]
    pub fn shape(mut self) -> Self {
        (self.pid, self.tid) = (None, None);
        self.calls = self.calls.into_iter().map(Self::shape).collect();
        self
    }

    /// How many calls the tree has, itself included, and how many of them go to Redis.
    pub fn count(&self) -> Count {
        let own = Count {
            calls: 1,
            redis: usize::from(self.service == "redis"),
        };
        self.calls
            .iter()
            .map(Self::count)
            .fold(own, |sum, part| Count {
                calls: sum.calls + part.calls,
                redis: sum.redis + part.redis,
            })
    }
}

/// The size of a tree of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// All calls.
    pub calls: usize,
    /// Those of them that go to Redis.
    pub redis: usize,
}

impl Count {
    /// Spans of the trace, when only the demo's own processes are observed: two per call, but the
    /// first call's caller is not among them. `redis_servers` says whether Redis's side counts.
    pub fn spans(self, redis_servers: bool) -> usize {
        2 * self.calls - 1 - if redis_servers { 0 } else { self.redis }
    }
}

/// The path that asks for a product.
pub fn product_path(number: u64) -> String {
    format!("/product/{number}?q=demo")
}

/// What `GET product_path(number)` causes.
pub fn expected(number: u64) -> Call {
    let known = !number.is_multiple_of(7);
    let priced = known && !number.is_multiple_of(11);
    let mut calls = vec![redis("GET", format!("session:{number}"))];
    let mut stock = vec![redis("GET", format!("stock:{number}"))];
    if known {
        stock.push(base(number));
    }
    let stock_status = if known { 200 } else { 404 };
    calls.push(http(
        "inventory",
        &format!("/stock/{number}"),
        stock_status,
        stock,
    ));
    if known {
        let status = if priced { 200 } else { 500 };
        let causes = vec![redis("GET", format!("price:{number}"))];
        calls.push(http("pricing", &format!("/price/{number}"), status, causes));
    }
    if priced && number.is_multiple_of(2) {
        let causes = vec![redis("HGET", format!("shipping:{number}")), base(number)];
        calls.push(http(
            "inventory",
            &format!("/shipping/{number}"),
            200,
            causes,
        ));
    }
    calls.push(redis("INCR", format!("views:{number}")));
    let status = match (known, priced) {
        (false, _) => 404,
        (true, false) => 502,
        (true, true) => 200,
    };
    let path = product_path(number);
    http(
        "nginx",
        &path,
        status,
        vec![http("storefront", &path, status, calls)],
    )
}

fn base(number: u64) -> Call {
    let causes = vec![redis("GET", format!("base:{number}"))];
    http("pricing", &format!("/base/{number}"), 200, causes)
}

fn http(service: &str, path: &str, status: u16, calls: Vec<Call>) -> Call {
    Call {
        service: service.into(),
        path: path.into(),
        status,
        calls,
        ..redis("", String::new())
    }
}

fn redis(operation: &str, key: String) -> Call {
    Call {
        service: "redis".into(),
        path: String::new(),
        status: 0,
        operation: operation.into(),
        key,
        pid: None,
        tid: None,
        calls: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_in_the_readme_are_right() {
        let spans = |number| {
            (
                expected(number).count().spans(true),
                expected(number).count().spans(false),
            )
        };
        assert_eq!(spans(1), (19, 14), "odd");
        assert_eq!(spans(2), (27, 20), "even");
        assert_eq!(spans(7), (11, 8), "unknown");
        assert_eq!(spans(11), (19, 14), "unpriced");
        assert_eq!(spans(22), (19, 14), "unpriced and even");
        assert_eq!(spans(77), (11, 8), "unknown and unpriced");
    }
}
