//! Views on a host's own objects, for tests of hooks that call no library.

use super::{tables::LentAsset, views::View};
use crate::{Asset, Contract, Event, Order, User, data};

pub(crate) fn asset<'a>(lent: &'a LentAsset<'a>) -> Asset<'a> {
    let handle = lent.handle();
    // SAFETY: the handle is of an object that is borrowed for `'a`, and its table is the object's own.
    unsafe { Asset::from_views(View::new(handle.asset), View::new(handle.changes)) }
}

pub(crate) fn user(user: &data::User) -> User<'_> {
    // SAFETY: as in `asset`.
    User::from_view(unsafe { View::new(user.into()) })
}

pub(crate) fn contract(contract: &data::Contract) -> Contract<'_> {
    // SAFETY: as in `asset`.
    Contract::from_view(unsafe { View::new(contract.into()) })
}

pub(crate) fn order(order: &data::Order) -> Order<'_> {
    // SAFETY: as in `asset`.
    Order::from_view(unsafe { View::new(order.into()) })
}

pub(crate) fn event(event: &data::Event) -> Event<'_> {
    // SAFETY: as in `asset`.
    Event::from_view(unsafe { View::new(event.into()) })
}
