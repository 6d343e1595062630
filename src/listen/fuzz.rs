//! Fuzz targets of the first bytes of a connection, and of the certificate that a caller brings.

use super::{client_certificate, preface::Preface};
use crate::fuzz::Target;
use rustls::pki_types::CertificateDer;
use std::{
    future::Future as _,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, ReadBuf};

pub const TARGETS: &[Target] = &[
    Target {
        name: "preface",
        run: preface,
        seeds: &[
            "3PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n more",
            "0GET / HTTP/1.1\r\n\r\n",
            "9PRI * HTTP/2",
        ],
    },
    Target { name: "client_certificate", run: certificate, seeds: CERTIFICATES },
];

/// Gives some bytes at a time.
struct Pieces<'b>(&'b [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (piece, rest) = self.0.split_at(self.1.min(self.0.len()).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// The first byte chooses the length of the pieces. No byte is lost or read twice, and HTTP/2 is known
/// however it comes.
fn preface(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else { return };
    let mut stream = Pieces(bytes, 1 + usize::from(*piece) % 32);
    let read = pin!(Preface::read(&mut stream)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(read) = read else { panic!("it waits for bytes that are there") };
    let Ok(read) = read else { return assert!(bytes.is_empty()) };
    assert_eq!([read.bytes(), stream.0].concat(), bytes);
    assert_eq!(read.is_http2(), bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
}

/// In hexadecimal digits: a certificate is no text.
const CERTIFICATES: &[&str] = &[CERTIFICATE];

/// Of a URI, a host and a pattern of hosts.
const CERTIFICATE: &str = "\
     308201ad30820153a003020102021459b78de9efbb4a0cb1abd65faf40cebf2619136e300a06082a8648ce3d\
     040302300c310a300806035504030c0161301e170d3236313133303133313433365a170d3336313132373133\
     313433365a300c310a300806035504030c01613059301306072a8648ce3d020106082a8648ce3d0301070342\
     0004ea01f8bb032246f3b24b456949ab2ac0c5b3afeb926ea033560ad3ac3187c3ec367c83eab4195d8b9b57\
     2754c168dba0f1b3f4762406723bba7934e6e4279613a3819230818f301d0603551d0e041604148d6b341eb0\
     6e8aef6e7d76a952d226498e5068a5301f0603551d230418301680148d6b341eb06e8aef6e7d76a952d22649\
     8e5068a5300f0603551d130101ff040530030101ff30270603551d110420301e860c7370696666653a2f2f61\
     2f628209412e6578616d706c6582032a2e6230130603551d25040c300a06082b06010505070302300a06082a\
     8648ce3d04030203480030450221008943b939da5cfa9235a22ec242eb46f9134a278a7142a3ac84ae1da769\
     2842d502206fb103adde915d58d67729202bbee2b6bc5cc7d3948b2904f9d3eda18463201e";

/// Names are of one kind only, and none is a pattern.
fn certificate(input: &[u8]) {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok();
    let Some(der) = input.chunks_exact(2).map(pair).collect::<Option<Vec<u8>>>() else { return };
    let der = CertificateDer::from(der);
    let Some(read) = client_certificate::read(&der) else { return };
    assert_eq!(client_certificate::expiry(&der), Some(read.not_after));
    for name in &read.names {
        let is_host = !name.contains(':') && **name == *name.to_ascii_lowercase();
        assert!(name.contains(':') || is_host && !name.contains('*'), "{name:?}");
    }
}
