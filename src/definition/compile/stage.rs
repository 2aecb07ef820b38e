//! A stage: its variables, its limits and its access-log format.

use std::collections::BTreeMap;

use super::super::Stage;
use super::super::file::{Entries, LimitsFile, StageFile};
use super::complain;
use crate::document::{Node, Report};
use crate::ids::StageName;
use crate::limits::Limits;
use crate::units::{ByteSize, Limit};

/// Largest message a stage may allow: a client holds that much of the node's memory for each one it sends.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Largest outbox a stage may allow.
const MAX_OUTBOX_BYTES: usize = 1 << 30;
/// Longest value of a stage variable (specification 7).
const MAX_VARIABLE_CHARS: usize = 512;

pub(super) fn compile(name: &str, file: &StageFile, node: &Node, report: &mut Report) -> Option<Stage> {
    let variables = variables(file, node.at("stageVariables"), report);
    let limits = limits(file.limits.as_ref().unwrap_or(&LimitsFile::default()), node.at("limits"), report);
    let access_log_format = access_log_format(file, node.at("accessLogSettings"), report);
    Some(Stage { name: StageName::parse(name).ok()?, variables, limits, access_log_format })
}

/// Names are checked by the schema; values by the characters of specification 11.3.
fn variables(file: &StageFile, node: &Node, report: &mut Report) -> BTreeMap<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#&=,".contains(c);
    for (name, value) in Entries::of(file.stage_variables.as_ref()) {
        if value.is_empty() || value.chars().count() > MAX_VARIABLE_CHARS || !value.chars().all(allowed) {
            let expected = "expected 1 to 512 letters, digits and `-._~:/?#&=,`";
            let node = node.at(name);
            complain(report, node, format!("stage variable `{name}` is {}, {expected}", node.shown()));
        }
    }
    Entries::of(file.stage_variables.as_ref()).iter().cloned().collect()
}

fn access_log_format(file: &StageFile, node: &Node, report: &mut Report) -> Option<String> {
    let format = file.access_log_settings.as_ref()?.format.clone()?;
    let node = node.at("format");
    if format.trim_end_matches('\n').contains(['\n', '\r']) {
        complain(report, node, "an access-log format of several lines, expected one");
    }
    // Specification 11.5.2: without it no line could be matched to an exchange.
    if !["$context.requestId", "$context.extendedRequestId"].iter().any(|name| format.contains(name)) {
        complain(report, node, "an access-log format without `$context.requestId`, expected it in there");
    }
    Some(format.trim_end_matches('\n').to_owned())
}

fn limits(file: &LimitsFile, node: &Node, report: &mut Report) -> Limits {
    let default = Limits::default();
    let duration = |limit: Option<Limit>, default| limit.map_or(default, |limit| limit.0);
    let mut size = |key: &str, value: Option<ByteSize>, default: usize, most: usize| {
        let bytes = value.map_or(default, |size| size.0);
        if !(1..=most).contains(&bytes) {
            let node = node.at(key);
            complain(report, node, format!("`{key}` is {}, expected 1 to {most} bytes", node.shown()));
        }
        bytes
    };
    let max_message_bytes =
        size("maxMessageBytes", file.max_message_bytes, default.max_message_bytes, MAX_MESSAGE_BYTES);
    let max_frame_bytes = size("maxFrameBytes", file.max_frame_bytes, default.max_frame_bytes, MAX_MESSAGE_BYTES);
    let max_outbox_bytes = size("maxOutboxBytes", file.max_outbox_bytes, default.max_outbox_bytes, MAX_OUTBOX_BYTES);
    // Otherwise a message of the allowed size could never be pushed to a client that is a little behind.
    if max_outbox_bytes < max_message_bytes {
        let key = if node.has("maxOutboxBytes") { "maxOutboxBytes" } else { "maxMessageBytes" };
        let message = format!(
            "`maxOutboxBytes` ({max_outbox_bytes}) is below `maxMessageBytes` ({max_message_bytes}), \
             expected room for one message"
        );
        complain(report, node.at(key), message);
    }
    Limits {
        idle_timeout: duration(file.idle_timeout, default.idle_timeout),
        max_duration: duration(file.max_duration, default.max_duration),
        ping_interval: duration(file.ping_interval, default.ping_interval),
        max_message_bytes,
        max_frame_bytes,
        max_messages_in_flight: file.max_messages_in_flight.unwrap_or(default.max_messages_in_flight),
        max_outbox_bytes,
        max_outbox_messages: file
            .max_outbox_messages
            .map_or(default.max_outbox_messages, |count| usize::try_from(count).unwrap_or(usize::MAX)),
        write_timeout: duration(file.write_timeout, default.write_timeout),
    }
}
