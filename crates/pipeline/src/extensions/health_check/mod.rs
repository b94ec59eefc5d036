//! Says over HTTP whether the pipelines work, for load balancers and Kubernetes' probes.
//!
//! 200 from when everything is running until the service begins to stop, 503 before and after.

mod config;

pub use config::HealthCheckSettings;

use crate::clock::Monotonic;
use crate::component::{BoxError, Context, ExtensionSettings};
use crate::extensions::Extension;
use crate::serve::{Page, Server, host_and_port};
use async_trait::async_trait;
use hyper::StatusCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

impl ExtensionSettings for HealthCheckSettings {
    fn build(&self, _: Context) -> Result<Arc<dyn Extension>, BoxError> {
        Ok(Arc::new(HealthCheck {
            settings: self.clone(),
            ready_since: Arc::default(),
            server: Mutex::default(),
        }))
    }
}

struct HealthCheck {
    settings: HealthCheckSettings,
    /// None: not ready.
    ready_since: Arc<Mutex<Option<Monotonic>>>,
    server: Mutex<Option<Server>>,
}

#[async_trait]
impl Extension for HealthCheck {
    async fn start(&self) -> Result<(), BoxError> {
        let (host, port) = host_and_port(&self.settings.endpoint)?;
        let (settings, ready_since) = (self.settings.clone(), Arc::clone(&self.ready_since));
        let server = Server::start(host, port, move |path| {
            (path == settings.path).then(|| {
                let since = *ready_since.lock().unwrap_or_else(PoisonError::into_inner);
                page(&settings, since)
            })
        })
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", self.settings.endpoint))?;
        tracing::info!(address = %server.address(), "health is served");
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    fn pipelines_ready(&self, ready: bool) {
        *self
            .ready_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = ready.then(Monotonic::now);
    }

    async fn shutdown(&self, _: Instant) {
        self.server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

fn page(settings: &HealthCheckSettings, ready_since: Option<Monotonic>) -> Page {
    let status = match ready_since {
        Some(_) => StatusCode::OK,
        None => StatusCode::SERVICE_UNAVAILABLE,
    };
    if let Some(body) = &settings.response_body {
        let body = match ready_since {
            Some(_) => &body.healthy,
            None => &body.unhealthy,
        };
        return Page {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.clone(),
        };
    }
    let body = match ready_since {
        Some(since) => serde_json::json!({
            "status": "Server available",
            "uptime_seconds": Monotonic::now().since(since).as_secs(),
        }),
        None => serde_json::json!({"status": "Server not available"}),
    };
    Page {
        status,
        kind: "application/json",
        body: body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_healthy_before_everything_runs() {
        let page = page(&HealthCheckSettings::default(), None);
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
