//! What an instant query answers.
//!
//! The format: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use http::StatusCode;
use serde::{Deserialize, de::IgnoredAny};

use super::super::{
    failure::{Failure, shorten},
    quantity::milli_of_float,
};

#[derive(Deserialize)]
struct Envelope {
    status: Outcome,
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Success,
    Error,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
    Scalar(Point),
    String(IgnoredAny),
    Matrix(IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    /// Absent for a native histogram.
    value: Option<Point>,
}

/// When, in seconds since 1970, and what; the value is text because JSON has no NaN.
#[derive(Deserialize)]
struct Point(#[allow(dead_code)] f64, String);

/// The one value of an answer, in thousandths.
///
/// Errors: the query failed, or its result is anything else than one finite value.
pub(super) fn value(code: StatusCode, body: &[u8]) -> Result<i64, Failure> {
    let not_prometheus = || Failure::Answered(format!("the server answered {code}, not as Prometheus does"));
    // Words of a server that is not Prometheus are not repeated: it may be one that the user could not have asked.
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| not_prometheus())?;
    match (envelope.status, envelope.data) {
        (Outcome::Error, _) => {
            let (kind, told) = (shorten(&envelope.error_type), shorten(&envelope.error));
            Err(Failure::Answered(format!("Prometheus refuses the query: {kind}: {told}")))
        }
        (Outcome::Success, Some(data)) if code.is_success() => milli_of_float(single(data)?),
        (Outcome::Success, _) => Err(not_prometheus()),
    }
}

fn single(data: Data) -> Result<f64, Failure> {
    let wrong = |why: &str| Err(Failure::Answered(format!("the query gives {why}")));
    match data {
        Data::Scalar(point) => number(&point),
        Data::Vector(series) => match series.as_slice() {
            [Series { value: Some(point) }] => number(point),
            [Series { value: None }] => wrong("a histogram; give one number, for example by histogram_quantile()"),
            [] => wrong("no series"),
            many => wrong(&format!("{} series; give one, for example by sum()", many.len())),
        },
        Data::String(_) => wrong("a string; give a number"),
        Data::Matrix(_) => wrong("a range of values; give an instant vector or a scalar"),
    }
}

fn number(point: &Point) -> Result<f64, Failure> {
    let Point(_, text) = point;
    text.parse().map_err(|_| Failure::Answered(format!("{:?} is no value of Prometheus", shorten(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(result: &str) -> Result<i64, String> {
        let body = format!(r#"{{"status":"success","data":{result},"warnings":["w"],"infos":[]}}"#);
        value(StatusCode::OK, body.as_bytes()).map_err(|failure| failure.why())
    }

    #[test]
    fn one_value_is_an_answer() {
        for (result, expected) in [
            (r#"{"resultType":"scalar","result":[1435781451.781,"1.5"]}"#, Ok(1500)),
            (r#"{"resultType":"vector","result":[{"metric":{},"value":[1435781451,"42"]}]}"#, Ok(42_000)),
            (
                r#"{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1435781451.781,"1e-3"]}],"analysis":{}}"#,
                Ok(1),
            ),
            (r#"{"resultType":"vector","result":[]}"#, Err("the query gives no series")),
            (
                r#"{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"2"]}]}"#,
                Err("the query gives 2 series; give one, for example by sum()"),
            ),
            (
                r#"{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"1","sum":"1"}]}]}"#,
                Err("the query gives a histogram; give one number, for example by histogram_quantile()"),
            ),
            (
                r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]]}]}"#,
                Err("the query gives a range of values; give an instant vector or a scalar"),
            ),
            (r#"{"resultType":"string","result":[1,"x"]}"#, Err("the query gives a string; give a number")),
            (
                r#"{"resultType":"scalar","result":[1,"NaN"]}"#,
                Err("the value is NaN, which nothing can be computed with"),
            ),
            (
                r#"{"resultType":"scalar","result":[1,"+Inf"]}"#,
                Err("the value is inf, which nothing can be computed with"),
            ),
            (
                r#"{"resultType":"scalar","result":[1,"-Inf"]}"#,
                Err("the value is -inf, which nothing can be computed with"),
            ),
            (r#"{"resultType":"scalar","result":[1,"1e300"]}"#, Ok(i64::MAX)),
            (r#"{"resultType":"scalar","result":[1,"many"]}"#, Err("\"many\" is no value of Prometheus")),
            (r#"{"resultType":"tensor","result":[]}"#, Err("the server answered 200 OK, not as Prometheus does")),
            ("null", Err("the server answered 200 OK, not as Prometheus does")),
        ] {
            assert_eq!(of(result), expected.map_err(str::to_owned), "{result}");
        }
    }

    #[test]
    fn errors_of_prometheus_are_told_and_those_of_others_are_not() {
        let told = |code: u16, body: &str| {
            let code = StatusCode::from_u16(code).expect("a status code");
            value(code, body.as_bytes()).expect_err("a failure").why()
        };
        assert_eq!(
            told(
                400,
                r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:4: parse error"}"#
            ),
            "Prometheus refuses the query: bad_data: invalid parameter \"query\": 1:4: parse error"
        );
        assert_eq!(
            told(502, "<html>internal secrets</html>"),
            "the server answered 502 Bad Gateway, not as Prometheus does"
        );
        assert_eq!(told(200, r#"{"password":"x"}"#), "the server answered 200 OK, not as Prometheus does");
        let good = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#;
        assert_eq!(told(500, good), "the server answered 500 Internal Server Error, not as Prometheus does");
    }
}
