//! The live view: drawn anew each second on a screen of its own, until q, Escape or ctrl-c.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use crossterm::{
    cursor, event, execute, queue,
    style::Print,
    terminal::{self, Clear, ClearType},
};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Seen, look};
use crate::{cluster::Cluster, error::Error};

/// Between two looks; the operator looks at a rollout every two seconds.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at the keyboard.
const KEYS: Duration = Duration::from_millis(100);

/// Draws until it is ended; answers the last text, to be left behind on the terminal.
///
/// # Errors
/// When the terminal cannot be drawn on, or the service is gone.
pub async fn watch(cluster: &Cluster, name: &str, mut seen: Seen) -> Result<String, Error> {
    let screen = Screen::open()?;
    let mut keys = keys();
    let mut trouble = None;
    loop {
        screen.draw(&seen.text(Timestamp::now()), trouble.as_deref())?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(Key::End) | None => break,
                Some(Key::Redraw) => {}
            },
            () = tokio::time::sleep(LOOK) => match look(cluster, name).await {
                Ok(now) => (seen, trouble) = (now, None),
                // What was seen last stays, and says that it is old.
                Err(error) if error.is_transient() => trouble = Some(error.to_string()),
                Err(error) => return Err(error),
            },
        }
    }
    Ok(seen.text(Timestamp::now()))
}

enum Key {
    End,
    Redraw,
}

/// The keyboard, on a thread: it can only be waited for there. The thread ends with its receiver.
fn keys() -> mpsc::Receiver<Key> {
    let (tell, keys) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !tell.is_closed() {
            let key = match event::poll(KEYS).and_then(|some| {
                if some {
                    event::read().map(Some)
                } else {
                    Ok(None)
                }
            }) {
                Ok(Some(event)) => key(&event),
                Ok(None) => None,
                Err(_) => Some(Key::End),
            };
            if key.is_some_and(|key| tell.blocking_send(key).is_err()) {
                return;
            }
        }
    });
    keys
}

fn key(event: &event::Event) -> Option<Key> {
    match event {
        event::Event::Resize(..) => Some(Key::Redraw),
        event::Event::Key(key) if key.kind != event::KeyEventKind::Release => {
            let is_control = key.modifiers.contains(event::KeyModifiers::CONTROL);
            match key.code {
                event::KeyCode::Char('q') | event::KeyCode::Esc => Some(Key::End),
                event::KeyCode::Char('c' | 'd') if is_control => Some(Key::End),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A screen of its own; what was there comes back when it is dropped.
struct Screen;

impl Screen {
    fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn draw(&self, text: &str, trouble: Option<&str>) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut out = io::stdout().lock();
        queue!(out, terminal::BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
        let last = trouble.map_or_else(
            || "q ends".to_owned(),
            |trouble| format!("old, since {trouble}"),
        );
        for (line, text) in fit(text, &last, width, height).iter().enumerate() {
            let line = u16::try_from(line).unwrap_or(u16::MAX);
            queue!(
                out,
                cursor::MoveTo(0, line),
                Clear(ClearType::CurrentLine),
                Print(text)
            )?;
        }
        queue!(
            out,
            Clear(ClearType::FromCursorDown),
            terminal::EndSynchronizedUpdate
        )?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// The lines that fit, cut at the right; the last one is always there. Other characters than those that can be seen
/// are left out: the text comes from a cluster.
fn fit(text: &str, last: &str, width: u16, height: u16) -> Vec<String> {
    let (width, height) = (usize::from(width), usize::from(height));
    let room = height.saturating_sub(1);
    let cut = |line: &str| {
        line.chars()
            .filter(|c| !c.is_control())
            .take(width)
            .collect::<String>()
    };
    let mut lines: Vec<String> = text.lines().take(room).map(cut).collect();
    if height > 0 {
        lines.push(cut(last));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_fits_the_screen() {
        let text = "first line\nse\u{1b}[31mcond\nthird\nfourth\n";
        assert_eq!(fit(text, "q ends", 6, 3), ["first ", "se[31m", "q ends"]);
        assert_eq!(fit(text, "q ends", 80, 10).len(), 5);
        assert_eq!(fit(text, "q ends", 3, 1), ["q e"]);
        assert!(fit(text, "q ends", 3, 0).is_empty());
    }
}
