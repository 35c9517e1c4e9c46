//! Log events: put, get, filter.

use super::{find_group, group_id, invalid, limit, named_group};
use crate::api::Call;
use crate::log_store::{Batch, Event, FilterEvents, GetEvents, MAX_BATCH_EVENTS, Pattern, StreamSelection};
use crate::refuse::{Given, unsupported};
use longshore_logs as logs;
use longshore_model::Timestamp;
use longshore_model::link::LogEvent;

const HOUR: i64 = 60 * 60 * 1000;
/// Events may be this far in the past…
const OLDEST: i64 = 14 * 24 * HOUR;
/// … and this far ahead; others are rejected, and the rest of their batch is taken.
const NEWEST: i64 = 2 * HOUR;

pub async fn put(
    call: Call,
    request: logs::PutLogEventsRequest,
) -> Result<logs::PutLogEventsResponse, logs::Error> {
    // The sequence token is not needed any more; AWS takes any.
    let logs::PutLogEventsRequest { log_group_name, log_stream_name, log_events, sequence_token: _, entity } =
        request;
    unsupported(&[("entity", entity.is_some())]).map_err(invalid)?;
    find_group(&call.context.view(), call.scope(), &log_group_name)?;
    if log_events.windows(2).any(|pair| matches!(pair, [a, b] if a.timestamp > b.timestamp)) {
        return Err(invalid("Log events in a single PutLogEvents request must be in chronological order."));
    }
    let now = call.context.now();
    let too_old = log_events.partition_point(|event| event.timestamp < now.millis() - OLDEST);
    let too_new = log_events.partition_point(|event| event.timestamp <= now.millis() + NEWEST);
    let count = log_events.len();
    let taken = log_events.into_iter().skip(too_old).take(too_new.saturating_sub(too_old));
    let events: Vec<_> = taken
        .map(|logs::InputLogEvent { timestamp, message }| LogEvent {
            timestamp: Timestamp(timestamp),
            message,
        })
        .collect();
    let group = group_id(&call, &log_group_name);
    if events.is_empty() {
        if !call.context.log_store.has_stream(&group, &log_stream_name) {
            return Err(super::no_stream());
        }
    } else {
        let batch = Batch { group, stream: log_stream_name, create_stream: false, source: None, events };
        call.context.log_store.append(batch, now).await?;
    }
    let index = |index: usize| i32::try_from(index).ok();
    Ok(logs::PutLogEventsResponse {
        next_sequence_token: None,
        rejected_log_events_info: (too_old > 0 || too_new < count).then(|| logs::RejectedLogEventsInfo {
            too_old_log_event_end_index: if too_old > 0 { index(too_old) } else { None },
            too_new_log_event_start_index: if too_new < count { index(too_new) } else { None },
            expired_log_event_end_index: None,
        }),
        rejected_entity_info: None,
    })
}

pub async fn get(
    call: Call,
    request: logs::GetLogEventsRequest,
) -> Result<logs::GetLogEventsResponse, logs::Error> {
    // Nothing is masked, so unmasking changes nothing.
    let logs::GetLogEventsRequest {
        log_group_name,
        log_group_identifier,
        log_stream_name,
        start_time,
        end_time,
        next_token,
        limit: size,
        start_from_head,
        unmask: _,
    } = request;
    let page = call
        .context
        .log_store
        .get_events(GetEvents {
            group: named_group(&call, log_group_name, log_group_identifier)?,
            stream: log_stream_name,
            start: start_time.map(Timestamp),
            end: end_time.map(Timestamp),
            token: next_token,
            limit: limit(size, MAX_BATCH_EVENTS, MAX_BATCH_EVENTS)?,
            from_head: start_from_head.unwrap_or(false),
        })
        .await?;
    let render = |event: Event| logs::OutputLogEvent {
        timestamp: Some(event.timestamp.millis()),
        message: Some(event.message),
        ingestion_time: Some(event.ingestion.millis()),
    };
    Ok(logs::GetLogEventsResponse {
        events: Some(page.events.into_iter().map(render).collect()),
        next_forward_token: Some(page.next_forward),
        next_backward_token: Some(page.next_backward),
    })
}

pub async fn filter(
    call: Call,
    request: logs::FilterLogEventsRequest,
) -> Result<logs::FilterLogEventsResponse, logs::Error> {
    // Events always come interleaved, as AWS does since 2019.
    let logs::FilterLogEventsRequest {
        log_group_name,
        log_group_identifier,
        log_stream_names,
        log_stream_name_prefix,
        start_time,
        end_time,
        filter_pattern,
        next_token,
        limit: size,
        interleaved: _,
        unmask: _,
    } = request;
    let streams = match (log_stream_names.filter(Given::given), log_stream_name_prefix.filter(Given::given)) {
        (Some(_), Some(_)) => return Err(invalid("Give logStreamNames or logStreamNamePrefix, not both.")),
        (Some(names), None) => StreamSelection::Named(names),
        (None, Some(prefix)) => StreamSelection::Prefix(prefix),
        (None, None) => StreamSelection::All,
    };
    let pattern = Pattern::parse(filter_pattern.as_deref().unwrap_or_default());
    let page = call
        .context
        .log_store
        .filter_events(FilterEvents {
            group: named_group(&call, log_group_name, log_group_identifier)?,
            streams,
            start: start_time.map(Timestamp),
            end: end_time.map(Timestamp),
            pattern: pattern.map_err(|error| invalid(format!("Invalid filter pattern: {error}")))?,
            token: next_token,
            limit: limit(size, MAX_BATCH_EVENTS, MAX_BATCH_EVENTS)?,
        })
        .await?;
    let events = page.events.into_iter().map(|found| logs::FilteredLogEvent {
        log_stream_name: Some(found.stream.to_string()),
        timestamp: Some(found.event.timestamp.millis()),
        ingestion_time: Some(found.event.ingestion.millis()),
        event_id: Some(found.event.id.to_string()),
        message: Some(found.event.message),
    });
    Ok(logs::FilterLogEventsResponse {
        events: Some(events.collect()),
        searched_log_streams: Some(Vec::new()),
        next_token: page.next_token,
    })
}
