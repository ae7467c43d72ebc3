//! How a model is run: the command line, then the model's own files, then the defaults.
//!
//! Pure but for the log, which gets the notes. A flag that was given holds for every model; a flag that was not leaves the choice to
//! `config.pbtxt` and `model.yaml`. What a file asks for and this server does not do is a note.

use std::num::NonZeroUsize;

use ortolan_model::settings::{Accelerator, Batching, Device, Overdue, Settings as Own};

use crate::{
    model::Settings,
    options::{Options, Provider, Sessions},
};

/// The settings of a model whose files say `own`; the log gets what of that is not followed.
#[must_use]
pub fn chosen(options: &Options, own: &Own, model: &str, version: &str) -> Settings {
    let (settings, notes) = of(options, own);
    for note in notes {
        tracing::warn!(model, version, "{note}");
    }
    settings
}

/// Says what a model's `config.pbtxt` asks for and this server does not act on.
pub fn tell_of_config(model: &str, notes: &[String]) {
    for note in notes {
        tracing::warn!(model, "config.pbtxt: {note}");
    }
}

/// The settings of a model whose files say `own`, and what of that is not followed.
fn of(options: &Options, own: &Own) -> (Settings, Vec<String>) {
    let mut settings = Settings::from(options);
    let mut notes = Vec::new();
    let mut overruled = |flag: &str, what: &str| {
        notes.push(format!("--{flag} goes before the model's own {what}"));
    };
    let count = |number: Option<usize>| number.and_then(NonZeroUsize::new);
    if let Some(sessions) = count(own.sessions) {
        match options.sessions {
            Sessions::Auto => settings.sessions = Sessions::Exactly(sessions),
            Sessions::Exactly(given) if given != sessions => {
                overruled("sessions", "number of instances");
            }
            Sessions::Exactly(_) => {}
        }
    }
    if let Some(threads) = count(own.threads) {
        if !options.is_given("threads") {
            settings.threads = threads;
        } else if threads != settings.threads {
            overruled("threads", "intra_op_thread_count");
        }
    }
    if let Some(queue) = count(own.queue) {
        if !options.is_given("queue") {
            settings.queue = queue;
        } else if queue != settings.queue {
            overruled("queue", "max_queue_size");
        }
    }
    // A device is not a preference: a model that is written for a GPU, or must leave it alone, says so.
    settings.provider = provider(options.provider, own);
    settings.optimization = own.optimization;
    let given = settings.batching;
    if own.batching != Batching::default() && given != Batching::default() {
        notes.push(
            "what the flags say of batching goes before what the model's own files say".to_owned(),
        );
    }
    settings.batching = own.clone().overlaid(&given).batching;
    settings.priorities = own.priorities;
    settings.timeout = own.timeout;
    if own.overdue == Overdue::Delay {
        notes.push(
            "timeout_action DELAY is not done here: a request that waited for its timeout is refused"
                .to_owned(),
        );
    }
    settings.cache = own.cache.unwrap_or(settings.cache);
    (settings, notes)
}

/// Where a model runs that the server would run on `server`.
fn provider(server: Provider, own: &Own) -> Provider {
    let base = match own.device {
        Device::Server => server,
        Device::Cpu if server.is_gpu() => Provider::CPU,
        Device::Cpu => server,
        Device::Gpu if server.is_gpu() => server,
        Device::Gpu => Provider::CUDA,
    };
    match (own.gpu_accelerator, own.cpu_accelerator) {
        (Some(Accelerator::TensorRt), _) if base == Provider::CUDA => Provider::TensorRT,
        (_, Some(Accelerator::OpenVino)) if base == Provider::CPU => Provider::OpenVINO,
        _ => base,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ortolan_model::settings::Mode;

    use super::*;

    fn options(args: &[&str]) -> Options {
        let args = [&["ortolan-server", "m"], args].concat();
        Options::read_from(args).unwrap()
    }

    fn own(change: impl FnOnce(&mut Own)) -> Own {
        let mut own = Own::default();
        change(&mut own);
        own
    }

    #[test]
    fn the_models_files_go_before_defaults_and_behind_flags_that_were_given() {
        let own = own(|own| {
            (own.sessions, own.threads, own.queue) = (Some(3), Some(2), Some(7));
        });
        let (settings, notes) = of(&options(&[]), &own);
        let count = |n| NonZeroUsize::new(n).unwrap();
        assert_eq!(settings.sessions, Sessions::Exactly(count(3)));
        assert_eq!((settings.threads, settings.queue), (count(2), count(7)));
        assert!(notes.is_empty());
        let (settings, notes) = of(
            &options(&["--sessions", "1", "--threads", "1", "--queue", "256"]),
            &own,
        );
        assert_eq!(settings.sessions, Sessions::Exactly(count(1)));
        assert_eq!((settings.threads, settings.queue), (count(1), count(256)));
        assert_eq!(notes.len(), 3, "{notes:?}");
        let (settings, notes) = of(&options(&["--sessions", "auto", "--threads", "2"]), &own);
        assert_eq!(settings.sessions, Sessions::Exactly(count(3)));
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn batching_is_laid_over_field_by_field_and_what_is_not_done_is_said() {
        let own = own(|own| {
            own.batching.mode = Some(Mode::Together);
            own.batching.max = Some(16);
            own.batching.preferred = vec![4, 16];
            own.timeout = Some(Duration::from_secs(1));
            own.overdue = Overdue::Delay;
            own.cache = Some(false);
        });
        let (settings, notes) = of(&options(&[]), &own);
        assert_eq!(settings.batching, own.batching);
        assert_eq!((settings.timeout, settings.cache), (own.timeout, false));
        assert_eq!(notes.len(), 1, "{notes:?}");
        let (settings, notes) = of(&options(&["--max-batch", "8"]), &own);
        let batching = settings.batching;
        assert_eq!((batching.max, batching.preferred), (Some(8), vec![4]));
        assert_eq!(notes.len(), 2, "{notes:?}");
    }

    #[test]
    fn a_model_runs_where_its_file_and_the_server_agree() {
        use Provider::{CPU, CUDA, OpenVINO, ROCm, TensorRT};
        let (gpu, cpu) = (Some(Accelerator::TensorRt), Some(Accelerator::OpenVino));
        let cases = [
            (CPU, Device::Server, None, None, CPU),
            (CUDA, Device::Server, None, None, CUDA),
            (CUDA, Device::Cpu, None, None, CPU),
            (CPU, Device::Gpu, None, None, CUDA),
            (ROCm, Device::Gpu, gpu, None, ROCm),
            (CUDA, Device::Server, gpu, cpu, TensorRT),
            (CPU, Device::Server, gpu, cpu, OpenVINO),
            (CPU, Device::Server, gpu, None, CPU),
            (CPU, Device::Gpu, gpu, None, TensorRT),
            (OpenVINO, Device::Cpu, None, None, OpenVINO),
        ];
        for (server, device, gpu_accelerator, cpu_accelerator, expected) in cases {
            let own = Own {
                device,
                gpu_accelerator,
                cpu_accelerator,
                ..Own::default()
            };
            assert_eq!(provider(server, &own), expected, "{server:?} {own:?}");
        }
    }
}
