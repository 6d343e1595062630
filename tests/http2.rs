//! HTTP/2: by prior knowledge from callers, by ALPN to Amazon, and bounded under attack.
