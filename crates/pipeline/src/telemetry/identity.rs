//! Who tells: the resource of the process' own telemetry.

use super::metrics::Metrics;
use std::collections::BTreeMap;

/// Attributes that own metrics and spans have; null takes a default one away.
pub type ResourceSettings = BTreeMap<String, Option<String>>;

/// This run of this program.
#[derive(Clone, Debug)]
pub struct Identity {
    name: String,
    version: String,
    /// A random UUID: another at every start.
    instance: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self::new("deeptrace", env!("CARGO_PKG_VERSION"))
    }
}

impl Identity {
    /// A program of this name and version, started now.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            instance: random_uuid(),
        }
    }

    /// Its resource attributes with those of `service::telemetry::resource`.
    pub fn attributes(&self, settings: &ResourceSettings) -> BTreeMap<String, String> {
        let own = [
            ("service.name", &self.name),
            ("service.version", &self.version),
            ("service.instance.id", &self.instance),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), Some(value.clone())));
        let mut attributes = BTreeMap::from(own);
        attributes.extend(settings.clone());
        let set = attributes.into_iter();
        set.filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Shows them as `target_info`, as OpenTelemetry has it for Prometheus.
    pub(crate) fn register(&self, metrics: &Metrics, settings: &ResourceSettings) {
        let attributes = self.attributes(settings);
        let label = |key: &String| {
            let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            key.chars().map(allowed).collect::<String>()
        };
        let labels: BTreeMap<String, String> = attributes
            .iter()
            .map(|(key, value)| (label(key), value.clone()))
            .collect();
        let help = "Resource of this process.";
        metrics.info("target_info", help, labels.into_iter().collect());
    }
}

/// Version 4: 122 random bits.
fn random_uuid() -> String {
    let bits = fastrand::u128(..);
    let bits = bits & !(0xf << 76) | 0x4 << 76;
    let bits = bits & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_and_remove_attributes() {
        let identity = Identity::new("collector", "1.0");
        let settings = ResourceSettings::from([
            ("service.version".to_owned(), None),
            (
                "deployment.environment.name".to_owned(),
                Some("test".to_owned()),
            ),
        ]);
        let metrics = Metrics::default();
        for _ in 0..2 {
            identity.register(&metrics, &settings);
        }
        let samples = metrics.samples();
        let [info] = samples.as_slice() else {
            panic!("one series, not {samples:?}");
        };
        assert_eq!(info.label("service_name"), Some("collector"));
        assert_eq!(info.label("service_version"), None);
        assert_eq!(info.label("deployment_environment_name"), Some("test"));
        let id = info.label("service_instance_id").unwrap();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
    }
}
