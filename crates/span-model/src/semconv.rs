//! Attribute names of the OpenTelemetry semantic conventions v1.44.0, and ours.
//!
//! The published crate lags behind the registry, so the names that we emit
//! stand here, once.

/// Value of `schema_url` on every resource and scope that we produce.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Instrumentation scope of every span that the collector makes.
pub const SCOPE_NAME: &str = "deeptrace";

macro_rules! names {
    ($($(#[$doc:meta])* $konst:ident = $name:literal;)*) => {
        $($(#[$doc])* #[doc = concat!("`", $name, "`")] pub const $konst: &str = $name;)*
    };
}

names! {
    CLIENT_ADDRESS = "client.address";
    CLIENT_PORT = "client.port";
    CONTAINER_ID = "container.id";
    DB_NAMESPACE = "db.namespace";
    DB_OPERATION_BATCH_SIZE = "db.operation.batch.size";
    DB_OPERATION_NAME = "db.operation.name";
    DB_QUERY_TEXT = "db.query.text";
    DB_RESPONSE_STATUS_CODE = "db.response.status_code";
    DB_SYSTEM_NAME = "db.system.name";
    ERROR_TYPE = "error.type";
    HOST_ARCH = "host.arch";
    HOST_ID = "host.id";
    HOST_NAME = "host.name";
    HTTP_REQUEST_METHOD = "http.request.method";
    HTTP_REQUEST_METHOD_ORIGINAL = "http.request.method_original";
    HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
    NETWORK_LOCAL_ADDRESS = "network.local.address";
    NETWORK_LOCAL_PORT = "network.local.port";
    NETWORK_PEER_ADDRESS = "network.peer.address";
    NETWORK_PEER_PORT = "network.peer.port";
    NETWORK_PROTOCOL_NAME = "network.protocol.name";
    NETWORK_PROTOCOL_VERSION = "network.protocol.version";
    NETWORK_TRANSPORT = "network.transport";
    NETWORK_TYPE = "network.type";
    OS_TYPE = "os.type";
    PROCESS_COMMAND = "process.command";
    PROCESS_CREATION_TIME = "process.creation.time";
    PROCESS_EXECUTABLE_NAME = "process.executable.name";
    PROCESS_EXECUTABLE_PATH = "process.executable.path";
    PROCESS_OWNER = "process.owner";
    PROCESS_PARENT_PID = "process.parent_pid";
    PROCESS_PID = "process.pid";
    SERVER_ADDRESS = "server.address";
    SERVER_PORT = "server.port";
    SERVICE_INSTANCE_ID = "service.instance.id";
    SERVICE_NAME = "service.name";
    SERVICE_NAMESPACE = "service.namespace";
    SERVICE_VERSION = "service.version";
    TELEMETRY_DISTRO_NAME = "telemetry.distro.name";
    TELEMETRY_DISTRO_VERSION = "telemetry.distro.version";
    URL_FULL = "url.full";
    URL_PATH = "url.path";
    URL_QUERY = "url.query";
    URL_SCHEME = "url.scheme";
    USER_AGENT_ORIGINAL = "user_agent.original";
    /// What runs under one start of one kernel shares a clock, whatever `host.id` each is given.
    DEEPTRACE_BOOT_ID = "deeptrace.boot.id";
    /// Why a span has no response: a closed list, see `docs/usage.md`.
    DEEPTRACE_INCOMPLETE = "deeptrace.incomplete";
}
