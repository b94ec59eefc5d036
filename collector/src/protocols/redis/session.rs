//! What the commands of a connection change about later ones, and the messages that
//! commands and replies become.

use super::reply::Reply;
use super::request::Command;
use crate::protocols::{Message, MessageKind, words};
use span_model::semconv as names;

/// Arguments that the query text shows as `?`; the rest is dots.
const MAX_SHOWN_ARGUMENTS: u64 = 8;
/// A name that may not be shown.
const OTHER: &str = "_OTHER";

/// What earlier commands say about later ones.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The database, once a SELECT or RESET told it. A SELECT that fails makes it
    /// unknown again; commands sent behind it in one batch carry the wrong number.
    database: Option<u64>,
    silence: Silence,
    /// Commands queued since MULTI.
    transaction: Option<Transaction>,
    /// Confirmations of the answered SUBSCRIBE that are still to come.
    confirmations: u64,
    /// The last command was a line of words.
    pub(super) inline: bool,
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Silence {
    #[default]
    Off,
    Next,
    On,
}

#[derive(Debug, Default)]
struct Transaction {
    /// The command that all queued ones are.
    common: Option<String>,
    size: u32,
}

impl Session {
    /// Commands are missing. A SELECT, MULTI or EXEC may have been among them; CLIENT
    /// REPLY is rare enough to take as unchanged.
    pub(super) fn forget_commands(&mut self) {
        self.database = None;
        self.transaction = None;
    }

    /// Replies are missing.
    pub(super) fn forget_replies(&mut self) {
        self.confirmations = 0;
    }

    /// The message of a command, and the command's effect on what comes after it.
    pub(super) fn command_message(&mut self, command: &Command<'_>) -> Message {
        let operation = match (command.name, command.subcommand) {
            (Some(name), Some(subcommand)) => format!("{name} {subcommand}"),
            (Some(name), None) => name.to_owned(),
            (None, _) => OTHER.to_owned(),
        };
        let batch = self.track_transaction(command, &operation);
        let shown = batch
            .as_ref()
            .map_or_else(|| operation.clone(), Transaction::name);
        let mut message = Message {
            kind: self.kind_of(command),
            key: command.arguments,
            last: command.is("QUIT"),
            tokens: command
                .key
                .map_or_else(Vec::new, |key| words::tokens(key).collect()),
            ..Message::default()
        };
        message.put(names::DB_SYSTEM_NAME, "redis");
        if command.name.is_some() {
            message.put(names::DB_OPERATION_NAME, shown.clone());
            message.put(
                names::DB_QUERY_TEXT,
                query_text(&operation, command.arguments),
            );
        }
        // A SELECT runs in the database that it leaves.
        if let Some(database) = self.database {
            message.put(names::DB_NAMESPACE, database.to_string());
        }
        if let Some(batch) = batch.filter(|batch| batch.size != 1) {
            message.put(names::DB_OPERATION_BATCH_SIZE, batch.size);
        }
        message.span_name = if command.name.is_some() {
            shown.into()
        } else {
            "redis".into()
        };
        message.operation = operation.into();
        self.track_database(command);
        message
    }

    fn track_database(&mut self, command: &Command<'_>) {
        if command.is("SELECT") {
            self.database = command.argument_number();
        } else if command.is("RESET") {
            self.database = Some(0);
            self.silence = Silence::Off;
            self.transaction = None;
        }
    }

    /// Gives the transaction that this command executes.
    fn track_transaction(&mut self, command: &Command<'_>, operation: &str) -> Option<Transaction> {
        if command.is("EXEC") {
            return self.transaction.take();
        }
        if command.is("DISCARD") {
            self.transaction = None;
        } else if command.is("MULTI") {
            self.transaction.get_or_insert_default();
        } else if let Some(transaction) = &mut self.transaction {
            let first = transaction.size == 0;
            transaction.size = transaction.size.saturating_add(1);
            let common = transaction.common.take();
            transaction.common = if first {
                Some(operation.to_owned())
            } else {
                common.filter(|common| common == operation)
            };
        }
        None
    }

    fn kind_of(&mut self, command: &Command<'_>) -> MessageKind {
        if command.is_both("CLIENT", "REPLY") {
            let mode = command.argument.unwrap_or_default();
            if mode.eq_ignore_ascii_case("OFF") {
                self.silence = Silence::On;
                return MessageKind::OneWay;
            }
            if mode.eq_ignore_ascii_case("SKIP") {
                if self.silence == Silence::Off {
                    self.silence = Silence::Next;
                }
                return MessageKind::OneWay;
            }
            if mode.eq_ignore_ascii_case("ON") {
                self.silence = Silence::Off;
            }
        }
        match self.silence {
            Silence::Off => MessageKind::Request,
            Silence::On => MessageKind::OneWay,
            Silence::Next => {
                self.silence = Silence::Off;
                MessageKind::OneWay
            }
        }
    }

    /// The message of a reply, and its effect on what comes after it.
    pub(super) fn reply_message(
        &mut self,
        reply: &Reply<'_>,
        answered: Option<&Message>,
    ) -> Message {
        let kind = self.reply_kind(reply, answered);
        let mut message = Message {
            kind,
            ..Message::default()
        };
        if kind != MessageKind::Response {
            return message;
        }
        if answered.is_none() && self.silence == Silence::On {
            // An answer to nothing: the CLIENT REPLY ON was missed.
            self.silence = Silence::Off;
        }
        if reply.is_error {
            if let Some(prefix) = reply.prefix {
                message.put(names::DB_RESPONSE_STATUS_CODE, prefix.to_owned());
            }
            let error = reply.prefix.unwrap_or(OTHER).to_owned();
            message.client_error = Some(error.clone().into());
            message.server_error = Some(error.into());
            if answers(answered, "SELECT") {
                self.database = None;
            }
        }
        message
    }

    fn reply_kind(&mut self, reply: &Reply<'_>, answered: Option<&Message>) -> MessageKind {
        let first = reply.first.unwrap_or_default();
        let is_any = |known: &[&str]| {
            known
                .iter()
                .any(|known| first.eq_ignore_ascii_case(known.as_bytes()))
        };
        // Before RESP3 a connection that subscribed may send these commands only.
        let may_publish = answered.is_none()
            || CONFIRMED
                .iter()
                .chain(&["PING", "QUIT", "RESET"])
                .any(|name| answers(answered, name));
        if !reply.is_push && !may_publish {
            return MessageKind::Response;
        }
        if is_any(&CONFIRMED) {
            return self.confirmation(first, answered);
        }
        if reply.is_push || is_any(&["message", "pmessage", "smessage"]) {
            return MessageKind::Interim;
        }
        MessageKind::Response
    }

    /// `SUBSCRIBE a b c` is confirmed three times; the first is the answer.
    fn confirmation(&mut self, word: &[u8], answered: Option<&Message>) -> MessageKind {
        if self.confirmations > 0 {
            self.confirmations -= 1;
            return MessageKind::Interim;
        }
        let answer =
            answered.filter(|request| request.operation.as_bytes().eq_ignore_ascii_case(word));
        match answer {
            Some(request) => {
                self.confirmations = request.key.saturating_sub(1);
                MessageKind::Response
            }
            None => MessageKind::Interim,
        }
    }
}

/// Commands that are answered by one confirmation for each channel.
const CONFIRMED: [&str; 6] = [
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
];

impl Transaction {
    /// By the semantic conventions of Redis: `MULTI`, and the command if all are the same.
    fn name(&self) -> String {
        match &self.common {
            Some(common) => format!("MULTI {common}"),
            None => "MULTI".to_owned(),
        }
    }
}

/// The command's shape: no argument's value.
fn query_text(operation: &str, arguments: u64) -> String {
    let mut text = operation.to_owned();
    for _ in 0..arguments.min(MAX_SHOWN_ARGUMENTS) {
        text.push_str(" ?");
    }
    if arguments > MAX_SHOWN_ARGUMENTS {
        text.push_str(" ...");
    }
    text
}

/// True if that command is what the next reply answers.
pub(super) fn answers(answered: Option<&Message>, name: &str) -> bool {
    answered.is_some_and(|request| request.operation.eq_ignore_ascii_case(name))
}
