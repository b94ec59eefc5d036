//! The names of Redis's commands, as `COMMAND LIST` of version 7.0 gives them, and
//! what came until 8.2. Modules' commands are known by what stands
//! before the dot.

/// True for a command of the server or of a module, in any case.
pub(super) fn is_known(name: &[u8]) -> bool {
    let Some(name) = sane(name) else { return false };
    let lower = name.to_ascii_lowercase();
    let module = lower.split_once('.').map(|(module, _)| module);
    let of_module = module.is_some_and(|module| MODULES.contains(&module));
    of_module || COMMANDS.binary_search(&lower.as_str()).is_ok()
}

/// True where the second word belongs to the command's name (`CONFIG GET`).
pub(super) fn has_subcommands(name: &str) -> bool {
    let prefix = format!("{}|", name.to_ascii_lowercase());
    let at = SUBCOMMANDS.partition_point(|known| *known < prefix.as_str());
    SUBCOMMANDS
        .get(at)
        .is_some_and(|known| known.starts_with(&prefix))
}

/// True for the two words of a command's name, in any case.
pub(super) fn is_subcommand(name: &str, word: &str) -> bool {
    let both = format!(
        "{}|{}",
        name.to_ascii_lowercase(),
        word.to_ascii_lowercase()
    );
    SUBCOMMANDS.binary_search(&both.as_str()).is_ok()
}

/// A name that may leave: short, and of the characters that command names have.
pub(super) fn sane(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let starts = name.bytes().next()?.is_ascii_alphabetic();
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (starts && name.len() <= super::MAX_NAME && name.bytes().all(rest)).then_some(name)
}

/// Modules that Redis ships, and the throttle that many run.
const MODULES: &[&str] = &[
    "ai", "bf", "cf", "cl", "cms", "ft", "graph", "json", "rg", "tdigest", "topk", "ts",
];

#[rustfmt::skip]
const COMMANDS: &[&str] = &[
    "acl", "append", "asking", "auth", "bgrewriteaof", "bgsave", "bitcount", "bitfield",
    "bitfield_ro", "bitop", "bitpos", "blmove", "blmpop", "blpop", "brpop", "brpoplpush",
    "bzmpop", "bzpopmax", "bzpopmin", "client", "cluster", "command", "config", "copy",
    "dbsize", "debug", "decr", "decrby", "del", "delex", "digest", "discard", "dump", "echo",
    "eval", "eval_ro", "evalsha", "evalsha_ro", "exec", "exists", "expire", "expireat",
    "expiretime", "failover", "fcall", "fcall_ro", "flushall", "flushdb", "function", "geoadd",
    "geodist", "geohash", "geopos", "georadius", "georadius_ro", "georadiusbymember",
    "georadiusbymember_ro", "geosearch", "geosearchstore", "get", "getbit", "getdel", "getex",
    "getrange", "getset", "hdel", "hello", "hexists", "hexpire", "hexpireat", "hexpiretime",
    "hget", "hgetall", "hgetdel", "hgetex", "hincrby", "hincrbyfloat", "hkeys", "hlen", "hmget",
    "hmset", "hpersist", "hpexpire", "hpexpireat", "hpexpiretime", "hpttl", "hrandfield",
    "hscan", "hset", "hsetex", "hsetnx", "hstrlen", "httl", "hvals", "incr", "incrby",
    "incrbyfloat", "info", "keys", "lastsave", "latency", "lcs", "lindex", "linsert", "llen",
    "lmove", "lmpop", "lolwut", "lpop", "lpos", "lpush", "lpushx", "lrange", "lrem", "lset",
    "ltrim", "memory", "mget", "migrate", "module", "monitor", "move", "mset", "msetex",
    "msetnx", "multi", "object", "persist", "pexpire", "pexpireat", "pexpiretime", "pfadd",
    "pfcount", "pfdebug", "pfmerge", "pfselftest", "ping", "psetex", "psubscribe", "psync",
    "pttl", "publish", "pubsub", "punsubscribe", "quit", "randomkey", "readonly", "readwrite",
    "rename", "renamenx", "replconf", "replicaof", "reset", "restore", "restore-asking", "role",
    "rpop", "rpoplpush", "rpush", "rpushx", "sadd", "save", "scan", "scard", "script", "sdiff",
    "sdiffstore", "select", "sentinel", "set", "setbit", "setex", "setnx", "setrange",
    "shutdown", "sinter", "sintercard", "sinterstore", "sismember", "slaveof", "slowlog",
    "smembers", "smismember", "smove", "sort", "sort_ro", "spop", "spublish", "srandmember",
    "srem", "sscan", "ssubscribe", "strlen", "subscribe", "substr", "sunion", "sunionstore",
    "sunsubscribe", "swapdb", "sync", "time", "touch", "ttl", "type", "unlink", "unsubscribe",
    "unwatch", "vadd", "vcard", "vdim", "vemb", "vgetattr", "vinfo", "vismember", "vlinks",
    "vrandmember", "vrem", "vsetattr", "vsim", "wait", "waitaof", "watch", "xack", "xackdel",
    "xadd", "xautoclaim", "xcfgset", "xclaim", "xdel", "xdelex", "xgroup", "xinfo", "xlen",
    "xpending", "xrange", "xread", "xreadgroup", "xrevrange", "xsetid", "xtrim", "zadd",
    "zcard", "zcount", "zdiff", "zdiffstore", "zincrby", "zinter", "zintercard", "zinterstore",
    "zlexcount", "zmpop", "zmscore", "zpopmax", "zpopmin", "zrandmember", "zrange",
    "zrangebylex", "zrangebyscore", "zrangestore", "zrank", "zrem", "zremrangebylex",
    "zremrangebyrank", "zremrangebyscore", "zrevrange", "zrevrangebylex", "zrevrangebyscore",
    "zrevrank", "zscan", "zscore", "zunion", "zunionstore",
];

#[rustfmt::skip]
const SUBCOMMANDS: &[&str] = &[
    "acl|cat", "acl|deluser", "acl|dryrun", "acl|genpass", "acl|getuser", "acl|help",
    "acl|list", "acl|load", "acl|log", "acl|save", "acl|setuser", "acl|users", "acl|whoami",
    "client|caching", "client|capa", "client|getname", "client|getredir", "client|help",
    "client|id", "client|import-source", "client|info", "client|kill", "client|list",
    "client|no-evict", "client|no-touch", "client|pause", "client|reply", "client|setinfo",
    "client|setname", "client|tracking", "client|trackinginfo", "client|unblock",
    "client|unpause", "cluster|addslots", "cluster|addslotsrange", "cluster|bumpepoch",
    "cluster|count-failure-reports", "cluster|countkeysinslot", "cluster|delslots",
    "cluster|delslotsrange", "cluster|failover", "cluster|flushslots", "cluster|forget",
    "cluster|getkeysinslot", "cluster|help", "cluster|info", "cluster|keyslot", "cluster|links",
    "cluster|meet", "cluster|migration", "cluster|myid", "cluster|myshardid", "cluster|nodes",
    "cluster|replicas", "cluster|replicate", "cluster|reset", "cluster|saveconfig",
    "cluster|set-config-epoch", "cluster|setslot", "cluster|shards", "cluster|slaves",
    "cluster|slot-stats", "cluster|slots", "command|count", "command|docs", "command|getkeys",
    "command|getkeysandflags", "command|help", "command|info", "command|list", "config|get",
    "config|help", "config|resetstat", "config|rewrite", "config|set", "debug|change-repl-id",
    "debug|digest", "debug|jmap", "debug|object", "debug|reload", "debug|set-active-expire",
    "debug|sleep", "debug|stringmatch-len", "function|delete", "function|dump",
    "function|flush", "function|help", "function|kill", "function|list", "function|load",
    "function|restore", "function|stats", "latency|doctor", "latency|graph", "latency|help",
    "latency|histogram", "latency|history", "latency|latest", "latency|reset", "memory|doctor",
    "memory|help", "memory|malloc-stats", "memory|purge", "memory|stats", "memory|usage",
    "module|help", "module|list", "module|load", "module|loadex", "module|unload",
    "object|encoding", "object|freq", "object|help", "object|idletime", "object|refcount",
    "pubsub|channels", "pubsub|help", "pubsub|numpat", "pubsub|numsub", "pubsub|shardchannels",
    "pubsub|shardnumsub", "script|debug", "script|exists", "script|flush", "script|help",
    "script|kill", "script|load", "sentinel|ckquorum", "sentinel|config", "sentinel|failover",
    "sentinel|flushconfig", "sentinel|get-master-addr-by-name", "sentinel|info-cache",
    "sentinel|is-master-down-by-addr", "sentinel|master", "sentinel|masters",
    "sentinel|monitor", "sentinel|myid", "sentinel|remove", "sentinel|replicas",
    "sentinel|reset", "sentinel|sentinels", "sentinel|set", "sentinel|simulate-failure",
    "sentinel|slaves", "slowlog|get", "slowlog|help", "slowlog|len", "slowlog|reset",
    "xgroup|create", "xgroup|createconsumer", "xgroup|delconsumer", "xgroup|destroy",
    "xgroup|help", "xgroup|setid", "xinfo|consumers", "xinfo|groups", "xinfo|help",
    "xinfo|stream",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_for_the_search() {
        assert!(COMMANDS.is_sorted());
        assert!(SUBCOMMANDS.is_sorted());
    }

    #[test]
    fn names_are_known_in_any_case_and_with_their_subcommands() {
        for known in ["get", "GET", "HGetAll", "FT.SEARCH", "json.get"] {
            assert!(is_known(known.as_bytes()), "{known}");
        }
        for unknown in [
            "",
            "foo",
            "get ",
            ".",
            "a.",
            ".b",
            "1.2",
            "a.example",
            "h\u{e9}llo",
        ] {
            assert!(!is_known(unknown.as_bytes()), "{unknown}");
        }
        assert!(has_subcommands("Client") && !has_subcommands("get"));
        assert!(is_subcommand("CONFIG", "Get") && !is_subcommand("CONFIG", "secret"));
    }
}
