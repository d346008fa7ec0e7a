//! Whether the process that holds the lease is dead, as its own kernel says (docs/adr/0020).
//!
//! Each process listens on a port and says there who it is; the holder's address is in the Lease. A standby keeps a
//! connection to the holder. The kernel ends it when the last thread of that process is gone, and then refuses new
//! ones. Silence proves nothing: not a connection that cannot be made, not one that times out, not one that stays open
//! while the process is stopped.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

/// How many other processes may hold a connection. There are as many as replicas.
const MOST: usize = 64;
/// The longest name of a process.
const LONGEST_NAME: u64 = 512;
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(1);
/// A process that ends closes what it has one by one; so soon after the first of it is closed all is.
const ALL_CLOSED: Duration = Duration::from_millis(50);
/// How often it has to be seen that the process is gone, with a pause between.
const LOOKS: u8 = 2;

/// Says who this process is to everybody who connects, and keeps the connection. `lost` is notified when one ends:
/// whoever held it may take this process for dead, unless the lease is renewed.
pub(super) async fn serve(listener: TcpListener, identity: Arc<str>, lost: Arc<Notify>) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok((mut connection, _)) = listener.accept().await else {
            sleep(LOOK).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let (identity, lost) = (identity.clone(), lost.clone());
        tokio::spawn(async move {
            let _place = place;
            if connection.write_all(format!("{identity}\n").as_bytes()).await.is_err() {
                return;
            }
            // Nothing is expected from there but the end.
            let mut ignored = [0; 64];
            while connection.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
            lost.notify_one();
        });
    }
}

/// What was seen at the holder's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// The holder said who it is, and the connection stands.
    Alive,
    /// The connection to it ended.
    Ended,
    /// Nothing listens there, says its kernel; or another process does, and says who it is: only one can.
    Gone,
    /// No answer, or one that says nothing.
    Nothing,
}

/// What is known of the holder's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Nothing: the time of the lease counts.
    #[default]
    Unknown,
    /// It lives.
    Beats,
    /// The connection to it ended, and since then it was seen so often that it is gone.
    Suspect(u8),
    /// It is dead.
    Dead,
}

impl Pulse {
    fn after(self, sight: Sight) -> Self {
        match (self, sight) {
            (Self::Dead, _) => Self::Dead,
            (_, Sight::Alive) => Self::Beats,
            // Only a connection to the very process counts, and only as long as nothing contradicts.
            (Self::Beats, Sight::Ended) => Self::Suspect(0),
            (Self::Suspect(times), Sight::Gone) if times + 1 >= LOOKS => Self::Dead,
            (Self::Suspect(times), Sight::Gone) => Self::Suspect(times + 1),
            (Self::Unknown | Self::Beats, Sight::Gone) | (_, Sight::Ended | Sight::Nothing) => Self::Unknown,
        }
    }
}

/// A standby's view of one holder.
pub(super) struct Lifeline {
    holder: String,
    address: SocketAddr,
    pulse: watch::Receiver<Pulse>,
    task: AbortHandle,
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lifeline {
    /// Begins to look at a process, with such pauses.
    pub(super) fn to(holder: &str, address: SocketAddr, pause: Duration) -> Self {
        let (state, pulse) = watch::channel(Pulse::Unknown);
        let task = tokio::spawn(follow(address, holder.to_owned(), pause, state)).abort_handle();
        Self { holder: holder.to_owned(), address, pulse, task }
    }

    pub(super) fn is_to(&self, holder: &str, address: SocketAddr) -> bool {
        self.holder == holder && self.address == address
    }

    pub(super) fn pulse(&self) -> Pulse {
        *self.pulse.borrow()
    }

    /// Waits until there is something new. Safe to cancel.
    pub(super) async fn changed(&mut self) {
        if self.pulse.changed().await.is_err() {
            // It is dead, and nothing more will be known.
            std::future::pending().await
        }
    }
}

async fn follow(address: SocketAddr, holder: String, pause: Duration, state: watch::Sender<Pulse>) {
    let mut pulse = Pulse::Unknown;
    while pulse != Pulse::Dead {
        let (sight, connection) = look(address, &holder).await;
        pulse = pulse.after(sight);
        publish(&state, pulse);
        let Some(connection) = connection else {
            sleep(pause).await;
            continue;
        };
        pulse = pulse.after(end(connection).await);
        publish(&state, pulse);
        sleep(ALL_CLOSED).await;
    }
}

fn publish(state: &watch::Sender<Pulse>, pulse: Pulse) {
    state.send_if_modified(|known| std::mem::replace(known, pulse) != pulse);
}

/// Looks at who is there. The connection, if it is the holder.
async fn look(address: SocketAddr, holder: &str) -> (Sight, Option<BufReader<TcpStream>>) {
    let mut connection = match timeout(LOOK, TcpStream::connect(address)).await {
        Ok(Ok(connection)) => BufReader::new(connection),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return (Sight::Gone, None),
        Ok(Err(_)) | Err(_) => return (Sight::Nothing, None),
    };
    let mut name = String::new();
    let read = timeout(LOOK, (&mut connection).take(LONGEST_NAME).read_line(&mut name)).await;
    match read {
        Ok(Ok(_)) if name.strip_suffix('\n') == Some(holder) => (Sight::Alive, Some(connection)),
        Ok(Ok(_)) if is_a_name(&name) => (Sight::Gone, None),
        Ok(_) | Err(_) => (Sight::Nothing, None),
    }
}

/// Whether it is what a process of this kind says, and not a proxy's error page: `HOST_PID_START`.
fn is_a_name(line: &str) -> bool {
    let Some(name) = line.strip_suffix('\n') else { return false };
    let mut parts = name.rsplitn(3, '_');
    let mut number = || parts.next().is_some_and(|part| part.parse::<u128>().is_ok());
    number() && number() && parts.next().is_some_and(|host| !host.is_empty())
}

/// Waits for the end of a connection, and says what it means.
async fn end(mut connection: BufReader<TcpStream>) -> Sight {
    let mut ignored = [0; 64];
    loop {
        match connection.read(&mut ignored).await {
            Ok(0) => return Sight::Ended,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Sight::Ended,
            // Unreachable, timed out: that is the network.
            Err(_) => return Sight::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pulse::*, Sight::*, *};

    #[track_caller]
    fn ends(sights: &[Sight], expected: Pulse) {
        assert_eq!(sights.iter().fold(Unknown, |pulse, sight| pulse.after(*sight)), expected, "{sights:?}");
    }

    #[test]
    fn dead_is_only_who_was_known_and_whose_kernel_says_so_twice() {
        ends(&[Alive, Ended, Gone, Gone], Dead);
        ends(&[Gone, Alive, Ended, Gone, Gone], Dead);
        ends(&[Alive, Ended, Gone], Suspect(1));
        ends(&[Alive, Ended], Suspect(0));
    }

    #[test]
    fn what_was_never_known_is_not_dead() {
        ends(&[Gone, Gone, Gone], Unknown);
        ends(&[Nothing, Gone, Gone, Gone], Unknown);
    }

    #[test]
    fn silence_proves_nothing() {
        ends(&[Alive, Nothing, Gone, Gone], Unknown);
        ends(&[Alive, Ended, Nothing, Gone, Gone], Unknown);
        ends(&[Alive, Ended, Gone, Nothing, Gone, Gone], Unknown);
    }

    #[test]
    fn a_proxy_that_cuts_connections_of_a_living_process_does_not_kill_it() {
        ends(&[Alive, Ended, Alive], Beats);
        ends(&[Alive, Ended, Gone, Alive], Beats);
        ends(&[Alive, Ended, Gone, Alive, Ended, Gone], Suspect(1));
    }

    #[test]
    fn only_a_process_of_this_kind_takes_a_place() {
        assert!(is_a_name("catamaran-7d9f_1_1764500000000000000\n"));
        for text in
            ["", "\n", "HTTP/1.1 503 Service Unavailable\n", "catamaran_1_2", "catamaran_1\n", "a_b_1\n", "_1_2\n"]
        {
            assert!(!is_a_name(text), "{text:?}");
        }
    }
}
