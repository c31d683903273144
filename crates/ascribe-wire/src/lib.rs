//! Untrusted protocol bytes to actions: SSH user names and channel requests.
