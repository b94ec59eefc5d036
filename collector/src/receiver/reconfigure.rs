//! Other settings for a receiver that runs: what its thread can take over, and what needs the
//! BPF programs to be loaded again.

use super::{EbpfSettings, own_pid};
use crate::discovery::{Select, Selector};
use pipeline::component::{ReceiverSettings, Reconfigure};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// Settings on their way to the thread; newer ones replace older ones.
#[derive(Clone, Default)]
pub(super) struct Wanted(Arc<Mutex<Option<EbpfSettings>>>);

impl Wanted {
    fn set(&self, settings: EbpfSettings) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
    }

    /// What came since the last call.
    pub fn take(&self) -> Option<EbpfSettings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Compares settings and passes them on.
pub(super) struct Change {
    running: EbpfSettings,
    /// The programs were loaded with connects reported.
    reports_connects: bool,
    wanted: Wanted,
}

impl Change {
    /// For a receiver that starts with these settings.
    pub fn new(settings: &EbpfSettings, wanted: Wanted) -> Self {
        Self {
            running: settings.clone(),
            reports_connects: needs_connects(&settings.select),
            wanted,
        }
    }

    /// Settings that the programs have been loaded with and that differ.
    fn fixed(&self, new: &EbpfSettings) -> Vec<&'static str> {
        let old = &self.running;
        let differs = [
            (
                "ring_buffer_mib",
                old.ring_buffer_mib != new.ring_buffer_mib,
            ),
            ("payload_bytes", old.payload_bytes != new.payload_bytes),
            ("unix_sockets", old.unix_sockets != new.unix_sockets),
            ("host_id", old.host_id != new.host_id),
            ("host_name", old.host_name != new.host_name),
            (
                "select (its first peer_port)",
                needs_connects(&new.select) && !self.reports_connects,
            ),
        ];
        let differs = differs.into_iter().filter(|(_, differs)| *differs);
        differs.map(|(key, _)| key).collect()
    }
}

impl Reconfigure for Change {
    fn reconfigure(&mut self, settings: &dyn ReceiverSettings) -> bool {
        let settings: &dyn Any = settings;
        let Some(new) = settings.downcast_ref::<EbpfSettings>() else {
            return false;
        };
        let fixed = self.fixed(new);
        if !fixed.is_empty() {
            tracing::warn!(
                settings = fixed.join(", "),
                "the capture starts anew for these: requests that are under way have no span"
            );
            return false;
        }
        self.running = new.clone();
        self.wanted.set(new.clone());
        true
    }
}

fn needs_connects(select: &Select) -> bool {
    // Rules that cannot be used have been refused by then.
    Selector::new(select.clone(), own_pid()).is_ok_and(|selector| selector.needs().peer_ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> EbpfSettings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn only_what_the_programs_were_loaded_with_needs_a_restart() {
        let cases = [
            ("{}", true),
            (
                r#"{"select": [{"action": "include", "listen_port": 80}]}"#,
                true,
            ),
            (r#"{"max_connections": 5, "max_buffered_mib": 1}"#, true),
            (
                r#"{"select": [{"action": "include", "peer_port": 80}]}"#,
                false,
            ),
            (r#"{"ring_buffer_mib": 1}"#, false),
            (r#"{"payload_bytes": 256}"#, false),
            (r#"{"unix_sockets": true}"#, false),
            (r#"{"host_name": "a"}"#, false),
        ];
        for (json, in_place) in cases {
            let wanted = Wanted::default();
            let mut change = Change::new(&settings("{}"), wanted.clone());
            assert_eq!(change.reconfigure(&settings(json)), in_place, "{json}");
            assert_eq!(wanted.take().is_some(), in_place, "{json}");
        }
    }
}
