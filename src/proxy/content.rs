//! The text of a small response body, whatever its `Content-Encoding`.

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header::CONTENT_ENCODING};
use std::{borrow::Cow, io::Read};

/// The most that a compressed body may grow to, bytes: enough for any error, too little for a bomb.
const DECODED_MAX_BYTES: u64 = 256 * 1024;

/// The decoded `body`, as far as it can be decoded. None for an encoding that is not known here.
pub fn decoded<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Some(body.into()) };
    let inflated = match encoding.as_bytes().to_ascii_lowercase().as_slice() {
        b"identity" | b"" => return Some(body.into()),
        b"gzip" | b"x-gzip" => inflate(MultiGzDecoder::new(body)),
        b"deflate" => match inflate(ZlibDecoder::new(body)) {
            // Some servers leave the wrapping out.
            text if text.is_empty() => inflate(DeflateDecoder::new(body)),
            text => text,
        },
        _ => return None,
    };
    Some(inflated.into())
}

fn inflate(decoder: impl Read) -> Vec<u8> {
    let mut text = Vec::new();
    // A cut or broken stream still gives what came before the cut.
    let _ = decoder.take(DECODED_MAX_BYTES).read_to_end(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use std::io::Write;

    fn decode(encoding: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, encoding.parse().expect("a value"));
        decoded(&headers, body).map(Cow::into_owned)
    }

    #[test]
    fn every_encoding_that_amazon_sends_is_read() {
        let text = b"Not authorized to access scope 1";
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).expect("memory");
        zlib.write_all(text).expect("memory");
        raw.write_all(text).expect("memory");
        let gzip = gzip.finish().expect("memory");
        for (encoding, body) in [
            ("identity", text.to_vec()),
            ("gzip", gzip.clone()),
            ("GZIP", gzip),
            ("deflate", zlib.finish().expect("memory")),
            ("deflate", raw.finish().expect("memory")),
        ] {
            assert_eq!(decode(encoding, &body).as_deref(), Some(&text[..]), "{encoding}");
        }
        assert_eq!(decode("br", text), None);
        assert_eq!(decode("gzip", b"no gzip").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn a_bomb_is_cut() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&vec![0; 50 << 20]).expect("memory");
        let bomb = encoder.finish().expect("memory");
        let size = decode("gzip", &bomb).expect("known").len() as u64;
        assert_eq!(size, DECODED_MAX_BYTES);
    }
}
