//! The HTTP side of the tables: DynamoDB's JSON protocol, answered by `dynoxide`.
//!
//! `dynoxide` has an HTTP server of its own, but that allows every web page to call it (CORS) and accepts any
//! `Host`. Otherwise this one answers in the same way. Signatures are not verified, but their parts must be
//! present.

use std::convert::Infallible;

use bytes::Bytes;
use dynoxide::auth_material::{self, AuthMaterial};
use dynoxide::{Database, DynoxideError};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::web::Rule;

/// DynamoDB accepts bodies of up to 16 MiB.
const MOST_BODY_BYTES: usize = 16 * 1024 * 1024;
const AMZ_JSON: &str = "application/x-amz-json-1.0";
const JSON: &str = "application/json";
const NOT_FOUND: &str = "<UnknownOperationException/>\n";
const HEALTHY: &str = "healthy: dynamodb.us-east-1.amazonaws.com ";

/// Answers one HTTP request.
pub(super) async fn answer(
    database: Database,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Err(refusal) = Rule::api().check(&request) {
        let error = DynoxideError::AccessDeniedException(refusal.to_string());
        return Ok(respond(StatusCode::FORBIDDEN, AMZ_JSON, error.to_json()));
    }
    let (parts, body) = request.into_parts();
    if parts.uri.path() != "/" {
        return Ok(plain(StatusCode::NOT_FOUND, NOT_FOUND));
    }
    match parts.method {
        Method::GET => return Ok(plain(StatusCode::OK, HEALTHY)),
        Method::POST => {}
        _ => return Ok(plain(StatusCode::NOT_FOUND, NOT_FOUND)),
    }
    let body = match Limited::new(body, MOST_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "a request has 16 MiB at most\n"));
        }
        Err(error) => {
            tracing::debug!(error, "failed to read a request");
            return Ok(plain(StatusCode::BAD_REQUEST, "the request did not arrive whole\n"));
        }
    };
    let query = parts.uri.query().unwrap_or_default();
    Ok(call(&database, &parts.headers, query, &body))
}

/// Answers a POST. The database answers at once, or blocks this task while SQLite writes.
fn call(database: &Database, headers: &HeaderMap, query: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let sent = text(CONTENT_TYPE.as_str()).unwrap_or_default();
    let media = sent.split(';').next().unwrap_or_default().trim();
    let kind = if media.eq_ignore_ascii_case(AMZ_JSON) { AMZ_JSON } else { JSON };
    let known = kind == AMZ_JSON || media.eq_ignore_ascii_case(JSON);
    if !(known || body.is_empty() && sent.is_empty()) {
        return plain(StatusCode::NOT_FOUND, NOT_FOUND);
    }
    let bare = |name: &str| {
        let shape = json!({ "__type": format!("com.amazon.coral.service#{name}") });
        respond(StatusCode::BAD_REQUEST, kind, shape.to_string())
    };
    let readable = std::str::from_utf8(body)
        .ok()
        .filter(|body| body.is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok());
    let Some(body) = readable else {
        return bare("SerializationException");
    };
    let operation = text("x-amz-target").and_then(|target| {
        let streams = target.strip_prefix("DynamoDBStreams_20120810.");
        target.strip_prefix("DynamoDB_20120810.").or(streams)
    });
    let Some(operation) = operation.filter(|operation| OPERATIONS.contains(operation)) else {
        return bare("UnknownOperationException");
    };
    let material = AuthMaterial {
        authorization: text(AUTHORIZATION.as_str()),
        query,
        has_date_header: headers.contains_key("x-amz-date") || headers.contains_key(DATE),
    };
    if let Some(refused) = auth_material::validate(material) {
        return respond(StatusCode::BAD_REQUEST, kind, refused);
    }
    if body.is_empty() {
        return bare("SerializationException");
    }
    match dispatch(database, operation, body) {
        Ok(answer) => respond(StatusCode::OK, kind, answer),
        Err(error) => {
            tracing::debug!(operation, %error, "the embedded DynamoDB rejected a request");
            let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::BAD_REQUEST);
            respond(status, kind, error.to_json())
        }
    }
}

/// Maps each operation to the method that executes it.
macro_rules! operations {
    ($($name:literal => $method:ident,)*) => {
        const OPERATIONS: &[&str] = &[$($name),*];

        fn dispatch(database: &Database, operation: &str, body: &str) -> dynoxide::Result<String> {
            match operation {
                $($name => run(body, |request| database.$method(request)),)*
                _ => Err(DynoxideError::SerializationException(String::new())),
            }
        }
    };
}

operations! {
    "BatchExecuteStatement" => batch_execute_statement,
    "BatchGetItem" => batch_get_item,
    "BatchWriteItem" => batch_write_item,
    "CreateTable" => create_table,
    "DeleteItem" => delete_item,
    "DeleteTable" => delete_table,
    "DescribeStream" => describe_stream,
    "DescribeTable" => describe_table,
    "DescribeTimeToLive" => describe_time_to_live,
    "ExecuteStatement" => execute_statement,
    "ExecuteTransaction" => execute_transaction,
    "GetItem" => get_item,
    "GetRecords" => get_records,
    "GetShardIterator" => get_shard_iterator,
    "ListStreams" => list_streams,
    "ListTables" => list_tables,
    "ListTagsOfResource" => list_tags_of_resource,
    "PutItem" => put_item,
    "Query" => query,
    "Scan" => scan,
    "SearchVectors" => search_vectors,
    "TagResource" => tag_resource,
    "TransactGetItems" => transact_get_items,
    "TransactWriteItems" => transact_write_items,
    "UntagResource" => untag_resource,
    "UpdateItem" => update_item,
    "UpdateTable" => update_table,
    "UpdateTimeToLive" => update_time_to_live,
}

fn run<Q: DeserializeOwned, A: Serialize>(
    body: &str,
    call: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> dynoxide::Result<String> {
    let request = serde_json::from_str(body).map_err(|error| misread(&error.to_string()))?;
    let answer = call(request)?;
    serde_json::to_string(&answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// The error for a request that does not have the form of its operation. A message of `dynoxide` about a
/// value begins with the class of the error in capitals; `serde_json` appends the position in the body.
fn misread(why: &str) -> DynoxideError {
    let said = why.rsplit_once(" at line ").map_or(why, |(said, _)| said);
    match said.split_once(':') {
        Some((class, said)) if class.starts_with("VALIDATION") => {
            DynoxideError::ValidationException(said.to_owned())
        }
        Some((class, said)) if class.starts_with("SERIALIZATION") => {
            DynoxideError::SerializationException(said.to_owned())
        }
        _ if ["missing field", "unknown variant", "invalid type: null", "AttributeValue"]
            .iter()
            .any(|part| said.contains(part)) =>
        {
            DynoxideError::ValidationException(said.to_owned())
        }
        _ => DynoxideError::SerializationException(said.to_owned()),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let checksum = HeaderValue::from(crc32fast::hash(body.as_bytes()));
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // SDKs verify it.
    headers.insert("x-amz-crc32", checksum);
    let id = format!("{:032X}{:020X}", fastrand::u128(..), fastrand::u128(..) >> 48);
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00";

    fn called(headers: &[(&'static str, &str)], body: &str) -> (u16, String) {
        let database = Database::memory().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let response = call(&database, &map, "", body.as_bytes());
        let sum: u32 = response.headers()["x-amz-crc32"].to_str().unwrap().parse().unwrap();
        let status = response.status().as_u16();
        let body = text_of(response);
        assert_eq!(crc32fast::hash(body.as_bytes()), sum);
        (status, body)
    }

    fn text_of(response: Response<Full<Bytes>>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn signed(operation: &str, body: &str) -> (u16, String) {
        let target = format!("DynamoDB_20120810.{operation}");
        let headers = [
            ("content-type", AMZ_JSON),
            ("x-amz-target", &target),
            ("authorization", SIGNED),
            ("x-amz-date", "20300101T000000Z"),
        ];
        called(&headers, body)
    }

    #[test]
    fn known_operation_is_executed() {
        assert_eq!(signed("ListTables", "{}"), (200, "{\"TableNames\":[]}".to_owned()));
        let (status, body) = signed("DescribeTable", "{\"TableName\":\"none\"}");
        assert!(status == 400 && body.contains("ResourceNotFoundException"), "{status} {body}");
    }

    #[test]
    fn invalid_request_is_refused_with_its_error_class() {
        let named = |(status, body): (u16, String), part: &str| {
            assert!(status == 400 && body.contains(part), "{part}: {status} {body}");
        };
        named(signed("Explode", "{}"), "UnknownOperationException");
        named(signed("ListTables", "{"), "SerializationException");
        named(signed("ListTables", ""), "SerializationException");
        named(signed("PutItem", "{\"TableName\":7,\"Item\":{}}"), "SerializationException");
        let empty = "{\"TableName\":\"table\",\"Item\":{\"a\":{}}}";
        named(signed("PutItem", empty), "ValidationException");
        let both = "{\"TableName\":\"table\",\"Item\":{\"a\":{\"S\":\"x\",\"N\":\"1\"}}}";
        let refused = signed("PutItem", both);
        assert!(!refused.1.contains("VALIDATION"), "{}", refused.1);
        named(refused, "ValidationException");
        let target = [("content-type", JSON), ("x-amz-target", "DynamoDB_20120810.ListTables")];
        named(called(&target, "{}"), "MissingAuthenticationTokenException");
        assert_eq!(called(&[("content-type", "text/plain")], "{}").0, 404);
    }
}
