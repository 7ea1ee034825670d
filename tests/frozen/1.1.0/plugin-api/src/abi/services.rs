//! Both sides of [`ServicesTable`]: what a host implements, and what a plugin holds a share of.

use std::{panic::AssertUnwindSafe, sync::Arc};

use abi_stable::{prefix_type::WithMetadata, sabi_types::StaticRef};

use super::{
    reply::{Reply, send_refusal},
    types::*,
};
use crate::PluginError;

/// What a host implements for one plugin; any thread may call, also long after the instance is gone.
pub trait HostServices: Send + Sync + 'static {
    /// The plugin's id.
    fn plugin_id(&self) -> &str;
    /// The operator's settings: a JSON document.
    fn settings(&self) -> &str;
    /// The folder of the unpacked package: an absolute path.
    fn package_folder(&self) -> &str;
    /// Logs a line of the plugin's: 1 error, 2 warning, 3 info, 4 debug, 5 trace, others as trace. The message is not
    /// trusted: it may hold anything.
    fn log(&self, level: u32, message: &str);
    /// The value kept under a key.
    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, PluginError>;
    /// Keeps a JSON value under a key; durable on return.
    fn state_keep(&self, key: &str, value: &str) -> Result<(), PluginError>;
    /// Deletes the value under a key; durable on return.
    fn state_delete(&self, key: &str) -> Result<(), PluginError>;
}

type Shared = Arc<dyn HostServices>;

/// One share of a host's services.
pub struct SharedServices(ServicesHandle);

// SAFETY: `HostServices` is `Send + Sync`, and every function of the table may be called from any thread.
unsafe impl Send for SharedServices {}
// SAFETY: as above.
unsafe impl Sync for SharedServices {}

impl SharedServices {
    /// Shares the services of this side.
    pub fn new(services: Shared) -> Self {
        // A second `Arc` around the first makes the pointer a thin one.
        SharedServices(ServicesHandle {
            object: Arc::into_raw(Arc::new(services)).cast(),
            table: ServicesTableRef(FUNCTIONS.as_prefix()),
        })
    }

    /// Takes over the share that came with a handle.
    ///
    /// # Safety
    /// The handle must own a share, and nobody else may give it back.
    pub(crate) unsafe fn from_handle(handle: ServicesHandle) -> Self {
        SharedServices(handle)
    }

    /// Hands the share over to the other side.
    pub(crate) fn into_handle(self) -> ServicesHandle {
        let handle = self.0;
        std::mem::forget(self);
        handle
    }

    fn text(&self, field: impl FnOnce(ServicesTableRef) -> GetText) -> &str {
        // SAFETY: the share keeps the object alive; the host's texts are UTF-8 and live as long as the object.
        unsafe {
            let bytes = (field(self.0.table).0)(self.0.object).bytes().unwrap_or_default();
            std::str::from_utf8_unchecked(bytes)
        }
    }

    pub(crate) fn plugin_id(&self) -> &str {
        self.text(|table| table.plugin_id())
    }

    pub(crate) fn settings(&self) -> &str {
        self.text(|table| table.settings())
    }

    pub(crate) fn package_folder(&self) -> &str {
        self.text(|table| table.package_folder())
    }

    pub(crate) fn log(&self, level: u32, message: &str) {
        // SAFETY: the share keeps the object alive.
        unsafe { (self.0.table.log().0)(self.0.object, level, Text::new(message.as_bytes())) }
    }

    pub(crate) fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        let mut reply = Reply::default();
        // SAFETY: the share keeps the object alive, and the reply lives during the call.
        let status = unsafe { (self.0.table.state_get().0)(self.0.object, Text::new(key.as_bytes()), reply.handle()) };
        reply.finish(status).map(Reply::into_value)
    }

    pub(crate) fn state_keep(&self, key: &str, value: &str) -> Result<(), PluginError> {
        let mut reply = Reply::default();
        // SAFETY: as in `state_get`.
        let status = unsafe {
            let (key, value) = (Text::new(key.as_bytes()), Text::new(value.as_bytes()));
            (self.0.table.state_keep().0)(self.0.object, key, value, reply.handle())
        };
        reply.finish(status).map(drop)
    }

    pub(crate) fn state_delete(&self, key: &str) -> Result<(), PluginError> {
        let mut reply = Reply::default();
        // SAFETY: as in `state_get`.
        let status =
            unsafe { (self.0.table.state_delete().0)(self.0.object, Text::new(key.as_bytes()), reply.handle()) };
        reply.finish(status).map(drop)
    }
}

impl Clone for SharedServices {
    fn clone(&self) -> Self {
        // SAFETY: this share keeps the object alive while another is taken.
        unsafe { (self.0.table.retain().0)(self.0.object) };
        SharedServices(self.0)
    }
}

impl Drop for SharedServices {
    fn drop(&mut self) {
        // SAFETY: this share is given back once.
        unsafe { (self.0.table.release().0)(self.0.object) }
    }
}

static FUNCTIONS: StaticRef<WithMetadata<ServicesTable>> = {
    const TABLE: &WithMetadata<ServicesTable> = &WithMetadata::new(ServicesTable {
        retain: Share(retain),
        release: Share(release),
        plugin_id: GetText(plugin_id),
        settings: GetText(settings),
        package_folder: GetText(package_folder),
        log: Log(log),
        state_get: StateKey(state_get),
        state_keep: StateKeep(state_keep),
        state_delete: StateKey(state_delete),
    });
    StaticRef::new(TABLE)
};

/// # Safety
/// A share must be held during `'a`.
unsafe fn services<'a>(object: Object) -> &'a Shared {
    // SAFETY: `SharedServices::new` made the object, and a share keeps it alive.
    unsafe { &*object.cast::<Shared>() }
}

unsafe extern "C" fn retain(object: Object) {
    // SAFETY: the caller holds a share, and the object is what `Arc::into_raw` gave.
    unsafe { Arc::increment_strong_count(object.cast::<Shared>()) }
}

unsafe extern "C" fn release(object: Object) {
    // SAFETY: the caller gives back a share of its own, once.
    unsafe { Arc::decrement_strong_count(object.cast::<Shared>()) }
}

unsafe extern "C" fn plugin_id(object: Object) -> Text {
    // SAFETY: the caller holds a share.
    Text::new(unsafe { services(object) }.plugin_id().as_bytes())
}

unsafe extern "C" fn settings(object: Object) -> Text {
    // SAFETY: the caller holds a share.
    Text::new(unsafe { services(object) }.settings().as_bytes())
}

unsafe extern "C" fn package_folder(object: Object) -> Text {
    // SAFETY: the caller holds a share.
    Text::new(unsafe { services(object) }.package_folder().as_bytes())
}

unsafe extern "C" fn log(object: Object, level: u32, message: Text) {
    // SAFETY: the caller holds a share, and the message lives during this call.
    let (services, message) = unsafe { (services(object), message.bytes().unwrap_or_default()) };
    // What a log subscriber does is not ours; a panic of its must not unwind into the plugin.
    let logged = std::panic::catch_unwind(AssertUnwindSafe(|| {
        services.log(level, &String::from_utf8_lossy(&message[..message.len().min(64 * 1024)]));
    }));
    super::guard::dispose(logged.err());
}

/// Runs a function of the state and reports how it went.
///
/// # Safety
/// The caller must hold a share; `key` and `reply` must be valid during the call.
unsafe fn state(
    object: Object,
    key: Text,
    reply: ReplyHandle,
    run: impl FnOnce(&Shared, &str) -> Result<(), PluginError>,
) -> u32 {
    // SAFETY: handed on to the caller.
    let (services, key) = unsafe { (services(object), key.bytes().unwrap_or_default()) };
    let run = AssertUnwindSafe(|| match std::str::from_utf8(key) {
        Ok(key) => run(services, key),
        Err(_) => Err(PluginError::bad_value("a key of the state has to be UTF-8")),
    });
    match std::panic::catch_unwind(run) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => send_refusal(reply, &error),
        Err(payload) => {
            super::guard::dispose(Some(payload));
            send_refusal(reply, &PluginError::internal("the host failed to reach the plugin's state"))
        }
    }
}

unsafe extern "C" fn state_get(object: Object, key: Text, reply: ReplyHandle) -> u32 {
    let get = |services: &Shared, key: &str| {
        if let Some(value) = services.state_get(key)? {
            // SAFETY: the reply is valid during the call.
            unsafe { (reply.table.value().0)(reply.object, Text::new(&value)) };
        }
        Ok(())
    };
    // SAFETY: handed on to the caller.
    unsafe { state(object, key, reply, get) }
}

unsafe extern "C" fn state_keep(object: Object, key: Text, value: Text, reply: ReplyHandle) -> u32 {
    // SAFETY: the value lives during the call.
    let value = unsafe { value.bytes() }.unwrap_or_default();
    let keep = |services: &Shared, key: &str| match std::str::from_utf8(value) {
        Ok(value) => services.state_keep(key, value),
        Err(_) => Err(PluginError::bad_value("a value of the state has to be UTF-8")),
    };
    // SAFETY: handed on to the caller.
    unsafe { state(object, key, reply, keep) }
}

unsafe extern "C" fn state_delete(object: Object, key: Text, reply: ReplyHandle) -> u32 {
    // SAFETY: handed on to the caller.
    unsafe { state(object, key, reply, |services, key| services.state_delete(key)) }
}

/// The bounds of the state, the same in every host.
pub fn check_state_size(key: &str, value: &str) -> Result<(), PluginError> {
    if key.is_empty() || key.len() > 512 {
        return Err(PluginError::bad_value("a key of the state has to have 1 to 512 bytes"));
    }
    if value.len() > 64 * 1024 {
        return Err(PluginError::bad_value(format!(
            "the state under {key:?} would take {} bytes; it may take 65536",
            value.len()
        )));
    }
    Ok(())
}
