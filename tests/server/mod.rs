//! `billhook serve`, asked as its clients ask it.

/// Management, hooks, notifications, events and what they answer.
mod api;
/// The page, in a real browser.
mod browser;
/// Clients that are many, slow, or guess.
mod crowds;
/// Requests that mean harm: none gets in, none takes the server down.
mod hostile;
/// The page, as a client of HTTP sees it: sessions, forms, and what they refuse.
mod media;
mod page;
/// The protocol of add-on platforms, row by row.
mod provisioning;
/// The backend in Python.
mod python;
/// Options, certificates, and how a server starts.
mod start;

pub(crate) use page::{log_in, mark};
