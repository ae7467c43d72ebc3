//! The thread that writes a download to disk and hashes it on the way, so that a slow disk never
//! stops the server's other connections.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    path::Path,
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::digest::{Digest, Hasher};

/// Chunks between the network and the disk; a chunk is what one read brings, 400 KiB at most.
pub(super) const QUEUE: usize = 16;

enum Command {
    Write(Bytes),
    Restart,
}

/// A file that is being written.
pub(super) struct Sink {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<io::Result<(Digest, u64)>>>,
}

impl Sink {
    /// Makes the file, which must not exist.
    pub(super) async fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let (commands, received) = mpsc::channel(QUEUE);
        let thread = tokio::task::spawn_blocking(move || write_all(file, received));
        Ok(Self {
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Appends. An error may belong to an earlier write.
    pub(super) async fn write(&mut self, data: Bytes) -> io::Result<()> {
        self.send(Command::Write(data)).await
    }

    /// Drops all that was written.
    pub(super) async fn restart(&mut self) -> io::Result<()> {
        self.send(Command::Restart).await
    }

    async fn send(&mut self, command: Command) -> io::Result<()> {
        let sent = match &self.commands {
            Some(commands) => commands.send(command).await.is_ok(),
            None => false,
        };
        if sent {
            return Ok(());
        }
        // The thread ends early only with an error.
        Err(match self.join().await {
            Err(error) => error,
            Ok(_) => io::Error::other("the writing thread ended early"),
        })
    }

    /// Waits for the last write; digest and size of the file.
    pub(super) async fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.join().await
    }

    async fn join(&mut self) -> io::Result<(Digest, u64)> {
        self.commands = None;
        match self.thread.take() {
            Some(thread) => thread.await.map_err(io::Error::other)?,
            None => Err(io::Error::other("the writing thread has ended already")),
        }
    }
}

fn write_all(mut file: File, mut commands: mpsc::Receiver<Command>) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::default();
    let mut bytes = 0;
    while let Some(command) = commands.blocking_recv() {
        match command {
            Command::Write(data) => {
                hasher.update(&data);
                file.write_all(&data)?;
                bytes += data.len() as u64;
            }
            Command::Restart => {
                file.set_len(0)?;
                file.rewind()?;
                hasher = Hasher::default();
                bytes = 0;
            }
        }
    }
    Ok((hasher.finish(), bytes))
}
