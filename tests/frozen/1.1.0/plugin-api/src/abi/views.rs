//! Reading handles from the plugin's side, so that `objects.rs` needs no unsafe code.
//!
//! A host that is older than the plugin lacks the functions added since: they read as "no value".

use std::marker::PhantomData;

use super::types::*;
use crate::PluginError;

/// A handle that is valid for `'a`. Neither `Send` nor `Sync`: a view stays on the thread of its call.
pub(crate) struct View<'a, H> {
    handle: H,
    life: PhantomData<(&'a (), *const ())>,
}

impl<H: Copy> Clone for View<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: Copy> Copy for View<'_, H> {}

impl<'a, H: Handle> View<'a, H> {
    /// # Safety
    /// The handle's object and table must be valid for `'a`, its object not null, its texts UTF-8.
    pub(crate) unsafe fn new(handle: H) -> Self {
        View { handle, life: PhantomData }
    }

    /// A view on what another object's function answered, unless it answered that there is none.
    ///
    /// # Safety
    /// As [`View::new`], if there is an object.
    unsafe fn found(handle: H) -> Option<Self> {
        // SAFETY: handed on to the caller.
        (!handle.is_none()).then(|| unsafe { View::new(handle) })
    }
}

macro_rules! view {
    ($($handle:ident, $table:ident;)*) => {$(
        impl<'a> View<'a, $handle> {
            pub(crate) fn text(self, field: impl FnOnce($table) -> Option<GetText>) -> Option<&'a str> {
                let get = field(self.handle.table)?;
                // SAFETY: a view's object is valid, and its own table takes it; the host's texts are UTF-8 and
                // live as long as the object.
                unsafe { (get.0)(self.handle.object).bytes().map(|bytes| std::str::from_utf8_unchecked(bytes)) }
            }
        }
    )*};
}

view! {
    UserHandle, UserTableRef;
    AssetHandle, AssetTableRef;
    OfferingHandle, OfferingTableRef;
    ChargeHandle, ChargeTableRef;
    ContractHandle, ContractTableRef;
    OrderHandle, OrderTableRef;
    EventHandle, EventTableRef;
}

impl View<'_, EventHandle> {
    pub(crate) fn attempt(self) -> u64 {
        // SAFETY: as in `text`.
        unsafe { (self.handle.table.attempt().0)(self.handle.object) }
    }
}

impl<'a> View<'a, AssetHandle> {
    pub(crate) fn provider(self) -> View<'a, UserHandle> {
        // SAFETY: as in `text`; every asset has a provider.
        unsafe { View::new((self.handle.table.provider().0)(self.handle.object)) }
    }

    pub(crate) fn is_public(self) -> bool {
        // SAFETY: as in `text`.
        unsafe { (self.handle.table.is_public().0)(self.handle.object) != 0 }
    }
}

impl<'a> View<'a, OfferingHandle> {
    pub(crate) fn asset(self) -> Option<View<'a, AssetHandle>> {
        // SAFETY: as in `text`.
        unsafe { View::found((self.handle.table.asset().0)(self.handle.object)) }
    }
}

impl<'a> View<'a, ContractHandle> {
    pub(crate) fn offering(self) -> View<'a, OfferingHandle> {
        // SAFETY: as in `text`; every contract has an offering.
        unsafe { View::new((self.handle.table.offering().0)(self.handle.object)) }
    }

    pub(crate) fn number(self, field: impl FnOnce(ContractTableRef) -> GetNumber) -> u64 {
        // SAFETY: as in `text`.
        unsafe { (field(self.handle.table).0)(self.handle.object) }
    }

    pub(crate) fn charge(self, index: u64) -> Option<View<'a, ChargeHandle>> {
        // SAFETY: as in `text`.
        unsafe { View::found((self.handle.table.charge().0)(self.handle.object, index)) }
    }

    pub(crate) fn terminated(self) -> bool {
        // SAFETY: as in `text`.
        unsafe { (self.handle.table.terminated().0)(self.handle.object) != 0 }
    }
}

impl<'a> View<'a, OrderHandle> {
    pub(crate) fn customer(self) -> View<'a, UserHandle> {
        // SAFETY: as in `text`; every order has a customer.
        unsafe { View::new((self.handle.table.customer().0)(self.handle.object)) }
    }

    pub(crate) fn contract_count(self) -> u64 {
        // SAFETY: as in `text`.
        unsafe { (self.handle.table.contracts().0)(self.handle.object) }
    }

    pub(crate) fn contract(self, index: u64) -> Option<View<'a, ContractHandle>> {
        // SAFETY: as in `text`.
        unsafe { View::found((self.handle.table.contract().0)(self.handle.object, index)) }
    }

    pub(crate) fn find(
        self,
        by: impl FnOnce(OrderTableRef) -> FindContract,
        id: &str,
    ) -> Option<View<'a, ContractHandle>> {
        // SAFETY: as in `text`.
        unsafe { View::found((by(self.handle.table).0)(self.handle.object, Text::new(id.as_bytes()))) }
    }
}

impl View<'_, ChangesHandle> {
    pub(crate) fn set(self, field: impl FnOnce(ChangesTableRef) -> SetText, text: &str) -> Result<(), PluginError> {
        // SAFETY: as in `text`; the host copies the text before it returns.
        match unsafe { (field(self.handle.table).0)(self.handle.object, Text::new(text.as_bytes())) } {
            0 => Ok(()),
            2 => Err(PluginError::internal("the changes to the asset are larger than the host takes")),
            _ => Err(PluginError::internal("the host refused the change to the asset")),
        }
    }
}
