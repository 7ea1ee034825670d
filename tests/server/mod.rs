//! `billhook serve`, asked as its clients ask it.

/// Management, hooks, notifications, events and what they answer.
mod api;
/// Requests that mean harm: none gets in, none takes the server down.
mod hostile;
/// The protocol of add-on platforms, row by row.
mod provisioning;
