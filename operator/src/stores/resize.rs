//! Whether the cluster resizes pods in place.

use std::time::Duration;

use catamaran_plan::facts::ResizeApi;
use kube::Client;
use tokio::sync::watch::Sender;

/// The first minor version of Kubernetes 1 that lowers memory limits in place (KEP-1287).
const FIRST_MINOR: u32 = 34;
/// How long to wait after an answer that did not come.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks until there is an answer. Asked once: an API server of another version is another process, and an operator that
/// takes it for the old one rolls out where it need not.
pub(super) async fn find_out(client: Client, answer: Sender<Option<ResizeApi>>) {
    loop {
        match asked(&client).await {
            Ok(api) => {
                tracing::info!(?api, "resizing pods in place");
                answer.send_replace(Some(api));
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the API server does not tell its version and resources; asking again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn asked(client: &Client) -> Result<ResizeApi, kube::Error> {
    let version = client.apiserver_version().await?;
    let resources = client.list_core_api_resources("v1").await?;
    let served = resources.resources.iter().any(|resource| resource.name == "pods/resize");
    Ok(if served && is_late_enough(&version.major, &version.minor) { ResizeApi::Served } else { ResizeApi::Absent })
}

/// Some distributions write `34+`.
fn is_late_enough(major: &str, minor: &str) -> bool {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap_or(0)
    };
    (number(major), number(minor)) >= (1, FIRST_MINOR)
}

#[cfg(test)]
mod tests {
    use super::is_late_enough;

    #[test]
    fn memory_limits_are_lowered_in_place_from_1_34_on() {
        for (major, minor, expected) in
            [("1", "33", false), ("1", "34", true), ("1", "34+", true), ("2", "0", true), ("", "x", false)]
        {
            assert_eq!(is_late_enough(major, minor), expected, "{major}.{minor}");
        }
    }
}
