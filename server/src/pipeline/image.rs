//! From a photograph's bytes to a tensor: decode, turn upright, resize, order, normalise.
//!
//! Input: JPEG, PNG or WebP, told by its first bytes. Output: floats in the model's layout. Bounds: an
//! image of more than [`MAX_PIXELS`] is refused from its header, before a pixel is decoded.

use std::io::Cursor;

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image as Pixels, ImageRef},
};
use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage, metadata::Orientation,
};
use ortolan_model::{Channels, ImageInput, Layout, Resize};

use crate::{
    dtype::DataType,
    signature::{Signature, show_shape},
    tensor::{Elements, Tensor},
};

/// 50 million: larger than what cameras make, 150 MB decoded.
pub const MAX_PIXELS: u64 = 50_000_000;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By far the most photographs.
    Jpeg,
    /// 8 and 16 bits; transparency is dropped.
    Png,
    /// Lossy and lossless, the first frame.
    WebP,
}

impl Kind {
    /// The kind that a Content-Type claims.
    #[must_use]
    pub fn of_media_type(media: &str) -> Option<Self> {
        match media {
            "image/jpeg" | "image/jpg" => Some(Self::Jpeg),
            "image/png" => Some(Self::Png),
            "image/webp" => Some(Self::WebP),
            _ => None,
        }
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
        }
    }

    const fn format(self) -> ImageFormat {
        match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
            Self::WebP => ImageFormat::WebP,
        }
    }
}

/// Why a body gave no tensor.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// An image of a kind that is not read.
    #[error("{0} images are not read; send JPEG, PNG or WebP")]
    Unsupported(&'static str),
    /// Not an image, or a broken one.
    #[error("{0}")]
    Undecodable(String),
    /// More pixels than the limit.
    #[error(
        "the image has {width}×{height} pixels; at most {MAX_PIXELS} are decoded, of deep colour half of that"
    )]
    TooLarge {
        /// From its header.
        width: u32,
        /// From its header.
        height: u32,
    },
    /// Not the client's fault.
    #[error("cannot resize the image: {0}")]
    Resize(String),
}

/// What to send, in a sentence.
pub const KINDS: &str = "image/jpeg, image/png or image/webp";

/// A model that takes images.
pub struct Image {
    wanted: ImageInput,
}

impl Image {
    /// Checks that images feed the model; else a sentence.
    pub fn prepare(wanted: &ImageInput, signature: &Signature) -> Result<Self, String> {
        let spec = super::only_input("image", signature)?;
        if spec.datatype != DataType::Fp32 {
            return Err(format!(
                "the image pipeline makes FP32, and the input {:?} is {}",
                spec.name, spec.datatype
            ));
        }
        let shape = shape(wanted);
        spec.accepts(&shape).map_err(|_| {
            format!(
                "the image pipeline makes the shape {}, and the input {:?} has {}; \
                 set width, height and layout to match",
                show_shape(&shape),
                spec.name,
                show_shape(&spec.shape)
            )
        })?;
        Ok(Self {
            wanted: wanted.clone(),
        })
    }

    /// The shape of the tensor.
    #[must_use]
    pub fn shape(&self) -> Vec<i64> {
        shape(&self.wanted)
    }

    /// The tensor of one body. Blocking.
    pub fn tensor(&self, body: &[u8], claimed: Option<Kind>) -> Result<Tensor, ImageError> {
        Ok(Tensor {
            shape: self.shape(),
            elements: Elements::Fp32(tensor(body, claimed, &self.wanted)?),
        })
    }
}

/// The shape of the tensor that [`tensor`] gives.
fn shape(wanted: &ImageInput) -> Vec<i64> {
    let (width, height) = (i64::from(wanted.width), i64::from(wanted.height));
    match wanted.layout {
        Layout::Nchw => vec![1, 3, height, width],
        Layout::Nhwc => vec![1, height, width, 3],
    }
}

/// Decodes a body and makes the tensor. Blocking.
pub fn tensor(
    body: &[u8],
    claimed: Option<Kind>,
    wanted: &ImageInput,
) -> Result<Vec<f32>, ImageError> {
    let (image, orientation) = decode(body, claimed)?;
    let resized = resize(image, orientation, wanted)?;
    Ok(normalise(&resized, wanted))
}

/// The image as its file has it, and how it is to be turned.
fn decode(body: &[u8], claimed: Option<Kind>) -> Result<(RgbImage, Orientation), ImageError> {
    let Some(kind) = Kind::of_bytes(body) else {
        return Err(unknown(body, claimed));
    };
    let broken = |error: image::ImageError| {
        ImageError::Undecodable(format!(
            "the body is not a {} that can be decoded: {error}",
            kind.name()
        ))
    };
    let reader = ImageReader::with_format(Cursor::new(body), kind.format());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    // Deep colour and transparency take up to eight bytes a pixel.
    if pixels > MAX_PIXELS || decoder.total_bytes() > 4 * MAX_PIXELS {
        return Err(ImageError::TooLarge { width, height });
    }
    // Cameras store a turned photograph as it came off the sensor and say so beside it.
    let orientation = decoder.orientation().map_err(broken)?;
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok((image.into_rgb8(), orientation))
}

fn unknown(body: &[u8], claimed: Option<Kind>) -> ImageError {
    let others: [(&[u8], &str); 5] = [
        (b"GIF8", "GIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"\0\0\0", "HEIC or AVIF"),
    ];
    let other = others.iter().find(|(start, _)| body.starts_with(start));
    if let Some((_, name)) = other {
        return ImageError::Unsupported(name);
    }
    let claim = claimed.map_or("JPEG, PNG or WebP", Kind::name);
    if body.is_empty() {
        return ImageError::Undecodable(format!("the body is empty, expected {claim}"));
    }
    let start = body[..body.len().min(8)].escape_ascii();
    ImageError::Undecodable(format!(
        "the body is not {claim}: it starts with \"{start}\""
    ))
}

const fn is_turned_aside(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// Brings the image to the model's size, or to less of it where it is to fit, and turns it upright: after
/// resizing, for that is a hundredth of the pixels. What is cut lies evenly on both sides, so that the order does not matter.
fn resize(
    rgb: RgbImage,
    orientation: Orientation,
    wanted: &ImageInput,
) -> Result<RgbImage, ImageError> {
    let (most_across, most_down) = if is_turned_aside(orientation) {
        (wanted.height, wanted.width)
    } else {
        (wanted.width, wanted.height)
    };
    let (width, height) = (f64::from(rgb.width()), f64::from(rgb.height()));
    let (goal_width, goal_height) = (f64::from(most_across), f64::from(most_down));
    let (across, down) = (goal_width / width, goal_height / height);
    let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let (mut out_width, mut out_height) = (most_across, most_down);
    match wanted.resize {
        Resize::Stretch => {}
        Resize::Crop => {
            let scale = match wanted.short_side {
                None => across.max(down),
                Some(side) => f64::from(side) / width.min(height),
            };
            let (cut_width, cut_height) = (
                (goal_width / scale).min(width),
                (goal_height / scale).min(height),
            );
            let (left, top) = ((width - cut_width) / 2.0, (height - cut_height) / 2.0);
            options = options.crop(left, top, cut_width, cut_height);
        }
        Resize::Fit => {
            let scale = across.min(down);
            let side = |length: f64, most: u32| ((length * scale).round() as u32).clamp(1, most);
            out_width = side(width, most_across);
            out_height = side(height, most_down);
        }
    }
    let failed = |error: &dyn std::fmt::Display| ImageError::Resize(error.to_string());
    let source = ImageRef::new(rgb.width(), rgb.height(), rgb.as_raw(), PixelType::U8x3)
        .map_err(|error| failed(&error))?;
    let mut target = Pixels::new(out_width, out_height, PixelType::U8x3);
    Resizer::new()
        .resize(&source, &mut target, &options)
        .map_err(|error| failed(&error))?;
    let resized = RgbImage::from_raw(out_width, out_height, target.into_vec())
        .ok_or_else(|| failed(&"the buffer is too small"))?;
    let mut upright = DynamicImage::ImageRgb8(resized);
    upright.apply_orientation(orientation);
    Ok(upright.into_rgb8())
}

/// `(pixel - mean) / std`; what the image does not cover has the mean colour, which is zero.
fn normalise(image: &RgbImage, wanted: &ImageInput) -> Vec<f32> {
    let (width, height) = (wanted.width as usize, wanted.height as usize);
    let (across, down) = (image.width() as usize, image.height() as usize);
    let (left, top) = ((width - across) / 2, (height - down) / 2);
    let mut out = vec![0.0; 3 * width * height];
    // The tensor's channel c is the pixel's colour `source`; mean and std stand in the tensor's order.
    for channel in 0..3 {
        let source = match wanted.channels {
            Channels::Rgb => channel,
            Channels::Bgr => 2 - channel,
        };
        let (mean, scale) = (wanted.mean[channel], 1.0 / wanted.std[channel]);
        // A pixel has 256 values: looked up, not computed.
        let table: [f32; 256] = std::array::from_fn(|pixel| (pixel as f32 - mean) * scale);
        let rows = image.as_raw().chunks_exact(across * 3);
        for (row, pixels) in rows.enumerate() {
            let first = (row + top) * width + left;
            let values = pixels
                .chunks_exact(3)
                .map(|pixel| table[usize::from(pixel[source])]);
            match wanted.layout {
                Layout::Nchw => {
                    let first = channel * width * height + first;
                    let places = &mut out[first..first + across];
                    places
                        .iter_mut()
                        .zip(values)
                        .for_each(|(place, value)| *place = value);
                }
                Layout::Nhwc => {
                    let places = out[first * 3..(first + across) * 3].chunks_exact_mut(3);
                    places
                        .zip(values)
                        .for_each(|(place, value)| place[channel] = value);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(width: u32, height: u32, resize: Resize) -> ImageInput {
        ImageInput {
            width,
            height,
            resize,
            short_side: None,
            channels: Channels::Rgb,
            layout: Layout::Nchw,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
        }
    }

    /// Left half red, right half blue.
    fn png(width: u32, height: u32) -> Vec<u8> {
        let image = image::RgbImage::from_fn(width, height, |x, _| {
            if x < width / 2 {
                image::Rgb([255, 0, 0])
            } else {
                image::Rgb([0, 0, 255])
            }
        });
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn layout_and_colour_order_are_the_models() {
        let body = png(2, 1);
        let mut input = wanted(2, 1, Resize::Stretch);
        assert_eq!(
            tensor(&body, None, &input).unwrap(),
            [255., 0., 0., 0., 0., 255.]
        );
        input.layout = Layout::Nhwc;
        assert_eq!(
            tensor(&body, None, &input).unwrap(),
            [255., 0., 0., 0., 0., 255.]
        );
        input.channels = Channels::Bgr;
        assert_eq!(
            tensor(&body, None, &input).unwrap(),
            [0., 0., 255., 255., 0., 0.]
        );
    }

    #[test]
    fn mean_and_std_are_in_units_of_a_pixel() {
        let mut input = wanted(2, 1, Resize::Stretch);
        input.mean = vec![127.0; 3];
        input.std = vec![128.0; 3];
        let values = tensor(&png(2, 1), None, &input).unwrap();
        assert_eq!(values[..2], [1.0, -127.0 / 128.0]);
    }

    #[test]
    fn fit_leaves_the_mean_colour_and_crop_leaves_nothing() {
        let body = png(4, 2);
        let mut input = wanted(4, 4, Resize::Fit);
        input.mean = vec![10.0; 3];
        let fitted = tensor(&body, None, &input).unwrap();
        assert_eq!(fitted[..4], [0.0; 4], "the first row is padding");
        assert_eq!(fitted[4], 245.0);
        let mut closer = wanted(2, 2, Resize::Crop);
        closer.short_side = Some(4);
        let middle = tensor(&png(8, 4), None, &closer).unwrap();
        assert_eq!(middle[..4], [255., 0., 255., 0.], "two pixels of eight");
        let cropped = tensor(&png(8, 2), None, &wanted(2, 2, Resize::Crop)).unwrap();
        assert_eq!(cropped[..4], [255., 0., 255., 0.], "the middle, half red");
    }

    #[test]
    fn a_photograph_is_turned_upright_whichever_way_the_camera_was_held() {
        let read = |body: &[u8], input: &ImageInput| tensor(body, None, input).unwrap();
        for resize in [Resize::Crop, Resize::Fit, Resize::Stretch] {
            let wide = wanted(4, 2, resize);
            let (upright, orientation) = decode(&png(8, 4), None).unwrap();
            assert_eq!(orientation, Orientation::NoTransforms);
            for stored in [
                Orientation::Rotate90,
                Orientation::Rotate180,
                Orientation::Rotate270FlipH,
            ] {
                // What turns this image upright: turned once, then as often as gives the image again.
                let mut turned = DynamicImage::ImageRgb8(upright.clone());
                turned.apply_orientation(inverse(stored));
                let resized = super::resize(turned.into_rgb8(), stored, &wide).unwrap();
                assert_eq!(
                    normalise(&resized, &wide),
                    read(&png(8, 4), &wide),
                    "{stored:?}"
                );
            }
        }
    }

    fn inverse(orientation: Orientation) -> Orientation {
        match orientation {
            Orientation::Rotate90 => Orientation::Rotate270,
            other => other,
        }
    }

    #[test]
    fn what_is_no_image_is_said_with_its_first_bytes() {
        let error = tensor(b"hello", Some(Kind::Jpeg), &wanted(2, 2, Resize::Crop)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the body is not JPEG: it starts with \"hello\""
        );
        let cut = &png(64, 64)[..60];
        let error = tensor(cut, None, &wanted(2, 2, Resize::Crop)).unwrap_err();
        assert!(matches!(error, ImageError::Undecodable(_)), "{error}");
        let error = tensor(b"GIF89a......", None, &wanted(2, 2, Resize::Crop)).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported("GIF")));
    }

    #[test]
    fn a_pixel_bomb_is_refused_from_its_header() {
        let mut bomb = png(2, 2);
        // IHDR: width and height at bytes 16 to 24, its checksum at 29.
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        let error = tensor(&bomb, None, &wanted(2, 2, Resize::Crop)).unwrap_err();
        assert!(
            matches!(
                error,
                ImageError::TooLarge {
                    width: 60_000,
                    height: 60_000
                }
            ),
            "{error}"
        );
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
            })
        })
    }
}
