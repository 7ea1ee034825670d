//! Modules that are classes of Python plugins, as the Business API Ecosystem has them.

/// Whether a module names a class of a Python plugin, such as `plugin.TestPlugin`.
pub(super) fn is_class(module: &str) -> bool {
    let identifier = |part: &str| {
        part.chars().enumerate().all(|(at, c)| c == '_' || c.is_alphabetic() || (at > 0 && c.is_alphanumeric()))
    };
    module.contains('.')
        && module.split('.').all(|part| !part.is_empty() && identifier(part))
        && !["so", "dll", "dylib"].iter().any(|extension| module.ends_with(&format!(".{extension}")))
}

/// What to say of such a module.
pub(super) fn hint(module: &str) -> String {
    format!(
        "$.module names the Python class {module:?}; billhook loads native libraries: the plugin guide tells how to \
         move a Python plugin over"
    )
}
