//! Questions to the metrics APIs that other programs serve behind the API server (aggregation).

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::{Client, client::Body};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::failure::{Failure, chain, shorten};

/// The longest answer that is read: the usage of some 50,000 pods.
const LONGEST_ANSWER: usize = 32 << 20;
/// What may not stand for itself in a segment of a path.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'[')
    .add(b']')
    .add(b'\\')
    .add(b'^')
    .add(b'|');

/// A GET below a group and version.
pub(super) struct Question<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) namespace: &'a str,
    /// The segments after the namespace; each is checked and encoded.
    pub(super) path: &'a [&'a str],
    /// Parameters; those with an empty value are left out.
    pub(super) parameters: &'a [(&'a str, &'a str)],
}

impl Question<'_> {
    /// Path and parameters.
    fn uri(&self) -> Result<String, Failure> {
        let mut uri = format!("/apis/{}/{}/namespaces/{}", self.group, self.version, segment(self.namespace)?);
        for name in self.path {
            uri.push('/');
            uri.push_str(&segment(name)?);
        }
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        parameters.extend_pairs(self.parameters.iter().filter(|(_, value)| !value.is_empty()));
        let parameters = parameters.finish();
        Ok(if parameters.is_empty() { uri } else { format!("{uri}?{parameters}") })
    }

    /// What client-go names in its errors, such as `get pods.metrics.k8s.io`.
    fn subject(&self) -> String {
        format!("get {}.{}", self.path.first().unwrap_or(&"metrics"), self.group)
    }
}

/// A name as a segment of a path; what client-go refuses there (`IsValidPathSegmentName`) is refused here, so that a
/// name cannot lead elsewhere.
fn segment(name: &str) -> Result<String, Failure> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) {
        return Err(Failure::Answered(format!("{:?} is no name that can be asked for", shorten(name))));
    }
    Ok(utf8_percent_encode(name, SEGMENT).to_string())
}

/// A question that was not answered.
pub(super) struct Refused {
    /// In the words of client-go, which users of the HPA know.
    pub(super) failure: Failure,
    /// What does not exist, if that is why.
    pub(super) absent: Option<Absent>,
}

/// What a 404 is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// The group or version: the API server itself says so.
    Api,
    /// Something in it: the server behind says so.
    Metric,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, absent: None }
    }
}

/// Asks, and reads the answer as JSON.
pub(super) async fn get<T: DeserializeOwned>(client: &Client, question: &Question<'_>) -> Result<T, Refused> {
    let request = Request::get(question.uri()?)
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| Failure::Answered(error.to_string()))?;
    let (status, bytes) = exchange(client, request).await?;
    if status.is_success() {
        let unread = |error| format!("the answer cannot be read: {error} ({})", question.subject());
        return serde_json::from_slice(&bytes).map_err(|error| Failure::Answered(unread(error)).into());
    }
    Err(refusal(status, &bytes, question))
}

/// One request and the whole of its answer.
pub(super) async fn exchange(client: &Client, request: Request<Body>) -> Result<(StatusCode, Vec<u8>), Failure> {
    let response = client.send(request).await.map_err(|error| Failure::Unavailable(chain(&error)))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Failure::Answered(format!("the answer is longer than {} MiB", LONGEST_ANSWER >> 20))
        } else {
            Failure::Unavailable(chain(&*error))
        }
    })?;
    Ok((status, body.to_bytes().to_vec()))
}

/// The words for an answer that is an error.
fn refusal(code: StatusCode, body: &[u8], question: &Question<'_>) -> Refused {
    // A Status comes from a server that knows the question; the API server itself has none for an API that nobody
    // serves, or that is down.
    let status = serde_json::from_slice::<Status>(body).ok().filter(|status| status.code.is_some());
    let down = matches!(code, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
    if code == StatusCode::TOO_MANY_REQUESTS || (status.is_none() && (down || code == StatusCode::NOT_FOUND)) {
        // All questions to the API share these words, so they are about the API alone.
        let failure = Failure::Unavailable(format!("{} ({})", generic(code, body), question.group));
        return Refused { failure, absent: (code == StatusCode::NOT_FOUND).then_some(Absent::Api) };
    }
    let told = status.and_then(|status| status.message).filter(|message| !message.is_empty());
    let words = match told {
        Some(message) => shorten(&message),
        None => format!("{} ({})", generic(code, body), question.subject()),
    };
    Refused { failure: Failure::Answered(words), absent: (code == StatusCode::NOT_FOUND).then_some(Absent::Metric) }
}

/// What client-go says when the answer says nothing (`NewGenericServerResponse`).
fn generic(code: StatusCode, body: &[u8]) -> String {
    match code {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".to_owned(),
        StatusCode::UNAUTHORIZED => "the server has asked for the client to provide credentials".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => {
            "the server has received too many requests and has asked us to try again later".to_owned()
        }
        StatusCode::SERVICE_UNAVAILABLE => "the server is currently unable to handle the request".to_owned(),
        StatusCode::GATEWAY_TIMEOUT => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned()
        }
        code if code.is_server_error() => {
            let text = shorten(&String::from_utf8_lossy(body));
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
        code => {
            format!("the server responded with the status code {} but did not return more information", code.as_u16())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question<'a>(path: &'a [&'a str], parameters: &'a [(&'a str, &'a str)]) -> Question<'a> {
        Question { group: "custom.metrics.k8s.io", version: "v1beta2", namespace: "shop", path, parameters }
    }

    #[test]
    fn a_question_is_a_path_with_parameters() {
        let asked = question(&["pods", "*", "http_requests"], &[("labelSelector", "a=b,c in (d,e)"), ("empty", "")]);
        assert_eq!(
            asked.uri().unwrap_or_default(),
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/http_requests?labelSelector=a%3Db%2Cc+in+%28d%2Ce%29"
        );
        assert_eq!(
            question(&["a b?c#d\u{e9}"], &[]).uri().unwrap_or_default().rsplit('/').next(),
            Some("a%20b%3Fc%23d%C3%A9")
        );
    }

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for name in ["", ".", "..", "a/b", "../../../../api/v1/secrets", "%2e%2e"] {
            assert!(question(&["pods", name], &[]).uri().is_err(), "{name:?}");
        }
    }

    #[test]
    fn errors_have_the_words_of_client_go() {
        let question = Question {
            group: "metrics.k8s.io",
            version: "v1beta1",
            namespace: "shop",
            path: &["pods"],
            parameters: &[],
        };
        let told = br#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"pods.metrics.k8s.io is forbidden","reason":"Forbidden","code":403}"#;
        let absent = br#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server could not find the metric rps for pods","reason":"NotFound","code":404}"#;
        let cases: [(u16, &[u8], Failure); 8] = [
            (
                404,
                b"404 page not found\n",
                Failure::Unavailable(
                    "the server could not find the requested resource (metrics.k8s.io)".to_owned(),
                ),
            ),
            (404, absent, Failure::Answered("the server could not find the metric rps for pods".to_owned())),
            (
                503,
                b"service unavailable\n",
                Failure::Unavailable(
                    "the server is currently unable to handle the request (metrics.k8s.io)".to_owned(),
                ),
            ),
            (403, told, Failure::Answered("pods.metrics.k8s.io is forbidden".to_owned())),
            // An adapter speaks of one metric.
            (503, told, Failure::Answered("pods.metrics.k8s.io is forbidden".to_owned())),
            (
                429,
                told,
                Failure::Unavailable(
                    "the server has received too many requests and has asked us to try again later (metrics.k8s.io)"
                        .to_owned(),
                ),
            ),
            (
                500,
                b"oops \"x\"",
                Failure::Answered(
                    r#"an error on the server ("oops \"x\"") has prevented the request from succeeding (get pods.metrics.k8s.io)"#
                        .to_owned(),
                ),
            ),
            (
                302,
                b"",
                Failure::Answered(
                    "the server responded with the status code 302 but did not return more information (get pods.metrics.k8s.io)"
                        .to_owned(),
                ),
            ),
        ];
        for (code, body, expected) in cases {
            let code = StatusCode::from_u16(code).expect("a status code");
            assert_eq!(refusal(code, body, &question).failure, expected);
        }
    }
}
