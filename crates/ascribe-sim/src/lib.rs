//! Real-client harness and cross-crate tests.
