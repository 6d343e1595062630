//! Tests of logins with a clock of their own.
