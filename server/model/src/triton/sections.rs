//! The sections of a `config.pbtxt`, one function each.

use std::{collections::BTreeSet, path::Path, time::Duration};

use super::{
    VersionPolicy,
    fields::{Fields, Item, Notes, Wrong},
};
use crate::settings::{
    Accelerator, Declared, Device, Mode, Optimization, Overdue, Priorities, Settings, WarmUp,
};

/// Triton's name, its number, and what the Open Inference Protocol calls it.
const DATATYPES: [(&str, i64, &str); 14] = [
    ("TYPE_BOOL", 1, "BOOL"),
    ("TYPE_UINT8", 2, "UINT8"),
    ("TYPE_UINT16", 3, "UINT16"),
    ("TYPE_UINT32", 4, "UINT32"),
    ("TYPE_UINT64", 5, "UINT64"),
    ("TYPE_INT8", 6, "INT8"),
    ("TYPE_INT16", 7, "INT16"),
    ("TYPE_INT32", 8, "INT32"),
    ("TYPE_INT64", 9, "INT64"),
    ("TYPE_FP16", 10, "FP16"),
    ("TYPE_FP32", 11, "FP32"),
    ("TYPE_FP64", 12, "FP64"),
    ("TYPE_STRING", 13, "BYTES"),
    ("TYPE_BF16", 14, "BF16"),
];

/// A name without folders.
pub(super) fn file_name(item: &Item<'_>) -> Result<String, Wrong> {
    let name = item.text()?;
    let is_plain = Path::new(name)
        .file_name()
        .is_some_and(|plain| plain == name);
    if is_plain {
        return Ok(name.to_owned());
    }
    Err(item.wrong(&format!(
        "is {name:?}; write the name of a file, without folders"
    )))
}

pub(super) fn version_policy(item: &Item<'_>, notes: &mut Notes) -> Result<VersionPolicy, Wrong> {
    let mut policy = item.message()?;
    let mut chosen = Vec::new();
    if let Some(latest) = policy.one("latest")? {
        let mut latest = latest.message()?;
        let count = match latest.one("num_versions")? {
            Some(count) => count.count(1)?,
            None => 1,
        };
        latest.done(notes);
        chosen.push(VersionPolicy::Latest(count));
    }
    if let Some(all) = policy.one("all")? {
        all.message()?.done(notes);
        chosen.push(VersionPolicy::All);
    }
    if let Some(specific) = policy.one("specific")? {
        let mut specific = specific.message()?;
        let versions = specific.all("versions");
        let numbers = versions.iter().map(|version| version.number(1, i64::MAX));
        let numbers: Result<BTreeSet<i64>, Wrong> = numbers.collect();
        specific.done(notes);
        let numbers = numbers?
            .into_iter()
            .filter_map(|number| number.try_into().ok());
        chosen.push(VersionPolicy::Specific(numbers.collect()));
    }
    policy.done(notes);
    match (chosen.pop(), chosen.is_empty()) {
        (None, _) => Ok(VersionPolicy::default()),
        (Some(policy), true) => Ok(policy),
        (Some(_), false) => {
            Err(item.wrong("names more than one policy; keep one of latest, all, specific"))
        }
    }
}

/// `max_batch_size` and `dynamic_batching`, which explain each other.
pub(super) fn batching(
    file: &mut Fields<'_>,
    settings: &mut Settings,
    notes: &mut Notes,
) -> Result<(), Wrong> {
    let max = file.one("max_batch_size")?;
    let max = max.map(|item| item.count(0)).transpose()?;
    let dynamic = file.one("dynamic_batching")?;
    // 0, written out, is Triton's word for "no batch dimension". Left out, the graph decides.
    settings.batching.max = max.filter(|max| *max > 0);
    settings.batching.mode = match (max, &dynamic) {
        (Some(0), Some(item)) => {
            notes.push(item.note("is not used: max_batch_size is 0"));
            Some(Mode::Alone)
        }
        (_, Some(_)) => Some(Mode::Together),
        (Some(_), None) => Some(Mode::Alone),
        (None, None) => None,
    };
    let Some(item) = dynamic else { return Ok(()) };
    let mut dynamic = item.message()?;
    for size in dynamic.all("preferred_batch_size") {
        let preferred = size.count(1)?;
        if settings.batching.max.is_some_and(|max| preferred > max) {
            return Err(size.wrong(&format!(
                "is {preferred}, more than max_batch_size {}",
                settings.batching.max.unwrap_or_default()
            )));
        }
        settings.batching.preferred.push(preferred);
    }
    settings.batching.preferred.sort_unstable();
    settings.batching.preferred.dedup();
    if let Some(delay) = dynamic.one("max_queue_delay_microseconds")? {
        settings.batching.max_delay = Some(micros(&delay)?);
    }
    priorities(&mut dynamic, settings)?;
    if let Some(policy) = dynamic.one("default_queue_policy")? {
        queue_policy(&policy, settings, notes)?;
    }
    dynamic.unused(&["preserve_ordering", "priority_queue_policy"], notes);
    dynamic.done(notes);
    Ok(())
}

fn micros(item: &Item<'_>) -> Result<Duration, Wrong> {
    let micros = item.number(0, i64::MAX)?;
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

fn priorities(dynamic: &mut Fields<'_>, settings: &mut Settings) -> Result<(), Wrong> {
    // More levels than anybody tells apart, and few enough to keep a queue for each.
    const MOST: i64 = 1000;
    let levels = dynamic.one("priority_levels")?;
    let levels = levels.map(|item| item.number(0, MOST)).transpose()?;
    let levels = levels.filter(|levels| *levels > 0);
    let default = dynamic.one("default_priority_level")?;
    let (Some(levels), Some(item)) = (levels, &default) else {
        return match (levels, default) {
            (Some(levels), None) => Err(Wrong(format!(
                "dynamic_batching has {levels} priority_levels and no default_priority_level; write \
                 the level of requests that name none, 1 to {levels}"
            ))),
            (None, Some(item)) if item.number(0, i64::MAX)? > 0 => {
                Err(item.wrong("needs priority_levels beside it"))
            }
            _ => Ok(()),
        };
    };
    let default = item.number(1, levels)?;
    settings.priorities = Some(Priorities {
        levels: u32::try_from(levels).unwrap_or(1),
        default: u32::try_from(default).unwrap_or(1),
    });
    Ok(())
}

fn queue_policy(item: &Item<'_>, settings: &mut Settings, notes: &mut Notes) -> Result<(), Wrong> {
    let mut policy = item.message()?;
    if let Some(action) = policy.one("timeout_action")? {
        settings.overdue =
            action.choice(&[("REJECT", 0, Overdue::Reject), ("DELAY", 1, Overdue::Delay)])?;
    }
    if let Some(timeout) = policy.one("default_timeout_microseconds")? {
        settings.timeout = Some(micros(&timeout)?).filter(|timeout| !timeout.is_zero());
    }
    if let Some(allow) = policy.one("allow_timeout_override")? {
        settings.allow_shorter_timeout = Some(allow.bool()?);
    }
    if let Some(size) = policy.one("max_queue_size")? {
        // 0 is "no bound" in Triton. There is always one here: the server's.
        settings.queue = Some(size.count(0)?).filter(|size| *size > 0);
    }
    policy.done(notes);
    Ok(())
}

pub(super) fn optimization(
    item: &Item<'_>,
    settings: &mut Settings,
    notes: &mut Notes,
) -> Result<(), Wrong> {
    let mut section = item.message()?;
    if let Some(graph) = section.one("graph")? {
        let mut graph = graph.message()?;
        if let Some(level) = graph.one("level")? {
            // As the backend's documentation numbers them.
            settings.optimization = match level.number(-1, 2)? {
                -1 => Optimization::Basic,
                1 => Optimization::Extended,
                2 => Optimization::Off,
                _ => Optimization::All,
            };
        }
        graph.done(notes);
    }
    if let Some(accelerators) = section.one("execution_accelerators")? {
        let mut accelerators = accelerators.message()?;
        for item in accelerators.all("gpu_execution_accelerator") {
            let chosen = accelerator(
                &item,
                &[("tensorrt", Some(Accelerator::TensorRt)), ("cuda", None)],
                notes,
            )?;
            settings.gpu_accelerator = settings.gpu_accelerator.or(chosen);
        }
        for item in accelerators.all("cpu_execution_accelerator") {
            let chosen = accelerator(&item, &[("openvino", Some(Accelerator::OpenVino))], notes)?;
            settings.cpu_accelerator = settings.cpu_accelerator.or(chosen);
        }
        accelerators.done(notes);
    }
    section.unused(
        &[
            "priority",
            "cuda",
            "input_pinned_memory",
            "output_pinned_memory",
            "gather_kernel_buffer_threshold",
            "eager_batching",
        ],
        notes,
    );
    section.done(notes);
    Ok(())
}

fn accelerator(
    item: &Item<'_>,
    known: &[(&str, Option<Accelerator>)],
    notes: &mut Notes,
) -> Result<Option<Accelerator>, Wrong> {
    let mut fields = item.message()?;
    let name = fields.one("name")?;
    let name = name.as_ref().map(Item::text).transpose()?.unwrap_or("");
    fields.unused(&["parameters"], notes);
    fields.done(notes);
    match known.iter().find(|(known, _)| *known == name) {
        Some((_, chosen)) => Ok(*chosen),
        None => {
            notes.push(item.note(&format!("names {name:?}, which is not known")));
            Ok(None)
        }
    }
}

pub(super) fn instance_groups(
    groups: &[Item<'_>],
    settings: &mut Settings,
    notes: &mut Notes,
) -> Result<(), Wrong> {
    let mut device = None;
    let mut sessions = None;
    for item in groups {
        let mut group = item.message()?;
        let kind = match group.one("kind")? {
            Some(kind) => kind.choice(&[
                ("KIND_AUTO", 0, Device::Server),
                ("KIND_GPU", 1, Device::Gpu),
                ("KIND_CPU", 2, Device::Cpu),
                ("KIND_MODEL", 3, Device::Server),
            ])?,
            None => Device::Server,
        };
        // 1024 is also the bound of --sessions.
        let count = group.one("count")?;
        let count = count
            .map(|item| item.number(0, 1024))
            .transpose()?
            .unwrap_or(0);
        let is_passive = match group.one("passive")? {
            Some(passive) => passive.bool()?,
            None => false,
        };
        group.unused(
            &[
                "gpus",
                "rate_limiter",
                "secondary_devices",
                "profile",
                "host_policy",
            ],
            notes,
        );
        group.all("name");
        group.done(notes);
        if is_passive {
            notes.push(item.note("is passive and gets no sessions"));
        } else if device.is_some_and(|device| device != kind) {
            notes.push(item.note("is of another kind than the first group and is not used"));
        } else {
            device = Some(kind);
            let count = usize::try_from(count).unwrap_or_default();
            sessions = Some(sessions.unwrap_or(0) + count);
        }
    }
    settings.device = device.unwrap_or_default();
    settings.sessions = sessions.filter(|sessions| *sessions > 0);
    Ok(())
}

pub(super) fn parameter(
    item: &Item<'_>,
    settings: &mut Settings,
    notes: &mut Notes,
) -> Result<(), Wrong> {
    let mut entry = item.message()?;
    let (key, value) = (entry.one("key")?, entry.one("value")?);
    entry.done(notes);
    let key = key.as_ref().map(Item::text).transpose()?.unwrap_or("");
    if key != "intra_op_thread_count" {
        notes.push(item.note(&format!("with the key {key:?} is not used here")));
        return Ok(());
    }
    let text = match &value {
        Some(value) => value.message()?.one("string_value")?,
        None => None,
    };
    let text = text.as_ref().map(Item::text).transpose()?.unwrap_or("");
    match text.trim().parse::<usize>() {
        // 0 is ONNX Runtime's "as many as there are cores"; here the server decides.
        Ok(threads) if threads <= 1024 => {
            settings.threads = Some(threads).filter(|threads| *threads > 0);
            Ok(())
        }
        _ => Err(item.wrong(&format!(
            "intra_op_thread_count is {text:?}, expected a text that holds a number, 0 to 1024"
        ))),
    }
}

/// An input or output, and the name of its labels' file.
pub(super) fn tensor(
    item: &Item<'_>,
    batch: Option<i64>,
    notes: &mut Notes,
) -> Result<(Declared, Option<String>), Wrong> {
    let mut fields = item.message()?;
    let name = match fields.one("name")? {
        Some(name) => name.text()?.to_owned(),
        None => return Err(item.wrong("has no name")),
    };
    let datatype = fields.one("data_type")?;
    let datatype = datatype.map(|item| item.choice(&DATATYPES)).transpose()?;
    let dims = fields.all("dims");
    let dims: Result<Vec<i64>, Wrong> = dims.iter().map(|dim| dim.number(-1, i64::MAX)).collect();
    let dims = dims?;
    if let Some(reshape) = fields.one("reshape")? {
        return Err(reshape.wrong(&format!(
            "gives {name:?} another shape than the model has, which this server does not; put a Reshape \
             into the graph, or let clients send the model's own shape"
        )));
    }
    let labels = fields.one("label_filename")?;
    let labels = labels.map(|item| file_name(&item)).transpose()?;
    if let Some(format) = fields.one("format")? {
        // How an image lies in the tensor: for people, the shape says it to the server.
        format.choice(&[
            ("FORMAT_NONE", 0, ()),
            ("FORMAT_NHWC", 1, ()),
            ("FORMAT_NCHW", 2, ()),
        ])?;
    }
    fields.unused(
        &[
            "is_shape_tensor",
            "is_non_linear_format_io",
            "allow_ragged_batch",
            "optional",
        ],
        notes,
    );
    fields.done(notes);
    let declared = Declared {
        name,
        datatype,
        // No dims at all and `dims: [ ]` are the same text to protobuf: nothing is said.
        shape: (!dims.is_empty()).then(|| batch.into_iter().chain(dims).collect()),
    };
    Ok((declared, labels))
}

pub(super) fn warm_up(
    item: &Item<'_>,
    has_batch: bool,
    notes: &mut Notes,
) -> Result<WarmUp, Wrong> {
    let mut fields = item.message()?;
    let mut sample = WarmUp::default();
    if let Some(name) = fields.one("name")? {
        name.text()?.clone_into(&mut sample.name);
    }
    let batch = fields.one("batch_size")?;
    let batch = batch.map(|item| item.number(0, 1_000_000)).transpose()?;
    // Left out it would be 0, which Triton refuses; one row is what is meant.
    let batch = has_batch.then(|| batch.unwrap_or(1).max(1));
    for entry in fields.all("inputs") {
        let mut entry = entry.message()?;
        let (key, value) = (entry.one("key")?, entry.one("value")?);
        entry.done(notes);
        let (Some(key), Some(value)) = (key, value) else {
            return Err(item.wrong("has an entry of inputs without a key or a value"));
        };
        let mut tensor = value.message()?;
        let dims = tensor.all("dims");
        let dims: Result<Vec<i64>, Wrong> =
            dims.iter().map(|dim| dim.number(0, i64::MAX)).collect();
        let shape = batch.into_iter().chain(dims?).collect();
        tensor.all("data_type");
        tensor.all("zero_data");
        for data in tensor
            .all("random_data")
            .into_iter()
            .chain(tensor.all("input_data_file"))
        {
            notes.push(data.note("is not used: the model is warmed up with zeros"));
        }
        tensor.done(notes);
        sample.shapes.insert(key.text()?.to_owned(), shape);
    }
    fields.unused(&["count"], notes);
    fields.done(notes);
    Ok(sample)
}

pub(super) fn response_cache(item: &Item<'_>, notes: &mut Notes) -> Result<Option<bool>, Wrong> {
    let mut fields = item.message()?;
    let enable = fields.one("enable")?;
    let enable = enable.map(|item| item.bool()).transpose()?;
    fields.done(notes);
    Ok(enable)
}
