//! Log streams.

use super::{find_group, group_id, invalid, limit, named_group};
use crate::api::Call;
use crate::log_store::{DescribeStreams, GroupId, OrderBy, StreamInfo};
use longshore_logs as logs;
use longshore_model::log_group::LogGroup;
use longshore_model::{Tags, Timestamp};

pub async fn create(call: Call, request: logs::CreateLogStreamRequest) -> Result<(), logs::Error> {
    let logs::CreateLogStreamRequest { log_group_name, log_stream_name } = request;
    find_group(&call.context.view(), call.scope(), &log_group_name)?;
    let group = group_id(&call, &log_group_name);
    Ok(call.context.log_store.create_stream(&group, &log_stream_name, call.context.now()).await?)
}

pub async fn delete(call: Call, request: logs::DeleteLogStreamRequest) -> Result<(), logs::Error> {
    let logs::DeleteLogStreamRequest { log_group_name, log_stream_name } = request;
    find_group(&call.context.view(), call.scope(), &log_group_name)?;
    Ok(call.context.log_store.delete_stream(&group_id(&call, &log_group_name), &log_stream_name).await?)
}

pub async fn describe(
    call: Call,
    request: logs::DescribeLogStreamsRequest,
) -> Result<logs::DescribeLogStreamsResponse, logs::Error> {
    let logs::DescribeLogStreamsRequest {
        log_group_name,
        log_group_identifier,
        log_stream_name_prefix,
        order_by,
        descending,
        next_token,
        limit: size,
    } = request;
    let group = named_group(&call, log_group_name, log_group_identifier)?;
    let order_by = match order_by {
        None | Some(logs::OrderBy::LogStreamName) => OrderBy::LogStreamName,
        Some(logs::OrderBy::LastEventTime) if log_stream_name_prefix.is_some() => {
            return Err(invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
        }
        Some(logs::OrderBy::LastEventTime) => OrderBy::LastEventTime,
    };
    let page = call.context.log_store.describe_streams(&DescribeStreams {
        group: group.clone(),
        prefix: log_stream_name_prefix,
        order_by,
        descending: descending.unwrap_or(false),
        token: next_token,
        limit: limit(size, 50, 50)?,
    })?;
    Ok(logs::DescribeLogStreamsResponse {
        log_streams: Some(page.streams.into_iter().map(|stream| render(&group, stream)).collect()),
        next_token: page.next_token,
    })
}

fn render(group: &GroupId, stream: StreamInfo) -> logs::LogStream {
    let group = LogGroup {
        scope: group.scope.clone(),
        name: group.name.clone(),
        retention_days: None,
        tags: Tags::default(),
        created_at: Timestamp::default(),
    };
    logs::LogStream {
        arn: Some(format!("{}:log-stream:{}", group.arn(), stream.name)),
        log_stream_name: Some(stream.name.to_string()),
        creation_time: Some(stream.created.millis()),
        first_event_timestamp: stream.first_event.map(Timestamp::millis),
        last_event_timestamp: stream.last_event.map(Timestamp::millis),
        last_ingestion_time: stream.last_ingestion.map(Timestamp::millis),
        upload_sequence_token: Some(stream.upload_sequence_token),
        // AWS gives 0 for streams since 2019; the group's figure is the true one.
        stored_bytes: Some(0),
    }
}
