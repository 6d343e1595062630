//! What ends an attempt to send a request body, and what becomes of the rest once the response is final.

use super::{Capture, CaptureShared};
use hyper::body::Body as _;

impl Capture {
    /// Drops what was captured: the response is final. A replay that still reads it reads on to
    /// its end. After an `error` the upload goes no further.
    pub fn responded(&self, error: bool) {
        let Some(shared) = &self.0 else { return };
        shared.responded.set(true);
        shared.forget_what_is_read(&mut shared.state.borrow_mut());
        if error {
            shared.abandon();
        }
    }

    /// Ends the upload: the whole response is out.
    pub fn over(&self) {
        let Some(shared) = &self.0 else { return };
        if let Some(gate) = shared.gate.take() {
            gate.shut();
        }
        shared.is_over.set(true);
        shared.abandon();
        let reader = shared.state.borrow_mut().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl CaptureShared {
    /// Ends the current attempt; returns the number of the next.
    pub(super) fn supersede(&self) -> u32 {
        // No reader is left that waits: the caller's time does not run while the proxy itself
        // waits, and a new reader begins with what is kept.
        if self.waiting_for_caller.replace(false) {
            self.state.borrow_mut().slow.disarm();
        }
        self.reader.set(self.reader.get() + 1);
        self.reader.get()
    }

    /// Gives what the caller still sends back to its connection.
    fn abandon(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(source) = state.source.take_if(|source| !source.is_end_stream()) {
            self.abandoned.set(true);
            drop(source);
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
        }
    }
}
